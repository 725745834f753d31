"""Tiles that show pixels of other tiles. Oracle: brute force over sets of pixels."""

import numpy as np

from tilth.catalog.overlap import shares_pixels
from tilth.catalog.table import Catalog
from tilth.sensors import get_sensor


def catalog_of(prefix: str, rows: list[tuple[str, tuple[int, int, int, int]]]) -> Catalog:
    tiles = [
        {"tile_id": f"{prefix}{place}", "image": image, "window": window, "sensor": "rgb"} for place, (image, window) in enumerate(rows)
    ]
    return Catalog.from_rows(tiles, sensors={"rgb": get_sensor("rgb")})


def drawn(draw: np.random.Generator, count: int) -> list[tuple[str, tuple[int, int, int, int]]]:
    images = [f"/data/{name}.tif" for name in "abcdef"] + ["s3://store/a.tif"]
    windows = [(*draw.integers(0, 40, 2).tolist(), *draw.integers(1, 9, 2).tolist()) for _ in range(count)]
    return [(images[draw.integers(len(images))], window) for window in windows]


def pixels(image: str, window: tuple[int, int, int, int]) -> set[tuple[str, int, int]]:
    column, row, width, height = window
    return {(image, x, y) for x in range(column, column + width) for y in range(row, row + height)}


def test_as_brute_force_finds():
    draw = np.random.default_rng(0)
    ours, theirs = drawn(draw, 150), drawn(draw, 60)
    taken = set().union(*(pixels(*row) for row in theirs))
    expected = [bool(pixels(*row) & taken) for row in ours]
    found = shares_pixels(catalog_of("a", ours), catalog_of("b", theirs))
    assert found.tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_neighbours_share_nothing_and_other_images_neither():
    ours = [("/a.tif", (64, 0, 64, 64)), ("/a.tif", (63, 0, 64, 64)), ("/b.tif", (0, 0, 64, 64))]
    assert shares_pixels(catalog_of("a", ours), catalog_of("b", [("/a.tif", (0, 0, 64, 64))])).tolist() == [False, True, False]
    assert not shares_pixels(catalog_of("a", ours), catalog_of("b", [])).any()
    assert shares_pixels(catalog_of("a", []), catalog_of("b", ours)).shape == (0,)


def test_thousands_of_images_far_apart_keep_single_pixels_apart():
    last = 2**31 - 2
    ours = [(f"/{number}.tif", (last - number % 2, last, 1, 1)) for number in range(3000)]
    theirs = [(f"/{number}.tif", (last, last, 1, 1)) for number in range(3000)]
    found = shares_pixels(catalog_of("a", ours), catalog_of("b", theirs))
    assert found.tolist() == [number % 2 == 0 for number in range(3000)]


def test_link_to_a_folder_is_that_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    one, other = (catalog_of("a", [(str(tmp_path / name / "a.tif"), (0, 0, 8, 8))]) for name in ("real", "link"))
    assert shares_pixels(one, other).tolist() == [True]
