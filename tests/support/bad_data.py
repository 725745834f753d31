"""A folder of data as they should not be, or as they seldom are: imagery, labels, polygons, tables, catalogs, models and results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from PIL import Image

import tilth
from support.bad_imagery import (
    CLASSES,
    ELSEWHERE,
    HALF_PIXEL,
    HTML,
    PLACE,
    SCHEME,
    SIDE,
    UTM,
    cut,
    ids,
    noise,
    plant_images,
    plant_links,
    plant_maps,
    plant_scenes,
    tif,
)
from support.tiny_farm import NETWORK
from tilth.imagery.write import write_json
from tilth.models.config import NetworkConfig
from tilth.models.segmenter import build_segmenter
from tilth.sensors import get_sensor

IMAGE = "../scenes/sound.tif"


def plant(root: Path) -> Path:
    """Everything; nothing of it is to be changed by a test."""
    plant_models(root)
    plant_scenes(root / "scenes")
    plant_images(root / "plain")
    plant_pairs(root)
    plant_schemes(root)
    plant_labels(root / "labels")
    plant_polygons(root / "vectors")
    plant_tables(root / "tables")
    plant_catalogs(root)
    plant_maps(root / "maps")
    plant_results(root)
    plant_links(root / "links", root / "plain" / "sound.png")
    (root / "nothing").mkdir()
    (root / "file").write_text("")
    return root


def plant_models(root: Path) -> None:
    """Networks with fresh weights for two sensors, and damaged ones."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("rgb", "s1"):
        build_segmenter(NetworkConfig(**NETWORK), get_sensor(name), SCHEME).save(root / f"model_{name}")
    for name in ("cut", "newer", "html", "other"):
        shutil.copytree(root / "model_rgb", root / f"model_{name}")
    cut(root / "model_rgb" / "model.safetensors", root / "model_cut" / "model.safetensors")
    (root / "model_html" / "config.json").write_bytes(HTML)
    config = json.loads((root / "model_rgb" / "config.json").read_text())
    write_json(root / "model_newer" / "config.json", config | {"schema_version": 99})
    write_json(root / "model_other" / "config.json", config | {"sensor": get_sensor("s1").model_dump(mode="json")})


def pair(folder: Path, label: Any = None, name: str = "a.png", scheme: bool = True) -> Path:
    """A folder of one image and its mask: an array or an image."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    Image.fromarray(noise(SIDE, SIDE, 3)).save(folder / "images" / "a.png")
    if name.endswith(".tif"):
        tif(folder / "masks" / name, label, crs=None, transform=None)
    elif label is not None:
        (Image.fromarray(label) if isinstance(label, np.ndarray) else label).save(folder / "masks" / name)
    if scheme:
        write_json(folder / "classes.json", SCHEME.model_dump(mode="json"))
    return folder


def plant_pairs(root: Path) -> None:
    """Pairs whose masks or split files are odd."""
    sound = ids()
    pair(root / "pairs", sound)
    beyond = sound.copy()
    beyond[0, :3] = 17
    pair(root / "pairs_17", beyond)
    pair(root / "pairs_16_bit", sound.astype(np.uint16))
    pair(root / "pairs_300", sound.astype(np.uint16) * 60)
    pair(root / "pairs_half", sound.astype(np.float32) / 2, "a.tif")
    pair(root / "pairs_nan", np.where(sound == 0, np.nan, sound).astype(np.float32), "a.tif")
    pair(root / "pairs_minus", np.where(sound == 0, -1, sound).astype(np.int16), "a.tif")
    indexed = Image.fromarray(sound, "P")
    indexed.putpalette([value for colour in SCHEME.colours for value in colour])
    pair(root / "pairs_palette", indexed)
    pair(root / "pairs_colour", np.array(SCHEME.colours, np.uint8)[sound])
    pair(root / "pairs_jpg", sound, "a.jpg")
    pair(root / "pairs_no_scheme" / "deep", sound, scheme=False)
    pair(root / "pairs_html")
    (root / "pairs_html" / "masks" / "a.png").write_bytes(HTML)
    pair(root / "pairs_twice", sound)
    tif(root / "pairs_twice" / "masks" / "a.tif", 5 - sound, crs=None, transform=None)
    for name, splits in {
        "both": {"train": b"a\n", "val": b"a\n"},
        "binary": {"train": b"\xff\xfe\x00a\n"},
        "suffix": {"train": b"a.png\n"},
        "windows": {"train": b"\xef\xbb\xbfa\r\n"},
    }.items():
        folder = pair(root / f"splits_{name}", sound) / "splits"
        folder.mkdir()
        for split, text in splits.items():
            (folder / f"{split}.txt").write_bytes(text)


def plant_schemes(root: Path) -> None:
    """Class schemes that are none, codes, and cards of data sets."""
    folder = root / "schemes"
    write_json(folder / "six.json", SCHEME.model_dump(mode="json"))
    land = {"name": "land", "colour": [9, 9, 9]}
    for name, scheme in {
        "same_name": {"classes": [land, land]},
        "colour": {"classes": [{"name": "land", "colour": [300, 0, 0]}]},
        "list": ["land", "water"],
        "none": {"classes": []},
        "gap": {"classes": [land | {"index": 0}, {"name": "water", "colour": [0, 0, 9], "index": 2}]},
        "ignore_0": {"classes": [land], "ignore_index": 0},
    }.items():
        write_json(folder / f"{name}.json", scheme)
    (folder / "html.json").write_bytes(HTML)
    (folder / "torn.yaml").write_text("classes: [{name: land, colour: [1, 2\n")
    (folder / "latin.yaml").write_bytes("classes: [{name: Gew\xe4sser, colour: [0, 0, 9]}]".encode("latin-1"))
    write_json(root / "codes.json", {"values": {10 * place + 10: name for place, name in enumerate(CLASSES)}})


def plant_labels(folder: Path) -> None:
    """Label rasters of ``scenes/sound.tif``, each in a folder of its own."""
    sound = ids()
    for name, shift in {"sound": PLACE, "elsewhere": ELSEWHERE, "half_pixel": HALF_PIXEL}.items():
        tif(folder / name / "sound.tif", sound, transform=shift, nodata=255)
    tif(folder / "other_crs" / "sound.tif", sound, crs="EPSG:32633", nodata=255)
    tif(folder / "small" / "sound.tif", sound[:24, :24])
    tif(folder / "codes" / "sound.tif", sound * 10 + 10, nodata=0)


def plant_polygons(folder: Path) -> None:
    """Vector files over ``scenes/sound.tif``."""
    folder.mkdir(parents=True)
    halves = [shapely.box(500_000, 4_999_520, 500_240, 5_000_000), shapely.box(500_240, 4_999_520, 500_480, 5_000_000)]
    sound = geopandas.GeoDataFrame({"kind": ["land", "water"], "number": [1.5, np.nan]}, geometry=halves, crs=UTM)
    sound.to_file(folder / "sound.gpkg")
    sound.assign(kind=["land", "swamp"]).to_file(folder / "swamp.gpkg")
    sound.assign(kind=[None, "water"]).to_file(folder / "empty_cell.gpkg")
    sound.to_file(folder / "no_crs.shp")
    (folder / "no_crs.prj").unlink()
    sound.set_geometry(sound.centroid).to_file(folder / "points.gpkg")
    sound.iloc[:0].to_file(folder / "no_feature.gpkg")
    sound.set_geometry(sound.translate(1e6)).to_file(folder / "elsewhere.gpkg")
    off = geopandas.GeoDataFrame(geometry=[shapely.box(900, 450, 901, 451)], crs="EPSG:4326")
    off.to_file(folder / "off_the_earth.gpkg")
    for layer in ("first", "second"):
        sound.to_file(folder / "layers.gpkg", layer=layer)
    bow = shapely.Polygon([(500_000, 5_000_000), (500_480, 4_999_520), (500_480, 5_000_000), (500_000, 4_999_520)])
    geopandas.GeoDataFrame({"kind": ["water"]}, geometry=[bow], crs=UTM).to_file(folder / "bow.gpkg")
    (folder / "html.geojson").write_bytes(HTML)
    cut(folder / "sound.gpkg", folder / "cut.gpkg", 0.02)


def plant_tables(folder: Path) -> None:
    """Tables of images."""
    folder.mkdir()
    for name, text in {
        "sound": f"image\n{IMAGE}\n",
        "no_image": f"file\n{IMAGE}\n",
        "head": "image,split\n",
        "empty": "",
        "ragged": f"image,split\n{IMAGE}\n{IMAGE},a,b\n",
        "gap": f"image,split\n{IMAGE},train\n,val\n",
        "twice": f"image\n{IMAGE}\n{IMAGE}\n",
        "gone": "image\nnone/a.tif\nnone/b.tif\n",
        "outside": f"image,col,row,width,height\n{IMAGE},40,0,32,32\n",
        "halves": f"image,col,row,width,height\n{IMAGE},0.5,0,32,32\n",
        "three": f"image,col,row,width\n{IMAGE},0,0,32\n",
        "no_pixels": f"image,col,row,width,height\n{IMAGE},0,0,0,32\n",
        "label": f"image,label\n{IMAGE},../labels/sound/sound.tif\n",
        "trust": f"image,label,label_kind\n{IMAGE},../labels/sound/sound.tif,great\n",
        "date": f"image,datetime\n{IMAGE},last summer\n",
        "wkt": f"image,geometry\n{IMAGE},POLYGON((0 0)\n",
        "numbers": "image\n1\n2\n",
        "radar": "image\n../scenes/radar.tif\n",
        "semicolon": f"image;split\n{IMAGE};train\n",
        "mark": f"\ufeffimage,split\n{IMAGE},train\n",
    }.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    (folder / "html.parquet").write_bytes(HTML)
    (folder / "sheet.xlsx").write_bytes(b"PK\x03\x04")


def plant_catalogs(root: Path) -> None:
    """Catalogs of what is above, and Parquet files that are none."""
    for name, folder in {"sound": "pairs", "beyond": "pairs_17", "wide": "pairs_300", "deep": "pairs_16_bit"}.items():
        tilth.catalog_build(inputs=[root / folder], sensor="rgb", out=root / f"{name}.parquet", split="test")
    scenes = root / "scenes"
    tilth.catalog_build(inputs=[scenes / "sound.tif"], sensor="rgb", window_px=16, out=root / "tiles.parquet")
    tilth.catalog_build(inputs=[scenes / "radar.tif"], sensor="s1", out=root / "radar.parquet")
    tilth.catalog_build(inputs=[scenes / "torn_tile.tif"], sensor="rgb", out=root / "torn.parquet")
    shutil.copytree(root / "pairs", root / "going")
    tilth.catalog_build(inputs=[root / "going"], sensor="rgb", out=root / "gone.parquet", split="test")
    shutil.rmtree(root / "going")
    cut(root / "sound.parquet", root / "cut.parquet")
    geopandas.read_file(root / "vectors" / "sound.gpkg").to_parquet(root / "no_catalog.parquet")


def plant_results(root: Path) -> None:
    """Reference points of ``maps/sound.tif``, result files that are none, and run folders."""
    (root / "points").mkdir()
    head = "x,y,reference\n"
    rows = "".join(f"{500_005 + 10 * column},{4_999_995 - 10 * row},land\n" for row in range(0, SIDE, 3) for column in range(0, SIDE, 3))
    for name, text in {
        "sound": head + rows,
        "unfilled": head + rows.replace("land", ""),
        "near_miss": head + rows.replace("land", "lnd"),
        "outside": f"{head}1,1,land\n",
        "no_place": "a,b,reference\n1,2,land\n",
        "words": f"{head}east,1,land\n",
        "head": head,
        "one": f"{head}500005,4999995,land\n",
        "degrees": "lon,lat,reference\n9,45,land\n",
    }.items():
        (root / "points" / f"{name}.csv").write_text(text)
    (root / "points" / "binary.csv").write_bytes(b"\xff\xfe\x00x")
    for name, text in {"html": HTML.decode(), "newer": '{"schema_version": 99}', "list": "[1]", "torn": '{"a": '}.items():
        (root / "results" / name).mkdir(parents=True)
        for file in ("metrics.json", "assessment.json", "comparison.json"):
            (root / "results" / name / file).write_text(text)
    (root / "runs" / "torn").mkdir(parents=True)
    (root / "runs" / "torn" / "recipe.yaml").write_text("verb: finetune\n")
    (root / "runs" / "torn" / "metrics.jsonl").write_text('{"step": 1, "kind": "train"}\nnot json\n{"step": 2, "kind": "train"}\n')
