"""What a folder is, for the layouts that people have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tilth
from support.strange_folders import blobs, colour_mask, mask, noise, pairs, picture, raster, reflectance
from tilth.errors import ConfigError, MissingFileError, SensorMismatchError, UsageError


def look(folder: Path, **options: object) -> dict:
    result = tilth.inspect(folder=folder, **options)
    assert len(result.summary) <= 45
    assert result.exit_code == 0
    return dict(result.values)


def image_mask_pairs(root: Path) -> None:
    pairs(root)


def label_in_a_folder_of_another_name(root: Path) -> None:
    pairs(root, images="optical", masks="gt_landuse")


def labels_beside_images(root: Path) -> None:
    for index in range(4):
        picture(root / f"{index}_sat.jpg")
        mask(root / f"{index}_mask.png", [0, 1, 2])


def splits_as_folders(root: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        pairs(root / split, count)


def splits_inside_folders(root: Path) -> None:
    for split, count in (("train", 5), ("val", 2)):
        pairs(root, count, images=f"images/{split}", masks=f"masks/{split}")


def sensors_of_one_place(root: Path) -> None:
    for index in range(3):
        east = 500_000.0 + 2000 * index
        raster(
            root / "s1" / f"p{index}.tif", -1500 + noise(f"s{index}", 2, 64, 64, high=400).astype("int16"), east=east, names=("VV", "VH")
        )
        raster(root / "s2" / f"p{index}.tif", reflectance(f"r{index}", 12), east=east)
        raster(root / "dem" / f"p{index}.tif", noise(f"d{index}", 1, 64, 64, high=300).astype("int16"), east=east, names=("elevation_m",))


def months_of_places(root: Path) -> None:
    for place in ("aa", "bb"):
        for month in ("01", "04", "07"):
            raster(root / "s2" / f"{place}_{month}.tif", reflectance(place + month, 6), east=None)
        raster(root / "label" / f"{place}.tif", blobs(place, [0, 1])[None].astype("uint8"), east=None)


def months_of_one_place(root: Path) -> None:
    for month in range(1, 6):
        raster(root / f"2021-{month:02d}.tif", reflectance(str(month), 6))


def before_and_after(root: Path) -> None:
    for index in range(3):
        picture(root / "A" / f"{index}.png")
        picture(root / "B" / f"{index}.png")
        mask(root / "label" / f"{index}.png", [0, 1])


def oriented_boxes(root: Path) -> None:
    picture(root / "images" / "P1.png")
    (root / "labelTxt").mkdir()
    (root / "labelTxt" / "P1.txt").write_text("imagesource:x\ngsd:0.2\n1 2 30 2 30 9 1 9 ship 0\n")


def map_tiles(root: Path) -> None:
    for column, row in ((619229, 523266), (619230, 523266), (619229, 523267), (619230, 523267)):
        picture(root / f"{column}-{row}-20.jpg")
    picture(root / "1238458-1046532-21.jpg")


def large_scenes(root: Path) -> None:
    for index in range(2):
        raster(root / f"scene_{index}.tif", noise(f"big{index}", 3, 640, 700).astype("uint8"), east=500_000.0 + 9000 * index)


def pool_of_pictures(root: Path) -> None:
    for index in range(4):
        picture(root / "city" / f"{index}.jpg")
        picture(root / "field" / f"{index}.jpg")


def tables_only(root: Path) -> None:
    root.joinpath("ids.csv").write_text("id\n1\n2\n")


def text_only(root: Path) -> None:
    root.joinpath("notes.txt").write_text("nothing here")


def archives_only(root: Path) -> None:
    root.joinpath("data.zip").write_bytes(b"PK")


def containers_only(root: Path) -> None:
    root.joinpath("a.h5").write_bytes(b"\x89HDF")


def nothing(_root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("plant", "kind", "said"),
    [
        (image_mask_pairs, "image/label pairs", "4 labelled images"),
        (label_in_a_folder_of_another_name, "image/label pairs", "labels of 3 classes"),
        (labels_beside_images, "image/label pairs", "4 labelled images"),
        (splits_as_folders, "image/label pairs", "9 labelled images"),
        (splits_inside_folders, "image/label pairs", "7 labelled images"),
        (sensors_of_one_place, "several rasters of one place", "3 places seen several ways (dem, s1, s2)"),
        (months_of_places, "time series", "2 places, 6 images in all"),
        (months_of_one_place, "time series", "1 place, 5 images in all (2021-01 to 2021-05)"),
        (before_and_after, "change pairs", "3 pairs of images before and after with labels of what changed"),
        (oriented_boxes, "oriented boxes", "1 image with boxes drawn around objects (1 text file)"),
        (map_tiles, "web-map tiles", "5 tiles of a web map (zoom 20 to 21)"),
        (large_scenes, "scenes", "2 scenes: colour pictures, 700 x 640 px, 10 m on the ground, without labels"),
        (pool_of_pictures, "unlabelled pool", "8 images without pixel labels, a pool in 2 folders"),
        (tables_only, "tables", "1 table without pixels: ids.csv"),
        (text_only, "nothing tilth reads", "no imagery: 1 file"),
        (archives_only, "nothing tilth reads", "1 archive: unpack them first"),
        (containers_only, "nothing tilth reads", "write the bands as GeoTIFF first"),
        (nothing, "nothing tilth reads", "empty: no files"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_layouts_are_told_apart(tmp_path: Path, plant, kind: str, said: str):
    root = tmp_path / "somewhere"
    root.mkdir()
    plant(root)
    found = look(root)
    assert (found["kind"], said in found["headline"]) == (kind, True), found["headline"]


def test_several_data_sets_below_a_folder_are_listed_and_no_starter_is_written(tmp_path: Path):
    pairs(tmp_path / "one")
    sensors_of_one_place(tmp_path / "deep" / "two")
    before_and_after(tmp_path / "three")
    found = look(tmp_path)
    assert [(Path(item["folder"]).name, item["kind"]) for item in found["sets"]] == [
        ("two", "several rasters of one place"),
        ("one", "image/label pairs"),
        ("three", "change pairs"),
    ]
    with pytest.raises(ValueError, match=r"holds 3 data sets .* inspect one of them"):
        tilth.inspect(folder=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_data_set_alone_in_a_deeper_folder_is_found(tmp_path: Path):
    pairs(tmp_path / "download" / "v2")
    found = look(tmp_path)
    assert (found["kind"], found["folder"]) == ("image/label pairs", str(tmp_path / "download" / "v2"))


def test_files_are_counted_by_kind_with_sizes_places_and_bands(tmp_path: Path):
    for index in range(3):
        raster(
            tmp_path / f"s_{index}_20200{index + 1}15.tif",
            reflectance(str(index), 3, 64 + 8 * index),
            names=("red", "nir", "swir1"),
            nodata=0,
        )
    (tmp_path / "._hidden.tif").write_bytes(b"x")
    (tmp_path / "notes.csv").write_text("a\n")
    found = look(tmp_path)
    (group,) = found["imagery"]
    assert (group["files"], group["bands"], group["dtype"], group["nodata"]) == (3, 3, "uint16", [0.0])
    assert group["sizes"] == {"64 x 64": 1, "72 x 72": 1, "80 x 80": 1}
    assert group["pixels"] == 64**2 + 72**2 + 80**2
    assert group["crs"] == {"EPSG:32632": 3}
    assert group["ground_pixel_m"] == pytest.approx(10, rel=0.001)
    assert (found["files"]["count"], found["files"]["hidden"], found["dates"]) == (4, 1, ["2020-01-15", "2020-02-15", "2020-03-15"])
    lowest = [
        int(min(values))
        for values in zip(*(reflectance(str(index), 3, 64 + 8 * index).min(axis=(1, 2)) for index in range(3)), strict=True)
    ]
    assert [int(value) for value in group["measured"]["minimum"]] == lowest


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        ({"classes": [{"index": 0, "name": "a", "colour": [1, 2, 3]}, {"index": 1, "name": "b", "colour": [4, 5, 6]}]}, ["a", "b"]),
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({"a": 0, "b": 1}, ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        ({"masks": {"0": "a", "1": "b"}, "other": {"0": "c"}}, ["a", "b"]),
        ({"classes": [{"id": 1, "name": "b"}, {"id": 0, "name": "a"}]}, ["a", "b"]),
        ({"something": "else"}, [None, None]),
    ],
)
def test_names_of_classes_are_read_in_the_forms_that_people_write(tmp_path: Path, listing: object, names: list[str | None]):
    pairs(tmp_path, values=(0, 1))
    (tmp_path / "classes.json").write_text(json.dumps(listing))
    (label,) = look(tmp_path)["labels"]
    assert [item["name"] for item in label["classes"]] == names


def test_shares_of_classes_are_those_of_the_masks(tmp_path: Path):
    whole = np.zeros((10, 10), dtype=np.uint8)
    whole[:3] = 1
    whole[9] = 255
    for index in range(2):
        picture(tmp_path / "images" / f"{index}.png", 16)
        raster(tmp_path / "labels" / f"{index}.tif", whole[None], east=None)
    (label,) = look(tmp_path)["labels"]
    assert [(item["value"], item["share"]) for item in label["classes"]] == [("0", pytest.approx(2 / 3)), ("1", pytest.approx(1 / 3))]
    assert label["ignored_share"] == pytest.approx(0.1)


def test_a_photograph_in_a_folder_called_labels_is_no_label(tmp_path: Path):
    for index in range(3):
        picture(tmp_path / "labels" / f"{index}.jpg")
    assert look(tmp_path)["kind"] == "unlabelled pool"


def test_masks_are_known_by_their_look_where_the_name_says_nothing(tmp_path: Path):
    for index in range(3):
        picture(tmp_path / "x" / f"{index}.png")
        mask(tmp_path / "y" / f"{index}.png", [0, 1, 2])
        colour_mask(tmp_path / "z" / f"{index}.png", [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    found = look(tmp_path)
    assert [(item["name"], item["kind"]) for item in found["labels"]] == [("y", "class ids"), ("z", "colours")]
    assert {item["value"] for item in found["labels"][1]["classes"]} == {"#FF0000", "#00FF00", "#0000FF"}


def test_many_files_are_looked_at_in_part_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tilth.catalog.inspect import groups, sampling

    monkeypatch.setattr(groups, "MOST_HEADERS", 5)
    monkeypatch.setattr(sampling, "MOST_IMAGES", 3)
    monkeypatch.setattr(sampling, "MOST_LABELS", 4)
    pairs(tmp_path, 12)
    result = tilth.inspect(folder=tmp_path)
    group, label = result.values["imagery"][0], result.values["labels"][0]
    assert (group["files"], group["headers_read"], group["images_measured"], label["labels_read"]) == (12, 5, 3, 4)
    assert "(shares from 4)" in "\n".join(result.summary)
    assert "10 of 24 headers read" in result.summary[-1]


def test_folders_with_too_many_files_are_not_listed_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tilth.catalog.inspect import listing

    monkeypatch.setattr(listing, "MOST_IN_FOLDER", 3)
    for index in range(6):
        picture(tmp_path / f"{index}.png", 32)
    assert "not all listed" in {trap["key"] for trap in look(tmp_path)["traps"]}


def test_a_folder_that_is_linked_into_itself_is_listed_once(tmp_path: Path):
    pairs(tmp_path / "set")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    assert look(tmp_path)["imagery"][0]["files"] == 4


def test_wrong_requests_are_one_clear_line(tmp_path: Path):
    with pytest.raises(MissingFileError, match="nowhere: no such folder; give a folder of imagery"):
        tilth.inspect(folder=tmp_path / "nowhere")
    file = picture(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.png: is a file; give the folder that holds it"):
        tilth.inspect(folder=file)
    with pytest.raises(SensorMismatchError, match=r"sensor 's1' has 2 bands of float32; there is no such imagery \(a.png: 3 x uint8\)"):
        tilth.inspect(folder=tmp_path, sensor="s1")
    with pytest.raises(ConfigError, match="unknown sensor 'rbg'; did you mean 'rgb'"):
        tilth.inspect(folder=tmp_path, sensor="rbg")


def test_the_folder_is_left_as_it_was(tmp_path: Path):
    pairs(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    tilth.inspect(folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_everything_found_is_written_as_json(tmp_path: Path):
    pairs(tmp_path / "set")
    result = tilth.inspect(folder=tmp_path / "set", facts=tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["kind"], written["traps"]) == (result.values["kind"], result.values["traps"])
    assert result.outputs == {"facts": tmp_path / "found.json"}
