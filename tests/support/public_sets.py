"""Tiny stand-ins of public data sets in their original layouts; each maker returns the class ids that its masks stand for, by tile name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tilth.imagery.write import write_raster

SIDE = 40
Ids = dict[str, np.ndarray]

ISPRS = ("FFFFFF", "0000FF", "00FFFF", "00FF00", "FFFF00", "FF0000")
DUBAI = {"E2A929": 0, "8429F6": 1, "6EC1E4": 2, "3C1098": 3, "FEDD3A": 4, "9B9B9B": 255, "000000": 255}
POTSDAM_TRAIN = [f"{row}_{column}" for row in range(2, 8) for column in (*((7, 8, 9) if row > 5 else ()), 10, 11, 12)]
_LAST = {2: 14, 3: 14, 4: 15, 5: 15, 6: 15, 7: 13}
POTSDAM_TEST = [f"{row}_{column}" for row, last in _LAST.items() for column in range(13, last + 1)]
VAIHINGEN_TRAIN = [1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37]
VAIHINGEN_TEST = [2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38]


def picture(path: Path, seed: int, bands: int = 3, side: int = SIDE) -> None:
    """Write an image of noise: jpg, png, or a georeferenced tif."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 255, (side, side, bands), dtype=np.uint8)
    if path.suffix == ".tif":
        corner = (0.05, 0, 366_000 + seed, 0, -0.05, 5_800_000)
        write_raster(path, data.transpose(2, 0, 1), crs="EPSG:32633", transform=corner)
    else:
        Image.fromarray(data).save(path)


def mask(path: Path, stored: np.ndarray, seed: int = 0) -> None:
    """Write stored values (h, w) or colours (h, w, 3): png, or a georeferenced tif."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        corner = (0.05, 0, 366_000 + seed, 0, -0.05, 5_800_000)
        write_raster(path, stored.transpose(2, 0, 1), crs="EPSG:32633", transform=corner)
    else:
        Image.fromarray(stored).save(path)


def draw(seed: int, kinds: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, kinds, (side, side))


def colours(names: list[str] | tuple[str, ...]) -> np.ndarray:
    return np.array([tuple(bytes.fromhex(name)) for name in names], np.uint8)


def plant_pairs(folder: Path, count: int = 6, splits: bool = True, **scheme: object) -> Ids:
    """images/, masks/, classes.json and, if wanted, splits/."""
    truth = {}
    for number in range(count):
        picture(folder / "images" / f"p{number}.jpg", number)
        ids = draw(number, 3)
        stored = np.where(ids == 2, 255, ids).astype(np.uint8)
        mask(folder / "masks" / f"p{number}.png", stored)
        truth[f"p{number}"] = stored
    classes = [{"index": 0, "name": "land", "colour": [9, 9, 9]}, {"index": 1, "name": "water", "colour": [0, 0, 255]}]
    (folder / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 255} | scheme))
    if splits:
        (folder / "splits").mkdir()
        for split, stems in {"train": "p0\np1\np2\n", "val": "# one\np3\n", "test": "p4\n\np5\n"}.items():
            (folder / "splits" / f"{split}.txt").write_text(stems)
    return truth


def plant_loveda(folder: Path, each: int = 2) -> Ids:
    """Train, Val and Test, Urban and Rural; 0 is no data, classes are 1 to 7, Test has no masks."""
    truth, number = {}, 0
    for split in ("Train", "Val", "Test"):
        for area in ("Rural", "Urban"):
            for _ in range(each):
                picture(folder / split / area / "images_png" / f"{number}.png", number)
                if split != "Test":
                    stored = draw(number, 8).astype(np.uint8)
                    mask(folder / split / area / "masks_png" / f"{number}.png", stored)
                    truth[f"{split}/{area}/{number}"] = np.where(stored == 0, 255, stored - 1).astype(np.uint8)
                number += 1
    return truth


def plant_potsdam(folder: Path, bands: int = 3) -> Ids:
    """2_Ortho_RGB (or 4_Ortho_RGBIR) and 5_Labels_all, and the incomplete copy for participants; the mask of 4_12 is slightly off."""
    name = {3: "2_Ortho_RGB/top_potsdam_{}_RGB.tif", 4: "4_Ortho_RGBIR/top_potsdam_{}_RGBIR.tif"}[bands]
    truth = {}
    for number, stem in enumerate([*POTSDAM_TRAIN, *POTSDAM_TEST]):
        picture(folder / name.format(stem), number, bands)
        ids = draw(number, 6)
        shown = colours(ISPRS)[ids]
        off = np.where(shown == 255, 252, shown).astype(np.uint8) if stem == "4_12" else shown
        mask(folder / "5_Labels_all" / f"top_potsdam_{stem}_label.tif", off, number)
        (folder / "5_Labels_all" / f"top_potsdam_{stem}_label.tfw").write_text("0.05\n")
        if stem in POTSDAM_TRAIN:
            mask(folder / "5_Labels_for_participants" / f"top_potsdam_{stem}_label.tif", off, number)
        truth[stem] = ids.astype(np.uint8)
    return truth


def plant_vaihingen(folder: Path) -> Ids:
    """As its two archives unpack: top/, gts_for_participants/ and dsm/, and the complete labels under the images' own names."""
    truth = {}
    for stem in [*VAIHINGEN_TRAIN, *VAIHINGEN_TEST]:
        name = f"top_mosaic_09cm_area{stem}.tif"
        picture(folder / "top" / name, stem)
        ids = draw(stem, 6)
        mask(folder / name, colours(ISPRS)[ids], stem)
        if stem in VAIHINGEN_TRAIN:
            mask(folder / "gts_for_participants" / name, colours(ISPRS)[ids], stem)
        picture(folder / "dsm" / f"dsm_09cm_matching_area{stem}.tif", stem, 1)
        truth[str(stem)] = ids.astype(np.uint8)
    return truth


def plant_dubai(folder: Path) -> Ids:
    """Tile N/images and masks, 8 tiles of 9 parts, and the classes.json whose colours are not those of the masks."""
    top = folder / "Semantic segmentation dataset"
    truth = {}
    for tile in range(1, 9):
        for part in range(1, 10):
            stem, seed = f"image_part_{part:03d}", 10 * tile + part
            picture(top / f"Tile {tile}" / "images" / f"{stem}.jpg", seed)
            ids = draw(seed, len(DUBAI))
            mask(top / f"Tile {tile}" / "masks" / f"{stem}.png", colours(tuple(DUBAI))[ids])
            truth[f"{tile}/{stem}"] = np.array(list(DUBAI.values()), np.uint8)[ids]
    (top / "classes.json").write_text(json.dumps({"classes": [{"title": "Water", "color": "#50E3C2"}]}))
    return truth
