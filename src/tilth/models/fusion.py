"""Networks that are handed the images of two sensors one by one, and answer with a map for each: those that CromSS pre-trains.

cromss.md section 3. Nothing is averaged, and features of different sensors never meet: middle fusion means that one decoder and one head
serve every branch. What is inside is a :class:`tilth.models.fused.FusedNetwork`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tilth.errors import ConfigError, SensorMismatchError
from tilth.models.fused import JOINT, FusedNetwork
from tilth.models.network import SegmentationNetwork

MODALITIES = ("s1", "s2")
"""The modalities in the order in which their images are handed in and their logits come back."""

_EARLIER = {"encoders.": "encoder.", "decoders.": "decoder.", "heads.": "segmentation_head."}
"""How names of tensors began in folders that earlier versions wrote."""


class FusionNetwork(FusedNetwork):
    """Images of S1 and S2 in, one logits tensor for each branch out.

    Attributes:
        bands: number of bands C of each branch, in the order of the results: ``s1``, ``s2`` and, of three branches, ``joint``.
    """

    layout = "cromss-fusion"

    def __init__(self, bands: dict[str, int], networks: dict[str, SegmentationNetwork], *, shared: bool) -> None:
        """Put networks together.

        Args:
            bands: of each branch.
            networks: by branch, built alike but for their bands.
            shared: take decoder and head of the first for all (middle fusion), or leave each its own (late fusion).
        """
        radar, optical = (bands[name] for name in MODALITIES)
        places = {"s1": range(radar), "s2": range(radar, radar + optical), JOINT: range(radar + optical)}
        super().__init__({name: tuple(places[name]) for name in networks}, networks, shared=shared)
        self.bands = bands
        self.register_load_state_dict_pre_hook(_name_as_now)  # type: ignore[no-untyped-call]  # of torch

    def forward(self, s1: Tensor, s2: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]  # one image a sensor is what sets it apart
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
            SmallBatchError: in training, a map shrinks to one pixel of one image, of which batch norm has no statistics.
        """
        fits = s1.ndim == s2.ndim == 4 and s1.shape[1] == self.bands["s1"] and s2.shape[1] == self.bands["s2"]
        if not fits or s1.shape[0] != s2.shape[0] or s1.shape[2:] != s2.shape[2:]:
            raise SensorMismatchError(
                f"s1 of shape {tuple(s1.shape)} and s2 of shape {tuple(s2.shape)}: expected (B, {self.bands['s1']}, H, W) and "
                f"(B, {self.bands['s2']}, H, W) with equal B, H and W; bring both to one grid"
            )
        return self.branch_logits(torch.cat([s1, s2], dim=1))


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


def _name_as_now(_network: nn.Module, tensors: dict[str, Any], prefix: str, *_others: Any) -> None:
    for name in list(tensors):
        for earlier, now in _EARLIER.items():
            if name.startswith(prefix + earlier):
                tensors[prefix + now + name.removeprefix(prefix + earlier)] = tensors.pop(name)
