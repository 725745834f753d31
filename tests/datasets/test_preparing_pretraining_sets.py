"""The sets of pre-training, each on a stand-in in the original layout: masks, splits, windows; grey pictures; pools of many files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tilth
from support import public_pools
from support.public_pools import STAND_INS
from support.public_sets import mask
from support.tiny_farm import tree
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.datasets.encoding import Labels
from tilth.datasets.options import PrepareConfig
from tilth.datasets.prepare import prepare_dataset
from tilth.datasets.shelf import load_card
from tilth.errors import UnreadableFileError
from tilth.imagery import plain
from tilth.imagery.read import Window, read_info, read_label, read_pixels
from tilth.verbs.train_options import PretrainOptions

TILES: dict[str, dict[str | None, int]] = {
    "isaid": {"train": 18, "val": 4, "test": 1},
    "dota": {"train": 5, "val": 1, "test": 1},
    "star": {"train": 2, "test": 4},
    "millionaid": {"train": 5},
    "samrs-sota": {None: 4},
    "samrs-sior": {None: 2},
    "samrs-fast": {None: 1},
    "openearthmap": {"train": 2, "val": 1, "test": 1},
    "ade20k": {"train": 2, "val": 1},
    "coco": {"train": 2, "pool": 1},
    "cityscapes": {"train": 1, "val": 1, "test": 1, "pool": 1},
    "voc2012": {"train": 1, "val": 1, "pool": 1},
}


def prepare(name: str, folder: Path, out: Path, **options: object) -> tuple[Catalog, list[str]]:
    lines: list[str] = []
    done = prepare_dataset(PrepareConfig(name=name, folder=folder, **options), out, warn=lines.append)
    return Catalog.open(done.path), lines


@pytest.mark.parametrize("name", STAND_INS)
def test_stand_in_becomes_a_catalog(name, tmp_path):
    truth = STAND_INS[name](tmp_path / "set") or {}
    before = tree(tmp_path / "set")
    catalog, lines = prepare(name, tmp_path / "set", tmp_path / "out")
    assert catalog.counts("split") == TILES[name]
    card = load_card(name)
    assert set(catalog.counts("licence")) == {card.licence.name}
    assert set(catalog.counts("sensor")) == {"rgb"}
    seen = set()
    for tile in catalog.tiles():
        place = tile.tile_id.removeprefix(f"{name}/").split("_r")[0]
        pixels = read_pixels(tile.image, tile.window)
        assert pixels.data.shape == (3, tile.window[3], tile.window[2])
        if tile.label is None:
            assert place not in truth
            continue
        seen.add(place)
        column, row, width, height = tile.window
        np.testing.assert_array_equal(read_label(tile.label, tile.window), truth[place][row : row + height, column : column + width])
    assert seen == set(truth)
    assert tree(tmp_path / "set") == before
    # Stand-ins are smaller than what was published, and of OpenEarthMap the images of xBD are missing.
    assert all("as published" in line or "1 of 5 listed images are missing, first 'santarosa_7'" in line for line in lines)
    if truth:
        assert len(catalog.scheme()) == len(card.labels[0].classes)


def test_tiles_of_isaid_are_crops_of_crops(tmp_path):
    """Cut with Pillow, as people do: 1024 pixels with the last row and column moved back, and each crop again into 512."""
    public_pools.plant_isaid(tmp_path / "set")
    catalog, _ = prepare("isaid", tmp_path / "set", tmp_path / "out")
    expected = []
    with Image.open(tmp_path / "set" / "train" / "images" / "P0000.png") as image:
        for top in (0, 76):
            for left in (0, 276):
                crop = image.crop((left, top, left + 1024, top + 1024))
                expected += [np.array(crop.crop((x, y, x + 512, y + 512))).tobytes() for y in (0, 512) for x in (0, 512)]
    tiles = [tile for tile in catalog.tiles() if "/P0000_" in tile.tile_id]
    found = [np.ascontiguousarray(read_pixels(tile.image, tile.window).data.transpose(1, 2, 0)).tobytes() for tile in tiles]
    assert found == expected
    # A smaller image gives four crops, too: 700 x 650.
    assert {tile.window for tile in catalog.tiles() if "/P0003_" in tile.tile_id} == {(x, y, 512, 512) for x in (0, 188) for y in (0, 138)}


def test_windows_of_pools_follow_the_rule_of_the_paper(tmp_path):
    """Larger than 512 on a side: a grid with the last row and column moved back; not larger: whole; SIOR and FAST are never cut."""
    public_pools.plant_dota(tmp_path / "dota")
    public_pools.plant_sior(tmp_path / "sior")
    dota, _ = prepare("dota", tmp_path / "dota", tmp_path / "out")
    windows: dict[str, list[tuple[int, ...]]] = {}
    for tile in dota.tiles():
        windows.setdefault(tile.tile_id.split("/")[-1].split("_r")[0], []).append(tile.window)
    assert windows == {
        "P0000": [(0, 0, 512, 512), (512, 0, 512, 512), (518, 0, 512, 512)],
        "P0001": [(0, 0, 400, 512), (0, 88, 400, 512)],
        "P0003": [(0, 0, 512, 512)],
        "P0006": [(0, 0, 300, 200)],
    }
    sior, _ = prepare("samrs-sior", tmp_path / "sior", tmp_path / "out2")
    assert {tile.window for tile in sior.tiles()} == {(0, 0, 800, 800)}


def test_grey_pictures_become_colour_where_the_card_says_so(tmp_path):
    public_pools.plant_coco(tmp_path / "set")
    catalog, _ = prepare("coco", tmp_path / "set", tmp_path / "out")
    tile = next(tile for tile in catalog.tiles() if tile.tile_id.endswith("000000000025"))
    assert Path(tile.image).relative_to(tmp_path / "out" / "colour").suffix == ".vrt"
    with Image.open(tmp_path / "set" / "images" / "train2017" / "000000000025.jpg") as image:
        grey = np.array(image)
    np.testing.assert_array_equal(read_pixels(tile.image).data, np.stack([grey] * 3))
    again = tree(tmp_path / "out")
    prepare("coco", tmp_path / "set", tmp_path / "out")
    assert tree(tmp_path / "out") == again


def test_parts_of_a_pool_may_be_missing(tmp_path):
    public_pools.plant_millionaid(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "train")
    catalog, _ = prepare("millionaid", tmp_path / "set", tmp_path / "out")
    assert {tile.tile_id for tile in catalog.tiles()} == {
        *(f"millionaid/test/P0000003_r0_c{column}" for column in (0, 88)),
        "millionaid/test/P0000004_r0_c0",
    }
    # A pool is learnt from as it is.
    assert set(catalog.counts("split")) == set(PretrainOptions.model_fields["unlabelled_split"].default)


def test_partial_leaves_out_what_cannot_be_read(tmp_path):
    public_pools.plant_millionaid(tmp_path / "set")
    (tmp_path / "set" / "test" / "P0000009.jpg").write_bytes(b"\xff\xd8 no more")
    catalog, lines = prepare("millionaid", tmp_path / "set", tmp_path / "out", partial=True)
    assert not [tile for tile in catalog.tiles() if "P0000009" in tile.tile_id]
    assert [line for line in lines if "P0000009.jpg: truncated or damaged" in line and "1 of 5 images cannot be read, left out" in line]


def test_masks_of_splits_without_labels_are_not_read(tmp_path):
    public_pools.plant_cityscapes(tmp_path / "set")
    next((tmp_path / "set" / "gtFine" / "test").rglob("*_labelIds.png")).write_bytes(b"no image")
    catalog, lines = prepare("cityscapes", tmp_path / "set", tmp_path / "out")
    assert catalog.filter(split="test").counts("label_kind") == {"none": 1}
    assert all("as published" in line for line in lines)


def test_suffixes_in_capitals_count(tmp_path):
    """Files of cameras and of other systems; masks beside the images are still no images."""
    truth = public_pools.plant_isaid(tmp_path / "set")
    for file in sorted((tmp_path / "set").rglob("*.png")):
        file.rename(file.with_suffix(".PNG"))
    catalog, _ = prepare("isaid", tmp_path / "set", tmp_path / "out")
    assert catalog.counts("split") == TILES["isaid"]
    assert {tile.tile_id.removeprefix("isaid/").split("_r")[0] for tile in catalog.labelled().tiles()} == set(truth)


def put(name: str, data: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: mask(folder / name, data)


BLUE = np.full((700, 650, 3), (0, 0, 254), np.uint8).transpose(1, 0, 2).copy()
WRONG: dict[str, tuple[str, Callable[[Path], object], str, tuple[str, ...]]] = {
    "another set": ("ade20k", lambda folder: None, "isaid", ("no image of data set 'isaid' found, expected train/images/{stem}.png or",)),
    "no val": ("isaid", lambda folder: shutil.rmtree(folder / "val"), "isaid", ("no image of split 'val'", "--partial")),
    "no masks": (
        "isaid",
        lambda folder: shutil.rmtree(folder / "train" / "Semantic_masks"),
        "isaid",
        ("2 of 3 images have no mask", "expected train/Semantic_masks/images/P0000_instance_color_RGB.png or"),
    ),
    "colour of no class": (
        "isaid",
        put("val/images/P0003_instance_color_RGB.png", BLUE),
        "isaid",
        ("P0003_instance_color_RGB.png: colour #0000FE in 455,000 pixels",),
    ),
    "value beyond the classes": (
        "ade20k",
        put("ADEChallengeData2016/annotations/training/ADE_train_00000001.png", np.full((481, 640), 151, np.uint8)),
        "ade20k",
        ("value 151 in 307,840 pixels, expected 0, 1, 2",),
    ),
    "no lists": (
        "openearthmap",
        lambda folder: [(folder / "OpenEarthMap_wo_xBD" / f"{name}.txt").unlink() for name in ("train", "val", "test")],
        "openearthmap",
        ("no split file, expected {split}.txt, such as train.txt",),
    ),
    "two parts at once": (
        "samrs-fast",
        lambda folder: [shutil.move(folder / "images", folder / "FAST" / "images"), public_pools.plant_part(folder / "SOTA", 64)],
        "samrs-fast",
        ("the same image as", "name the folder of one"),
    ),
    "damaged image": (
        "millionaid",
        lambda folder: (folder / "test" / "P0000003.jpg").write_bytes(b"\xff\xd8"),
        "millionaid",
        ("test/P0000003.jpg: truncated or damaged", "use --partial to leave such images out"),
    ),
    "archive of many parts": (
        "star",
        lambda folder: [shutil.rmtree(folder / "train"), shutil.rmtree(folder / "test"), (folder / "STAR.7z").write_bytes(b"7z")],
        "star",
        ("expected train/img*/{stem}.*; STAR.7z lies there: unpack it first",),
    ),
    "grey where colour is needed": (
        "cityscapes",
        lambda folder: public_pools.photo(next((folder / "leftImg8bit" / "val").rglob("*.png")), 1, 320, 160, "L"),
        "cityscapes",
        ("1 of 4 images do not fit sensor 'rgb'",),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_folder_is_one_line_and_leaves_nothing(case, tmp_path, capsys):
    planted, change, name, fragments = WRONG[case]
    (tmp_path / "set").mkdir()
    STAND_INS[planted](tmp_path / "set")
    change(tmp_path / "set")
    before = tree(tmp_path)
    assert main(["datasets", "prepare", name, str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("tilth: error")]
    assert (out, len(lines)) == ("", 1), err
    for fragment in fragments:
        assert fragment in lines[0]
    assert tree(tmp_path) == before


def test_colours_of_classes_without_colours_are_those_of_pascal_voc():
    classes = load_card("voc2012").labels[0].classes
    known = {"background": "#000000", "aeroplane": "#800000", "bird": "#808000", "person": "#C08080", "tv_monitor": "#004080"}
    assert {name: classes[name] for name in known} == known
    # Colours go with stored values, which begin at 1 here.
    assert load_card("ade20k").labels[0].classes["wall"] == "#800000"
    with pytest.raises(ValueError, match="class 'a' is listed twice"):
        Labels(pattern="{stem}.png", classes=["a", "b", "a"])


def test_official_palette_and_codes():
    """Against the tables of the authors, as the stand-ins hold them."""
    labels = load_card("isaid").labels[0]
    assert [colour.strip("#") for colour in labels.classes.values()] == list(public_pools.ISAID)
    cityscapes = load_card("cityscapes").labels[0]
    codes = cityscapes.codes(cityscapes.scheme("x"))
    assert codes.values == {value: target for value, target in public_pools.CITYSCAPES.items() if target != 255}
    ade = load_card("ade20k").labels[0]
    assert ade.codes(ade.scheme("x")).values == {0: 255, 255: 255} | {value: value - 1 for value in range(1, 151)}


def test_scheme_of_a_card_can_be_written(tmp_path, capsys):
    assert main(["datasets", "info", "isaid", "--scheme-out", str(tmp_path / "isaid.json")]) == 0
    scheme = tilth.ClassScheme.load(tmp_path / "isaid.json")
    assert scheme == load_card("isaid").labels[0].scheme("isaid")
    assert main(["datasets", "info", "star", "--scheme-out", str(tmp_path / "star.json")]) == 2
    assert "data set 'star' has no classes of its own" in capsys.readouterr().err


def test_scenes_beyond_what_pillow_takes_are_read_by_gdal(tmp_path, monkeypatch):
    """Scenes of STAR have up to 866 million pixels; the limit is lowered here."""
    data = np.random.default_rng(0).integers(0, 255, (60, 50, 3), dtype=np.uint8)
    for name, options in {"large.png": {}, "large.jpg": {"subsampling": 0, "progressive": True}, "grey.jpg": {}}.items():
        Image.fromarray(data if name != "grey.jpg" else data[..., 0]).save(tmp_path / name, **options)
        expected = read_pixels(str(tmp_path / name), Window(10, 20, 30, 25)).data
        with monkeypatch.context() as change:
            change.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
            with pytest.raises(UnreadableFileError, match="more pixels than a plain image may have"):
                read_info(str(tmp_path / name))
            change.setattr(plain, "_MOST_PIXELS", 2000)
            change.setattr(plain, "_SMALL_JPEG", 0)
            info = read_info(str(tmp_path / name))
            assert (info.width, info.height, info.count) == (50, 60, len(expected))
            found = read_pixels(str(tmp_path / name), Window(10, 20, 30, 25)).data
        # Two builds of the JPEG library may round otherwise.
        assert np.abs(found.astype(int) - expected).max() <= (0 if name == "large.png" else 2)
    assert Image.MAX_IMAGE_PIXELS * 2 == plain._MOST_PIXELS
