"""Noise that belongs to a place, and models that are told where an image lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.tiny_models import TinySegmenter
from support.training_sample import catalog_of, make_rows
from tilth.catalog.pack import pack_catalog
from tilth.catalog.reading import tile_pixels
from tilth.catalog.table import Catalog
from tilth.evaluation.samples import read_sample
from tilth.imagery.raster import Pixels, Window
from tilth.imagery.read import read_label
from tilth.imagery.write import write_raster
from tilth.models.diffusion.noise import BLOCK, noise_field, noise_like
from tilth.models.inference import evaluating, predict_tile
from tilth.models.tiles import Running, predict_tiles
from tilth.prediction.scene import predict_scene

WHOLE = ((-70, 200), (-1, 150))


@pytest.mark.parametrize(
    "part", [((0, 5), (0, 7)), ((-70, -60), (60, 150)), ((63, 65), (127, 129)), ((0, BLOCK), (0, BLOCK)), ((9, 10), (3, 4))]
)
def test_rectangles_agree_where_they_overlap(part):
    rows, columns = part
    whole = noise_field(5, 0, 3, *WHOLE)
    inside = whole[:, rows[0] + 70 : rows[1] + 70, columns[0] + 1 : columns[1] + 1]
    assert torch.equal(noise_field(5, 0, 3, rows, columns), inside)


def test_noise_is_standard_normal_and_independent_between_seeds_draws_bands_and_blocks():
    side = 4 * BLOCK
    fields = [noise_field(seed, draw, 2, (0, side), (0, side)) for seed, draw in ((0, 0), (0, 1), (1, 0))]
    values = torch.stack([band for field in fields for band in (*field, field[0].roll(BLOCK, 0), field[0].roll(BLOCK, 1))]).flatten(1)
    correlation = torch.corrcoef(values.double())
    off = correlation - torch.eye(len(values))
    assert values.mean(1).abs().max() < 5 / side
    assert (values.std(1) - 1).abs().max() < 5 / side
    assert off.abs().max() < 6 / side


def test_a_batch_gets_the_noise_of_its_places_and_zeros_by_default():
    image = torch.zeros(2, 1, 20, 30)
    found = noise_like(image, torch.tensor([[7, 9], [0, 64]]), 3, 1)
    assert torch.equal(found[0], noise_field(3, 1, 1, (7, 27), (9, 39)))
    assert torch.equal(found[1], noise_field(3, 1, 1, (0, 20), (64, 94)))
    assert torch.equal(noise_like(image, None, 3, 1)[1], noise_field(3, 1, 1, (0, 20), (0, 30)))
    found += 1
    assert torch.equal(noise_like(image, None, 3, 1)[0], noise_field(3, 1, 1, (0, 20), (0, 30)))


class Placed(TinySegmenter):
    """Looks at single pixels, and adds to each the noise of its place."""

    takes_origins = True

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 3, 1)
        self.second = torch.nn.Conv2d(3, len(self.scheme), 1)

    def forward(self, image, origins):
        noisy = image + noise_like(image, origins, 0, 0)
        return self.second(torch.tanh(self.first(noisy)))


@pytest.fixture
def placed():
    torch.manual_seed(2)
    return Placed().eval()


def some_pixels(height, width, origin=(0, 0)) -> Pixels:
    data = np.random.default_rng(1).integers(0, 255, (3, height, width)).astype(np.uint8)
    return Pixels(data, np.ones((height, width), np.bool_), origin=origin)


def cut(pixels: Pixels, rows: slice, columns: slice) -> Pixels:
    return replace(
        pixels,
        data=pixels.data[:, rows, columns],
        valid=pixels.valid[rows, columns],
        origin=(pixels.origin[0] + rows.start, pixels.origin[1] + columns.start),
    )


@pytest.mark.parametrize(("window", "overlap"), [(100, 0), (32, 8), (17, 5)])
def test_windows_of_a_tile_see_the_noise_of_their_place(placed, window, overlap):
    pixels = some_pixels(90, 70, origin=(30, 1000))
    with evaluating(placed):
        expected = placed(placed.normalise(torch.from_numpy(pixels.data)[None].float()), torch.tensor([[30, 1000]]))[0].softmax(0)
    found = predict_tile(placed, pixels, window=window, overlap=overlap)
    assert torch.allclose(found, expected, atol=1e-5)


def test_tiles_cut_from_a_scene_see_what_the_scene_sees(placed):
    scene = some_pixels(64, 96)
    whole = predict_tile(placed, scene, window=32, overlap=0)
    tiles = [cut(scene, slice(row, row + 32), slice(column, column + 48)) for row in (0, 20) for column in (0, 40)]
    with evaluating(placed):
        found = list(predict_tiles(placed, tiles, Running(window=16, overlap=4)))
    for tile, probabilities in zip(tiles, found, strict=True):
        row, column = tile.origin
        assert torch.allclose(probabilities, whole[:, row : row + 32, column : column + 48], atol=1e-5)
    lost = predict_tile(placed, replace(tiles[-1], origin=(0, 0)), window=32, overlap=0)
    assert not torch.allclose(lost, found[-1], atol=0.01)


def test_scenes_are_the_same_whatever_the_windows_and_batches(placed, tmp_path):
    pixels = some_pixels(70, 103)
    uri = str(write_raster(tmp_path / "scene.tif", pixels.data, crs="EPSG:32633", transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0)))
    expected = predict_tile(placed, pixels, window=200, overlap=0)
    best = expected.topk(2, dim=0)
    clear = (best.values[0] - best.values[1]).numpy() > 1e-4
    for window, overlap, batch_size in ((32, 8, 1), (24, 20, 5), (64, 0, 3)):
        made = predict_scene(placed, uri, tmp_path / f"{window}.tif", window=window, overlap=overlap, batch_size=batch_size)
        np.testing.assert_array_equal(read_label(str(made.path))[clear], best.indices[0].numpy()[clear])


def test_a_tile_knows_where_it_lies_in_its_raster_packed_or_not(tmp_path):
    rows = make_rows(tmp_path / "tiles", "a", 2, split="train", size=(48, 40))
    for row, window in zip(rows, ((4, 9, 16, 20), (0, 1, 40, 32)), strict=True):
        row["window"] = window
    catalog = catalog_of(rows)
    catalog.save(tmp_path / "catalog.parquet")
    pack_catalog(catalog, tmp_path / "packed")
    packed = Catalog.open(tmp_path / "packed" / "catalog.parquet")
    for one in (catalog, packed):
        assert [tile.origin for tile in one.tiles()] == [(9, 4), (1, 0)]
        assert one.tile(0).origin == (9, 4)
        assert read_sample(one.tile(0), one.sensor()).pixels.origin == (9, 4)
        assert tile_pixels(one.tile(1), one.sensor()).origin == (1, 0)
    assert packed.tile(0).window == Window(0, 0, 16, 20)
