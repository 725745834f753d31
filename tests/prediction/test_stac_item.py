"""The STAC item of a map validates, and says truly where the map lies, what it shows and what it was made from."""

import hashlib
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pystac
import pytest
import shapely
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation import JsonSchemaSTACValidator
from pystac.validation.stac_validator import STACObjectType

from tilth.errors import DataError, OutputExistsError, UsageError
from tilth.imagery.write import write_json, write_raster
from tilth.prediction.stac import run_provenance, write_stac_item

YEAR = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 12, 31, tzinfo=UTC))


UTM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def write_map(folder: Path, crs: str | None = "EPSG:32632", transform: tuple = UTM) -> Path:
    values = np.random.default_rng(0).integers(0, 2, (60, 80)).astype(np.uint8)
    return write_raster(
        folder / "town.tif",
        values,
        crs=crs,
        transform=None if crs is None else transform,
        nodata=255,
        class_names=("open land", "water"),
        colours=((150, 120, 80), (0, 0, 255)),
        tags={"TILTH_MODEL": "abc", "TILTH_VERSION": "1.2.3", "TILTH_SENSOR": "rgb"},
    )


def validate(item: pystac.Item) -> None:
    """Against the schema of STAC itself, which pystac carries along; schemas of extensions are on the network."""
    JsonSchemaSTACValidator().validate_core(item.to_dict(), STACObjectType.ITEM, "1.1.0")


def test_item_validates_and_its_extensions_read_back(tmp_path: Path) -> None:
    path = write_stac_item(write_map(tmp_path), start=YEAR[0])
    assert path == tmp_path / "town.json"
    item = pystac.Item.from_file(str(path))
    validate(item)
    assert item.datetime == YEAR[0]
    projection = ProjectionExtension.ext(item)
    assert (projection.code, projection.shape) == ("EPSG:32632", [60, 80])
    assert projection.transform == [10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0]
    classes = ClassificationExtension.ext(item.assets["map"]).classes
    assert classes is not None
    assert [(entry.value, entry.name, entry.color_hint) for entry in classes] == [
        (0, "open_land", "967850"),
        (1, "water", "0000FF"),
        (255, "no_data", None),
    ]


def test_a_broken_item_would_not_validate(tmp_path: Path) -> None:
    item = pystac.Item.from_file(str(write_stac_item(write_map(tmp_path), start=YEAR[0])))
    item.geometry = {"type": "Polygon"}
    with pytest.raises(pystac.errors.STACValidationError):
        validate(item)


def test_footprint_encloses_the_map_and_lies_where_it_does(tmp_path: Path) -> None:
    from pyproj import Transformer

    item = pystac.Item.from_file(str(write_stac_item(write_map(tmp_path), start=YEAR[0])))
    to_degrees = Transformer.from_crs("EPSG:32632", "OGC:CRS84", always_xy=True)
    corners = [to_degrees.transform(500_000 + x, 5_000_000 - y) for x in (0, 800) for y in (0, 600)]
    assert item.bbox == pytest.approx(
        [
            min(corner[0] for corner in corners),
            min(corner[1] for corner in corners),
            max(corner[0] for corner in corners),
            max(corner[1] for corner in corners),
        ],
        abs=1e-6,
    )
    ring = item.geometry["coordinates"][0]
    assert ring[0] == ring[-1]
    turned = sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in pairwise(ring))
    assert turned < 0, "the outer ring of a GeoJSON polygon runs counter-clockwise"


def test_files_are_named_relatively_with_size_and_checksum(tmp_path: Path) -> None:
    source = write_map(tmp_path)
    other = tmp_path / "town_confidence.tif"
    other.write_bytes(source.read_bytes()[:100])
    extra = ("confidence", other, "image/tiff; application=geotiff", "Confidence in percent")
    tree = json.loads(write_stac_item(source, start=YEAR[0], extras=[extra]).read_text())
    assert {name: asset["href"] for name, asset in tree["assets"].items()} == {"map": "./town.tif", "confidence": "./town_confidence.tif"}
    item = pystac.Item.from_dict(tree)
    for name, file in (("map", source), ("confidence", other)):
        found = FileExtension.ext(item.assets[name])
        assert found.size == file.stat().st_size
        assert found.checksum == "1220" + hashlib.sha256(file.read_bytes()).hexdigest()


def test_provenance_of_map_and_run_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "data.json", {"streams": {"labelled": {"fingerprint": "f00", "tiles": 3}}})
    (run / "recipe.yaml").write_text("loop: {steps: 3}\n")
    known = run_provenance(run)
    tree = json.loads(write_stac_item(write_map(tmp_path), start=YEAR[0], provenance={**known, "flips": None}).read_text())
    properties = tree["properties"]
    assert properties["tilth:model"] == "abc"
    assert properties["tilth:catalogs"] == {"labelled": "f00"}
    assert properties["tilth:recipe_sha256"] == hashlib.sha256(b"loop: {steps: 3}\n").hexdigest()
    assert properties["processing:software"] == {"tilth": "1.2.3"}
    assert "tilth:flips" not in properties
    assert run_provenance(tmp_path) == {}


def test_time_is_a_moment_a_span_or_said_to_be_unknown(tmp_path: Path) -> None:
    source = write_map(tmp_path)
    spanned = pystac.Item.from_file(str(write_stac_item(source, start=YEAR[0], end=YEAR[1])))
    validate(spanned)
    assert spanned.datetime is None
    assert (spanned.properties["start_datetime"], spanned.properties["end_datetime"]) == ("2020-01-01T00:00:00Z", "2020-12-31T00:00:00Z")
    unknown = pystac.Item.from_file(str(write_stac_item(source)))
    validate(unknown)
    assert "not known" in unknown.properties["tilth:datetime_of"]


def test_what_cannot_have_an_item_is_refused(tmp_path: Path) -> None:
    source = write_map(tmp_path)
    with pytest.raises(UsageError, match=r"ends in \.json"):
        write_stac_item(source, tmp_path / "item.txt")
    with pytest.raises(UsageError, match="not after the end"):
        write_stac_item(source, start=YEAR[1], end=YEAR[0])
    with pytest.raises(DataError, match="has no CRS"):
        write_stac_item(write_map(tmp_path, crs=None))


ACROSS = {
    "UTM": ("EPSG:32601", (10_000.0, 0.0, 200_000.0, 0.0, -10_000.0, 7_200_000.0)),
    "Pacific": ("EPSG:3832", (10_000.0, 0.0, 3_100_000.0, 0.0, -10_000.0, 2_000_000.0)),
    "degrees": ("EPSG:4326", (0.1, 0.0, 176.0, 0.0, -0.1, 10.0)),
}


@pytest.mark.parametrize("name", ACROSS)
def test_footprint_across_the_antimeridian_is_cut_there(tmp_path: Path, name: str) -> None:
    crs, transform = ACROSS[name]
    item = pystac.Item.from_file(str(write_stac_item(write_map(tmp_path, crs, transform), start=YEAR[0])))
    validate(item)
    west, south, east, north = item.bbox
    assert 170 < west <= 180
    assert -180 <= east < -150
    shape = shapely.geometry.shape(item.geometry)
    assert shape.geom_type == "MultiPolygon"
    assert shape.is_valid
    # Not around the globe: the two parts are as wide as the box that crosses.
    assert sum(part.bounds[2] - part.bounds[0] for part in shape.geoms) == pytest.approx(east + 360 - west, abs=1e-5)
    assert {side for part in shape.geoms for side in part.bounds[::2]} >= {180.0, -180.0}
    assert (shape.bounds[1], shape.bounds[3]) == (south, north)
    assert all(part.exterior.is_ccw for part in shape.geoms)


def test_footprint_around_a_pole_holds_the_pole(tmp_path: Path) -> None:
    around = (50_000.0, 0.0, -2_000_000.0, 0.0, -50_000.0, 1_500_000.0)
    item = pystac.Item.from_file(str(write_stac_item(write_map(tmp_path, "EPSG:3413", around), start=YEAR[0])))
    validate(item)
    shape = shapely.geometry.shape(item.geometry)
    assert shape.is_valid
    assert shape.bounds[0::2] == (-180, 180)
    assert shape.bounds[3] == 90
    assert item.bbox[0::2] == [-180, 180]
    assert shapely.contains_xy(shape, [0.0, 100.0, -100.0], [85.0, 85.0, 85.0]).all()


def test_ring_of_a_south_up_map_runs_counter_clockwise_too(tmp_path: Path) -> None:
    item = pystac.Item.from_file(str(write_stac_item(write_map(tmp_path, transform=(*UTM[:4], 10.0, UTM[5])), start=YEAR[0])))
    assert shapely.geometry.shape(item.geometry).exterior.is_ccw


def test_only_items_of_maps_are_replaced(tmp_path: Path) -> None:
    source, mine = write_map(tmp_path), tmp_path / "town.json"
    mine.write_text('{"my": "work"}')
    with pytest.raises(OutputExistsError, match=r"town.json: exists already and is not a STAC item of a map"):
        write_stac_item(source)
    assert mine.read_text() == '{"my": "work"}'
    write_stac_item(source, overwrite=True)
    write_stac_item(source)
