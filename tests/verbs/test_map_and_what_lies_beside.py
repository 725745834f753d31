"""A predicted scene as others open it: Cloud Optimized GeoTIFF, GeoPackage, STAC item."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from pystac.validation import JsonSchemaSTACValidator
from pystac.validation.stac_validator import STACObjectType
from rio_cogeo.cogeo import cog_validate

import tilth
from support.tiny_farm import grow, plant
from tilth.errors import ConfigError


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a scene with a date in its name."""
    root = plant(tmp_path_factory.mktemp("farm"))
    grow(root)
    (root / "land" / "images" / "scene_000.tif").rename(root / "town_20190904.tif")
    return root


@pytest.fixture(scope="module")
def mapped(farm: Path) -> dict[str, Path]:
    """Everything that one call of predict leaves."""
    result = tilth.predict(
        model=farm / "run",
        scenes=[farm / "town_20190904.tif"],
        out=farm / "maps" / "town.tif",
        confidence=True,
        probabilities=True,
        polygons=True,
        minimum_area_m2=200,
        stac=True,
        inference={"window": 64},
    )
    return {name.partition(" of ")[0]: path for name, path in result.outputs.items()}


def test_map_is_a_valid_cog_with_colours_names_and_statistics(mapped: dict[str, Path]) -> None:
    for name in ("map", "confidence", "probabilities"):
        valid, errors, _ = cog_validate(mapped[name])
        assert valid, errors
    with rasterio.open(mapped["map"]) as dataset:
        names = json.loads(dataset.tags()["CLASS_NAMES"])
        values = dataset.read(1, masked=True).compressed()
        assert [dataset.colormap(1)[value] for value in range(len(names))]
        assert float(dataset.tags(1)["STATISTICS_MEAN"]) == pytest.approx(values.mean())
        assert {"TILTH_MODEL", "TILTH_VERSION", "TILTH_SENSOR", "TILTH_SCHEME"} <= set(dataset.tags())
    assert all(f"<Category>{name}</Category>" in Path(f"{mapped['map']}.aux.xml").read_text() for name in names)


def test_polygons_are_valid_apart_and_add_up_to_the_ground_of_the_map(mapped: dict[str, Path]) -> None:
    frame = geopandas.read_file(mapped["polygons"])
    assert frame.is_valid.all()
    assert shapely.union_all(frame.geometry.to_numpy()).area == pytest.approx(frame.area.sum(), rel=1e-9)
    with rasterio.open(mapped["map"]) as dataset:
        assert frame.crs == dataset.crs
        pixel = abs(dataset.transform.a * dataset.transform.e)
        valid = int((dataset.read(1) != 255).sum())
    assert frame.area.sum() == pytest.approx(valid * pixel, rel=1e-9)
    # On the ground a square metre of UTM is a little more or less than one.
    assert frame["area_m2"].sum() == pytest.approx(valid * pixel, rel=2e-3)
    assert frame["mean_confidence"].between(0, 100).all()


def test_item_validates_and_names_time_files_and_origin(farm: Path, mapped: dict[str, Path]) -> None:
    item = pystac.Item.from_file(str(mapped["STAC item"]))
    JsonSchemaSTACValidator().validate_core(item.to_dict(), STACObjectType.ITEM, "1.1.0")
    assert set(item.assets) == {"map", "confidence", "probabilities", "polygons"}
    assert all((mapped["map"].parent / asset.href).is_file() for asset in item.assets.values())
    assert item.datetime is not None
    assert item.datetime.date().isoformat() == "2019-09-04"
    streams = json.loads((farm / "run" / "data.json").read_text())["streams"]
    assert item.properties["tilth:catalogs"] == {name: stream["fingerprint"] for name, stream in streams.items()}
    assert item.properties["tilth:scenes"] == ["town_20190904.tif"]
    with rasterio.open(mapped["map"]) as dataset:
        assert item.properties["tilth:model"] == dataset.tags()["TILTH_MODEL"]


def test_confidence_is_the_highest_of_the_probabilities(mapped: dict[str, Path]) -> None:
    with (
        rasterio.open(mapped["map"]) as classes,
        rasterio.open(mapped["confidence"]) as sure,
        rasterio.open(mapped["probabilities"]) as every,
    ):
        ids, percent, each = classes.read(1), sure.read(1), every.read()
    assert (each.max(axis=0) == percent).all()
    assert (np.take_along_axis(each, np.where(ids == 255, 0, ids)[None], axis=0)[0] == percent).all()


def test_what_is_asked_of_polygons_needs_polygons(farm: Path) -> None:
    with pytest.raises(ConfigError, match="add polygons"):
        tilth.predict(model=farm / "run", scenes=[farm / "town_20190904.tif"], out=farm / "x.tif", minimum_area_m2=5)
