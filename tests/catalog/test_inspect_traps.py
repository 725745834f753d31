"""Traps that a data set holds are named; a sound one has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tilth
from support.strange_folders import blobs, colour_mask, mask, noise, pairs, picture, raster, reflectance
from tilth.imagery.write import write_raster


def traps(folder: Path, **options: object) -> dict[str, str]:
    return {trap["key"]: trap["text"] for trap in tilth.inspect(folder=folder, **options).values["traps"]}


def with_masks(root: Path, values: list[int], count: int = 3) -> Path:
    for index in range(count):
        picture(root / "images" / f"{index}.jpg")
        mask(root / "masks" / f"{index}.png", values)
    return root


@pytest.mark.parametrize(
    ("values", "key", "text"),
    [
        ([10, 20, 50, 90], "label codes", "its values are codes (10, 20, 50, 90)"),
        ([1, 2, 3], "label codes", "shifted by one: values 1, 2, 3 begin at 1"),
        ([0, 255], "label codes", "Everything marked would be ignored: masks holds 0 and 255"),
        ([0, 400, 900], "label codes", "its values are codes (0, 400, 900)"),
        ([3], "one class", "Nothing can be told apart"),
    ],
)
def test_values_that_are_no_class_ids(tmp_path: Path, values: list[int], key: str, text: str):
    assert text in traps(with_masks(tmp_path, values))[key]


def test_values_outside_of_the_class_file(tmp_path: Path):
    with_masks(tmp_path, [0, 1, 5])
    (tmp_path / "classes.json").write_text('{"classes": [{"name": "a", "colour": [0, 0, 0]}, {"name": "b", "colour": [9, 9, 9]}]}')
    found = traps(tmp_path)
    assert "A build would stop: masks holds values that classes.json does not list: 5 (" in found["label value"]


def test_a_class_file_that_calls_a_value_no_data(tmp_path: Path):
    with_masks(tmp_path, [0, 1, 2])
    (tmp_path / "classes.json").write_text('{"0": "no data", "1": "land", "2": "water", "3": "snow"}')
    found = traps(tmp_path)
    assert "would be learnt as a class: masks means no label by 0 (no data); tilth ignores 255 only" in found["no-data class"]
    assert found["class absent"].startswith("snow: listed for masks")
    assert "not read by catalog build in this form" in found["class file"]


def test_masks_in_colours_and_in_palettes(tmp_path: Path):
    for index in range(3):
        picture(tmp_path / "images" / f"{index}.jpg")
        colour_mask(tmp_path / "masks" / f"{index}.png", [(60, 16, 152), (132, 41, 246)])
        indexed = Image.fromarray(blobs(f"p{index}", [0, 1, 2]).astype(np.uint8))
        indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        (tmp_path / "indexed_masks").mkdir(exist_ok=True)
        indexed.save(tmp_path / "indexed_masks" / f"{index}.png")
    found = traps(tmp_path)
    assert "#3C1098" in found["label colours"]
    assert "#8429F6" in found["label colours"]
    assert found["label palette"].startswith("indexed_masks is a palette image")
    assert "2 for the same images" in found["several labels"]


def test_masks_in_palettes_of_geotiffs(tmp_path: Path):
    for index in range(3):
        picture(tmp_path / "images" / f"{index}.jpg")
        ids = blobs(f"p{index}", [0, 1, 2]).astype(np.uint8)
        colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
        write_raster(tmp_path / "masks" / f"{index}.tif", ids, crs=None, transform=None, colours=colours)
    assert traps(tmp_path)["label palette"].startswith("masks is a palette image")


def test_masks_that_jpeg_has_blurred(tmp_path: Path):
    for index in range(3):
        picture(tmp_path / "images" / f"{index}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        # Moved off the grid of JPEG's own blocks, which would keep the patches sharp.
        shapes = np.roll(blobs(str(index), [0, 100, 200]), (5, 3), (0, 1)).astype(np.uint8)
        Image.fromarray(shapes).save(tmp_path / "masks" / f"{index}.jpg", quality=80)
    assert "as JPEG leaves them; get the masks in a lossless format" in traps(tmp_path)["label jpeg"]


def test_percent_and_quantities_are_no_classes(tmp_path: Path):
    for index in range(3):
        raster(tmp_path / "optical" / f"{index}.tif", reflectance(str(index), 4), east=None)
        raster(tmp_path / "label_pct" / f"{index}.tif", noise(f"p{index}", 1, 64, 64, high=112).astype("uint8"), east=None)
        raster(tmp_path / "target" / f"{index}.tif", (noise(f"t{index}", 1, 64, 64, high=9000) / 30).astype("float32"), east=None)
    found = traps(tmp_path)
    assert "of the pixels hold values above 100 (up to 111), which are invalid" in found["label percent"]
    assert "target cannot be trained on: a quantity from 0 to 299.9" in found["regression"]


def test_rare_classes_and_classes_that_a_split_lacks(tmp_path: Path):
    for index in range(4):
        picture(tmp_path / "images" / f"i{index}.jpg")
        whole = np.zeros((1, 64, 64), dtype=np.uint8)
        whole[0, :20] = 1
        if index < 2:
            whole[0, 0, :20] = 2
        raster(tmp_path / "masks" / f"i{index}.tif", whole, east=None)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("i0\ni1\ni2\n")
    (tmp_path / "splits" / "test.txt").write_text("i3\n")
    found = traps(tmp_path)
    assert "value 2 0.24 % of masks" in found["imbalance"] or "2 0.24 % of masks" in found["imbalance"]
    assert "No score is possible for value 2 in test" in found["class absent in split"]
    assert "4 labelled images only" in found["few labels"]


def test_split_files_that_contradict_themselves(tmp_path: Path):
    pairs(tmp_path, 4)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("i0\ni1\nlost\n")
    (tmp_path / "splits" / "test.txt").write_text("i1\n")
    found = traps(tmp_path)
    assert "1 names are in two splits, such as i1" in found["split twice"]
    assert "1 of 3 lines name no image, such as lost" in found["split lines"]
    assert found["no split"].startswith("2 of 4 images take no part")


def test_masks_of_another_size_and_without_image(tmp_path: Path):
    pairs(tmp_path, 4)
    mask(tmp_path / "masks" / "i2.png", [0, 1], 32)
    mask(tmp_path / "masks" / "i9.png", [0, 1])
    (tmp_path / "masks" / "i3.png").unlink()
    found = traps(tmp_path)
    assert "1 of 3 images would be left out" in found["label size"]
    assert "i2: 64 x 64, mask 32 x 32" in found["label size"]
    assert found["label without image"].startswith("1 of 4 labels in masks belong to no image")
    assert found["image without label"].startswith("1 of 4 images have no label in masks")


def test_names_that_no_pattern_joins(tmp_path: Path):
    for index in range(3):
        picture(tmp_path / f"{index}_sat.jpg")
        mask(tmp_path / f"{index}_mask.png", [0, 1])
    assert "cannot pair" in traps(tmp_path)["label names"]


def test_empty_pixels_that_no_file_declares(tmp_path: Path):
    black = noise("b", 3, 640, 640).astype("uint8")
    black[:, :, :200] = 0
    raster(tmp_path / "black" / "a.tif", black, crs="EPSG:3395", east=13_000_000.0, north=1_640_000.0, pixel=0.1)
    assert "a.tif has black surroundings and no nodata value" in traps(tmp_path / "black")["black border"]
    empty = reflectance("e", 12, 128)
    empty[:, :, -20:] = 0
    raster(tmp_path / "edge" / "a.tif", empty)
    assert "a.tif has an empty edge of zeros" in traps(tmp_path / "edge")["empty edge"]
    filled = reflectance("f", 4, 128).astype("int16")
    filled[:, :9, :9] = -9999
    raster(tmp_path / "filled" / "a.tif", filled)
    assert "-9999 in every band, no file calls that nodata" in traps(tmp_path / "filled")["untagged nodata"]
    raster(tmp_path / "declared" / "a.tif", filled, nodata=-9999)
    declared = traps(tmp_path / "declared")
    assert "declares nodata -9999, 0.5 % of the pixels" in declared["nodata"]
    assert "untagged nodata" not in declared


def test_numbers_that_are_scaled_otherwise(tmp_path: Path):
    bands = (*(f"B{number:02d}" for number in (1, 2, 3, 4, 5, 6, 7, 8)), "B8A", "B09", "B11", "B12")
    raster(tmp_path / "display" / "a.tif", (reflectance("x", 12).astype(float) * 6.55).astype("uint16"), names=bands)
    assert "holds reflectance x 65535" in traps(tmp_path / "display")["scale"]
    newer = reflectance("y", 12).astype("uint16")
    newer[0] = 60
    raster(tmp_path / "newer" / "a.tif", newer + 1000, names=bands)
    assert "the offset of 1000 of newer products is in" in traps(tmp_path / "newer")["offset"]
    raster(tmp_path / "mixed" / "a.tif", newer + 1000, names=bands)
    raster(tmp_path / "mixed" / "b.tif", newer, names=bands, east=900_000.0)
    assert traps(tmp_path / "mixed")["mixed baseline"].startswith("1 of 2 images")
    raster(tmp_path / "sound" / "a.tif", newer, names=bands)
    assert not {"scale", "offset", "mixed baseline", "band order"} & traps(tmp_path / "sound").keys()


def test_pictures_of_satellites_and_two_dates_in_one_file(tmp_path: Path):
    for index in range(3):
        raster(tmp_path / "s1" / f"{index}.tif", noise(f"a{index}", 2, 64, 64).astype("uint8"), east=None, names=("pre", "post"))
        raster(tmp_path / "s2" / f"{index}.tif", noise(f"b{index}", 3, 64, 64).astype("uint8"), east=None)
    found = traps(tmp_path)
    assert "8-bit pictures, stretched for the eye, without a physical unit" in found["8-bit composite"]
    assert found["dates stacked"].startswith("s1 holds two dates in one file (bands pre, post)")
    assert "Maps will have no place" in found["no CRS"]


def test_bands_that_tell_nothing_of_the_surface(tmp_path: Path):
    data = noise("o", 4, 64, 64).astype("uint8")
    data[3] = 255
    for index in range(2):
        raster(tmp_path / "opaque" / f"{index}.tif", data, names=("red", "green", "blue", "x"))
    assert traps(tmp_path / "opaque")["alpha band"].startswith("Band 4 of")
    raster(tmp_path / "clouds" / "a.tif", reflectance("c", 4), names=("B02", "B03", "B04", "CLP"))
    assert "carries CLP as a band" in traps(tmp_path / "clouds")["quality band"]
    raster(tmp_path / "slope" / "a.tif", reflectance("d", 4), names=("B02", "B03", "B04", "slope"))
    assert "mixes slope with optical bands" in traps(tmp_path / "slope")["terrain band"]


def test_images_and_labels_that_show_nothing(tmp_path: Path):
    pairs(tmp_path, 3)
    for index in range(3):
        mask(tmp_path / "masks" / f"i{index}.png", [255])
    Image.new("RGB", (64, 64), (7, 7, 7)).save(tmp_path / "images" / "i0.jpg")
    found = traps(tmp_path)
    assert found["all ignored"] == "There is nothing to learn from masks: no pixel that was read has a label"
    assert "1 of 3 images of images show one value only, such as i0.jpg" in found["constant image"]


def test_arrays_whose_axes_are_in_another_order(tmp_path: Path):
    np.save(tmp_path / "a.npy", noise("npy", 64, 64, 3).astype("float32"))
    assert "seem to be (rows, columns, bands)" in traps(tmp_path)["axis order"]


def test_places_that_mislead(tmp_path: Path):
    data = noise("m", 3, 300, 300).astype("uint8")
    raster(tmp_path / "a.tif", data, crs="EPSG:3857", east=1_500_000.0, north=6_900_000.0, pixel=1.0)
    raster(tmp_path / "b.tif", data, crs="EPSG:4326", east=13.0, north=52.0, pixel=0.00001)
    raster(tmp_path / "c.tif", data, east=None)
    found = traps(tmp_path)
    assert "a.tif says 1 m, it is 0.609 m" in found["stretched metres"]
    assert "the CRS is in degrees" in found["degrees"]
    assert found["some without CRS"].startswith("1 of 3 images have no CRS")
    assert "2 coordinate systems" in found["mixed CRS"]


def test_common_ground_of_splits_and_of_dates(tmp_path: Path):
    data = noise("g", 3, 64, 64).astype("uint8")
    for stem, east in (("x_20200101", 500_000.0), ("x_20210101", 500_000.0), ("y_20200101", 500_320.0), ("z_20200101", 700_000.0)):
        raster(tmp_path / "images" / f"{stem}.tif", data, east=east)
        mask(tmp_path / "masks" / f"{stem}.png", [0, 1])
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("x_20200101\nx_20210101\nz_20200101\n")
    (tmp_path / "splits" / "test.txt").write_text("y_20200101\n")
    found = traps(tmp_path)
    assert "2 pairs of images of different splits see common ground" in found["split overlap"]
    assert "One pair of images shows the same ground at two dates (2020-01-01, 2021-01-01)" in found["two dates"]
    assert "3 of 4 share ground" in found["common ground"]
    (tmp_path / "splits" / "train.txt").write_text("x_20200101\nx_20210101\ny_20200101\n")
    (tmp_path / "splits" / "test.txt").write_text("z_20200101\n")
    found = traps(tmp_path)
    assert "split overlap" not in found
    assert found["common ground"].endswith("; the given splits do not")


def test_sizes_types_and_mixtures(tmp_path: Path):
    raster(tmp_path / "a.tif", noise("a", 3, 40, 40).astype("uint8"), east=None)
    raster(tmp_path / "b.tif", noise("b", 3, 40, 60).astype("uint8"), east=None)
    raster(tmp_path / "c.tif", noise("c", 2, 40, 40).astype("float64"), east=None)
    found = traps(tmp_path)
    assert "2 sizes" in found["mixed sizes"]
    assert "no image is larger than" in found["tiny images"]
    assert "stored as float64; tilth takes uint8, uint16, int16, float32" in found["type"]
    assert "One catalog cannot take all of the folder" in found["mixed imagery"]


def test_damaged_empty_and_hidden_files(tmp_path: Path):
    pairs(tmp_path, 3)
    whole = raster(tmp_path / "images" / "cut.tif", noise("cut", 3, 64, 64).astype("uint8"), east=None)
    whole.write_bytes(whole.read_bytes()[:900])
    (tmp_path / "images" / "nothing.jpg").touch()
    (tmp_path / "images" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "images" / "text.png").write_text("no picture")
    result = tilth.inspect(folder=tmp_path)
    found = {trap["key"]: trap["text"] for trap in result.values["traps"]}
    assert {Path(item["file"]).name for item in result.values["unreadable"]} == {"cut.tif", "text.png"}
    assert found["unreadable"].startswith("2 files will be left out")
    assert found["empty file"] == "1 file of no bytes, such as nothing.jpg"
    assert "1 hidden or system files were passed over" in found["hidden files"]
    assert result.values["imagery"][0]["files"] == 3


def test_series_and_their_labels(tmp_path: Path):
    for month in ("01", "04", "07"):
        raster(tmp_path / "s2" / f"aa_{month}.tif", reflectance(month, 6), east=None)
        raster(tmp_path / "s2" / f"bb_{month}.tif", reflectance("b" + month, 6), east=None)
    for place in ("aa", "bb"):
        raster(tmp_path / "label" / f"{place}.tif", blobs(place, [0, 1])[None].astype("uint8"), east=None)
    raster(tmp_path / "s2" / "bb_09.tif", np.full((6, 64, 64), 65535, dtype="uint16"), east=None, nodata=65535)
    found = traps(tmp_path)
    assert "7 images show 2 places at several times" in found["series"]
    assert found["label of several dates"].startswith("One label stands for 3.5 dates")
    assert "1 of 7 images of s2 are empty, such as bb_09.tif" in found["empty image"]


def test_map_tiles_and_scene_classes(tmp_path: Path):
    for name in ("619229-523266-20", "619230-523266-20", "619229-523267-20", "1238458-1046532-21"):
        picture(tmp_path / "tiles" / f"{name}.jpg")
    found = traps(tmp_path / "tiles")
    assert "a pixel is 0.15 m at zoom 20, 0.075 m at zoom 21" in found["map tiles"]
    assert found["nested tiles"].startswith("The same ground comes at several sizes: 1 tiles lie inside")
    for kind in ("beach", "forest", "harbor"):
        for index in range(5):
            picture(tmp_path / "scenes" / f"{kind}{index:02d}.jpg", 32)
    assert "(beach, forest, harbor, ...)" in traps(tmp_path / "scenes")["scene classes"]


def test_a_sound_data_set_has_no_serious_trap(tmp_path: Path):
    for index in range(32):
        raster(tmp_path / "images" / f"{index}.tif", noise(f"i{index}", 3, 64, 64).astype("uint8"), east=500_000.0 + 700 * index, pixel=0.5)
        raster(
            tmp_path / "masks" / f"{index}.tif", blobs(str(index), [0, 1, 2])[None].astype("uint8"), east=500_000.0 + 700 * index, pixel=0.5
        )
    (tmp_path / "classes.json").write_text(
        '{"classes": [{"name": "a", "colour": [0, 0, 0]}, {"name": "b", "colour": [9, 9, 9]}, {"name": "c", "colour": [9, 0, 9]}]}'
    )
    assert traps(tmp_path) == {}
