"""What a Segmenter's exported graph computes, takes, and says of itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tilth.augment.normalise import fill_value

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter


class Graph(nn.Module):
    """What is exported: the network, behind the normalisation if that is wanted.

    Attributes:
        network: of the Segmenter.
        normalisation: whether it takes stored values.
    """

    def __init__(self, model: Segmenter, *, normalisation: bool) -> None:
        super().__init__()
        self.network = model.network
        self.normalisation = normalisation
        bands = model.sensor.bands
        self._may_lack_values = model.sensor.dtype == "float32"
        self.register_buffer("gain", _column([band.scale / band.std for band in bands]))
        self.register_buffer("bias", _column([(band.offset - band.mean) / band.std for band in bands]))
        self.register_buffer("fill", fill_value(model.sensor)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (B, K, H, W) from (B, C, H, W): normalised float32, or values as stored."""
        if self.normalisation:
            image = image.to(torch.float32)
            if self._may_lack_values:
                image = torch.where(torch.isfinite(image), image, cast("Tensor", self.fill))
            image = image * cast("Tensor", self.gain) + cast("Tensor", self.bias)
        logits: Tensor = self.network(image)
        return logits


def random_image(model: Segmenter, size: tuple[int, int], count: int, *, stored: bool) -> Tensor:
    """Draw pixels of ordinary values, always the same.

    Args:
        model: whose sensor says how many bands, and what is ordinary.
        size: height and width in pixels.
        count: of images B.
        stored: values in the sensor's number type; else normalised ones, float32.

    Returns:
        (B, C, H, W).
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(count, len(model.sensor), *size, generator=generator)
    if not stored:
        return image
    bands = model.sensor.bands
    spread, middle = _column([band.std / band.scale for band in bands]), _column([(band.mean - band.offset) / band.scale for band in bands])
    values = image * spread + middle
    kind: torch.dtype = getattr(torch, model.sensor.dtype)
    if kind.is_floating_point:
        return values.to(kind)
    limits = torch.iinfo(kind)
    return values.round().clamp(limits.min, limits.max).to(kind)


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).to(torch.float32)[:, None, None]


def describe_graph(model: Segmenter, size: tuple[int, int], batch: int | None, *, stored: bool) -> str:
    """Say as JSON what whoever runs the graph must know of its input and output.

    Args:
        model: that it was made from.
        size: height and width of its images in pixels.
        batch: number of images it takes; None for any.
        stored: whether it takes stored values.
    """
    shape = ["B" if batch is None else batch, len(model.sensor), *size]
    tree: dict[str, Any] = {
        "input": {"dtype": model.sensor.dtype if stored else "float32", "shape": shape},
        "values": "as stored" if stored else "(stored * scale + offset, cut as the band says, - mean) / std, for each band",
        "sensor": model.sensor.model_dump(mode="json"),
        "scheme": model.scheme.model_dump(mode="json"),
    }
    return json.dumps(tree)
