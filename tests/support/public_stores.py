"""Tiny stand-ins of sets with radar, optical bands and noisy labels: LMDB stores of pickled records, and folders of GeoTIFF."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import lmdb
import numpy as np

from tilth.catalog.table import Catalog
from tilth.datasets.options import PrepareConfig
from tilth.datasets.prepare import prepare_dataset
from tilth.imagery.read import read_label
from tilth.imagery.write import write_raster

Ids = dict[str, np.ndarray]
DFC_IDS = {0: 255, 1: 1, 2: 5, 3: 255, 4: 2, 5: 3, 6: 4, 7: 6, 8: 255, 9: 7, 10: 0}
DATES = ("20200302", "20200611", "20200913", "20201208")
BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")


def store(path: Path, records: Mapping[str, object], *, folder: bool = True) -> Path:
    """Write an LMDB store; values that are no bytes are pickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), subdir=folder, map_size=2**26) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else pickle.dumps(value))
    return path


def packed(array: np.ndarray, *names: object) -> tuple[object, ...]:
    return (np.ascontiguousarray(array).tobytes(), array.shape, *names)


def draw(seed: int, shape: tuple[int, ...], low: float, high: float, dtype: str) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


def plant_nol(folder: Path, places: int = 3, side: int = 24) -> Ids:
    """Three stores that are joined by index, four seasons each."""
    kinds: dict[str, dict[str, object]] = {"0k_251k_uint8_s1": {}, "0k_251k_uint8_s2c": {}, "dw_labels": {}}
    truth = {}
    for index in range(places):
        name = f"{index * 7:07d}"
        arrays = [
            draw(index, (4, 2, side, side), 0, 256, "uint8"),
            draw(index + 50, (4, 13, side, side), 0, 256, "uint8"),
            draw(index + 90, (4, side, side), 0, 9, "uint8"),
        ]
        for records, array in zip(kinds.values(), arrays, strict=True):
            records[str(index)] = packed(array, name)
        truth |= {f"train/{name}_season{season}": arrays[2][season] for season in range(4)}
    for name, records in kinds.items():
        store(folder / f"{name}.lmdb", records)
    return truth


def tile_records(seed: int, side: int, stored: np.ndarray, label: str, *, named: bool = True, dtype: str = "float32") -> dict[str, object]:
    """Records of place ``seed``: radar, optical, label."""
    names = [(f"{kind}_place{seed}.tif",) if named else () for kind in ("s1", "s2", label.removesuffix("_"))]
    arrays = [draw(seed, (2, side, side), -30, 0, dtype), draw(seed + 50, (13, side, side), 0, 10_000, "uint16"), stored.astype(np.uint8)]
    keys = (f"s1_{seed}", f"s2_{seed}", f"{label}{seed}")
    return {key: packed(array, *name) for key, array, name in zip(keys, arrays, names, strict=True)}


def plant_tiles(folder: Path, label: str, kinds: int, sides: tuple[int, int] = (30, 32), offset: int = 1) -> Ids:
    """Two stores, train and test, of named places; stored 0 is no label."""
    truth = {}
    for split, side in zip(("train", "test"), sides, strict=True):
        records: dict[str, object] = {}
        for index in range(3):
            stored = draw(index + side, (side, side), 0, kinds, "uint8")
            # A label of several layers: the second is it.
            both = np.stack([np.zeros_like(stored), stored]) if index == 1 else stored
            records |= tile_records(index, side, both, label)
            truth[f"{split}/place{index}"] = np.where((stored == 0) | (stored == 10) & (label == "dw_"), 255, stored - offset).astype(
                np.uint8
            )
        # One store is a folder, the other a file.
        store(folder / f"{label}{split}.lmdb", records, folder=split == "train")
    return truth


def plant_dfc_stores(folder: Path) -> Ids:
    truth = {}
    for split, name in (("train", "dfc_val"), ("test", "dfc_test")):
        records: dict[str, object] = {}
        for index in range(2):
            stored = draw(index, (16, 16), 1, 11, "uint8")
            records |= tile_records(index, 16, stored, "lbl_", named=False, dtype="float64")
            truth[f"{split}/{index:06d}"] = np.vectorize(DFC_IDS.get)(stored).astype(np.uint8)
        store(folder / name, records)
    return truth


def raster(path: Path, data: np.ndarray, resolution: float = 10.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_raster(path, data, crs="EPSG:32633", transform=(resolution, 0, 366_000, 0, -resolution, 5_800_000))


def plant_dfc(folder: Path) -> Ids:
    """ROIs0000_validation and ROIs0000_test with folders for S1, S2 and labels."""
    truth = {}
    for split, part in (("validation", "validation"), ("test", "0")):
        top = folder / f"ROIs0000_{split}"
        for index in range(2):
            stored = draw(index, (16, 16), 1, 11, "uint8")
            arrays = {
                "s1": draw(index, (2, 16, 16), -30, 0, "float32"),
                "s2": draw(index, (13, 16, 16), 0, 9000, "uint16"),
                "dfc": stored[None],
            }
            for kind, data in arrays.items():
                raster(top / f"{kind}_{part}" / f"ROIs0000_{split}_{kind}_{part}_p{index}.tif", data)
            truth[f"{split}/{part}/{index}"] = np.vectorize(DFC_IDS.get)(stored).astype(np.uint8)
    return truth


def plant_trees(folder: Path, places: int = 2, seasons: int = 4) -> Ids:
    """s1, s2c and dw: a folder a place, in it one a date, in it a file a band at its own resolution."""
    truth = {}
    for place in range(places):
        name = f"{place:07d}"
        for season, date in enumerate(DATES[:seasons]):
            optical = f"{date}T054639_{date}T054831_T43RCP"
            # Satellites A and B in turn, so that names are not in the order of dates.
            radar = f"S1{'BA'[season % 2]}_IW_GRDH_1SDV_{int(date) + 3}T011529_x"
            for number, band in enumerate(BANDS):
                side = 4 if band in ("B1", "B9", "B10") else 24 if band in ("B2", "B3", "B4", "B8") else 12
                level = 100 * (number + 1) + 10 * season + place
                raster(folder / "s2c" / name / optical / f"{band}.tif", np.full((1, side, side), level, np.uint16), 240 / side)
            for number, band in enumerate(("VV", "VH")):
                raster(folder / "s1" / name / radar / f"{band}.tif", np.full((1, 24, 24), -10.0 * (number + 1) - season, np.float32))
            ids = draw(10 * place + season, (24, 24), 0, 9, "uint8")
            raster(folder / "dw" / name / f"{optical}.tif", ids[None])
            truth[f"{name}/{optical}"] = ids
    return truth


def prepare(name: str, folder: Path, out: Path, **options: object) -> tuple[Catalog, list[str]]:
    """Prepare a set; return its catalog and the warnings."""
    lines: list[str] = []
    done = prepare_dataset(PrepareConfig(name=name, folder=folder, **options), out, warn=lines.append)
    return Catalog.open(done.path), lines


def assert_labels(catalog: Catalog, truth: dict[str, np.ndarray], prefix: str) -> None:
    """Compare every label with class ids by tile id without the prefix."""
    labels = {tile.tile_id.removeprefix(f"{prefix}/"): tile.label for tile in catalog.tiles()}
    assert set(labels) == set(truth)
    for name, ids in truth.items():
        np.testing.assert_array_equal(read_label(labels[name]), ids)


def contents(folder: Path) -> dict[str, str]:
    """Hash every file of a folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
