"""Tiny files that the catalog tests build from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.imagery.read import read_label, read_pixels
from tilth.seeds import generator
from tilth.sensors import get_sensor

CLASSES = ("water", "field", "rare")


@pytest.fixture
def scheme() -> ClassScheme:
    return ClassScheme(
        name="tiny", classes=tuple(LandClass(name=name, colour=(80 * i, 200 - 60 * i, 30)) for i, name in enumerate(CLASSES))
    )


def write_scheme(folder: Path) -> None:
    classes = [{"index": i, "name": name, "colour": [80 * i, 200 - 60 * i, 30]} for i, name in enumerate(CLASSES)]
    (folder / "classes.json").write_text(json.dumps({"name": "tiny", "classes": classes, "ignore_index": 255}))


def noise(key: str, *shape: int) -> np.ndarray:
    return generator("catalog tests", key).integers(0, 256, size=shape, dtype=np.uint8)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Eight image/mask pairs of 20 x 12 pixels with split files; i7 is in no split, i6 has no mask."""
    root = tmp_path / "tree" / "pairs"
    for part in ("images", "masks", "splits"):
        (root / part).mkdir(parents=True)
    for index in range(8):
        Image.fromarray(noise(f"i{index}", 12, 20, 3)).save(root / "images" / f"i{index}.png")
        if index != 6:
            Image.fromarray(noise(f"m{index}", 12, 20) % 3).save(root / "masks" / f"i{index}.png")
    (root / "splits" / "train.txt").write_text("i0\ni1\ni2\n\ni3\n")
    (root / "splits" / "val.txt").write_text("i4\ni5\n")
    (root / "splits" / "test.txt").write_text("i6\n")
    write_scheme(root)
    return root


SceneWriter = Callable[..., Path]


@pytest.fixture
def write_scene() -> SceneWriter:
    """Write a GeoTIFF: path, data (C, h, w), then optionally crs, transform (a, b, c, d, e, f), nodata."""

    def write(
        path: Path, data: np.ndarray, crs: str = "EPSG:32631", transform: tuple[float, ...] | None = None, nodata: float | None = None
    ) -> Path:
        import rasterio
        from rasterio.transform import Affine

        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = data.shape
        affine = Affine(*(transform or (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)))
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=count, dtype=data.dtype, crs=crs, transform=affine, nodata=nodata
        ) as file:
            file.write(data)
        return path

    return write


def plain_rows(count: int, folder: Path | str = "/data") -> list[dict[str, object]]:
    return [
        {
            "tile_id": f"t/{index:04d}",
            "image": f"{folder}/images/{index:04d}.png",
            "window": (0, 0, 64, 48),
            "sensor": "rgb",
            "label": f"{folder}/masks/{index:04d}.png" if index % 2 == 0 else None,
            "label_kind": "clean" if index % 2 == 0 else "none",
            "scheme": "tiny" if index % 2 == 0 else None,
            "split": ("train", "val", None)[index % 3],
        }
        for index in range(count)
    ]


@pytest.fixture
def make_catalog(scheme: ClassScheme) -> Callable[..., Catalog]:
    """Make a catalog of rows; without rows, of so many invented tiles whose files do not exist."""

    def make(rows: int | list[dict[str, object]] = 12, folder: Path | str = "/data") -> Catalog:
        listed = plain_rows(rows, folder) if isinstance(rows, int) else rows
        return Catalog.from_rows(listed, {"rgb": get_sensor("rgb")}, {"tiny": scheme})

    return make


def assert_same_pixels(packed: Catalog, catalog: Catalog) -> None:
    by_id = {tile.tile_id: tile for tile in catalog.tiles()}
    for tile in packed.tiles():
        source = by_id[tile.tile_id]
        found, wanted = read_pixels(tile.image, tile.window), read_pixels(source.image, source.window)
        np.testing.assert_array_equal(found.data, wanted.data)
        np.testing.assert_array_equal(found.valid, wanted.valid)
        assert (tile.label is None) == (source.label is None)
        if tile.label is not None:
            np.testing.assert_array_equal(read_label(tile.label, tile.window), read_label(source.label, source.window))


def rows_of(folder: Path, count: int = 9) -> list[dict[str, object]]:
    """Three tiles of a scene each (two of them overlap), the first six labelled."""
    rows: list[dict[str, object]] = []
    for index in range(count):
        name = f"s{index // 3}"
        image, mask = folder / f"{name}.png", folder / f"{name}_mask.png"
        if not image.exists():
            Image.fromarray(noise(name, 50, 90, 3)).save(image)
            label = noise(f"{name} mask", 50, 90) % 3
            label[:3] = 255
            Image.fromarray(label).save(mask)
        row: dict[str, object] = {"tile_id": f"t/{index}", "image": str(image), "window": (20 * (index % 3), index % 3, 41, 33)}
        row |= {"sensor": "rgb", "split": ("train", "val")[index % 2], "location_id": name, "score": index / 7}
        if index < 6:
            row |= {"label": str(mask), "label_kind": "clean", "scheme": "tiny"}
        rows.append(row)
    return rows


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
