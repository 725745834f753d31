"""The label of a tile is what the model says window by window, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.curation_world import picture, save
from support.tiny_models import TinySegmenter
from tilth.catalog.rows import Tile
from tilth.classes import ClassScheme, LandClass
from tilth.errors import UsageError
from tilth.imagery.read import Pixels, Window
from tilth.labelling.tile_label import NOT_FINITE, Labeller, TileLabel, label_tile
from tilth.models.inference import evaluating, predict_tile
from tilth.models.tiles import Running, predict_tiles, tiles_together


def pixels_of(height: int, width: int, seed: int = 0, holes: bool = False) -> Pixels:
    data = picture(seed, height, width).transpose(2, 0, 1)
    valid = np.random.default_rng(seed).random((height, width)) > 0.3 if holes else np.ones((height, width), bool)
    return Pixels(data, valid)


def tile_of(row: dict) -> Tile:
    return Tile(row["tile_id"], row["image"], Window(*row["window"]), None, "none", "rgb", None, None, None)


def brute_force(model, pixels: Pixels, window: int, overlap: int) -> np.ndarray:
    """Probabilities (K, H, W): windows one by one, the last of an axis shifted back, weighted by sin^2 towards their middle."""
    bands, height, width = pixels.data.shape
    longest = max(height, width)
    window = min(window, -(-longest // 32) * 32)
    overlap = min(overlap, window - 1)

    def starts(size: int) -> list[int]:
        found = [0]
        while found[-1] + window < size:
            found.append(min(found[-1] + window - overlap, size - window))
        return found

    position = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    weights = np.outer(position, position)
    total, sums = np.zeros((len(model.scheme), height, width)), np.zeros((height, width))
    for row in starts(height):
        for column in starts(width):
            image, valid = np.zeros((bands, window, window), np.float32), np.zeros((window, window), bool)
            part = pixels.data[:, row : row + window, column : column + window]
            high, wide = part.shape[1:]
            image[:, :high, :wide], valid[:high, :wide] = part, pixels.valid[row : row + window, column : column + window]
            with torch.no_grad():
                normal = model.normalise(torch.from_numpy(image)[None], torch.from_numpy(valid)[None])
                found = model.eval()(normal)[0].softmax(dim=0).double().numpy()
            total[:, row : row + high, column : column + wide] += (found * weights)[:, :high, :wide]
            sums[row : row + high, column : column + wide] += weights[:high, :wide]
    return total / sums


@pytest.mark.parametrize("overlap", [0, 20])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 51), (1, 1), (64, 20), (150, 64), (131, 97)])
@pytest.mark.parametrize("holes", [False, True])
def test_label_is_that_of_a_loop_over_windows(tmp_path, height, width, overlap, holes):
    model = TinySegmenter()
    pixels = pixels_of(height, width, holes=holes)
    alpha = np.where(pixels.valid, 255, 0).astype(np.uint8)
    row = save(tmp_path, "a", np.dstack([pixels.data.transpose(1, 2, 0), alpha]))
    (found,) = Labeller(model, Running(window=64, overlap=overlap), ignore_below=0.6)([tile_of(row)])
    wanted = brute_force(model, pixels, 64, overlap)
    highest, classes = wanted.max(axis=0), wanted.argmax(axis=0)
    # Where two classes, or the highest and the limit, are equal but for rounding, either is right.
    ranked = np.sort(wanted, axis=0)
    clear = (ranked[-1] - ranked[-2] > 1e-5) & (np.abs(highest - 0.6) > 1e-5)
    assert clear.mean() > 0.99
    labels = np.where(pixels.valid & (highest >= 0.6), classes, 255)
    np.testing.assert_array_equal(found.classes[clear], labels[clear])
    assert np.abs(found.percents[pixels.valid] - 100 * highest[pixels.valid]).max(initial=0) <= 0.5 + 1e-3
    assert (found.percents[~pixels.valid] == 255).all()
    np.testing.assert_array_equal(found.pixels, np.bincount(found.classes[found.classes < 255], minlength=4))
    assert found.ignored == pytest.approx((found.classes == 255).mean())
    if pixels.valid.any():
        assert found.confidence == pytest.approx(highest[pixels.valid].mean(), abs=1e-6)
        assert found.entropy == pytest.approx(-(wanted * np.log(wanted)).sum(axis=0)[pixels.valid].mean(), abs=1e-5)
    else:
        assert (found.confidence, found.entropy) == (None, None)


@pytest.mark.parametrize("flips", ["none", "both"])
@pytest.mark.parametrize(("height", "width", "overlap"), [(64, 64, 0), (37, 51, 0), (20, 90, 10), (131, 70, 20)])
def test_tiles_together_get_what_each_gets_alone(height, width, overlap, flips):
    model = TinySegmenter()
    tiles = [pixels_of(height, width, seed, holes=seed == 1) for seed in range(3)]
    running = Running(window=64, overlap=overlap, batch_size=5)
    with evaluating(model):
        together = list(predict_tiles(model, tiles, running, flips))
    for tile, found in zip(tiles, together, strict=True):
        assert torch.equal(found, predict_tile(model, tile, window=64, overlap=overlap, flips=flips))


def test_accelerators_get_full_batches_and_a_cpu_one_tile():
    assert tiles_together(64, 64, Running(window=64, batch_size=8)) == 1
    assert tiles_together(64, 64, Running(window=64, batch_size=8, device="cuda")) == 8
    assert tiles_together(128, 100, Running(window=64, batch_size=8, device="cuda")) == 2
    assert tiles_together(640, 640, Running(window=64, batch_size=8, device="cuda")) == 1


def test_unsure_pixels_are_ignored_and_those_at_the_limit_are_not():
    first = torch.tensor([[0.5, 0.75], [0.25, 0.625]])
    valid = np.array([[True, True], [True, False]])
    found = label_tile(torch.stack([first, 1 - first]), valid, 0.75)
    assert isinstance(found, TileLabel)
    assert found.classes.tolist() == [[255, 0], [1, 255]]
    assert found.percents.tolist() == [[50, 75], [75, 255]]
    assert found.pixels.tolist() == [1, 1]
    assert found.ignored == 0.5
    assert found.confidence == pytest.approx((0.5 + 0.75 + 0.75) / 3)
    quarter = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert found.entropy == pytest.approx((np.log(2) + 2 * quarter) / 3)
    everything = label_tile(torch.stack([first, 1 - first]), valid, 0)
    assert everything.classes.tolist() == [[0, 0], [1, 255]]
    assert everything.percents.tolist() == found.percents.tolist()


def test_one_class_is_sure_of_itself():
    found = label_tile(torch.ones(1, 3, 5), np.ones((3, 5), bool), 1.0)
    assert (found.classes == 0).all()
    assert (found.percents == 100).all()
    assert (found.confidence, found.entropy, found.ignored) == (1.0, 0.0, 0.0)


def test_output_that_is_not_finite_is_a_reason():
    probabilities = torch.full((2, 4, 4), 0.5)
    probabilities[:, 1, 1] = float("nan")
    assert label_tile(probabilities, np.ones((4, 4), bool), 0) == NOT_FINITE


def test_tiles_keep_their_order_whatever_comes_between(tmp_path):
    model = TinySegmenter()
    rows = [save(tmp_path, f"t{number}", picture(number, 20 + number % 2, 30)) for number in range(7)]
    (tmp_path / "t3.png").write_bytes(b"torn")
    rows.append(save(tmp_path, "void", np.zeros((9, 9, 4), np.uint8)))
    found = list(Labeller(model, Running(window=32), readers=3)(list(map(tile_of, rows))))
    assert [isinstance(item, str) for item in found] == [number == 3 for number in range(8)]
    assert "t3.png: truncated or damaged" in found[3]
    for row, item in zip(rows[:3], found[:3], strict=True):
        (alone,) = Labeller(model, Running(window=32))([tile_of(row)])
        np.testing.assert_array_equal(item.classes, alone.classes)
    assert (found[7].classes == 255).all()
    assert (found[7].ignored, found[7].confidence) == (1.0, None)
    assert model.training


def test_windows_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="overlap"):
        Labeller(TinySegmenter(), Running(window=32, overlap=32))


def test_many_classes_fit_into_a_byte():
    scheme = ClassScheme(name="many", classes=tuple(LandClass(name=f"c{number}", colour=(number, 0, 0)) for number in range(255)))
    probabilities = torch.zeros(len(scheme), 1, 255)
    probabilities[range(255), 0, range(255)] = 1
    found = label_tile(probabilities, np.ones((1, 255), bool), 0.5)
    assert found.classes[0].tolist() == list(range(255))
    assert found.pixels.tolist() == [1] * 255
