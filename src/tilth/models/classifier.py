"""What inference needs of a model and of a tile, whatever they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from tilth.classes import ClassScheme
    from tilth.sensors import Sensor


class PixelClassifier(Protocol):
    """What inference needs of a :class:`tilth.models.segmenter.Segmenter`."""

    training: bool

    @property
    def sensor(self) -> Sensor:
        """The sensor whose tiles it understands."""

    @property
    def scheme(self) -> ClassScheme:
        """The K classes it tells apart."""

    def normalise(self, stored: Tensor, valid: Tensor | None = None) -> Tensor:
        """Turn stored values (B, C, H, W) into network input; pixels not valid (B, H, W) get the fill value."""

    def __call__(self, image: Tensor, /, *origins: Tensor) -> Any:
        """Compute logits (B, K, H, W) of normalised images (B, C, H, W); one with a true ``takes_origins`` gets origins (B, 2), too."""

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation."""

    def modules(self) -> Iterator[nn.Module]:
        """All its parts, itself included."""

    def to(self, device: torch.device) -> Any:
        """Move the weights."""

    def state_dict(self) -> dict[str, Any]:
        """Its weights by name."""


class PixelsLike(Protocol):
    """A tile: data (C, H, W) in the stored type and valid bool (H, W), as :class:`tilth.imagery.read.Pixels`; perhaps ``origin``."""

    @property
    def data(self) -> NDArray[Any]:
        """Stored values (C, H, W)."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where there is an image: bool (H, W)."""


def origin_of(pixels: PixelsLike) -> tuple[int, int]:
    """Say at which row and column of its raster a tile begins; 0, 0 where it does not say."""
    origin: tuple[int, int] = getattr(pixels, "origin", (0, 0))
    return origin
