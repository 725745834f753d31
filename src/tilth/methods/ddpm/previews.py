"""Pictures that a noise predictor makes out of nothing: eight samples, to see what it has learnt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth import seeds
from tilth.imagery.files import atomic_path
from tilth.models.diffusion.denoiser import diffusion_features
from tilth.models.diffusion.sampling import build_chain, sample_ddim
from tilth.models.segmenter import Segmenter
from tilth.sensors import Sensor

_GAP = 4
_WHITE = 255


def write_preview(model: Segmenter, file: Path, *, samples: int, steps: int, side: int, seed: int) -> Path:
    """Sample images by DDIM, always from the same noise, and write them side by side.

    Args:
        model: with a noise predictor.
        file: PNG to write, in one go.
        samples: how many.
        steps: of DDIM, far fewer than the schedule has.
        side: of a sample in pixels.
        seed: of the noise.

    Returns:
        The file.
    """
    from PIL import Image

    images = draw_samples(model, samples=samples, steps=steps, side=side, seed=seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        Image.fromarray(_sheet(images, model.sensor)).save(temporary, format="PNG")
    return file


def draw_samples(model: Segmenter, *, samples: int, steps: int, side: int, seed: int) -> Tensor:
    """Sample images as for :func:`write_preview`: float32 (N, C, side, side) on the CPU, in [-1, 1]."""
    encoder = diffusion_features(model)
    chain = build_chain(encoder.schedule, encoder.unet.layout, min(steps, encoder.schedule.steps))
    shape = (samples, len(model.sensor), side, side)
    noise = torch.from_numpy(seeds.generator(seed, "preview").standard_normal(shape, dtype=np.float32))
    device = next(encoder.unet.parameters()).device
    image = noise
    with _at_rest(encoder.unet):
        for step in sample_ddim(chain, encoder.unet, noise.to(device)):
            image = step.image
    return image.float().cpu()


@contextmanager
def _at_rest(network: torch.nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards on again where it was."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def _sheet(images: Tensor, sensor: Sensor) -> NDArray[Any]:
    """Lay images in [-1, 1], (N, C, h, w), out in rows of four: uint8 (H, W, 3); the three bands that the sensor's pictures show."""
    unit = (images[:, list(sensor.rgb_indices)].clamp(-1, 1) + 1) / 2
    pixels = (unit * _WHITE).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    count, height, width, _ = pixels.shape
    columns = min(4, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), _WHITE, np.uint8)
    for place, picture in enumerate(pixels):
        row, column = divmod(place, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        sheet[top : top + height, left : left + width] = picture
    return sheet
