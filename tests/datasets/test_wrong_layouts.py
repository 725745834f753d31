"""Folders that are not laid out as the card says: one line that names the file and what was expected, and nothing left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import public_sets
from support.tiny_farm import tree
from tilth.cli.main import main
from tilth.imagery.write import write_raster


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    public_sets.plant_loveda(root / "loveda")
    public_sets.plant_pairs(root / "image-mask")
    public_sets.plant_vaihingen(root / "isprs-vaihingen")
    public_sets.plant_dubai(root / "dubai-mbrsc")
    return root


def drop(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            place = folder / name
            shutil.rmtree(place) if place.is_dir() else place.unlink()

    return change


def put(name: str, data: np.ndarray) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data).save(folder / name)

    return change


def write(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return change


def cut_short(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return change


def copied(source: str, target: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copytree(folder / source, folder / target) and None


def nothing(folder: Path) -> None:
    """The folder is right."""


GREY = np.zeros((40, 40), np.uint8)
RED = np.full((40, 40, 3), (255, 0, 0), np.uint8)
DUBAI_MASK = "Semantic segmentation dataset/Tile 1/masks/image_part_001.png"
TWO_WAYS = {"classes": [{"name": "land", "colour": [9, 9, 9]}, {"name": "water", "colour": [9, 9, 9]}]}

# name: data set, what is wrong with it, fragments of the line, more words.
CASES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...], list[str]]] = {
    "another data set": (
        "image-mask",
        drop("images"),
        ("no image of data set 'loveda'", "expected Train/{area}/images_png/{stem}.png", "tilth datasets info loveda"),
        ["loveda"],
    ),
    "not unpacked": (
        "image-mask",
        lambda folder: (drop("images", "masks")(folder), write("all.7z", "")(folder)),
        ("no image", "all.7z lies there: unpack it first"),
        [],
    ),
    "split missing": ("loveda", drop("Val"), ("no image of split 'val'", "expected Val/{area}/images_png/{stem}.png", "--partial"), []),
    "masks missing": (
        "loveda",
        drop("Train/Urban/masks_png"),
        ("2 of 8 images have no mask", "expected Train/Urban/masks_png/2.png", "--partial"),
        [],
    ),
    "one mask missing": ("image-mask", drop("masks/p3.png"), ("images/p3.jpg: 1 of 6 images", "expected masks/p3.*"), []),
    "listed image missing": (
        "isprs-vaihingen",
        drop("top/top_mosaic_09cm_area12.tif", "top/top_mosaic_09cm_area38.tif"),
        ("2 of 33 listed images are missing", "first '12'", "expected top/top_mosaic_09cm_area12.tif"),
        [],
    ),
    "split file names a missing stem": (
        "image-mask",
        write("splits/train.txt", "p0\np9\n"),
        ("1 of 5 listed images", "first 'p9'", "images/p9.*"),
        [],
    ),
    "stem in two split files": ("image-mask", write("splits/extra.txt", "p0\n"), ("train.txt: 'p0' is also in split 'extra'",), []),
    "split file is no text": (
        "image-mask",
        lambda folder: (folder / "splits" / "train.txt").write_bytes(b"\xff\xfe\x00p"),
        ("train.txt: no text; expected one stem a line",),
        [],
    ),
    "no class scheme": ("image-mask", drop("classes.json"), ("classes.json: no such class scheme", "'classes'"), []),
    "class scheme is no JSON": ("image-mask", write("classes.json", "{"), ("classes.json: not JSON",), []),
    "colours of the scheme are not distinct": (
        "image-mask",
        write("classes.json", json.dumps(TWO_WAYS)),
        ("two classes have one colour",),
        ["image-mask-colours"],
    ),
    "wrong band count": (
        "loveda",
        put("Val/Rural/images_png/4.png", GREY),
        ("Val/Rural/images_png/4.png: 1 of 12 images do not fit sensor 'rgb'", "expected 3 bands of uint8, found 1 bands of uint8 (1)"),
        [],
    ),
    "wrong sensor": (
        "image-mask",
        nothing,
        ("6 of 6 images do not fit sensor 's1': expected 2 bands of float32",),
        ["--sensor", "s1"],
    ),
    "mask of another size": (
        "image-mask",
        put("masks/p1.png", np.zeros((20, 40), np.uint8)),
        ("images/p1.jpg: image has 40 x 40 pixels", "masks/p1.png 40 x 20", "share one grid"),
        [],
    ),
    "value outside the card": (
        "loveda",
        put("Train/Rural/masks_png/1.png", np.full((40, 40), 17, np.uint8)),
        ("Train/Rural/masks_png/1.png: value 17 in 1,600 pixels, expected 0, 1, 2, 3, 4, 5, 6, 7",),
        [],
    ),
    "two masks with values outside the card": (
        "loveda",
        lambda folder: [put(f"Train/Rural/masks_png/{name}.png", np.full((40, 40), 17, np.uint8))(folder) for name in (0, 1)] and None,
        ("Train/Rural/masks_png/0.png: value 17", "(1 more masks with problems)"),
        [],
    ),
    "id outside the scheme": (
        "image-mask",
        put("masks/p2.png", np.pad(np.full((1, 3), 2, np.uint8), ((0, 39), (0, 37)))),
        ("masks/p2.png: value 2 in 3 pixels, expected class ids 0 to 1",),
        [],
    ),
    "colour outside the card": (
        "dubai-mbrsc",
        put(DUBAI_MASK, RED),
        ("image_part_001.png: colour #FF0000 in 1,600 pixels, expected #E2A929, #8429F6",),
        [],
    ),
    "colours where ids are expected": ("image-mask", put("masks/p1.png", RED), ("p1.png: a label needs one band", "convert them"), []),
    "truncated image": ("image-mask", cut_short("masks/p1.png"), ("masks/p1.png: truncated or damaged",), []),
    "image is no image": ("image-mask", write("images/p1.jpg", "text"), ("images/p1.jpg: truncated or damaged: no image",), []),
    "two copies of an image": ("image-mask", put("images/p1.png", RED), ("images/p1.png: the same image as", "images/p1.jpg"), []),
    "two copies of a mask": ("image-mask", put("masks/p1.bmp", GREY), ("masks/p1.png: the same mask as", "masks/p1.bmp"), []),
    "two data sets in one folder": (
        "dubai-mbrsc",
        copied("Semantic segmentation dataset", "copy"),
        ("the same image as", "copy/Tile 1"),
        [],
    ),
    "unknown layer": ("loveda", nothing, ("no layer 'imag'", "did you mean 'image'?"), ["--layer", "imag"]),
    "unknown data set": ("loveda", nothing, ("unknown data set 'lovedaa'", "did you mean 'loveda'?", ".yaml"), ["lovedaa"]),
    "step without windows": ("loveda", nothing, ("stride_px needs window_px",), ["--stride-px", "8"]),
    "step longer than a window": (
        "loveda",
        nothing,
        ("stride_px (9) must not exceed window_px (8)",),
        ["--window-px", "8", "--stride-px", "9"],
    ),
    "sensor left open": ("image-mask", nothing, ("leaves the sensor open; give --sensor",), ["image-mask", "--sensor", ""]),
    "nothing to download": (
        "isprs-vaihingen",
        nothing,
        ("cannot be downloaded from here: ask for the two archives", "https://www.isprs.org"),
        ["--download"],
    ),
}
USAGE = {
    "unknown layer",
    "unknown data set",
    "step without windows",
    "step longer than a window",
    "sensor left open",
    "nothing to download",
}
USAGE |= {"colours of the scheme are not distinct", "class scheme is no JSON"}


@pytest.mark.parametrize("case", CASES)
def test_wrong_folder_is_one_line_and_leaves_nothing(case, sound, tmp_path, capsys):
    name, change, fragments, more = CASES[case]
    shutil.copytree(sound / name, tmp_path / "set")
    change(tmp_path / "set")
    before = tree(tmp_path)
    typed = [more.pop(0)] if (more := list(more)) and not more[0].startswith("--") else [name]
    if "image-mask" in typed[0] and "--sensor" not in more:
        more += ["--sensor", "rgb"]
    if more == ["--sensor", ""]:
        more = []
    words = ["datasets", "prepare", *typed, str(tmp_path / "set"), "--out", str(tmp_path / "deep" / "out"), *more]
    assert main(words) == (2 if case in USAGE else 1)
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("tilth: error")]
    assert out == ""
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    assert "internal" not in lines[0]
    for fragment in fragments:
        assert fragment in lines[0]
    assert tree(tmp_path) == before


def prepare(folder: Path, out: Path, name: str = "image-mask") -> int:
    return main(["datasets", "prepare", name, str(folder), "--sensor", "rgb", "--out", str(out)])


def test_missing_folder_says_how_to_get_the_data(tmp_path, capsys):
    assert main(["datasets", "prepare", "loveda", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "no such folder of data set 'loveda'" in err
    assert "--download" in err
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    ("occupy", "fragment"),
    [
        (write("thesis.txt", "x"), "is not empty and holds no prepared data set"),
        (write("dataset.json", "{}"), "dataset.json there is not of a prepared data set"),
        (
            lambda out: write("dataset.json", '{"name": "loveda", "folder": "../set"}')(out),
            "holds data set 'loveda' of ../set, not 'image-mask'",
        ),
        (lambda out: write("dataset.json", '{"name": "image-mask", "folder": "../b"}')(out), "of ../b, not 'image-mask' of ../set"),
        (lambda out: out.write_text("x"), "is a file; give a folder"),
    ],
)
def test_folder_of_something_else_is_refused_and_kept(occupy, fragment, tmp_path, capsys):
    public_sets.plant_pairs(tmp_path / "set")
    occupy(tmp_path / "out")
    before = tree(tmp_path)
    assert prepare(tmp_path / "set", tmp_path / "out") == 1
    assert fragment in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_data_set_itself_is_no_place_to_write_to(tmp_path, capsys):
    public_sets.plant_pairs(tmp_path / "set")
    assert prepare(tmp_path / "set", tmp_path / "set") == 2
    assert "is the data set itself" in capsys.readouterr().err


def test_failure_in_a_folder_prepared_before_keeps_what_is_there(tmp_path):
    public_sets.plant_loveda(tmp_path / "set")
    words = ["datasets", "prepare", "loveda", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    before = tree(tmp_path / "out")
    put("Train/Rural/masks_png/1.png", np.full((40, 40), 17, np.uint8))(tmp_path / "set")
    assert main(words) == 1
    assert tree(tmp_path / "out") == before


def test_odd_files_are_told_of_and_left_out(tmp_path, capsys):
    public_sets.plant_pairs(tmp_path / "set")
    put("masks/lost.png", GREY)(tmp_path / "set")
    public_sets.picture(tmp_path / "set" / "images" / "new.jpg", 1)
    put("masks/new.png", GREY)(tmp_path / "set")
    write("images/notes.md", "x")(tmp_path / "set")
    put("images/.thumb.png", GREY)(tmp_path / "set")
    assert prepare(tmp_path / "set", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert "7 tiles of 7 images, 7 with labels (no split 1, train 3, val 1, test 2)" in out
    assert "masks/lost.png: 1 masks belong to no image; left out" in err
    assert "images/new.jpg: 1 images are in no list of splits; kept without a split" in err


def test_masks_that_lie_elsewhere_are_refused(tmp_path, capsys):
    where = {"crs": "EPSG:32631", "transform": (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)}
    write_raster(tmp_path / "set" / "images" / "x.tif", np.zeros((3, 8, 8), np.uint8), **where)
    scheme = {"name": "s", "classes": [{"index": 0, "name": "a", "colour": [0, 0, 0]}]}
    (tmp_path / "set" / "classes.json").write_text(json.dumps(scheme))
    arguments = ["datasets", "prepare", "image-mask", str(tmp_path / "set"), "--sensor", "rgb", "--out", str(tmp_path / "out")]
    write_raster(tmp_path / "set" / "masks" / "x.tif", np.zeros((8, 8), np.uint8), **where)
    assert main(arguments) == 0
    elsewhere = where | {"transform": (10.0, 0.0, 500_500.0, 0.0, -10.0, 5_000_000.0)}
    write_raster(tmp_path / "set" / "masks" / "x.tif", np.zeros((8, 8), np.uint8), **elsewhere)
    assert main([*arguments[:-1], str(tmp_path / "two")]) == 1
    assert "lies at (500000.0, 5000000.0), that of its mask" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()
