"""The shipped demo, small: the whole way, its map and its report."""

import json
from pathlib import Path

import pytest
import torch

import tilth
from browser import needs_browser, open_page

SMALL = {"steps": 2, "warmup": 0, "scenes": 3, "scene_size": 448, "seeds": [0], "labelled_tiles": 4}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("demo") / "out"
    result = tilth.demo(out=out, values=SMALL)
    assert result.outputs["report"] == out / "report.html"
    return out


def test_second_demo_has_nothing_to_do(demo):
    assert tilth.demo(out=demo, values=SMALL).values["done"] == []


def test_map_is_a_sound_cloud_optimized_geotiff(demo):
    import rasterio
    from rio_cogeo.cogeo import cog_validate

    valid, errors, warnings = cog_validate(str(demo / "map.tif"), strict=True, quiet=True)
    assert (valid, list(errors), list(warnings)) == (True, [], [])
    with rasterio.open(demo / "map.tif") as found, rasterio.open(demo / "scene-to-map" / "images" / "scene_500.tif") as scene:
        assert found.crs == scene.crs
        assert found.crs.is_projected
        assert found.transform == scene.transform
        assert found.shape == scene.shape
        names = json.loads(found.tags()["CLASS_NAMES"])
        scheme = json.loads((demo / "runs" / "s4p-0" / "model" / "config.json").read_text())["scheme"]["classes"]
        assert names == [item["name"] for item in scheme]
        table = found.colormap(1)
        assert [list(table[index][:3]) for index in range(len(names))] == [item["colour"] for item in scheme]
        assert found.nodata == 255


@needs_browser
def test_report_opens_without_complaint_or_request(demo):
    with open_page(demo / "report.html") as page:
        assert page.console() == []
        assert page.requests() == []
        assert page.overflow() == 0
        text = page.run("return document.body.innerText")
    for expected in ("Few labels alone, or with an unlabelled pool?", "supervised", "s4p", "building", "tilth demo"):
        assert expected in text
