"""Asking for help must not cost a second, nor load what only work needs."""

import json
import os
import subprocess
import sys
import time

import pytest

from tilth.verbs import registry

HEAVY = ("torch", "torchvision", "timm", "lightning", "rasterio", "geopandas", "pandas", "pyarrow", "scipy", "matplotlib", "bokeh", "numpy")
"""Of these, importing tilth and asking for help load none."""

LIMIT_S = 1.0

# Measuring coverage starts in every child process; that time is not the command's.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COV")}

REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"


def call(words: list[str]) -> str:
    return f"from tilth.cli.main import main; code = main({words!r}); assert code == 0, code"


def run(program: str) -> str:
    """Run a Python program in a fresh interpreter; return what it wrote to the error stream."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT).stderr


@pytest.mark.parametrize(
    "program",
    ["import tilth; dir(tilth); tilth.__version__", call(["--help"]), *(call([*name.split(), "--help"]) for name in registry.targets())],
    ids=["import", "help", *registry.targets()],
)
def test_nothing_heavy_is_loaded(program):
    loaded = set(json.loads(run(f"{program}\n{REPORT}").splitlines()[-1]))
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("program", ["import tilth", call(["--help"])], ids=["import", "help"])
def test_answer_comes_within_a_second(program):
    taken_s = []
    for _ in range(3):
        started_s = time.perf_counter()
        run(program)
        taken_s.append(time.perf_counter() - started_s)
    assert min(taken_s) < LIMIT_S, taken_s


TRAINING_ROOMS = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"rasterio", "geopandas", "shapely", "odc", "pyproj", "pyogrio"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
for room in ("augment", "models", "methods", "training"):
    package = importlib.import_module(f"tilth.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"tilth.{room}."):
        importlib.import_module(module.name)
for name in ("tilth.catalog.table", "tilth.imagery.read"):
    importlib.import_module(name)
"""


def test_training_core_is_imported_where_gdal_is_not():
    run(TRAINING_ROOMS)
