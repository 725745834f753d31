"""Encoders as sources of maps: noise predictors side by side with what training sees of them, and all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.training_sample import NETWORK, SCHEME
from tilth.errors import SensorMismatchError, UsageError
from tilth.imagery.raster import Pixels
from tilth.insight.config import MapsConfig
from tilth.insight.encoders import BandSource, Level, NamedEncoder, NoisySource, PlainSource
from tilth.models.config import NetworkConfig
from tilth.models.network import pad_to_multiple
from tilth.models.segmenter import build_segmenter
from tilth.sensors import get_sensor

SR3 = {"unet_options": {"width": 8, "norm_groups": 4, "res_blocks": 1, "multipliers": [1, 1, 2, 2, 2]}}
GUIDED = {"unet": "ddpm_guided_256", "unet_options": {"width": 8, "norm_groups": 4, "res_blocks": 1, "head_width": 8}}
CPU = torch.device("cpu")


def predictor(options, **more):
    model = build_segmenter(NetworkConfig(name="ddpm_segmentor", options=options | more), get_sensor("rgb"), SCHEME).eval()
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.network.encoder.parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model


def tile(height: int, width: int, origin=(37, 90)) -> Pixels:
    data = np.random.default_rng(0).integers(0, 255, (3, height, width)).astype(np.uint8)
    return Pixels(data, np.ones((height, width), bool), origin=origin)


@pytest.mark.parametrize("options", [SR3, GUIDED], ids=["sr3", "guided"])
def test_one_pass_gives_the_maps_that_a_head_gets_of_either_side(options):
    config = MapsConfig(times=(0, 50))
    source, pixels = NoisySource(predictor(options), config, CPU), tile(43, 50)
    for side in config.sides:
        # What a training would get: a network of its own for each side, with all times at once.
        model = predictor(options, side=side, strides=[2, 4, 8, 16], times=[0, 50])
        image = pad_to_multiple(model.normalise(torch.from_numpy(pixels.data).float()[None]), model.network.divisor)
        with torch.no_grad():
            wanted = model.encode(image) if pixels.origin == (0, 0) else model.network.encode(image, torch.tensor([pixels.origin]))
        for place, time in enumerate(config.times):
            found = source.maps(pixels, time)
            assert {level.stride for level in found if level.side == side} == {2, 4, 8, 16}
            for stride, both in zip((2, 4, 8, 16), wanted, strict=True):
                torch.testing.assert_close(found[Level(side, stride)], both[0].chunk(2)[place], atol=1e-4, rtol=1e-3)


def test_levels_follow_the_network_from_fine_to_coarse_and_back():
    assert [level.stride for level in NoisySource(predictor(SR3), MapsConfig(), CPU).maps(tile(16, 16), 0)] == [2, 4, 8, 16, 16, 8, 4, 2]
    found = NoisySource(predictor(SR3), MapsConfig(strides=(4, 32), sides=("decoder",)), CPU).maps(tile(16, 16), 0)
    assert list(found) == [Level("decoder", 4)], "levels that are not there are left out"


def test_other_encoders_give_what_their_decoder_gets():
    model = build_segmenter(NETWORK, get_sensor("rgb"), SCHEME).eval()
    pixels = tile(43, 50)
    found = PlainSource(model, MapsConfig(), CPU).maps(pixels, None)
    assert [level.stride for level in found] == [2, 4, 8, 16]
    image = pad_to_multiple(model.normalise(torch.from_numpy(pixels.data).float()[None]), model.network.divisor)
    with torch.no_grad():
        wanted = {image.shape[-1] // one.shape[-1]: one for one in model.encode(image)}
    for level, one in found.items():
        torch.testing.assert_close(one, wanted[level.stride][0])


def test_bands_are_the_normalised_image_and_what_is_no_image_cannot_spoil_maps():
    model = build_segmenter(NETWORK, get_sensor("rgb"), SCHEME).eval()
    data = np.random.default_rng(0).random((3, 20, 20)).astype(np.float32)
    data[:, 0] = np.nan
    pixels = Pixels(data, np.isfinite(data).all(axis=0))
    found = BandSource(model).maps(pixels, None)[Level("bands", 1)]
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, 1:], model.normalise(torch.from_numpy(data)[None])[0, :, 1:])


@pytest.mark.parametrize(
    ("make", "config", "said"),
    [
        (lambda: predictor(SR3), {"strides": (32,)}, "maps.strides: the encoder has none of 32; it has 1, 2, 4, 8, 16"),
        (lambda: predictor(SR3), {"times": (2001,)}, "2001"),
        (lambda: build_segmenter(NETWORK, get_sensor("rgb"), SCHEME), {"strides": (3,)}, "has no map of 3; it has 1, 2, 4, 8, 16, 32"),
    ],
)
def test_levels_and_times_that_are_not_there_are_refused_in_one_line(make, config, said):
    with pytest.raises(UsageError, match=said) as caught:
        NamedEncoder("run", make()).source(MapsConfig(**config), CPU).maps(tile(16, 16), None)
    assert "\n" not in str(caught.value)


def test_tiles_of_another_sensor_are_refused():
    with pytest.raises(SensorMismatchError, match="run: a model for sensor 'rgb'"):
        NamedEncoder("run", build_segmenter(NETWORK, get_sensor("rgb"), SCHEME)).seeing(get_sensor("s1"))
