"""The table of libraries says what is true: each dependency has a reason, and its owner imports it."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tilth"
NAMES = {"pyyaml": "yaml", "pillow": "PIL", "segmentation-models-pytorch": "segmentation_models_pytorch"}
# Needed by another library at a version that must be chosen together with ours; imported as torch.utils.tensorboard or by timm.
INDIRECT = {"torchvision", "tensorboard"}


def table() -> dict[str, list[str]]:
    """Owners by library, from the page."""
    rows = re.findall(
        r"^\| `([\w-]+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {
        library: re.findall(r"`([\w.]+)`", owners)
        for library, owners in rows
        if library not in ("cli", "recipes", "verbs", "methods", "training")
    }


def dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[<>=~!\[; ]", line)[0] for line in project["dependencies"]]


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


def test_table_lists_every_dependency_and_nothing_else():
    assert sorted(table()) == sorted(dependencies())


@pytest.mark.parametrize("library", dependencies())
def test_dependency_is_imported_by_its_owner(library):
    if library not in INDIRECT:
        owners, found = set(table().get(library, [])), imports().get(NAMES.get(library, library), set())
        assert found, f"{library} is a dependency that nothing imports"
        assert not owners or owners & found, f"{library} is imported by {sorted(found)}, not by its owners {sorted(owners)}"
