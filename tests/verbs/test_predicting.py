"""What ``tilth predict`` maps, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

import tilth
from support.listing import listing
from support.mapping import noise, read, write
from support.tiny_models import TinySegmenter
from tilth.cli.main import main
from tilth.errors import DataError, InterruptedRunError, TilthWarning
from tilth.models.segmenter import Segmenter
from tilth.prediction.dates import scene_date
from tilth.reporting.inputs import MapInput
from tilth.reporting.maps import read_map

SMALL = ["inference.window=32", "inference.overlap=12"]


@pytest.fixture
def field(tmp_path, monkeypatch):
    """A folder with three scenes of different years, in which any model is a tiny one; commands run there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Segmenter, "load", staticmethod(lambda *_: TinySegmenter()))
    data = noise(60, 140)
    (tmp_path / "scenes").mkdir()
    for index, (name, tags) in enumerate(
        [
            ("one_20190704.tif", {}),
            ("two.tif", {"ACQUISITION_DATE": "2020-07-04"}),
            ("three.tif", {"SENSING_TIME": "2021:07:04 10:00:00", "TIFFTAG_DATETIME": "2024:11:20 10:00:00"}),
        ]
    ):
        write(tmp_path / "scenes" / name, data[:, :, 40 * index : 40 * index + 60], column=40 * index, tags=tags)
    (tmp_path / "scenes" / "notes.txt").write_text("no raster")
    write(tmp_path / "whole.tif", data)
    return tmp_path


def run(words: list[str], capsys) -> tuple[int, str, str]:
    code = main(["predict", "model", *words, *SMALL])
    return code, *capsys.readouterr()


def test_folder_stands_for_its_rasters(field, capsys):
    code, out, _ = run(["scenes", "--out", "maps", "--confidence", "--probabilities"], capsys)
    assert code == 0
    stems = ["one_20190704", "three", "two"]
    expected = [f"{stem}{end}" for stem in stems for end in (".tif", ".tif.aux.xml", "_confidence.tif", "_probabilities.tif")]
    assert listing(field / "maps") == sorted(expected)
    assert [line.partition(":")[0] for line in out.splitlines()[:3]] == stems
    assert "probabilities of two: maps/two_probabilities.tif" in out


def test_mosaic_is_one_map(field, capsys):
    code, out, _ = run(["scenes/one_20190704.tif", "scenes/two.tif", "scenes/three.tif", "--mosaic", "--out", "map.tif"], capsys)
    assert code == 0
    assert out.startswith("map: 140 x 60 pixels")
    assert run(["whole.tif", "--out", "expected.tif"], capsys)[0] == 0
    np.testing.assert_array_equal(read("map.tif"), read("expected.tif"))


@pytest.mark.parametrize(
    ("period", "more", "kept"),
    [
        ("2019-01-01,2019-12-31", [], ["one_20190704"]),
        ("2020-01-01,2021-12-31", [], ["three", "two"]),
        ("2019-07-04,2020-07-04", [], ["one_20190704", "two"]),
        ("2019-07-01,2019-07-31", ["--datetime-pattern", "_([0-9]{8})"], None),
    ],
)
def test_scenes_of_a_period_are_mapped(field, capsys, period, more, kept):
    code, out, err = run(["scenes", "--out", "maps", "--period", period, *more], capsys)
    if kept is None:
        assert code == 1
        assert "scenes/three.tif and 1 more: neither tags nor name say when" in err
        return
    assert code == 0
    assert f"{len(kept)} of 3 scenes were taken from" in err
    assert [line.partition(":")[0] for line in out.splitlines() if " pixels in " in line] == kept


def test_area_leaves_out_scenes_that_it_does_not_touch(field, capsys):
    with rasterio.open("scenes/two.tif") as dataset:
        left, _, _, top = dataset.bounds
    # Columns 65 to 75 of the whole: in the second scene only.
    geopandas.GeoDataFrame(geometry=[shapely.box(left + 250, top - 200, left + 350, top - 100)], crs="EPSG:32633").to_file("area.gpkg")
    code, out, err = run(["scenes", "--out", "maps", "--area", "area.gpkg"], capsys)
    assert code == 0
    assert "left out: scenes/one_20190704.tif: area.gpkg lies outside of it" in err
    assert "two: 10 x 10 pixels" in out
    assert listing(field / "maps") == ["two.tif", "two.tif.aux.xml"]
    bounds = f"{left + 250},{top - 200},{left + 350},{top - 100}"
    assert run(["whole.tif", "--out", "bounds.tif", "--bounds", bounds], capsys)[0] == 0
    assert read("bounds.tif").shape == (10, 10)


def test_same_command_again_leaves_the_map_and_another_one_refuses(field, capsys):
    words = ["whole.tif", "--out", "map.tif"]
    assert run(words, capsys)[0] == 0
    written = Path("map.tif").stat().st_mtime_ns
    code, _, err = run(words, capsys)
    assert (code, Path("map.tif").stat().st_mtime_ns) == (0, written)
    assert "map.tif: was finished before" in err
    code, _, err = run([*words, "--flips", "both"], capsys)
    assert code == 1
    assert err.startswith("tilth: error: map.tif: exists already")
    assert err.count("\n") == 1
    assert run([*words, "--flips", "both", "--overwrite"], capsys)[0] == 0


def test_bands_are_typed_with_commas_or_given_as_numbers(field, capsys):
    write(field / "bgr.tif", noise(60, 140)[[2, 1, 0]], band_names=("B", "G", "R"))
    assert run(["whole.tif", "--out", "expected.tif"], capsys)[0] == 0
    assert run(["bgr.tif", "--out", "typed.tif", "--bands", "3,2,1"], capsys)[0] == 0
    given = tilth.predict(
        model="model", scenes=["bgr.tif"], out="given.tif", bands=[3, 2, 1], inference={"window": 32, "overlap": 12}
    ).outputs["map of bgr"]
    for path in ("typed.tif", given):
        np.testing.assert_array_equal(read(path), read("expected.tif"))


def test_interrupted_it_says_how_to_go_on(field, capsys, monkeypatch):
    forward = TinySegmenter.forward

    def stop(self, image):
        if len(self.batches) > 9:
            raise KeyboardInterrupt
        return forward(self, image)

    monkeypatch.setattr(TinySegmenter, "forward", stop)
    with pytest.raises(InterruptedRunError, match=r"stopped in whole.tif; the same command goes on from there"):
        tilth.predict(model="model", scenes=["whole.tif"], out="map.tif", inference={"window": 32, "overlap": 12})
    monkeypatch.undo()
    monkeypatch.chdir(field)
    monkeypatch.setattr(Segmenter, "load", staticmethod(lambda *_: TinySegmenter()))
    code, _, err = run(["whole.tif", "--out", "map.tif"], capsys)
    assert code == 0
    assert "7 of 21 windows were done before" in err


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["--period", "2019-01-01"], 2, ("--period", "two days")),
        (["--period", "2020-01-01,2019-01-01"], 2, ("the first not later",)),
        (["--period", "1999-01-01,1999-12-31"], 1, ("no scene was taken from 1999-01-01 to 1999-12-31", "2019-07-04 to 2021-07-04")),
        (["--period", "summer,winter"], 2, ("--period",)),
        (["--bounds", "1,2,3"], 2, ("--bounds", "four numbers")),
        (["--bounds", "1,2,3,4", "--area", "x.gpkg"], 2, ("exclude each other",)),
        (["--bounds", "1,2,3,4"], 1, ("lies in none of the 3 scenes",)),
        (["--bounds-crs", "EPSG:4326"], 2, ("there are none",)),
        (["--datetime-pattern", "x"], 2, ("one group",)),
        (["--datetime-pattern", "(x)"], 2, ("neither is given",)),
        (["--resolution", "0"], 2, ("--resolution", "greater than 0")),
        (["--area", "none.gpkg"], 1, ("none.gpkg: no such file",)),
        (["--bands", "1,2"], 1, ("has 2 bands",)),
        (["--flips", "vertical"], 2, ("--flips", "'horizontal'")),
        (["--crs", "EPSG:32x"], 2, ("unknown coordinate reference system",)),
    ],
)
def test_wrong_requests_are_refused_in_one_line(field, capsys, words, code, parts):
    before = listing(field)
    found, _, err = run(["scenes", "--out", "maps", *words], capsys)
    last = err.splitlines()[-1]
    assert found == code, err
    assert last.startswith("tilth: error: ")
    assert all(part in last for part in parts), last
    assert listing(field) == before


def test_files_of_others_beside_the_map_are_not_replaced(field, capsys):
    left, top = 500_000, 5_000_000
    area = geopandas.GeoDataFrame({"owner": ["me"]}, geometry=[shapely.box(left, top - 300, left + 300, top)], crs="EPSG:32633")
    area.to_file("site.gpkg", layer="fields")
    Path("site.json").write_text("{}")
    before = listing(field)
    for words, code, fragment in [
        (["--area", "site.gpkg", "--polygons", "--overwrite"], 1, "site.gpkg: is read to make the map"),
        (["--polygons"], 1, "site.gpkg: exists already and is not polygons of a map"),
        (["--stac"], 1, "site.json: exists already and is not a STAC item of a map"),
    ]:
        found, _, err = run(["whole.tif", "--out", "site.tif", *words], capsys)
        assert (found in (code, 2), fragment in err) == (True, True), err
        assert listing(field) == before
    assert geopandas.read_file("site.gpkg", layer="fields")["owner"].tolist() == ["me"]
    assert run(["whole.tif", "--out", "site.tif", "--polygons", "--overwrite"], capsys)[0] == 0
    assert run(["whole.tif", "--out", "site.tif", "--polygons"], capsys)[0] == 0


def test_two_outputs_of_one_name_are_refused(field, capsys):
    write(field / "scenes" / "two_confidence.tif", noise(60, 60))
    code, _, err = run(["scenes", "--out", "maps", "--confidence"], capsys)
    assert code == 2
    assert "maps/two_confidence.tif: two outputs would be written there" in err


def test_confidence_of_an_earlier_map_is_left_out_of_polygons_and_report(field, capsys):
    assert run(["whole.tif", "--out", "map.tif", "--confidence"], capsys)[0] == 0
    old = Path("map_confidence.tif").read_bytes()
    assert main(["polygons", "map.tif", "--out", "map.gpkg"]) == 0
    assert "mean_confidence" in geopandas.read_file("map.gpkg").columns
    assert run(["whole.tif", "--out", "map.tif", "--flips", "both", "--overwrite"], capsys)[0] == 0
    assert not Path("map_confidence.tif").exists()
    Path("map_confidence.tif").write_bytes(old)
    assert main(["polygons", "map.tif", "--out", "map.gpkg"]) == 0
    assert "was made from another model, scene or settings" in capsys.readouterr().err
    assert "mean_confidence" not in geopandas.read_file("map.gpkg").columns
    with pytest.warns(TilthWarning, match="is left out"):
        view = read_map("map.tif")
    assert [layer.name for layer in view.viewer.layers] == ["Prediction"]
    with pytest.raises(DataError, match="was made from another model"):
        read_map(MapInput("map.tif", confidence="map_confidence.tif"))
    assert main(["polygons", "map.tif", "--confidence", "map_confidence.tif", "--out", "map.gpkg"]) == 1


def test_item_of_a_period_reaches_to_the_end_of_the_last_day(field, capsys):
    Path("two").mkdir()
    for day, name in enumerate(("a_20190704.tif", "b_20190705.tif")):
        write(field / "two" / name, noise(60, 60, seed=day), column=40 * day, tags={"TIFFTAG_DATETIME": "2024:11:20 10:00:00"})
    assert run(["two", "--mosaic", "--out", "map.tif", "--stac"], capsys)[0] == 0
    properties = json.loads(Path("map.json").read_text())["properties"]
    assert (properties["start_datetime"], properties["end_datetime"]) == ("2019-07-04T00:00:00Z", "2019-07-05T23:59:59Z")
    # When the file was written is not when the image was taken.
    assert scene_date(write(field / "dateless.tif", noise(60, 60), tags={"TIFFTAG_DATETIME": "2024:11:20 10:00:00"})) is None
