"""A file imports only from floors below its own; rooms of one floor do not know each other; no circles.

Read from the source, so that imports inside functions and for type checkers count, too.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "tilth"

FLOORS = (
    {"errors", "config", "seeds", "classes", "sensors", "sensor_ranges", "batch"},
    {"imagery", "catalog", "datasets"},
    {"augment", "models"},
    {"methods"},
    {"training"},
    {"evaluation", "prediction"},
    {"curation", "labelling"},
    {"reporting", "insight"},
    {"verbs"},
    {"recipes"},
    {"cli"},
    {"__init__", "__main__"},
)
"""From the ground up; see docs/design.md."""

BESIDE = {("catalog", "imagery"), ("datasets", "imagery"), ("datasets", "catalog"), ("models", "augment")}
"""Who may look at a room of its own floor: (from, to)."""


@dataclass(frozen=True)
class Import:
    """One import of a module of this package.

    Attributes:
        place: file and line, ``src/tilth/catalog/table.py:3``.
        source: importing module, ``tilth.catalog.table``.
        target: imported module.
        at_start: whether it runs when the source module is imported.
    """

    place: str
    source: str
    target: str
    at_start: bool


def imports_of(root: Path) -> list[Import]:
    """Find every import of the package's own modules."""
    files = {module_name(root, path): path for path in sorted(root.rglob("*.py"))}
    found = []
    for name, path in files.items():
        place = str(path.relative_to(root.parents[1]))
        found.extend(_imports(place, name, ast.parse(path.read_text(encoding="utf-8")), set(files)))
    return found


def module_name(root: Path, path: Path) -> str:
    parts = [root.name, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def _imports(place: str, source: str, node: ast.AST, modules: set[str], at_start: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        lasting = at_start and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            lasting = False
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{place}:{child.lineno}: write imports in full, from tilth..."
            inside = [f"{child.module}.{alias.name}" for alias in child.names]
            names = [name if name in modules else str(child.module) for name in inside]
        else:
            names = []
        for name in dict.fromkeys(names):
            if name.partition(".")[0] == source.partition(".")[0]:
                yield Import(f"{place}:{child.lineno}", source, name, lasting)
        yield from _imports(place, source, child, modules, lasting)


def floor_of(module: str) -> int:
    room = room_of(module)
    floors = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"{module}: room {room!r} is on no floor; add it to FLOORS and to docs/design.md"
    return floors[0]


def room_of(module: str) -> str:
    _, _, below = module.partition(".")
    return below.partition(".")[0] or "__init__"


def climbs(found: Import) -> bool:
    """Whether an import goes upwards or sideways into a room it must not know."""
    here, there = room_of(found.source), room_of(found.target)
    if here == there or (here, there) in BESIDE or floor_of(found.source) == 0 == floor_of(found.target):
        return False
    return floor_of(found.target) >= floor_of(found.source)


def circle_in(imports: list[Import]) -> list[str]:
    """Return the modules of one circle among imports that run at start, or nothing."""
    edges: dict[str, set[str]] = {}
    for found in imports:
        if found.at_start:
            edges.setdefault(found.source, set()).add(found.target)
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            circle = walk(target, [*path, module])
            if circle:
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(edges) if (circle := walk(module, []))), [])


def test_imports_point_downwards():
    wrong = [
        f"{found.place}: imports {found.target}, floor {floor_of(found.target)} from floor {floor_of(found.source)}"
        for found in imports_of(PACKAGE)
        if climbs(found)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_is_on_a_floor():
    for path in PACKAGE.rglob("*.py"):
        floor_of(module_name(PACKAGE, path))


def test_no_module_imports_itself_in_a_circle():
    circle = circle_in(imports_of(PACKAGE))
    assert not circle, " -> ".join(circle)


def test_pixels_are_reached_without_gdal():
    """Rooms that train must be importable where GDAL is not: no import of it or of its company at the top of a file."""
    company = {"rasterio", "geopandas", "shapely", "odc", "pyproj"}
    files = [PACKAGE / "catalog" / "table.py", PACKAGE / "imagery" / "read.py"]
    for room in ("augment", "models", "methods", "training"):
        files.extend((PACKAGE / room).rglob("*.py"))
    wrong = []
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            wrong += [f"{path}:{node.lineno}: imports {name}" for name in names if str(name).partition(".")[0] in company]
    assert not wrong, "\n".join(wrong)


# The guard guards itself: small trees that must be found wrong.


@pytest.fixture
def tree(tmp_path):
    """Write a package from {path: text} and return its root."""

    def write(files: dict[str, str]) -> Path:
        root = tmp_path / "tilth"
        for name, text in {"__init__.py": "", **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return root

    return write


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("catalog/table.py", "import tilth.models.segmenter", True),
        ("catalog/table.py", "def f():\n    from tilth.models import segmenter", True),
        ("catalog/table.py", "if TYPE_CHECKING:\n    from tilth.models.segmenter import Segmenter", True),
        ("errors.py", "from tilth import cli", True),
        ("augment/weak.py", "from tilth.models.segmenter import Segmenter", True),
        ("imagery/read.py", "from tilth.catalog.table import Catalog", True),
        ("models/network.py", "from tilth import Sensor", True),
        ("models/network.py", "from tilth.sensors import Sensor", False),
        ("catalog/table.py", "from tilth.imagery.read import Window", False),
        ("catalog/table.py", "from tilth.catalog.rows import row", False),
        ("sensors.py", "from tilth.config import Config", False),
        ("errors.py", "import torch", False),
    ],
)
def test_guard_finds_wrong_imports(tree, name, text, wrong):
    assert any(climbs(found) for found in imports_of(tree({name: text}))) is wrong


def test_guard_finds_circles_but_not_those_that_wait_for_a_call(tree):
    one, other = "from tilth.catalog import other\n", "def f():\n    from tilth.catalog import one\n"
    assert circle_in(imports_of(tree({"catalog/one.py": one, "catalog/other.py": other}))) == []
    circular = tree({"catalog/one.py": one, "catalog/other.py": "from tilth.catalog.one import x\n"})
    assert circle_in(imports_of(circular)) == ["tilth.catalog.one", "tilth.catalog.other", "tilth.catalog.one"]
