"""Imagery, models and requests that ``predict``, ``catalog build`` and ``inspect`` cannot serve: refused in one line, nothing left."""

import pytest

from support.wrong_calls import Case, refuse
from tilth.cli.main import main

SMALL = ["inference.window=32", "inference.overlap=8"]


def scene(name: str, *more: str, model: str = "rgb") -> list[str]:
    """Predict a scene of the folder ``scenes``, or of another that is named."""
    place = f"{{farm}}/{name}" if "/" in name else f"{{farm}}/scenes/{name}"
    return ["predict", f"{{farm}}/model_{model}", place, "--out", "{out}/map.tif", *SMALL, *more]


def mosaic(*names: str) -> list[str]:
    return ["predict", "{farm}/model_rgb", *(f"{{farm}}/scenes/{name}" for name in names), "--mosaic", "--out", "{out}/map.tif"]


def build(name: str, *more: str) -> list[str]:
    return ["catalog", "build", f"{{farm}}/{name}", "--sensor", "rgb", "--out", "{out}/x.parquet", *more]


DAMAGED: dict[str, Case] = {
    "scene of no bytes": (scene("empty.tif"), 1, ("scenes/empty.tif: cannot be read", "not recognized")),
    "scene that is a web page": (scene("html.tif"), 1, ("scenes/html.tif: cannot be read", "not recognized")),
    "scene cut in half": (scene("cut.tif"), 1, ("scenes/cut.tif: cannot be read, truncated",)),
    "scene with a torn tile": (scene("torn_tile.tif"), 1, ("scenes/torn_tile.tif: cannot be read", "IReadBlock failed")),
    "scene without columns": (scene("zero_size.tif"), 1, ("scenes/zero_size.tif: cannot be read",)),
    "virtual raster of a lost file": (scene("gone.vrt"), 1, ("scenes/gone.vrt: cannot be read", "gone.tif")),
    "pipe": (scene("pipe.tif"), 1, ("scenes/pipe.tif: is a pipe or a device", "give a file")),
    "device": (["predict", "{farm}/model_rgb", "/dev/zero", "--out", "{out}/map.tif"], 1, ("/dev/zero: is a pipe or a device",)),
    "link in a circle": (scene("links/loop.tif"), 1, ("links/loop.tif: no such file",)),
    "link to nothing": (scene("links/dead.tif"), 1, ("links/dead.tif: no such file",)),
    "folder called like a raster": (scene("links/folder.tif"), 1, ("links/folder.tif: is a folder without a raster",)),
    "web page called jpg": (scene("plain/html.jpg"), 1, ("plain/html.jpg: truncated or damaged: no image that can be read",)),
    "png cut in half": (scene("plain/cut.png"), 1, ("plain/cut.png: truncated or damaged",)),
    "array cut in half": (scene("plain/cut.npy"), 1, ("plain/cut.npy: truncated or damaged",)),
    "array of objects": (scene("plain/objects.npy"), 1, ("plain/objects.npy: truncated or damaged", "Python objects")),
    "array of four axes": (scene("plain/four_axes.npy"), 1, ("expected real numbers of shape (C, H, W) or (H, W)", "(1, 3, 8, 8)")),
    "wrong scene among right ones": (
        ["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "{farm}/scenes/html.tif", "--out", "{out}"],
        1,
        ("scenes/html.tif: cannot be read",),
    ),
    "catalog of a web page": (build("scenes/html.tif"), 1, ("html.tif: cannot be read", "none of 1 images can be used")),
    "catalog of a link in a circle": (build("links/loop.tif"), 1, ("links/loop.tif: no such file or folder",)),
    "catalog of an empty folder": (build("links/folder.tif"), 1, ("links/folder.tif: no image found; looked for .tif",)),
    "catalog of everything, strictly": (build("scenes", "--strict"), 1, ("scenes/complex.tif: complex numbers",)),
    "images that would share a name": (build("plain"), 1, ("cut.png and", "cut.npy would share the tile id 'plain/cut'")),
    "inspect a missing folder": (["inspect", "{farm}/none"], 1, ("none: no such folder",)),
    "inspect a file": (["inspect", "{farm}/file"], 2, ("file: is a file; give the folder that holds it",)),
    "starter for an empty folder": (["inspect", "{farm}/nothing", "--out", "{out}/r"], 1, ("no starter recipe: empty: no files",)),
    "starter without imagery": (["inspect", "{farm}/vectors", "--out", "{out}/r"], 1, ("no starter recipe", "without imagery")),
    "inspect with a near-miss sensor": (["inspect", "{farm}/pairs", "--sensor", "rgbb"], 2, ("did you mean 'rgb'?",)),
    "inspect with another sensor": (["inspect", "{farm}/pairs", "--sensor", "s1"], 1, ("'s1' has 2 bands", "leave --sensor out")),
}

OF_ANOTHER_KIND: dict[str, Case] = {
    "300 bands": (scene("bands_300.tif"), 1, ("has 300 bands", "expects sensor 'rgb': 3 bands", "--bands 1,2,3")),
    "band 301 of 300": (scene("bands_300.tif", "--bands", "1,2,301"), 2, ("no band '301'", "1 to 300")),
    "one band": (scene("plain/grey.png"), 1, ("has 1 band;", "cannot be made up")),
    "bands in another order": (scene("swapped.tif"), 1, ("band 1 is described as 'blue' where 'red' belongs", "--bands red,green,blue")),
    "16 bits": (scene("wide.tif"), 1, ("stores uint16; the model expects sensor 'rgb': 3 bands of uint8", "gdal_translate")),
    "16-bit png": (scene("plain/deep.png"), 1, ("plain/deep.png: stores uint16",)),
    "complex numbers": (scene("complex.tif"), 1, ("complex numbers (complex64); store amplitude or decibels",)),
    "model of another sensor": (scene("sound.tif", model="s1"), 1, ("has 3 bands; the model expects sensor 's1': 2 bands of float32",)),
    "catalog of 300 bands": (build("scenes/bands_300.tif"), 1, ("sensor 'rgb' has bands 3", "bands 300 in 1", "choose the sensor")),
    "catalog of 16 bits": (build("scenes/wide.tif"), 1, ("sensor 'rgb' has type uint8", "type uint16 in 1")),
    "weights cut in half": (scene("sound.tif", model="cut"), 1, ("model_cut/model.safetensors: damaged weights",)),
    "model of a newer version": (scene("sound.tif", model="newer"), 1, ("written by a newer tilth (schema 99", "upgrade")),
    "model that is a web page": (scene("sound.tif", model="html"), 1, ("model_html/config.json: not JSON",)),
    "weights of another network": (scene("sound.tif", model="other"), 1, ("do not fit the network of config.json",)),
    "model that is a file": (
        ["predict", "{farm}/file", "{farm}/scenes/sound.tif", "--out", "{out}/m.tif"],
        1,
        ("file: not a model folder",),
    ),
}

GROUND: dict[str, Case] = {
    "CRS that is none": (scene("sound.tif", "--crs", "EPSG:99999"), 2, ("unknown coordinate reference system 'EPSG:99999'",)),
    "resampled without a place": (scene("no_crs.tif", "--resolution", "5"), 2, ("has no CRS", "leave out --crs and --resolution")),
    "resolution coarser than the scene": (scene("sound.tif", "--resolution", "5000"), 2, ("coarser than", "units of the CRS: metres")),
    "resolution in the wrong unit": (scene("sound.tif", "--resolution", "0.00001"), 2, ("48,000,000 x 48,000,000 pixels", "metres")),
    "resolution that is no number": (scene("sound.tif", "--resolution", "nan"), 2, ("--resolution: expected a finite number",)),
    "area that is a web page": (scene("sound.tif", "--area", "{farm}/vectors/html.geojson"), 1, ("html.geojson: cannot be read",)),
    "area that is a raster": (scene("sound.tif", "--area", "{farm}/scenes/sound.tif"), 1, ("cannot be read as a vector file",)),
    "area cut short": (scene("sound.tif", "--area", "{farm}/vectors/cut.gpkg"), 1, ("cut.gpkg: cannot be read", "malformed")),
    "area of points": (scene("sound.tif", "--area", "{farm}/vectors/points.gpkg"), 1, ("holds no polygon",)),
    "area without a feature": (scene("sound.tif", "--area", "{farm}/vectors/no_feature.gpkg"), 1, ("holds no polygon",)),
    "area without a CRS": (scene("sound.tif", "--area", "{farm}/vectors/no_crs.shp"), 1, ("no_crs.shp: names no CRS",)),
    "area elsewhere": (scene("sound.tif", "--area", "{farm}/vectors/elsewhere.gpkg"), 1, ("lies outside of it (columns 100000 to 100048",)),
    "area off the Earth": (scene("sound.tif", "--area", "{farm}/vectors/off_the_earth.gpkg"), 1, ("cannot be taken into its CRS",)),
    "area of a scene without a place": (scene("no_place.tif", "--area", "{farm}/vectors/sound.gpkg"), 2, ("leave out --area",)),
    "bounds elsewhere": (scene("sound.tif", "--bounds", "0,0,1,1"), 1, ("bounds lies outside of it", "EPSG:32632")),
    "bounds off the Earth": (
        scene("sound.tif", "--bounds", "900,450,901,451", "--bounds-crs", "EPSG:4326"),
        2,
        ("cannot be taken from EPSG:4326", "Invalid latitude"),
    ),
    "bounds in a CRS that is none": (scene("sound.tif", "--bounds", "1,2,3,4", "--bounds-crs", "EPSG:4x"), 2, ("'EPSG:4x' of the bounds",)),
    "mosaic with a scene without a place": (mosaic("sound.tif", "no_crs.tif"), 2, ("no_crs.tif: has no CRS", "no place in a mosaic")),
    "mosaic of two sensors": (mosaic("sound.tif", "radar.tif"), 1, ("radar.tif: has 2 bands",)),
    "mosaic of two continents": (mosaic("sound.tif", "dateline.tif"), 1, ("lie far apart", "map them one by one")),
    "no date": (scene("sound.tif", "--period", "2019-01-01,2019-02-01"), 1, ("neither tags nor name say when", "--datetime-pattern")),
    "name that is no date": (
        scene("sound.tif", "--period", "2019-01-01,2019-02-01", "--datetime-pattern", "(sound)"),
        1,
        ("datetime_pattern found 'sound', which is no date",),
    ),
    "windows in metres without a place": (build("scenes/no_crs.tif", "--window-m", "100"), 1, ("no place on the Earth", "use window_px")),
    "windows smaller than a pixel": (build("scenes/sound.tif", "--window-m", "0.001"), 1, ("pixels are 10 m on the ground",)),
    "windows larger than the image": (
        build("scenes/sound.tif", "--window-m", "1e9", "--edge", "drop"),
        1,
        ("no image is as large as a window", "edge: shift"),
    ),
}

CASES = DAMAGED | OF_ANOTHER_KIND | GROUND


@pytest.mark.parametrize("name", CASES)
def test_imagery_that_cannot_be_used_is_refused_in_one_line(name, weeds, tmp_path, capsys):
    refuse(CASES[name], weeds, tmp_path, main, capsys.readouterr)
