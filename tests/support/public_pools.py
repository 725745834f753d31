"""Tiny stand-ins of the sets of pre-training, in their original layouts; each maker returns the class ids that its masks stand for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from support.public_sets import Ids, colours, mask
from tilth.imagery.write import write_raster

ISAID = (
    *("000000", "00003F", "003F3F", "003F00", "003F7F", "003FBF", "003FFF", "007F3F"),
    *("007F7F", "00007F", "0000BF", "0000FF", "00BF7F", "007FBF", "007FFF", "00649B"),
)
# As the evaluation server numbers them: id in the files, id in training.
CITYSCAPES = {
    **{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15},
    **{31: 16, 32: 17, 33: 18, 0: 255, 3: 255, 4: 255, 29: 255},
}


def photo(path: Path, seed: int, width: int, height: int, mode: str = "RGB") -> None:
    """Write an image of coarse noise, which takes little space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (-(-height // 20), -(-width // 20), 3)
    coarse = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    data = coarse.repeat(20, 0).repeat(20, 1)[:height, :width]
    Image.fromarray(data).convert(mode).save(path)


def ids(seed: int, kinds: int, width: int, height: int) -> np.ndarray:
    """Ids in patches of 7 pixels, uint8 (h, w)."""
    coarse = np.random.default_rng(1000 + seed).integers(0, kinds, (-(-height // 7), -(-width // 7)), dtype=np.uint8)
    return coarse.repeat(7, 0).repeat(7, 1)[:height, :width]


def plant_isaid(folder: Path) -> Ids:
    """As it is fetched: DOTA's images, some in folders of parts, and Semantic_masks; val as the authors' tools want it."""
    truth = {}
    places = [("train", "P0000", 1300, 1100, "RGB"), ("train", "P0002", 610, 500, "L"), ("val", "P0003", 700, 650, "RGB")]
    for seed, (split, stem, width, height, mode) in enumerate(places):
        part = "part1/" if stem == "P0002" else ""
        photo(folder / split / "images" / f"{part}{stem}.png", seed, width, height, mode)
        truth[f"{split}/{stem}"] = ids(seed, 16, width, height)
        place = folder / split / ("images" if split == "val" else "Semantic_masks/images")
        mask(place / f"{stem}_instance_color_RGB.png", colours(ISAID)[truth[f"{split}/{stem}"]])
        mask(place / f"{stem}_instance_id_RGB.png", np.zeros((height, width, 3), np.uint8))
    photo(folder / "test" / "images" / "P0006.png", 9, 512, 512)
    return truth


def plant_dota(folder: Path) -> None:
    for seed, (split, stem, width, height, mode) in enumerate(
        [("train", "P0000", 1030, 512, "RGB"), ("train", "P0001", 400, 600, "L"), ("val", "P0003", 512, 512, "RGBA")]
    ):
        photo(folder / split / "images" / f"{stem}.png", seed, width, height, mode)
    (folder / "train" / "labelTxt-v2.0").mkdir()
    (folder / "train" / "labelTxt-v2.0" / "P0000.txt").write_text("gsd:0.1\n")
    photo(folder / "test-dev" / "images" / "P0006.png", 9, 300, 200)


def plant_star(folder: Path) -> None:
    photo(folder / "train" / "img" / "0001.png", 1, 768, 512)
    photo(folder / "test" / "img264" / "0002.png", 2, 513, 700)
    photo(folder / "train" / "vis" / "0001.png", 3, 60, 60)


def plant_millionaid(folder: Path) -> None:
    for seed, name in enumerate(
        ["train/agriculture_land/arable_land/dry_field/P0000001", "train/unutilized_land/desert/P0000002", "test/P0000003", "test/P0000004"]
    ):
        photo(folder / f"{name}.jpg", seed, 600 if seed == 2 else 256, 400 if seed == 2 else 256)


def plant_sior(folder: Path) -> None:
    photo(folder / "JPEGImages-trainval" / "00001.jpg", 1, 800, 800)
    photo(folder / "JPEGImages-test" / "11726.jpg", 2, 800, 800)
    mask(folder / "gray" / "00001.png", ids(1, 20, 800, 800))


def plant_part(folder: Path, side: int) -> None:
    photo(folder / "images" / "a__0_0.png", 1, side, side)
    mask(folder / "gray" / "a__0_0.png", ids(1, 18, side, side))


def plant_openearthmap(folder: Path) -> Ids:
    """Regions with images and labels, and lists of file names; images made of xBD and labels of test are missing."""
    top, truth = folder / "OpenEarthMap_wo_xBD", {}
    for seed, name in enumerate(["aachen_1", "aachen_2", "abancay_3", "zanzibar_9"]):
        region = name.split("_")[0]
        where = {"crs": "EPSG:32632", "transform": (0.5, 0, 300_000 + 1000 * seed, 0, -0.5, 5_600_000)}
        image = np.random.default_rng(seed).integers(0, 255, (3, 90, 100), dtype=np.uint8)
        write_raster(top / region / "images" / f"{name}.tif", image, **where)
        if name != "zanzibar_9":
            stored = ids(seed, 9, 100, 90)
            write_raster(top / region / "labels" / f"{name}.tif", stored, **where)
            truth[f"{region}/{name}"] = np.where(stored == 0, 255, stored - 1).astype(np.uint8)
    for name, lines in {"train": "aachen_1.tif\nsantarosa_7.tif\naachen_2.tif", "val": "abancay_3.tif", "test": "zanzibar_9.tif"}.items():
        (top / f"{name}.txt").write_text(f"{lines}\n")
    (top / "train_wo_xBD.txt").write_text("aachen_1.tif\naachen_2.tif\n")
    return truth


def plant_ade20k(folder: Path) -> Ids:
    """ADEChallengeData2016: 0 is other, 1 to 150 are classes."""
    top, truth = folder / "ADEChallengeData2016", {}
    for seed, (split, stem) in enumerate(
        [("training", "ADE_train_00000001"), ("training", "ADE_train_00000002"), ("validation", "ADE_val_00000001")]
    ):
        photo(top / "images" / split / f"{stem}.jpg", seed, 640 - seed, 481, "L" if seed == 1 else "RGB")
        stored = ids(seed, 151, 640 - seed, 481)
        mask(top / "annotations" / split / f"{stem}.png", stored)
        truth[f"{split}/{stem}"] = np.where(stored == 0, 255, stored.astype(int) - 1).astype(np.uint8)
    (top / "objectInfo150.txt").write_text("Idx\tRatio\n")
    return truth


def plant_coco(folder: Path) -> None:
    photo(folder / "images" / "train2017" / "000000000009.jpg", 1, 640, 480)
    photo(folder / "images" / "train2017" / "000000000025.jpg", 2, 500, 375, "L")
    photo(folder / "images" / "unlabeled2017" / "000000000008.jpg", 3, 333, 500)
    (folder / "annotations").mkdir()


def plant_cityscapes(folder: Path) -> Ids:
    """Two packages; masks of test are dummies, train_extra has coarse labels only."""
    truth = {}
    codes = np.array(list(CITYSCAPES), np.uint8)
    for seed, (split, city) in enumerate([("train", "aachen"), ("val", "lindau"), ("test", "berlin"), ("train_extra", "augsburg")]):
        stem = f"{city}_000000_000019"
        photo(folder / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", seed, 320, 160)
        if split == "train_extra":
            continue
        drawn = ids(seed, len(codes), 320, 160)
        mask(folder / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", codes[drawn])
        mask(folder / "gtFine" / split / city / f"{stem}_gtFine_color.png", np.zeros((160, 320, 3), np.uint8))
        if split != "test":
            truth[f"{split}/{city}/{stem}"] = np.array(list(CITYSCAPES.values()), np.uint8)[drawn]
    return truth


def plant_voc(folder: Path) -> Ids:
    """VOCdevkit/VOC2012: palette masks, lists of the segmentation task, and images of other tasks."""
    top, truth = folder / "VOCdevkit" / "VOC2012", {}
    for seed, stem in enumerate(["2007_000032", "2007_000033", "2008_000002"]):
        photo(top / "JPEGImages" / f"{stem}.jpg", seed, 500, 281 + seed)
        if stem.startswith("2007"):
            stored = ids(seed, 22, 500, 281 + seed)
            truth[stem] = np.where(stored == 21, 255, stored).astype(np.uint8)
            picture = Image.fromarray(truth[stem], mode="P")
            picture.putpalette([level for index in range(256) for level in (index, 0, 0)])
            (top / "SegmentationClass").mkdir(exist_ok=True)
            picture.save(top / "SegmentationClass" / f"{stem}.png")
    for task, lists in {
        "Segmentation": {"train": ["2007_000032"], "val": ["2007_000033"], "trainval": ["2007_000032", "2007_000033"]},
        "Main": {"train": ["2008_000002"]},
    }.items():
        (top / "ImageSets" / task).mkdir(parents=True)
        for name, stems in lists.items():
            (top / "ImageSets" / task / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return truth


STAND_INS: dict[str, Callable[[Path], Ids | None]] = {
    "isaid": plant_isaid,
    "dota": plant_dota,
    "star": plant_star,
    "millionaid": plant_millionaid,
    "samrs-sota": partial(plant_part, side=1024),
    "samrs-sior": plant_sior,
    "samrs-fast": partial(plant_part, side=600),
    "openearthmap": plant_openearthmap,
    "ade20k": plant_ade20k,
    "coco": plant_coco,
    "cityscapes": plant_cityscapes,
    "voc2012": plant_voc,
}
"""Maker by name of the card."""
