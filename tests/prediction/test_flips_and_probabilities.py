"""Mirrored views are averaged; percents belong to the classes on the map."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo.cogeo import cog_validate

from support.mapping import noise, read, write
from support.tiny_models import SCHEME, TinySegmenter
from tilth.errors import UsageError
from tilth.imagery.read import Pixels, read_pixels
from tilth.models.flips import FLIPS, look, look_back
from tilth.models.identity import model_hash
from tilth.models.inference import predict_tile
from tilth.prediction.scene import predict_scene

WINDOWS = {"window": 32, "overlap": 12}

# Each view by hand: what is done to an array (..., w, w), and what undoes it.
BY_HAND = {
    "none": [(lambda a: a, lambda a: a)],
    "horizontal": [(lambda a: a, lambda a: a), (np.fliplr, np.fliplr)],
    "both": [
        (lambda a: a, lambda a: a),
        (np.fliplr, np.fliplr),
        (np.flipud, np.flipud),
        (lambda a: np.rot90(a, 2), lambda a: np.rot90(a, 2)),
    ],
    "all": [
        step
        for turns in range(4)
        for step in (
            (lambda a, n=turns: np.rot90(a, n), lambda a, n=turns: np.rot90(a, -n)),
            (lambda a, n=turns: np.fliplr(np.rot90(a, n)), lambda a, n=turns: np.rot90(np.fliplr(a), -n)),
        )
    ],
}


@pytest.mark.parametrize("flips", ["none", "horizontal", "both", "all"])
def test_views_are_those_turned_and_mirrored_by_hand(flips):
    model, image = TinySegmenter(), noise(32, 32)
    assert len(FLIPS[flips]) == len(BY_HAND[flips])
    mean = np.zeros((4, 32, 32))
    for forth, back in BY_HAND[flips]:
        turned = np.stack([forth(one) for one in image])
        logits = model.eval()(model.normalise(torch.from_numpy(turned.copy())[None].float()))[0]
        shares = logits.softmax(0).detach().numpy()
        mean += np.stack([back(one) for one in shares]) / len(BY_HAND[flips])
    pixels = Pixels(image, np.ones((32, 32), dtype=bool))
    got = predict_tile(model, pixels, window=32, overlap=0, flips=flips)
    np.testing.assert_allclose(got.numpy(), mean, rtol=0, atol=1e-5)
    if flips != "none":
        assert np.abs(got.numpy() - predict_tile(model, pixels, window=32, overlap=0).numpy()).max() > 0.01


@pytest.mark.parametrize("flips", FLIPS)
def test_views_are_undone(flips):
    image = torch.arange(50.0).reshape(2, 5, 5)
    for view in FLIPS[flips]:
        assert torch.equal(look_back(look(image, view), view), image)
    assert len({tuple(look(image, view).flatten().tolist()) for view in FLIPS[flips]}) == len(FLIPS[flips])


@pytest.mark.parametrize("flips", ["none", "all"])
def test_percents_belong_to_the_map(tmp_path, flips):
    data = noise(90, 110)
    data[:, 10:30, 50:70] = 0
    uri = write(tmp_path / "scene.tif", data, nodata=0)
    result = predict_scene(
        TinySegmenter(), uri, tmp_path / "map.tif", **WINDOWS, flips=flips, confidence=True, probabilities=True, panel=40
    )
    classes, confidence, shares = map(read, (result.path, result.confidence_path, result.probabilities_path))
    valid = read_pixels(uri).valid
    assert result.probabilities_path == tmp_path / "map_probabilities.tif"
    assert shares.shape == (4, 90, 110)
    assert (shares[:, ~valid] == 255).all()
    np.testing.assert_array_equal(confidence == 255, ~valid)
    np.testing.assert_array_equal(shares.max(axis=0), confidence)
    np.testing.assert_array_equal(np.take_along_axis(shares, np.where(valid, classes, 0)[None], axis=0)[0], confidence)
    expected = predict_tile(TinySegmenter(), read_pixels(uri), window=32, overlap=12, flips=flips).numpy() * 100
    assert np.abs(shares - expected)[:, valid].max() <= 0.501
    # Asking for more does not change the map.
    plain = predict_scene(TinySegmenter(), uri, tmp_path / "plain.tif", **WINDOWS, flips=flips)
    np.testing.assert_array_equal(read(plain.path), classes)


def test_files_say_what_they_hold_and_where_they_come_from(tmp_path):
    uri = write(tmp_path / "scene.tif", noise(90, 110))
    model = TinySegmenter()
    result = predict_scene(model, uri, tmp_path / "map.tif", **WINDOWS, flips="both", confidence=True, probabilities=True)
    for path in (result.path, result.confidence_path, result.probabilities_path):
        assert cog_validate(path, strict=True) == (True, [], [])
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
            assert dataset.nodata == 255
        assert tags["TILTH_MODEL"] == model_hash(model)
        assert tags["TILTH_VERSION"]
        settings = json.loads(tags["TILTH_SETTINGS"])
        assert (settings["window"], settings["overlap"], settings["flips"]) == (32, 12, "both")
    with rasterio.open(result.probabilities_path) as dataset:
        assert dataset.descriptions == SCHEME.names
        assert set(dataset.dtypes) == {"uint8"}
    # Nothing in the files depends on when and where they were written.
    other = write(tmp_path / "elsewhere" / "scene.tif", noise(90, 110))
    again = predict_scene(TinySegmenter(), other, tmp_path / "again.tif", **WINDOWS, flips="both")
    assert again.path.read_bytes() == result.path.read_bytes()


def test_hash_of_a_model_is_that_of_its_files_and_tells_models_apart(tmp_path):
    import hashlib

    from tilth.models.config import NetworkConfig
    from tilth.models.segmenter import Segmenter, build_segmenter
    from tilth.sensors import get_sensor

    model = build_segmenter(NetworkConfig(encoder="resnet10t"), get_sensor("rgb"), SCHEME)
    folder = model.save(tmp_path / "model")
    files = [folder / name for name in ("model.safetensors", "config.json")]
    assert model_hash(model) == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert model_hash(Segmenter.load(folder)) == model_hash(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert model_hash(Segmenter.load(folder)) != model_hash(model)


def test_unknown_flips_are_refused(tmp_path):
    with pytest.raises(UsageError, match="unknown flips 'vertical'"):
        predict_scene(TinySegmenter(), write(tmp_path / "scene.tif", noise(20, 20)), tmp_path / "map.tif", flips="vertical")
