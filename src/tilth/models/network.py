"""The shape of every network that turns one image into one map: encoder, decoder, head, and sides that fit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError, SmallBatchError

Found = TypeVar("Found")

LAYOUT = "layout"
"""Attribute of a network that names its published layout, see :mod:`tilth.models.weights.layouts`."""


class SegmentationNetwork(nn.Module):
    """Encoder, decoder and segmentation head; images of any size are padded to what they take, and the result is cut back.

    Attributes:
        encoder: (B, C, H, W) -> list of feature maps, finest first.
        decoder: that list -> one map (B, c, h, w).
        segmentation_head: that map -> logits (B, K, H, W) of the padded image's size.
        divisor: sides inside must be multiples of this many pixels.
        minimum: smallest side inside, a multiple of ``divisor``.
        title: what to call it in a few words, if it was built from a configuration.
        takes_origins: whether what it says of an image depends on where in its raster the image lies, so that it is called with that, too.
    """

    title: str | None = None
    takes_origins: bool = False

    def __init__(self, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module, *, divisor: int, minimum: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.segmentation_head = segmentation_head
        self.divisor = divisor
        self.minimum = minimum

    def encode(self, image: Tensor) -> list[Tensor]:
        """Turn images (B, C, H, W), sides as :func:`pad_to_multiple` leaves them, into feature maps, finest first."""
        return list(with_statistics(self.encoder, image))

    def decode(self, features: list[Tensor]) -> Tensor:
        """Turn feature maps into logits (B, K, H, W) at the size of the encoded image."""
        return cast("Tensor", self.segmentation_head(with_statistics(self.decoder, features)))

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits.

        Args:
            image: float (B, C, H, W), normalised; any H and W.

        Returns:
            Logits float (B, K, H, W).

        Raises:
            SmallBatchError: in training, a map shrinks to one pixel of one image, of which batch norm has no statistics.
        """
        height, width = image.shape[-2:]
        return self.decode(self.encode(pad_to_multiple(image, self.divisor, self.minimum)))[..., :height, :width]


def pad_to_multiple(image: Tensor, divisor: int, minimum: int = 0) -> Tensor:
    """Repeat the lower and right border of images (..., C, H, W) until sides are multiples of ``divisor`` and at least ``minimum``.

    Returns:
        The image itself where nothing is to be added.
    """
    height, width = image.shape[-2:]
    bottom = max(height + -height % divisor, minimum) - height
    right = max(width + -width % divisor, minimum) - width
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def with_statistics(compute: Callable[..., Found], *given: Any) -> Found:
    """Call a part of a network; say clearly when batch norm would have to learn from one value for each channel.

    Whether it would is known best by batch norm itself, wherever it is: nothing is looked at before. Compilers get the bare call.

    Raises:
        SmallBatchError: it would.
    """
    if torch.compiler.is_compiling():
        return compute(*given)
    try:
        return compute(*given)
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel when training"):
            raise
        raise SmallBatchError(
            "a map shrinks to one pixel inside, so batch norm sees one value per channel in a training batch of one image; "
            "train with at least two images per batch"
        ) from None


def set_checkpointing(network: nn.Module, on: bool) -> None:
    """Let blocks compute their activations again in the backward pass instead of keeping them, or keep them.

    Args:
        network: parts with an attribute ``checkpointing`` (ours) or a method ``set_grad_checkpointing`` (timm's) are told, and not what is
            inside them.
        on: whether to.

    Raises:
        ConfigError: no part of the network can.
    """
    if not _tell(network, on):
        raise ConfigError(
            f"checkpointing: no part of this network ({type(network).__name__}) can; leave it off, or choose a transformer, a diffusion "
            "network or an encoder of timm"
        )


def _tell(module: nn.Module, on: bool) -> bool:
    """Tell a module, or what is inside if it does not know itself; returns whether anything was told."""
    if hasattr(module, "checkpointing"):
        setattr(module, "checkpointing", on)  # noqa: B010 - which modules have it, no type says
        return True
    if callable(tell := getattr(module, "set_grad_checkpointing", None)):
        tell(on)
        return True
    told = [_tell(part, on) for part in module.children()]
    return any(told)
