"""Networks that see a place through two sensors: one encoder for each, and decoders that are shared (middle fusion) or not (late fusion).

cromss.md section 3. Nothing is averaged, and features of different modalities never meet: middle fusion means that one decoder and one
head serve every branch. Parts are those of segmentation_models.pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tilth.errors import ConfigError, SensorMismatchError, UsageError, suggest
from tilth.models.network import SegmentationNetwork, pad_to_multiple, with_statistics

MODALITIES = ("s1", "s2")
"""The modalities in the order in which their images are handed in and their logits come back."""

JOINT = "joint"
"""The branch that sees the bands of all modalities, one after the other."""

STRIDE = 32
"""Sides inside are multiples of this many pixels."""


class FusionNetwork(nn.Module):
    """What middle and late fusion have in common: images in, one logits tensor for each branch out.

    Attributes:
        bands: number of bands C of each branch, in the order of the results: ``s1``, ``s2`` and, of three branches, ``joint``.
        encoders: by branch.
        layout: names under which such networks are published.
    """

    layout = "cromss-fusion"

    def __init__(self, bands: dict[str, int], networks: dict[str, SegmentationNetwork]) -> None:
        """Take the encoders of networks, one for each branch; what follows them is up to the kind of fusion."""
        super().__init__()
        self.bands = bands
        self.encoders = nn.ModuleDict({branch: network.encoder for branch, network in networks.items()})

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches, in the order of the results."""
        return tuple(self.bands)

    def encoder_of(self, branch: str) -> nn.Module:
        """Get the encoder of a branch: image (B, C, H, W) -> list of feature maps, the image itself first, then strides 2 to 32.

        Raises:
            UsageError: there is no such branch.
        """
        if branch not in self.bands:
            raise UsageError(f"this network has no branch {branch!r}; {suggest(branch, self.bands)}")
        return self.encoders[branch]

    def decode(self, features: list[Tensor], branch: str) -> Tensor:
        """Turn feature maps of a branch into its logits (B, K, H, W)."""
        raise NotImplementedError

    def forward(self, s1: Tensor, s2: Tensor) -> tuple[Tensor, ...]:
        """Compute logits, one branch after the other.

        Shared batch normalisation sees the branches one by one, S1 first: each is normalised by its own statistics in training mode, and
        the running ones move once for each branch.

        Args:
            s1: float (B, C1, H, W), normalised; any H and W.
            s2: float (B, C2, H, W), normalised, of the same places.

        Returns:
            Logits float (B, K, H, W) of each branch: S1, S2 and, of three branches, joint.

        Raises:
            SensorMismatchError: a band count is not that of the network, or the two do not show the same batch and size.
            UsageError: in training, a map shrinks to one pixel of one image, of which batch norm has no statistics.
        """
        self._check(s1, s2)
        height, width = s1.shape[-2:]
        images = {"s1": s1, "s2": s2}
        if JOINT in self.bands:
            images[JOINT] = torch.cat([s1, s2], dim=1)
        return tuple(
            with_statistics(self._branch, pad_to_multiple(image, STRIDE), branch)[..., :height, :width] for branch, image in images.items()
        )

    def _branch(self, image: Tensor, branch: str) -> Tensor:
        return self.decode(self.encoder_of(branch)(image), branch)

    def _check(self, s1: Tensor, s2: Tensor) -> None:
        shapes = f"(B, {self.bands['s1']}, H, W) and (B, {self.bands['s2']}, H, W)"
        fits = s1.ndim == s2.ndim == 4 and s1.shape[1] == self.bands["s1"] and s2.shape[1] == self.bands["s2"]
        if not fits or s1.shape[0] != s2.shape[0] or s1.shape[2:] != s2.shape[2:]:
            raise SensorMismatchError(
                f"s1 of shape {tuple(s1.shape)} and s2 of shape {tuple(s2.shape)}: expected {shapes} with equal B, H and W; "
                "bring both to one grid"
            )


class MidFusion(FusionNetwork):
    """An encoder for each branch; decoder and head, batch normalisation included, are shared.

    Attributes:
        decoder: feature maps -> one map.
        segmentation_head: that map -> logits.
    """

    def __init__(self, bands: dict[str, int], networks: dict[str, SegmentationNetwork]) -> None:
        """Take the encoders of all networks, and decoder and head of the first."""
        super().__init__(bands, networks)
        first = networks[MODALITIES[0]]
        self.decoder, self.segmentation_head = first.decoder, first.segmentation_head

    def decode(self, features: list[Tensor], branch: str) -> Tensor:
        """Turn feature maps of any branch into its logits (B, K, H, W)."""
        del branch  # all share one decoder
        return cast("Tensor", self.segmentation_head(self.decoder(features)))


class LateFusion(FusionNetwork):
    """A whole network for each branch; nothing is shared.

    Attributes:
        decoders: by branch, feature maps -> one map.
        heads: by branch, that map -> logits.
    """

    def __init__(self, bands: dict[str, int], networks: dict[str, SegmentationNetwork]) -> None:
        """Take all of the networks."""
        super().__init__(bands, networks)
        self.decoders = nn.ModuleDict({branch: network.decoder for branch, network in networks.items()})
        self.heads = nn.ModuleDict({branch: network.segmentation_head for branch, network in networks.items()})

    def decode(self, features: list[Tensor], branch: str) -> Tensor:
        """Turn feature maps of a branch into its logits (B, K, H, W), by the branch's own decoder."""
        return cast("Tensor", self.heads[branch](self.decoders[branch](features)))


def fusion_bands(in_channels: int | Sequence[int], branches: int) -> dict[str, int]:
    """Count the bands of each branch.

    Args:
        in_channels: bands of S1 and of S2.
        branches: 2, or 3 with a joint branch.

    Raises:
        ConfigError: not two band counts, or not two or three branches.
    """
    counts = (in_channels,) if isinstance(in_channels, int) else tuple(in_channels)
    if len(counts) != len(MODALITIES) or min(counts) < 1:
        raise ConfigError(f"in_channels={in_channels!r}: a fusion network takes one band count for S1 and one for S2, such as (2, 13)")
    if branches not in (2, 3):
        raise ConfigError(f"branches={branches!r}: expected 2 (S1, S2) or 3 (S1, S2, joint)")
    bands = dict(zip(MODALITIES, counts, strict=True))
    return bands | {JOINT: sum(counts)} if branches == 3 else bands
