"""Tiny stand-ins of MiniFrance, DFC2022 and GID in their original layouts; each maker returns the class ids that its masks stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from support.public_sets import Ids
from tilth.imagery.write import write_raster

WIDTH, HEIGHT = 528, 272
"""Two windows of 256 pixels and a rest of 16 each way."""

NOWHERE: dict[str, None] = {"crs": None, "transform": None}

# ddpm.md section 11: colours of the fine and of the coarse classes in the order of their ids.
GID = {
    15: (
        *((200, 0, 0), (250, 0, 150), (200, 150, 150), (250, 150, 150), (0, 200, 0), (150, 250, 0), (150, 200, 150), (200, 0, 200)),
        *((150, 0, 250), (150, 150, 250), (250, 200, 0), (200, 200, 0), (0, 0, 200), (0, 150, 200), (0, 200, 250)),
    ),
    5: ((255, 0, 0), (0, 255, 0), (0, 255, 255), (255, 255, 0), (0, 0, 255)),
}


def plant_minifrance(folder: Path) -> Ids:
    """A folder a city; Lorient has no labels."""
    truth = {}
    places = [("Nantes", "44-1"), ("Nantes", "44-2"), ("Marseille", "13-1"), ("Lorient", "56-1"), ("Martigues", "13-2")]
    for seed, (city, stem) in enumerate(places):
        truth |= _city(folder / city, stem, seed, labelled=city != "Lorient", key=f"{city}/{stem}")
    return truth


def plant_dfc2022(folder: Path) -> Ids:
    """The contest's three folders, with elevation; val and unlabeled_train have no labels."""
    truth = {}
    places = [("labeled_train", "Nice"), ("labeled_train", "Nantes_Saint-Nazaire"), ("unlabeled_train", "Brest"), ("val", "Marseille")]
    for seed, (split, city) in enumerate(places):
        stem = f"{seed}-2013-LA93"
        truth |= _city(folder / split / city, stem, seed, labelled=split == "labeled_train", key=f"{split}/{city}/{stem}")
        write_raster(_made(folder / split / city / "RGEALTI" / f"{stem}_RGEALTI.tif"), np.zeros((1, 136, 264), np.float32), **NOWHERE)
    return truth


def plant_gid(folder: Path, classes: int, images: int = 2) -> Ids:
    """Three folders of files; masks show colours, black is no class."""
    table = np.array([*GID[classes], (0, 0, 0)], np.uint8)
    truth = {}
    for seed in range(images):
        stem = f"GF2_PMS{seed % 2 + 1}__L1A{seed:010d}-MSS{seed % 2 + 1}"
        for name, bands in (("RGB", 3), ("NirRGB", 4)):
            write_raster(_made(folder / f"image_{name}" / f"{stem}.tif"), _image(seed, bands), **NOWHERE)
        drawn = _ids(seed, classes + 1)
        write_raster(
            _made(folder / f"label_{classes}classes" / f"{stem}_label.tif"),
            np.ascontiguousarray(table[drawn].transpose(2, 0, 1)),
            **NOWHERE,
        )
        truth[stem] = np.where(drawn == classes, 255, drawn).astype(np.uint8)
    return truth


def _city(place: Path, stem: str, seed: int, *, labelled: bool, key: str) -> Ids:
    where = {"crs": "EPSG:2154", "transform": (0.5, 0, 300_000 + 20_000 * seed, 0, -0.5, 6_700_000)}
    write_raster(_made(place / "BDORTHO" / f"{stem}.tif"), _image(seed, 3), **where)
    if not labelled:
        return {}
    stored = _ids(seed, 16)
    write_raster(_made(place / "UrbanAtlas" / f"{stem}_UA2012.tif"), stored[None], **where)
    return {key: np.where((stored == 0) | (stored == 15), 255, stored.astype(int) - 1).astype(np.uint8)}


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _image(seed: int, bands: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(1, 255, (bands, HEIGHT // 16, WIDTH // 16), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, 1).repeat(16, 2))


def _ids(seed: int, kinds: int) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, kinds, (HEIGHT // 8, WIDTH // 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
