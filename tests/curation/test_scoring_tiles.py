"""What is said of a tile is what the model says of it, pixel by pixel, whatever comes with it and however large it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from support.curation_world import SIDE, catalog_of, picture, save, with_alpha
from tilth.curation.config import ScoringConfig
from tilth.curation.measure import look_at
from tilth.curation.opinion import Observer
from tilth.curation.scorer import TileScorer
from tilth.curation.scoring import plan_work, score_here, scoring_identity
from tilth.curation.store import Scores
from tilth.errors import UnreadableFileError, UsageError
from tilth.imagery.read import Pixels, read_pixels
from tilth.models.inference import predict_tile
from tilth.models.tiles import Running
from tilth.sensors import get_sensor

RUNNING = Running(window=SIDE)


def pixels_of(height: int, width: int, seed: int = 0, holes: bool = False) -> Pixels:
    data = picture(seed, height, width).transpose(2, 0, 1)
    valid = np.random.default_rng(seed).random((height, width)) > 0.3 if holes else np.ones((height, width), bool)
    return Pixels(data, valid)


def slow_opinion(model, pixels: Pixels, window: int, overlap: int = 0):
    """Entropy of class 1 and up, classes and confidence from the probabilities that evaluation uses, pixel by pixel."""
    values = predict_tile(model, pixels, window=window, overlap=overlap).double().numpy()
    counted = values[:, pixels.valid]
    foreground = -(counted[1:] * np.log(counted[1:])).sum(axis=0).mean()
    return foreground, np.bincount(counted.argmax(axis=0), minlength=4), counted.max(axis=0).mean()


@pytest.mark.parametrize("overlap", [0, 20])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 51), (1, 1), (64, 20), (150, 64), (131, 97)])
@pytest.mark.parametrize("holes", [False, True])
def test_opinion_is_that_of_the_probabilities(model, height, width, overlap, holes):
    pixels = pixels_of(height, width, holes=holes)
    if not pixels.valid.any():
        pixels.valid[:] = True
    observer = Observer(model, (0,), "shrink", Running(window=64, overlap=overlap))
    with observer.ready():
        (found,) = observer.judge([pixels])
    entropy, counts, confidence = slow_opinion(model, pixels, 64, overlap)
    assert found.entropies[0] == pytest.approx(entropy, abs=2e-5)
    assert found.confidence == pytest.approx(confidence, abs=1e-5)
    assert found.pixels.sum() == pixels.valid.sum()
    assert np.abs(found.pixels - counts).sum() <= 2
    assert np.linalg.norm(found.feature) == pytest.approx(1, abs=1e-5)


def encoder_mean(model, image: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return F.normalize(model.encode(image)[-1].mean(dim=(2, 3)), dim=1)[0].numpy()


def normalised(model, pixels: Pixels) -> torch.Tensor:
    return model.normalise(torch.from_numpy(pixels.data[None]).float())


def feature(model, pixels: Pixels, kind: str, window: int) -> np.ndarray:
    observer = Observer(model, (0,), kind, Running(window=window))
    with observer.ready():
        (found,) = observer.judge([pixels])
    return found.feature


def test_feature_is_the_spatial_mean_of_the_last_map(model):
    pixels = pixels_of(64, 64)
    for kind in ("shrink", "resize", "windows"):
        np.testing.assert_allclose(feature(model, pixels, kind, 64), encoder_mean(model, normalised(model, pixels)), atol=1e-5)


def test_larger_tiles_are_made_as_large_as_a_window_and_smaller_ones_only_if_asked(model):
    large, small = pixels_of(128, 160), pixels_of(64, 64)
    resized = F.interpolate(normalised(model, large), (64, 64), mode="bilinear", antialias=True)
    for kind in ("shrink", "resize"):
        np.testing.assert_allclose(feature(model, large, kind, 64), encoder_mean(model, resized), atol=1e-5)
    enlarged = F.interpolate(normalised(model, small), (96, 96), mode="bilinear", antialias=True)
    np.testing.assert_allclose(feature(model, small, "resize", 96), encoder_mean(model, enlarged), atol=1e-5)
    np.testing.assert_allclose(feature(model, small, "shrink", 96), encoder_mean(model, normalised(model, small)), atol=1e-5)


def test_feature_over_windows_is_their_mean(model):
    large = pixels_of(64, 128)
    whole = normalised(model, large)
    with torch.no_grad():
        means = torch.cat([model.encode(whole[..., start : start + 64])[-1].mean(dim=(2, 3)) for start in (0, 64)])
    expected = F.normalize(means.mean(dim=0, keepdim=True), dim=1)[0].numpy()
    np.testing.assert_allclose(feature(model, large, "windows", 64), expected, atol=1e-5)


def test_cells_without_valid_pixels_do_not_count_in_a_feature(model):
    pixels = pixels_of(64, 64)
    pixels.valid[:, 32:] = False
    with torch.no_grad():
        image = model.normalise(torch.from_numpy(pixels.data[None]).float(), torch.from_numpy(pixels.valid[None]))
        cells = model.encode(image)[-1]
    half = F.normalize(cells[..., : cells.shape[-1] // 2].mean(dim=(2, 3)), dim=1)[0].numpy()
    np.testing.assert_allclose(feature(model, pixels, "shrink", 64), half, atol=1e-5)


def test_weights_stay_and_model_goes_back_to_training(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    observer = Observer(model, (0,), "shrink", RUNNING)
    with observer.ready():
        observer.judge([pixels_of(64, 64)])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.network.encoder._forward_hooks
    model.eval()


# What pixels show without a model.


def test_look_counts_valid_pixels_in_units_of_the_sensor():
    data = np.zeros((3, 4, 4), np.uint8)
    data[:, :2], data[0, 2], data[:, 3] = 255, 255, 9
    valid = np.ones((4, 4), bool)
    valid[3] = False
    found = look_at(Pixels(data, valid), get_sensor("rgb"))
    assert found.valid == 0.75
    assert found.brightness == pytest.approx((8 * 3 + 4) / 36)
    assert found.bright == pytest.approx(8 / 12)
    assert found.contrast == pytest.approx(np.std([1.0] * 8 + [0.0] * 4))
    assert found.portrait is None
    nothing = look_at(Pixels(data, np.zeros((4, 4), bool)), get_sensor("rgb"))
    assert nothing.valid == 0
    assert np.isnan(nothing.brightness)


def test_radar_is_never_bright():
    data = np.full((2, 40, 40), 0.0, np.float32) + np.random.default_rng(0).random((2, 40, 40), dtype=np.float32)
    assert look_at(Pixels(data, np.ones((40, 40), bool)), get_sensor("s1")).bright == 0


# Tiles of a catalog, and their scores on disk.


def work_of(folder, out, model, shard_tiles: int, names=None):
    rows = [save(folder, f"a{number}", picture(number, 40 + number % 3 * 40, 64)) for number in range(7)]
    rows += [save(folder, "void", with_alpha(picture(8), 0)), save(folder, "torn", picture(9))]
    (folder / "torn.png").write_bytes(b"?")
    scoring = ScoringConfig(shard_tiles=shard_tiles)
    return plan_work(catalog_of(rows), out, "pool", scoring_identity(model, scoring, RUNNING), shard_tiles), scoring


def test_scores_do_not_depend_on_what_comes_together(tmp_path, model):
    tables = []
    for name, shard, readers in (("one", 1, 1), ("four", 4, 3), ("all", 100, 2)):
        work, scoring = work_of(tmp_path / "tiles", tmp_path / name, model, shard)
        assert score_here(work, lambda scoring=scoring, readers=readers: TileScorer(model, scoring, RUNNING, readers)) == 9
        scores = work.scores()
        tables.append((scores.table, scores.features.part(0, 9).tobytes(), scores.portraits(np.array([0, 3])).tobytes()))
    assert tables[0][0].equals(tables[1][0])
    assert tables[0][0].equals(tables[2][0])
    assert tables[0][1:] == tables[1][1:] == tables[2][1:]


def test_what_is_stored_is_what_was_said(tmp_path, model):
    work, scoring = work_of(tmp_path / "tiles", tmp_path / "out", model, 4)
    scorer = TileScorer(model, scoring, RUNNING)
    score_here(work, lambda: scorer)
    scores: Scores = work.scores()
    for index, (tile, said) in enumerate(zip(work.catalog.tiles(), scorer(list(work.catalog.tiles())), strict=True)):
        if tile.tile_id == "torn":
            assert "torn.png" in scores.table["problem"][index].as_py()
            assert not scores.digests()[index].any()
        elif tile.tile_id == "void":
            assert scores.numbers("valid")[index] == 0
            assert np.isnan(scores.entropies("all_classes")[index])
        else:
            entropy, counts, confidence = slow_opinion(model, read_pixels(tile.image, tile.window), SIDE)
            assert scores.entropies("foreground")[index] == pytest.approx(entropy, abs=2e-5)
            assert scores.numbers("confidence")[index] == pytest.approx(confidence, abs=1e-5)
            assert np.abs(scores.pixels()[index] - counts).sum() <= 2
            np.testing.assert_array_equal(scores.features.part(index, index + 1)[0], said.opinion.feature)
            np.testing.assert_array_equal(scores.portraits(np.array([index]))[0], said.look.portrait)
            assert scores.digests()[index].tobytes() == said.look.digest
    assert scores.drawn.tolist() == [True] * 7 + [False] * 2


def test_only_what_is_missing_or_made_from_something_else_is_scored(tmp_path, model):
    work, scoring = work_of(tmp_path / "tiles", tmp_path / "out", model, 2)
    make = lambda: TileScorer(model, scoring, RUNNING)  # noqa: E731 - a factory, used thrice
    assert score_here(work, make) == 9
    assert score_here(work, lambda: pytest.fail("nothing was to be done")) == 0
    (tmp_path / "out" / "pool-00001.arrow").unlink()
    (tmp_path / "out" / "pool-00002.arrow").write_bytes(b"torn")
    assert score_here(work, make) == 4
    # One source file was changed.
    changed, _ = work_of(tmp_path / "tiles", tmp_path / "out", model, 2)
    assert len(changed.missing()) == 5
    other = scoring_identity(model, scoring, Running(window=96))
    assert other != scoring_identity(model, scoring, RUNNING)
    assert scoring_identity(model, scoring, Running(window=SIDE, device="cuda", batch_size=9)) == scoring_identity(model, scoring, RUNNING)
    (tmp_path / "out" / "pool-00002.arrow").write_bytes(b"torn")
    with pytest.raises(UnreadableFileError, match="pool-00002"):
        work.scores()


def test_tiles_of_other_bands_are_a_problem_and_not_the_end(tmp_path, model):
    grey = save(tmp_path, "grey", picture(0))
    from PIL import Image

    Image.fromarray(picture(0)[..., 0]).save(grey["image"])
    (said,) = TileScorer(model, ScoringConfig(), RUNNING)(list(catalog_of([grey]).tiles()))
    assert "has 1 bands, sensor 'rgb' has 3" in said.problem


def test_windows_that_make_no_sense_are_refused(model):
    with pytest.raises(UsageError, match="overlap < window"):
        Observer(model, (), "shrink", Running(window=32, overlap=32))
