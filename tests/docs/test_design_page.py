"""The table of libraries says what is true: each dependency has a reason, and its owner imports it."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tilth"
NAMES = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn", "segmentation-models-pytorch": "segmentation_models_pytorch"}
# Needed by another library at a version that must be chosen together with ours; imported as torch.utils.tensorboard or by timm.
INDIRECT = {"torchvision", "tensorboard"}


def table() -> dict[str, tuple[set[str], list[str]]]:
    """Extras and owners by library, from the page."""
    rows = re.findall(
        r"^\| `([\w-]+)` \|([^|]*)\| [^|]+ \| ([^|]+) \| [^|]+ \|$", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {library: (set(re.findall(r"`(\w+)`", extras)), re.findall(r"`([\w.]+)`", owners)) for library, extras, owners in rows}


def dependencies() -> dict[str, set[str]]:
    """Extras by library, from the project file; none for the core."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, set[str]] = {_library(line): set() for line in project["dependencies"]}
    for extra, lines in project["optional-dependencies"].items():
        for line in lines if extra != "all" else ():
            found.setdefault(_library(line), set()).add(extra)
    return found


def _library(line: str) -> str:
    return re.split(r"[<>=~!\[; ]", line)[0]


@functools.cache
def imports() -> dict[str, set[str]]:
    """Rooms by library they import, anywhere in their files."""
    rooms: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                rooms.setdefault(name.partition(".")[0], set()).add(path.relative_to(PACKAGE).parts[0])
    return rooms


def test_table_lists_every_dependency_with_its_extra_and_nothing_else():
    assert {library: extras for library, (extras, _) in table().items()} == dependencies()


def test_extra_all_is_all_extras_but_the_large_ones_for_downloads_and_clusters():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras.pop("datasets")
    assert extras.pop("ray")
    assert extras.pop("all") == [f"tilth[{','.join(extras)}]"]


def test_no_library_of_an_extra_is_imported_when_a_room_is():
    """But at the door of the report, where the message is."""
    optional = {NAMES.get(library, library) for library, extras in dependencies().items() if extras}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            if any(name.partition(".")[0] in optional or name == "torch.utils.tensorboard" for name in names):
                wrong.append(str(path.relative_to(PACKAGE)))
    assert wrong == ["reporting/render.py"]


@pytest.mark.parametrize("library", dependencies())
def test_dependency_is_imported_by_its_owner(library):
    if library not in INDIRECT:
        owners, found = set(table()[library][1]), imports().get(NAMES.get(library, library), set())
        assert found, f"{library} is a dependency that nothing imports"
        assert not owners or owners & found, f"{library} is imported by {sorted(found)}, not by its owners {sorted(owners)}"
