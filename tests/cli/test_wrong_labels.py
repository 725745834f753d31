"""Labels, legends, split files, layers and tables that cannot become a catalog: refused in one line, nothing left."""

import pytest

from support.wrong_calls import Case, refuse
from tilth.cli.main import main

OUT = ["--sensor", "rgb", "--out", "{out}/x.parquet"]
SCENE = ["catalog", "build", "{farm}/scenes/sound.tif", *OUT, "--scheme", "{farm}/schemes/six.json"]


def pairs(name: str, *more: str) -> list[str]:
    return ["catalog", "build", f"{{farm}}/{name}", *OUT, *more]


def raster(name: str, *more: str) -> list[str]:
    return [*SCENE, "--labels", f"{{farm}}/labels/{name}", *more]


def vector(name: str, *more: str, column: str | None = "kind") -> list[str]:
    return [*SCENE, "--labels", f"{{farm}}/vectors/{name}", *(("--label-column", column) if column else ()), *more]


def coded(codes: str) -> list[str]:
    return raster("codes", "--label-codes", codes)


def table(name: str, *more: str) -> list[str]:
    return ["catalog", "import", f"{{farm}}/tables/{name}", *OUT, *more]


def prepare(folder: str, name: str = "image-mask") -> list[str]:
    return ["datasets", "prepare", name, f"{{farm}}/{folder}", "--sensor", "rgb", "--out", "{out}/deep/set"]


FOLDERS: dict[str, Case] = {
    "masks that are jpg": (pairs("pairs_jpg"), 1, ("no mask belongs to any of 1 images, for example a.png",)),
    "mask that is a web page": (pairs("pairs_html"), 1, ("pairs_html/masks/a.png: truncated or damaged", "none of 1 images")),
    "two masks of one image, strictly": (pairs("pairs_twice", "--strict"), 1, ("masks/a.tif: its image has the mask a.png",)),
    "no class scheme": (pairs("pairs_no_scheme/deep"), 1, ("labels need a class scheme; put classes.json there",)),
    "stem in two splits": (pairs("splits_both"), 1, ("splits/val.txt: 'a' is also in train.txt",)),
    "split file of bytes": (pairs("splits_binary"), 1, ("splits/train.txt: no text in UTF-8", "one stem a line")),
    "split file with suffixes": (pairs("splits_suffix"), 1, ("'a.png' in line 1; list stems without suffix",)),
    "two classes of one name": (pairs("pairs", "--scheme", "{farm}/schemes/same_name.json"), 2, ("class names must differ; twice: land",)),
    "colour out of range": (pairs("pairs", "--scheme", "{farm}/schemes/colour.json"), 2, ("classes.0.colour.0", "255, got 300")),
    "scheme that is a list": (pairs("pairs", "--scheme", "{farm}/schemes/list.json"), 2, ("expected a mapping with a list 'classes'",)),
    "scheme without classes": (pairs("pairs", "--scheme", "{farm}/schemes/none.json"), 2, ("classes: expected at least 1",)),
    "scheme with a gap": (pairs("pairs", "--scheme", "{farm}/schemes/gap.json"), 2, ("class indices must be 0 to 1 without gaps",)),
    "scheme that ignores 0": (pairs("pairs", "--scheme", "{farm}/schemes/ignore_0.json"), 2, ("ignore_index must be 255",)),
    "scheme that is a web page": (pairs("pairs", "--scheme", "{farm}/schemes/html.json"), 2, ("html.json: not JSON",)),
    "scheme cut short": (pairs("pairs", "--scheme", "{farm}/schemes/torn.yaml"), 2, ("torn.yaml: not YAML",)),
    "scheme of another encoding": (pairs("pairs", "--scheme", "{farm}/schemes/latin.yaml"), 2, ("latin.yaml: not YAML", "utf-8")),
    "catalog that is no Parquet": (
        ["catalog", "build", "{farm}/pairs", "--sensor", "rgb", "--out", "{out}/x.csv"],
        2,
        ("--out: a catalog is a Parquet file", ".parquet"),
    ),
    "layer of a sensor that is not in the sum": (
        ["catalog", "build", "{farm}/scenes/sound.tif", "--sensor", "rgb+s1", "--out", "{out}/x.parquet", "layers.s2=x"],
        2,
        ("layers.s2: no part of sensor 'rgb+s1'; choices: rgb, s1",),
    ),
    "layer without the raster": (
        ["catalog", "build", "{farm}/scenes/sound.tif", "--sensor", "rgb+s1", "--out", "{out}/x.parquet", "layers.s1={farm}/nothing"],
        1,
        ("layer s1 has no raster named sound", "set layer_name"),
    ),
    "layer of another sensor": (
        ["catalog", "build", "{farm}/scenes/sound.tif", "--sensor", "rgb+s1", "--out", "{out}/x.parquet", "layers.s1={farm}/labels/sound"],
        1,
        ("sensor 's1' has bands 2", "bands 1 in 1", "labels/sound/sound.tif"),
    ),
}

RASTERS: dict[str, Case] = {
    "label elsewhere": (raster("elsewhere"), 1, ("lies at (500000.0, 5000000.0), that of its label", "set align to resample")),
    "label half a pixel off": (raster("half_pixel"), 1, ("at (500005.0, 5000000.0)",)),
    "label in another CRS": (raster("other_crs"), 1, ("CRS is EPSG:32632, that of its label", "EPSG:32633")),
    "label of another size": (raster("small"), 1, ("48 x 48 pixels", "24 x 24")),
    "code that is not listed": (coded("{values: {10: land}}"), 1, ("labels/codes/sound.tif: value 40 in", "unlisted: ignore")),
    "code of a near-miss class": (coded("{values: {10: lnd}}"), 2, ("no class 'lnd'; did you mean 'land'?",)),
    "code of class 9 of 6": (coded("{values: {10: 9}}"), 2, ("class 9 is not in scheme 'six', which has classes 0 to 5",)),
    "values and colours": (coded("{values: {10: land}, colours: {'#ff0000': land}}"), 2, ("either values or colours",)),
    "colour of four digits": (coded("{colours: {'#0a0a': land}}"), 2, ("'#0a0a': expected six hexadecimal digits",)),
    "no codes": (coded("{}"), 2, ("with at least one entry",)),
    "codes cut short": (coded("{values: {10: la"), 1, ("no such file",)),
    "codes that are a web page": (coded("{farm}/schemes/html.json"), 2, ("html.json: expected a mapping of keys",)),
}

POLYGONS: dict[str, Case] = {
    "no column": (vector("sound.gpkg", column=None), 1, ("say with label_column", "choices: kind, number")),
    "near-miss column": (vector("sound.gpkg", column="knd"), 1, ("has no column 'knd'; did you mean 'kind'?",)),
    "column of fractions": (vector("sound.gpkg", column="number"), 1, ("'1.5' (1 features), 'null' (1 features)", "label_values")),
    "value without a class": (vector("swamp.gpkg"), 1, ("'swamp' (1 features)", "label_values.VALUE=CLASS, or ignore")),
    "value of a near-miss class": (vector("swamp.gpkg", "label_values.swamp=watr"), 2, ("did you mean 'water'?",)),
    "empty cell": (vector("empty_cell.gpkg"), 1, ("'null' (1 features)",)),
    "points for polygons": (vector("points.gpkg"), 1, ("no polygon among 2 features (Point)",)),
    "no feature": (vector("no_feature.gpkg"), 1, ("no_feature.gpkg: holds no feature",)),
    "polygons without a CRS": (vector("no_crs.shp"), 1, ("no_crs.shp has no CRS", "assign one")),
    "polygons cut short": (vector("cut.gpkg"), 1, ("cut.gpkg: cannot be read as polygons",)),
    "polygons that are a web page": (vector("html.geojson"), 1, ("html.geojson: cannot be read as polygons",)),
    "two layers": (vector("layers.gpkg"), 1, ("holds 2 layers; choose one with label_layer; choices: first, second",)),
    "near-miss layer": (vector("layers.gpkg", "--label-layer", "frist"), 1, ("no layer 'frist'; did you mean 'first'?",)),
    "near-miss class outside": (vector("sound.gpkg", "--outside", "watr"), 2, ("outside: scheme 'six' has no class 'watr'",)),
    "no such polygons": (vector("none.gpkg"), 1, ("none.gpkg: no such folder or file of labels",)),
    "polygons of an image without a place": (
        [word.replace("sound.tif", "no_crs.tif") for word in vector("sound.gpkg")],
        1,
        ("no_crs.tif: has no CRS, so the polygons",),
    ),
    "made labels below a file": (vector("sound.gpkg", "--derived", "{farm}/file"), 1, ("cannot be made: {farm}/file is a file",)),
}

TABLES: dict[str, Case] = {
    "no column of images": (table("no_image.csv"), 1, ("has no column 'image'; name it with columns.image=NAME; choices: file",)),
    "near-miss column of a table": (table("sound.csv", "columns.image=imag"), 1, ("did you mean 'image'?",)),
    "near-miss name of a column": (table("sound.csv", "columns.imge=image"), 2, ("columns.imge", "did you mean 'image'?")),
    "columns parted by semicolons": (table("semicolon.csv"), 1, ("choices: image;split",)),
    "head without rows": (table("head.csv"), 1, ("head.csv: holds no row",)),
    "table of no bytes": (table("empty.csv"), 1, ("empty.csv: cannot be read as a table",)),
    "row of another length": (table("ragged.csv"), 1, ("ragged.csv: cannot be read as a table", "Expected 2 columns")),
    "empty cell for an image": (table("gap.csv"), 1, ("column 'image' has 1 empty cells",)),
    "image twice": (table("twice.csv"), 1, ("1 tile ids occur more than once, first 'twice/scenes/sound'", "columns.tile_id")),
    "no image there": (table("gone.csv"), 1, ("tables/none/", "no such file; none of 2 images can be used")),
    "window outside": (table("outside.csv", "--headers"), 1, ("[40, 0, 32, 32]", "outside of its 48 x 48 pixels")),
    "window of half pixels": (table("halves.csv"), 1, ("windows must be whole numbers of pixels",)),
    "window without a height": (table("three.csv", "columns.col=col"), 1, ("no column for height",)),
    "window without pixels": (
        table("no_pixels.csv"),
        1,
        ("tables/no_pixels.csv: tile 'no_pixels/sound': window [0, 0, 0, 32] has no pixels",),
    ),
    "neither windows nor headers": (table("sound.csv", "--no-headers"), 2, ("has no windows; give window_px",)),
    "labels without a scheme": (table("label.csv"), 1, ("labels need a class scheme; give scheme=FILE",)),
    "unknown trust": (
        table("trust.csv", "--scheme", "{farm}/schemes/six.json"),
        1,
        ("tables/trust.csv: label_kind 'great' is unknown; choices: clean, noisy",),
    ),
    "date in words": (table("date.csv"), 1, ("column 'datetime' holds no times in ISO 8601", "last summer")),
    "broken footprint": (table("wkt.csv"), 1, ("column geometry holds no WKT",)),
    "numbers for images": (table("numbers.csv"), 1, ("column 'image' holds int64, expected paths",)),
    "images of another sensor": (table("radar.csv"), 1, ("sensor 'rgb' has bands 3", "bands 2 in 1")),
    "table that is a web page": (table("html.parquet"), 1, ("html.parquet: cannot be read as a table",)),
    "table of a spreadsheet": (table("sheet.xlsx"), 2, ("a table ends in .parquet, .csv", "tilth catalog build")),
    "table that is a folder": (table(""), 2, ("a table ends in .parquet",)),
}

DATA_SETS: dict[str, Case] = {
    "label 17 of 6 classes": (prepare("pairs_17"), 1, ("masks/a.png: value 17 in 3 pixels, expected class ids 0 to 5",)),
    "label 300": (prepare("pairs_300"), 1, ("label value 300 found; class ids are integers from 0 to 255",)),
    "label 2.5": (prepare("pairs_half"), 1, ("label value 2.5 found",)),
    "colours for ids": (prepare("pairs_colour"), 1, ("a label needs one band of class ids, found 3 bands",)),
    "ids for colours": (prepare("pairs", "image-mask-colours"), 1, ("masks/a.png: colour #", "expected #00FF09")),
    "masks that are missing": (prepare("pairs_jpg"), 1, ("1 of 1 images have no mask", "--partial")),
    "two masks of one image": (prepare("pairs_twice"), 1, ("a.tif: the same mask as", "keep one of them")),
    "card that is a web page": (["datasets", "info", "{farm}/schemes/html.json"], 2, ("unknown data set", ".yaml")),
    "card cut short": (["datasets", "info", "{farm}/schemes/torn.yaml"], 2, ("torn.yaml: not YAML",)),
    "card of something else": (["datasets", "info", "{farm}/model_rgb/none.yaml"], 1, ("none.yaml: no such file",)),
    "near-miss data set": (["datasets", "info", "lovda"], 2, ("did you mean 'loveda'?",)),
    "data set that is a file": (prepare("file", "loveda"), 1, ("file: no such folder of data set 'loveda'", "--download")),
}

CASES = FOLDERS | RASTERS | POLYGONS | TABLES | DATA_SETS


@pytest.mark.parametrize("name", CASES)
def test_labels_and_tables_that_cannot_be_used_are_refused_in_one_line(name, weeds, tmp_path, capsys):
    refuse(CASES[name], weeds, tmp_path, main, capsys.readouterr)
