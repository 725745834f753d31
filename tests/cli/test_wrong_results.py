"""Maps, points, catalogs, models and result files that later verbs cannot use: refused in one line, nothing left."""

import pytest

from support.tiny_farm import tree
from support.wrong_calls import Case, fill, refuse, state
from tilth.cli.main import main

MAP = "{farm}/maps/sound.tif"


def polygons(name: str, *more: str) -> list[str]:
    place = f"{{farm}}/{name}" if "/" in name else f"{{farm}}/maps/{name}"
    return ["polygons", place, "--out", "{out}/deep/p.gpkg", *more]


def sample(name: str, *more: str) -> list[str]:
    return ["sample", f"{{farm}}/maps/{name}", "--out", "{out}/deep/p.csv", *more]


def assess(points: str, *more: str, source: str = "sound.tif") -> list[str]:
    return ["assess", f"{{farm}}/maps/{source}", "--reference", f"{{farm}}/{points}", "--out", "{out}/deep", *more]


def page(*more: str) -> list[str]:
    return ["report", "--out", "{out}/deep/r.html", *more]


def shown(path: str = MAP, **beside: str) -> str:
    return "maps=[{" + ", ".join(f"{key}: {value}" for key, value in {"path": path, **beside}.items()) + "}]"


def evaluate(catalog: str, *more: str, model: str = "rgb") -> list[str]:
    return ["evaluate", f"{{farm}}/model_{model}", f"{{farm}}/{catalog}.parquet", "--out", "{out}/deep", *more]


MAPS: dict[str, Case] = {
    "polygons of a picture": (polygons("scenes/sound.tif"), 1, ("expected a map, one band of 8-bit class ids; found 3 of uint8",)),
    "polygons of 16 bits": (polygons("per_mille.tif"), 1, ("found 1 of uint16",)),
    "polygons of half a map": (polygons("cut.tif"), 1, ("maps/cut.tif: cannot be read, truncated",)),
    "polygons of a web page": (polygons("html.tif"), 1, ("maps/html.tif: cannot be read",)),
    "polygons of a folder": (polygons("scenes/"), 1, ("scenes: is a folder; give a raster that lies in it",)),
    "polygons of a map without a place": (polygons("no_place.tif"), 1, ("has no CRS, so polygons of it would lie nowhere",)),
    "polygons of no data": (polygons("nothing.tif"), 1, ("every pixel is no data (255)",)),
    "polygons as a shapefile": (["polygons", MAP, "--out", "{out}/p.shp"], 2, ("written as GeoPackage", ".gpkg")),
    "patches larger than the map": (polygons("sound.tif", "--minimum-area-m2", "1e30"), 2, ("the whole map covers 2", "2304 pixels")),
    "sieve larger than the map": (polygons("sound.tif", "--sieve-pixels", "100000000000"), 2, ("sieve 100000000000 pixels", "smaller")),
    "area that is no number": (polygons("sound.tif", "--minimum-area-m2", "nan"), 2, ("--minimum-area-m2: expected a finite number",)),
    "confidence of another size": (polygons("sound.tif", "--confidence", "{farm}/maps/small.tif"), 1, ("48 x 48 pixels", "8 x 8")),
    "confidence of other ground": (
        polygons("sound.tif", "--confidence", "{farm}/maps/other_ground.tif"),
        1,
        ("lies elsewhere than the map",),
    ),
    "confidence of 16 bits": (polygons("sound.tif", "--confidence", "{farm}/maps/per_mille.tif"), 1, ("found 1 of uint16",)),
    "points of a map of no data": (sample("nothing.tif"), 1, ("every pixel is without data",)),
    "points of a web page": (sample("html.tif"), 1, ("maps/html.tif: cannot be read",)),
    "points as a spreadsheet": (["sample", MAP, "--out", "{out}/p.xls"], 2, ("points are written as .gpkg or .csv",)),
    "fewer points than classes need": (
        sample("sound.tif", "--samples", "3"),
        2,
        ("6 mapped classes with at least 50 points each need 300",),
    ),
    "accuracy of a near-miss class": (sample("sound.tif", "users_accuracies.watr=0.9"), 2, ("no class 'watr'; did you mean 'water'?",)),
    "accuracy above 1": (sample("sound.tif", "users_accuracies.water=9"), 2, ("fractions from 0 to 1",)),
    "points where some are": (["sample", MAP, "--out", "{farm}/points/sound.csv"], 1, ("may hold reference classes", "another name")),
    "nothing filled in": (assess("points/unfilled.csv"), 1, ("none of the 256 points counts: 256 without reference",)),
    "near-miss reference": (assess("points/near_miss.csv"), 1, ("'lnd' (256 points) is no class of the map; did you mean 'land'?",)),
    "near-miss column of references": (assess("points/sound.csv", "--column", "refrence"), 1, ("did you mean 'reference'?",)),
    "points elsewhere": (assess("points/outside.csv"), 1, ("none of the 1 points counts: 1 outside of the map",)),
    "points without coordinates": (assess("points/no_place.csv"), 1, ("needs columns x and y", "found a, b, reference")),
    "coordinate in words": (assess("points/words.csv"), 1, ("row 1: x is 'east'",)),
    "no points": (assess("points/head.csv"), 1, ("head.csv: holds no point",)),
    "points of bytes": (assess("points/binary.csv"), 1, ("binary.csv: cannot be read as CSV in UTF-8",)),
    "class without a point": (assess("points/one.csv"), 1, ("no point counts where the map shows",)),
    "polygons for points": (assess("vectors/sound.gpkg", "--column", "kind"), 1, ("expected points, found Polygon",)),
    "points cut short": (assess("vectors/cut.gpkg"), 1, ("cut.gpkg: cannot be read as points",)),
    "degrees on a map without a place": (assess("points/degrees.csv", source="no_place.tif"), 1, ("the map has no CRS",)),
}

PAGES: dict[str, Case] = {
    "page of a picture": (page(shown("{farm}/scenes/sound.tif")), 1, ("expected one band of 8-bit class ids, found 3 bands of uint8",)),
    "page of 16 bits": (page(shown("{farm}/maps/per_mille.tif")), 1, ("found 1 band of uint16",)),
    "page of half a map": (page(shown("{farm}/maps/cut.tif")), 1, ("maps/cut.tif: cannot be read as a map",)),
    "page of a missing map": (page(shown("{farm}/none.tif")), 1, ("none.tif: no such map",)),
    "near-miss key of a map": (page(shown(lable="x")), 2, ("'maps.0.lable'", "did you mean 'label'?")),
    "map cut off while typing": (page("maps=[{path: "), 2, ("the value is not YAML",)),
    "reference elsewhere": (page(shown(label="{farm}/labels/elsewhere/sound.tif")), 1, ("does not overlap sound.tif", "EPSG:32632")),
    "reference of codes": (page(shown(label="{farm}/labels/codes/sound.tif")), 1, ("holds class 10, which sound.tif does not name",)),
    "reference of 16 bits": (page(shown(label="{farm}/maps/per_mille.tif")), 1, ("expected 8-bit class ids in band 1, found uint16",)),
    "scene elsewhere": (page(shown(scene="{farm}/scenes/dateline.tif")), 1, ("dateline.tif: the scene does not overlap",)),
    "scene of complex numbers": (page(shown(scene="{farm}/scenes/complex.tif")), 1, ("complex numbers (complex64)",)),
    "scene of a lost file": (page(shown(scene="{farm}/scenes/gone.vrt")), 1, ("gone.vrt: cannot be read as a scene",)),
    "scene of another shape": (page(shown(scene="{farm}/plain/four_axes.npy")), 1, ("four_axes.npy: cannot be read as a scene",)),
    "confidence above 100": (page(shown(confidence="{farm}/maps/percent_250.tif")), 1, ("expected percentages 0 to 100", "250")),
    "compared map called Image": (
        page(f"maps=[{{path: {MAP}, compare: {{Image: {MAP}}}}}]"),
        1,
        ("cannot be called 'Image'", "another name"),
    ),
    "compared map of other classes": (
        page(f"maps=[{{path: {MAP}, compare: {{b: '{{farm}}/maps/other_classes.tif'}}}}]"),
        1,
        ("class 0 is 'roof', but 'land' in sound.tif",),
    ),
    "compared map of other ground": (
        page(f"maps=[{{path: {MAP}, compare: {{b: '{{farm}}/maps/other_ground.tif'}}}}]"),
        1,
        ("other_ground.tif: the map does not overlap",),
    ),
    "page that is no page": (["report", "--out", "{out}/r.pdf", shown()], 2, ("a report is an HTML file", ".html")),
    "scores that are a web page": (page("--evaluations", "{farm}/results/html"), 1, ("html/metrics.json", "Invalid JSON")),
    "scores of a newer version": (page("--evaluations", "{farm}/results/newer"), 1, ("schema_version", "upgrade tilth")),
    "scores cut short": (page("--evaluations", "{farm}/results/torn"), 1, ("torn/metrics.json", "write it again")),
    "areas that are a list": (page("--assessments", "{farm}/results/list"), 1, ("list/assessment.json", "should be an object")),
    "comparison that is a web page": (page("--comparisons", "{farm}/results/html"), 1, ("html/comparison.json", "Invalid JSON")),
    "catalog cut short": (page("--catalog", "{farm}/cut.parquet"), 1, ("cut.parquet: not a readable Parquet file",)),
    "run with a torn log": (page("--runs", "{farm}/runs/torn"), 1, ("metrics.jsonl:2: expected a JSON object",)),
    "folder that is no run": (page("--runs", "{farm}/nothing"), 1, ("nothing: not a run folder",)),
}

TILES: dict[str, Case] = {
    "score label 17": (evaluate("beyond"), 1, ("pairs_17/masks/a.png: label value 17 is not a class: expected 0 to 5",)),
    "score label 300": (evaluate("wide"), 1, ("label value 300 found",)),
    "score images that are gone": (evaluate("gone"), 1, ("going/images/a.png: no such file",)),
    "score without labels": (evaluate("tiles", "split=[]"), 1, ("none of the 9 tiles has a label",)),
    "score with a model of another sensor": (evaluate("sound", model="s1"), 1, ("tiles are of sensor 'rgb', the model wants 's1'",)),
    "score with half a model": (evaluate("sound", model="cut"), 1, ("damaged weights",)),
    "score half a catalog": (evaluate("cut"), 1, ("cut.parquet: not a readable Parquet file",)),
    "score another table": (evaluate("no_catalog"), 1, ("a Parquet file, but not a tilth catalog",)),
    "check a folder": (["catalog", "check", "{farm}/pairs"], 1, ("pairs: no such catalog file",)),
    "check half a catalog": (["catalog", "check", "{farm}/cut.parquet"], 1, ("not a readable Parquet file", "build the catalog again")),
    "show another table": (["catalog", "show", "{farm}/no_catalog.parquet"], 1, ("not a tilth catalog",)),
    "sheet that is no picture": (["catalog", "show", "{farm}/sound.parquet", "--out", "{out}/x.pdf"], 2, ("a contact sheet is a PNG",)),
    "split that does not add up": (
        ["catalog", "split", "{farm}/tiles.parquet", "--out", "{out}/x.parquet", "fractions.train=0.7", "fractions.val=0.7"],
        2,
        ("fractions must add up to 1, they add up to 1.4",),
    ),
    "rank label 17": (
        ["catalog", "split", "{farm}/beyond.parquet", "--keep-splits", "--train", "test", "--out", "{out}/x.parquet"],
        1,
        ("3 pixels of value 17, outside scheme 'six'", "tilth catalog check"),
    ),
    "pack images that are gone": (["pack", "{farm}/gone.parquet", "--out", "{out}/deep"], 1, ("'going/a' cannot be packed", "--skip-bad")),
    "pack a torn tile": (["pack", "{farm}/torn.parquet", "--out", "{out}/deep"], 1, ("torn_tile.tif: cannot be read", "--skip-bad")),
    "pack nothing but bad tiles": (
        ["pack", "{farm}/gone.parquet", "--out", "{out}/deep", "--skip-bad"],
        1,
        ("none of the 1 tiles can be read",),
    ),
    "pack with a near-miss codec": (["pack", "{farm}/sound.parquet", "--out", "{out}/p", "--codec", "zsdt"], 2, ("'zstd'", "got 'zsdt'")),
}

CASES = MAPS | PAGES | TILES


@pytest.mark.parametrize("name", CASES)
def test_results_that_cannot_be_used_are_refused_in_one_line(name, weeds, tmp_path, capsys):
    refuse(CASES[name], weeds, tmp_path, main, capsys.readouterr)


@pytest.mark.parametrize(
    ("catalog", "fragments"),
    [
        ("beyond", ("pairs_17/masks/a.png", "label value: expected 0 to 5 or 255 (six), found 17 (3 pixels)")),
        ("wide", ("pairs_300/masks/a.png", "label value 300 found")),
        ("gone", ("going/images/a.png", "missing file")),
        ("torn", ("scenes/torn_tile.tif", "cannot be read")),
    ],
)
def test_check_lists_what_is_wrong_and_ends_with_one(catalog, fragments, weeds, tmp_path, capsys):
    before = state(weeds)
    assert main(["catalog", "check", str(weeds / f"{catalog}.parquet")]) == 1
    out, err = capsys.readouterr()
    assert any(line.startswith("error: ") and all(fragment in line for fragment in fragments) for line in out.splitlines()), out
    assert " errors, " in out.splitlines()[-1]
    assert "Traceback" not in err
    assert state(weeds) == before


def test_pack_that_fails_keeps_the_shards_that_are_done_and_goes_on_from_them(weeds, tmp_path, capsys):
    words = fill(["pack", "{farm}/wide.parquet", "--out", "{out}/p"], weeds, tmp_path)
    assert main(words) == 1
    assert "label value 300 found" in capsys.readouterr().err
    assert tree(tmp_path / "p") == ["images-00000.arrow", "pack.json"]
    written = (tmp_path / "p" / "images-00000.arrow").stat().st_mtime_ns
    assert main([*words, "--skip-bad"]) == 1
    assert "none of the 1 tiles can be read" in capsys.readouterr().err
    assert (tmp_path / "p" / "images-00000.arrow").stat().st_mtime_ns == written
