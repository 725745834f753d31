"""Asking for help must not cost a second, nor load what only work needs."""

import json
import os
import resource
import subprocess
import sys

import pytest

from tilth.verbs import registry

HEAVY = ("torch", "torchvision", "timm", "lightning", "rasterio", "geopandas", "pandas", "pyarrow", "scipy", "matplotlib", "bokeh", "numpy")
"""Of these, importing tilth and asking for help load none."""

LIMIT_S = 1.0
"""Of processor time, since by the clock other programs count, too; a start takes 0.4 s."""

# Measuring coverage starts in every child process; that time is not the command's.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COV")}

REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"


def call(words: list[str]) -> str:
    return f"from tilth.cli.main import main; code = main({words!r}); assert code == 0, code"


def run(program: str) -> str:
    """Run a Python program in a fresh interpreter; return what it wrote to the error stream."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT).stderr


def processor_s() -> float:
    """Seconds that the processor has worked for processes started from here and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "program",
    ["import tilth; dir(tilth); tilth.__version__", call(["--help"]), *(call([*name.split(), "--help"]) for name in registry.targets())],
    ids=["import", "help", *registry.targets()],
)
def test_nothing_heavy_is_loaded(program):
    loaded = set(json.loads(run(f"{program}\n{REPORT}").splitlines()[-1]))
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("program", ["import tilth", call(["--help"])], ids=["import", "help"])
def test_answer_costs_less_than_a_second_of_the_processor(program):
    before = processor_s()
    run(program)
    assert processor_s() - before < LIMIT_S


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
