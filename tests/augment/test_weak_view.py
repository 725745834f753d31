import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tilth import seeds
from tilth.augment.config import WeakConfig
from tilth.augment.normalise import fill_value, normalise
from tilth.augment.weak import WeakDraw, WeakGeometry, draw_weak, plan_weak, source_window, weak_view
from tilth.errors import ConfigError, DataError, SensorMismatchError
from tilth.imagery.read import Window
from tilth.sensors import get_sensor

FIXTURES = Path(__file__).parents[1] / "fixtures" / "s5"
RGB, RADAR = get_sensor("rgb"), get_sensor("s1")


def view(tiles, masks, geometry, size, sensor, valid=None):
    """Read each sample's window, pad with rubbish to one size, and make the weak view: the loader's part in short."""
    height = max(g.window.height for g in geometry) + 2
    width = max(g.window.width for g in geometry) + 3
    stored = np.full((len(tiles), tiles[0].shape[0], height, width), 77, tiles[0].dtype)
    labels, seen = np.full((len(tiles), height, width), 88, np.uint8), np.ones((len(tiles), height, width), bool)
    for number, g in enumerate(geometry):
        rows = slice(g.window.row, g.window.row + g.window.height)
        columns = slice(g.window.column, g.window.column + g.window.width)
        inside = (number, slice(g.window.height), slice(g.window.width))
        stored[(number, slice(None), *inside[1:])] = tiles[number][:, rows, columns]
        labels[inside] = masks[number][rows, columns]
        seen[inside] = True if valid is None else valid[number][rows, columns]
    return weak_view(torch.from_numpy(stored), torch.from_numpy(labels), torch.from_numpy(seen), geometry, size, sensor)


def whole(height, width, draw):
    return WeakGeometry(Window(0, 0, width, height), height, width, draw)


def read(height, width, draw, size):
    return WeakGeometry(source_window(draw, height, width, size), height, width, draw)


def pillow(plane, draw, size, method, padding):
    """One band by Pillow, columns first (newer versions choose the order themselves when given both sides at once)."""
    height = plane.shape[0]
    image = Image.fromarray(plane)
    if method == Image.Resampling.BILINEAR:
        image = image.resize((draw.new_width, height), method)
    resized = np.asarray(image.resize((draw.new_width, draw.new_height), method))
    canvas = np.full((max(draw.new_height, size), max(draw.new_width, size)), padding, plane.dtype)
    canvas[: draw.new_height, : draw.new_width] = resized
    crop = canvas[draw.y : draw.y + size, draw.x : draw.x + size]
    crop = crop[:, ::-1] if draw.hflip else crop
    crop = crop[::-1] if draw.vflip else crop
    return np.rot90(crop, draw.quarter_turns)


@pytest.mark.parametrize("case", json.loads((FIXTURES / "weak_aug.json").read_text()), ids=lambda case: str(case["case"]))
def test_the_official_weak_view_is_reproduced_exactly(case):
    arrays, number, size = np.load(FIXTURES / "weak_aug.npz"), case["case"], case["crop"]
    image, mask = arrays[f"img{number}"].transpose(2, 0, 1), arrays[f"mask{number}"]
    new_width, new_height = case["resized_wh"]
    geometry = read(*mask.shape, WeakDraw(new_height, new_width, case["x"], case["y"], case["hflip"], case["vflip"]), size)
    out, out_mask, valid = view([image], [mask], [geometry], size, RGB)
    expected = arrays[f"outmask{number}"].astype(np.int64)
    np.testing.assert_array_equal(out[0].numpy(), arrays[f"out{number}"].transpose(2, 0, 1))
    np.testing.assert_array_equal(out_mask[0].numpy(), np.where(expected == 254, 255, expected))
    np.testing.assert_array_equal(valid[0].numpy(), expected != 254)
    np.testing.assert_allclose(normalise(out, valid, RGB)[0, :, ::4, ::4].numpy(), arrays[f"norm{number}"], atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_8_bit_batches_equal_pillow_for_any_geometry(seed):
    rng = np.random.default_rng(seed)
    size, sides = int(rng.integers(1, 60)), rng.integers(1, 100, (12, 2)).tolist()
    config = WeakConfig(size=size, scale_min=0.2, scale_max=2.5, rot90=True)
    geometry = [plan_weak(rng, height, width, config) for height, width in sides]
    tiles = [rng.integers(0, 256, (3, height, width), dtype=np.uint8) for height, width in sides]
    tiles[0] = (tiles[0] > 127).astype(np.uint8) * 255
    masks = [rng.integers(0, 200, (height, width), dtype=np.uint8) for height, width in sides]
    image, mask, valid = view(tiles, masks, geometry, size, RGB)
    for number, g in enumerate(geometry):
        expected = [pillow(band, g.draw, size, Image.Resampling.BILINEAR, 0) for band in tiles[number]]
        np.testing.assert_array_equal(image[number].numpy(), np.stack(expected))
        np.testing.assert_array_equal(mask[number].numpy(), pillow(masks[number], g.draw, size, Image.Resampling.NEAREST, 255))
        np.testing.assert_array_equal(
            valid[number].numpy(), pillow(np.ones(sides[number], np.uint8), g.draw, size, Image.Resampling.NEAREST, 0)
        )


@pytest.mark.parametrize("seed", range(4))
def test_float_batches_equal_pillow_for_any_geometry(seed):
    rng = np.random.default_rng(seed)
    size, sides = int(rng.integers(1, 60)), rng.integers(1, 100, (8, 2)).tolist()
    geometry = [plan_weak(rng, height, width, WeakConfig(size=size, rot90=True)) for height, width in sides]
    tiles = [rng.normal(-15, 8, (2, height, width)).astype(np.float32) for height, width in sides]
    image, _, _ = view(tiles, [np.zeros(side, np.uint8) for side in sides], geometry, size, RADAR)
    fills = fill_value(RADAR).numpy()
    for number, g in enumerate(geometry):
        expected = [pillow(band, g.draw, size, Image.Resampling.BILINEAR, fill) for band, fill in zip(tiles[number], fills, strict=True)]
        np.testing.assert_allclose(image[number].numpy(), np.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_window_holds_every_pixel_that_matters_and_no_row_more(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 80, 2).tolist()
    draw = draw_weak(rng, height, width, WeakConfig(size=17))
    tile, mask = rng.normal(size=(2, height, width)).astype(np.float32), rng.integers(0, 9, (height, width), dtype=np.uint8)
    small = view([tile], [mask], [read(height, width, draw, 17)], 17, RADAR)
    large = view([tile], [mask], [whole(height, width, draw)], 17, RADAR)
    for one, other in zip(small, large, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    window = source_window(draw, height, width, 17)
    edges = [(window.row, None), (window.row + window.height - 1, None), (None, window.column), (None, window.column + window.width - 1)]
    for row, column in edges:
        changed = tile.copy()
        changed[
            :, slice(row, row + 1) if row is not None else slice(None), slice(column, column + 1) if column is not None else slice(None)
        ] += 100
        assert not torch.equal(view([changed], [mask], [whole(height, width, draw)], 17, RADAR)[0], large[0])


def test_geometry_follows_the_official_distribution():
    config, count = WeakConfig(size=32), 4000
    draws = [draw_weak(seeds.generator(number), 41, 63, config) for number in range(count)]
    longs = np.array([draw.new_width for draw in draws])
    assert (longs.min(), longs.max()) == (int(0.5 * 63), 2 * 63)
    deviation = np.sqrt(((126 - 31 + 1) ** 2 - 1) / 12)
    assert abs(longs.mean() - (31 + 126) / 2) < 3 * deviation / np.sqrt(count)
    assert all(draw.new_height == int(41 * draw.new_width / 63 + 0.5) for draw in draws)
    for name in ("hflip", "vflip"):
        assert abs(np.mean([getattr(draw, name) for draw in draws]) - 0.5) < 3 * 0.5 / np.sqrt(count)
    assert abs(np.corrcoef([draw.hflip for draw in draws], [draw.vflip for draw in draws])[0, 1]) < 3 / np.sqrt(count)
    free = [(draw.x / (draw.new_width - 32)) for draw in draws if draw.new_width > 80]
    assert abs(np.mean(free) - 0.5) < 3 * np.sqrt(1 / 11) / np.sqrt(len(free))
    assert {draw.x for draw in draws if draw.new_width <= 32} == {0}
    assert {draw.quarter_turns for draw in draws} == {0}


def test_height_is_the_long_side_of_tall_tiles_only():
    rng = np.random.default_rng(0)
    tall, square = draw_weak(rng, 90, 30, WeakConfig(size=8)), draw_weak(rng, 50, 50, WeakConfig(size=8))
    assert tall.new_width == int(30 * tall.new_height / 90 + 0.5)
    assert square.new_width == square.new_height


def test_quarter_turns_are_uniform_when_asked_for():
    turns = [draw_weak(seeds.generator(number), 20, 20, WeakConfig(size=8, rot90=True)).quarter_turns for number in range(2000)]
    assert np.abs(np.bincount(turns, minlength=4) - 500).max() < 4 * np.sqrt(2000 * 0.25 * 0.75)


def test_nodata_does_not_bleed():
    tile = np.full((2, 20, 20), -10.0, np.float32)
    tile[:, :, 10:] = np.nan
    tile[0, 3, 3] = -np.inf
    valid = np.isfinite(tile[1])
    draw = WeakDraw(31, 31, 2, 3)
    image, mask, seen = view([tile], [np.ones((20, 20), np.uint8)], [read(20, 20, draw, 16)], 16, RADAR, [valid])
    fills = fill_value(RADAR)
    assert torch.isfinite(image).all()
    assert image[0, 1][seen[0]].min() >= fills[1].item() - 1e-4
    assert image[0, 1][seen[0]].max() <= -10 + 1e-4
    for band in range(2):
        assert (image[0, band][~seen[0]] == fills[band]).all()
    assert (mask[0][~seen[0]] == 255).all()
    assert (mask[0][seen[0]] == 1).all()
    assert 0 < seen.sum() < seen.numel()


def test_invalid_8_bit_pixels_count_as_black():
    tile = np.full((3, 8, 8), 200, np.uint8)
    valid = np.ones((8, 8), bool)
    valid[:, 4:] = False
    black = tile.copy()
    black[:, :, 4:] = 0
    geometry = [read(8, 8, WeakDraw(13, 13, 1, 1), 11)]
    masked = view([tile], [np.zeros((8, 8), np.uint8)], geometry, 11, RGB, [valid])
    expected = view([black], [np.zeros((8, 8), np.uint8)], geometry, 11, RGB)
    seen = masked[2].unsqueeze(1).expand_as(masked[0])
    assert torch.equal(masked[0][seen], expected[0][seen])
    assert (masked[0][~seen] == 0).all()


def test_a_tile_without_a_valid_pixel_is_all_fill_and_all_ignored():
    tile = np.full((2, 9, 9), np.nan, np.float32)
    image, mask, valid = view(
        [tile], [np.ones((9, 9), np.uint8)], [read(9, 9, WeakDraw(12, 12, 0, 0), 16)], 16, RADAR, [np.zeros((9, 9), bool)]
    )
    assert not valid.any()
    assert (mask == 255).all()
    torch.testing.assert_close(image, fill_value(RADAR).view(1, 2, 1, 1).expand_as(image), rtol=0, atol=0)


def test_ignored_labels_stay_ignored_and_their_pixels_valid():
    geometry = [read(10, 10, WeakDraw(15, 15, 0, 0), 12)]
    image, mask, valid = view([np.full((3, 10, 10), 9, np.uint8)], [np.full((10, 10), 255, np.uint8)], geometry, 12, RGB)
    assert (mask == 255).all()
    assert valid.all()
    assert (image == 9).all()


def test_batches_without_labels_are_ignored_everywhere():
    stored, valid = torch.ones(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1, 4, 4, dtype=torch.bool)
    _, mask, _ = weak_view(stored, None, valid, [whole(4, 4, WeakDraw(4, 4, 0, 0))], 4, RGB)
    assert mask.dtype == torch.int64
    assert (mask == 255).all()


@pytest.mark.parametrize(
    ("name", "dtype", "low", "high"), [("hls", np.int16, -30000, 30000), ("s2_l1c", np.uint16, 0, 65535), ("s2_l1c", np.float64, 0, 9)]
)
def test_wide_storage_types_and_many_bands_keep_their_values(name, dtype, low, high):
    sensor, rng = get_sensor(name), np.random.default_rng(3)
    tile = rng.integers(low, high, (len(sensor), 12, 10)).astype(dtype)
    geometry = [read(12, 10, WeakDraw(12, 10, 0, 0, hflip=True), 12)]
    image, _, valid = view([tile], [np.zeros((12, 10), np.uint8)], geometry, 12, sensor)
    np.testing.assert_array_equal(image[0, :, :, 2:].numpy(), tile[:, :, ::-1].astype(np.float32))
    assert not valid[0, :, :2].any()
    assert image.dtype == torch.float32


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (3, 2)])
def test_very_thin_tiles_have_a_view(height, width):
    for number in range(20):
        geometry = [plan_weak(seeds.generator(number), height, width, WeakConfig(size=5))]
        image, _, valid = view([np.full((3, height, width), 50, np.uint8)], [np.zeros((height, width), np.uint8)], geometry, 5, RGB)
        assert valid.any()
        assert (image[:, 0][valid] == 50).all()


def test_a_sample_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(1)
    sides = rng.integers(5, 90, (6, 2)).tolist()
    tiles = [rng.normal(size=(2, *side)).astype(np.float32) for side in sides]
    masks = [rng.integers(0, 5, side, dtype=np.uint8) for side in sides]
    geometry = [plan_weak(rng, *side, WeakConfig(size=24)) for side in sides]
    together = view(tiles, masks, geometry, 24, RADAR)
    for number in range(6):
        alone = view(tiles[number : number + 1], masks[number : number + 1], geometry[number : number + 1], 24, RADAR)
        assert all(torch.equal(one[0], many[number]) for one, many in zip(alone, together, strict=True))


def test_large_batches_equal_small_ones_across_chunks(monkeypatch):
    rng = np.random.default_rng(2)
    tile, mask = rng.integers(0, 256, (3, 60, 50), dtype=np.uint8), np.zeros((60, 50), np.uint8)
    geometry = [plan_weak(rng, 60, 50, WeakConfig(size=32)) for _ in range(3)]
    expected = view([tile] * 3, [mask] * 3, geometry, 32, RGB)[0]
    monkeypatch.setattr("tilth.augment.resample._CHUNK_CPU", 1)
    assert torch.equal(view([tile] * 3, [mask] * 3, geometry, 32, RGB)[0], expected)


@pytest.mark.parametrize("sensor", [RGB, RADAR])
def test_whole_batches_as_on_accelerators_equal_samples_one_by_one(sensor, monkeypatch):
    rng = np.random.default_rng(3)
    sides = rng.integers(5, 90, (6, 2)).tolist()
    kind = np.uint8 if sensor is RGB else np.float32
    tiles = [rng.integers(0, 256, (len(sensor), *side)).astype(kind) for side in sides]
    masks = [rng.integers(0, 5, side, dtype=np.uint8) for side in sides]
    geometry = [plan_weak(rng, *side, WeakConfig(size=24)) for side in sides]
    single = view(tiles, masks, geometry, 24, sensor)
    monkeypatch.setattr("tilth.augment.weak._ONE_BY_ONE", ())
    monkeypatch.setattr("tilth.augment.weak.known_whole", lambda _valid: False)
    for found, expected in zip(view(tiles, masks, geometry, 24, sensor), single, strict=True):
        assert torch.equal(found, expected)


def test_the_input_is_left_alone():
    stored = torch.full((1, 2, 6, 6), float("nan"))
    valid = torch.zeros(1, 6, 6, dtype=torch.bool)
    weak_view(stored, torch.zeros(1, 6, 6, dtype=torch.uint8), valid, [whole(6, 6, WeakDraw(6, 6, 0, 0, quarter_turns=1))], 6, RADAR)
    assert stored.isnan().all()
    assert not valid.any()


def test_geometry_survives_a_worker_process():
    geometry = plan_weak(seeds.generator(4), 300, 200, WeakConfig(size=64))
    assert pickle.loads(pickle.dumps(geometry)) == geometry
    assert all(type(value) is int for value in (*geometry.window, geometry.draw.x, geometry.draw.y, geometry.draw.new_height))


def test_what_does_not_fit_is_refused():
    stored, valid = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1, 4, 4, dtype=torch.bool)
    geometry = [whole(4, 4, WeakDraw(4, 4, 0, 0))]
    with pytest.raises(SensorMismatchError, match="needs"):
        weak_view(stored, None, valid, geometry, 4, RADAR)
    with pytest.raises(DataError, match="valid has shape"):
        weak_view(stored, None, valid[:, :2], geometry, 4, RGB)
    with pytest.raises(DataError, match="2 geometries for 1 samples"):
        weak_view(stored, None, valid, geometry * 2, 4, RGB)
    with pytest.raises(DataError, match="window of 9 x 9 pixels"):
        weak_view(stored, None, valid, [whole(9, 9, WeakDraw(4, 4, 0, 0))], 4, RGB)
    with pytest.raises(ConfigError, match="scale_max"):
        WeakConfig.parse({"scale_min": 2, "scale_max": 1})
