"""Where an extra is not installed, what needs it says so in one line, and the core goes on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tilth.errors import MissingExtraError, needs_extra

LIBRARIES = (
    *("rasterio", "shapely", "geopandas", "pandas", "pyproj", "scipy", "onnx"),
    *("jinja2", "markupsafe", "matplotlib", "tensorboard", "ray", "lmdb", "sklearn"),
)
# Finders that do not find them: what asks whether a library is there must get the answer, too.
ABSENT = f"""
import sys

class Blind:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *more):
        return None if name.partition(".")[0] in {LIBRARIES!r} else self.finder.find_spec(name, *more)

sys.meta_path[:] = map(Blind, sys.meta_path)
"""

ASKING = """
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from tilth.catalog import geometry
from tilth.catalog.show import contact_sheet
from tilth.catalog.table import Catalog
from tilth.curation.ray_pass import score_on_ray
from tilth.errors import MissingExtraError
from tilth.evaluation.compare import paired_interval
from tilth.imagery.area import value_areas_m2
from tilth.imagery.black_border import find_black_border
from tilth.imagery.landscape import LandscapeConfig, generate_landscape
from tilth.imagery.raster import RasterInfo, Window
from tilth.imagery.read import read_pixels
from tilth.imagery.write import write_raster
from tilth.insight.clusters import cluster
from tilth.insight.config import ClusterConfig, ProbeConfig, TsneConfig
from tilth.insight.probes import Sampled, probe
from tilth.insight.projection import embed_pixels
from tilth.models.export import export_model
from tilth.sensors import get_sensor

folder = sys.argv[1]
square = b"\\x01\\x03" + bytes(4)
geo = pa.chunked_array([pa.array([square], pa.binary())])
row = {"tile_id": "a", "image": f"{folder}/a.png", "window": (0, 0, 8, 8), "sensor": "rgb"}
catalog = Catalog.from_rows([row], sensors={"rgb": get_sensor("rgb")})
info = RasterInfo("a", 8, 8, 3, "uint8", "EPSG:4326", (1, 0, 0, 0, -1, 0), None, ("", "", ""))

def report():
    import tilth.reporting

asked = {
    "read": ("geo", lambda: read_pixels(f"{folder}/a.tif")),
    "write": ("geo", lambda: write_raster(f"{folder}/b.tif", np.zeros((3, 8, 8), np.uint8), crs=None, transform=None)),
    "area": ("geo", lambda: value_areas_m2(np.zeros((8, 8), np.uint8), Window(0, 0, 8, 8), "EPSG:4326", (1, 0, 0, 0, -1, 0))),
    "footprints": ("geo", lambda: geometry.footprints([info], np.array([[0, 0, 8, 8]]), np.array([0]))),
    "covered": ("geo", lambda: geometry.covered_km2(geo)),
    "centres": ("geo", lambda: geometry.footprint_centres(geo)),
    "pandas": ("geo", catalog.to_pandas),
    "geopandas": ("geo", catalog.to_geopandas),
    "landscape": ("geo", lambda: generate_landscape(LandscapeConfig(height=64, width=64))),
    "border": ("geo", lambda: find_black_border(f"{folder}/a.png")),
    "interval": ("report", lambda: paired_interval([0.1, 0.2])),
    "sheet": ("report", lambda: contact_sheet(catalog, f"{folder}/sheet.png")),
    "report": ("report", report),
    "k-means": ("insight", lambda: cluster(np.zeros((1, 2, 2), np.float32), np.ones((2, 2), bool), ClusterConfig(), 0)),
    "t-SNE": ("insight", lambda: embed_pixels(np.zeros((9, 2), np.float32), TsneConfig(), 0)),
    "probes": ("insight", lambda: probe(Sampled(None, None), Sampled(None, None), 2, ProbeConfig())),
    "cluster": ("ray", lambda: score_on_ray(None, None, address="local", workers=1)),
    "export": ("export", lambda: export_model(None, Path(folder) / "a.onnx", "onnx", (32, 32))),
}
lines = {}
for name, (extra, ask) in asked.items():
    try:
        ask()
        lines[name] = [extra, "nothing was raised"]
    except MissingExtraError as error:
        lines[name] = [extra, str(error)]
print(json.dumps(lines))
"""

CORE = """
from pathlib import Path
import tilth
from tilth.models.config import NetworkConfig
from tilth.sensors import get_sensor

folder = Path(sys.argv[1])
tilth.catalog_build(inputs=[str(folder / "plain")], layout="pairs", sensor="rgb", out=folder / "a.parquet")
tilth.catalog_check(catalog=folder / "a.parquet", out=folder / "findings.json")
catalog = tilth.Catalog.open(folder / "a.parquet")
network = NetworkConfig(encoder="test_byobnet", options={"decoder_channels": [8, 8, 8, 8, 8]})
tilth.build_segmenter(network, get_sensor("rgb"), catalog.scheme()).save(folder / "model")
result = tilth.evaluate(model=folder / "model", catalog=folder / "a.parquet", out=folder / "scores", split=())
print(result.values["OA"])
"""


def python(program: str, folder: Path) -> str:
    command = [sys.executable, "-W", "ignore", "-c", ABSENT + program, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "plain" / name).mkdir(parents=True)
    Image.fromarray(draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    for index in range(2):
        Image.fromarray(draw.integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(tmp_path / "plain" / "images" / f"{index}.png")
        Image.fromarray(draw.integers(0, 2, (40, 40)).astype(np.uint8)).save(tmp_path / "plain" / "masks" / f"{index}.png")
    scheme = {"classes": [{"index": 0, "name": "land", "colour": [1, 2, 3]}, {"index": 1, "name": "water", "colour": [4, 5, 6]}]}
    (tmp_path / "plain" / "classes.json").write_text(json.dumps(scheme))
    (tmp_path / "a.tif").write_bytes(b"II")
    return tmp_path


def test_every_use_of_an_absent_library_names_its_extra_in_one_line(folder):
    for name, (extra, line) in json.loads(python(ASKING, folder)).items():
        assert f"pip install 'tilth[{extra}]'" in line, name
        assert any(library in line for library in LIBRARIES), name
        assert "\n" not in line, name


def test_the_core_builds_checks_and_scores_plain_images_without_any_extra(folder):
    assert 0 <= float(python(CORE, folder)) <= 1


def test_libraries_that_are_there_are_imported():
    with needs_extra("geo", "nothing"):
        import json as found
    assert found is json
    with (
        pytest.raises(MissingExtraError, match=r"^maps: cannot load libgdal; install it with: pip install 'tilth\[geo\]'$"),
        needs_extra("geo", "maps"),
    ):
        raise ImportError("cannot load\nlibgdal")
