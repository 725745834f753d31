"""Which maps are taken out of a noise predictor: their names, and one map for each level; ddpm.md section 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tilth.errors import ConfigError, suggest

if TYPE_CHECKING:
    from tilth.models.diffusion.unet import DiffusionUnet

Reduce = Literal["first", "last", "mean", "concat"]
REDUCE = ("first", "last", "mean", "concat")


@dataclass(frozen=True)
class Tap:
    """A map that a noise predictor can hand out.

    Attributes:
        name: ``dec/8/1`` is the second map of the decoder at an eighth of the sides, ``enc/8/1`` that of the encoder, ``mid`` the end of
            the middle.
        width: channels.
        stride: sides of the padded image over sides of the map.
    """

    name: str
    width: int
    stride: int


@dataclass(frozen=True)
class LevelTaps:
    """One map for each level, out of one or all maps of the level.

    Attributes:
        side: ``decoder`` or ``encoder``.
        strides: levels, in the order in which their maps are wanted.
        reduce: ``first``, ``last`` or ``mean`` of a level's maps, or ``concat`` along channels. None: what others use: the last of the
            encoder; of the decoder the first for SR3 type (as DDPM-CD does) and the last for guided type.
    """

    side: Literal["decoder", "encoder"] = "decoder"
    strides: tuple[int, ...] = (16, 8, 4, 2)
    reduce: Reduce | None = None

    def groups(self, network: DiffusionUnet) -> list[list[Tap]]:
        """List the taps that each level is made of, in execution order; one for ``first`` and ``last``.

        Raises:
            ConfigError: unknown side or reduction, a level that the network does not have, or a mean of maps of different widths.
        """
        if self.side not in ("decoder", "encoder"):
            raise ConfigError(f"side: unknown {self.side!r}; choices: decoder, encoder")
        reduce = self.reduction(network)
        taps = list(network.taps().values())
        prefix = {"decoder": "dec", "encoder": "enc"}[self.side]
        groups = []
        for stride in self.strides:
            found = [tap for tap in taps if tap.name.startswith(f"{prefix}/{stride}/")]
            if not found:
                known = sorted({tap.stride for tap in taps if tap.name.startswith(prefix)})
                raise ConfigError(f"strides: the {self.side} has no level {stride}; it has {', '.join(map(str, known))}")
            if reduce == "mean" and len({tap.width for tap in found}) > 1:
                widths = ", ".join(f"{tap.name} {tap.width}" for tap in found)
                raise ConfigError(f"maps of different widths have no mean ({widths}); take first, last or concat")
            groups.append({"first": found[:1], "last": found[-1:]}.get(reduce, found))
        return groups

    def names(self, network: DiffusionUnet) -> list[str]:
        """List the names of all taps that are needed."""
        return [tap.name for group in self.groups(network) for tap in group]

    def widths(self, network: DiffusionUnet) -> list[int]:
        """List the channels of the map of each level."""
        concat = self.reduction(network) == "concat"
        return [sum(tap.width for tap in group) if concat else group[0].width for group in self.groups(network)]

    def gather(self, network: DiffusionUnet, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Make one map for each level out of what :meth:`DiffusionUnet.features` gave; maps (B, c, h, w), as ``strides`` orders them."""
        reduce = self.reduction(network)
        gathered = []
        for group in self.groups(network):
            maps = [features[tap.name] for tap in group]
            joined = torch.stack(maps).mean(dim=0) if reduce == "mean" else torch.cat(maps, dim=1)
            gathered.append(maps[0] if len(maps) == 1 else joined)
        return gathered

    def extract(self, network: DiffusionUnet, image: Tensor, level: Tensor | float) -> list[Tensor]:
        """Run the network up to the last needed tap; one map for each level. For arguments see :meth:`DiffusionUnet.features`."""
        return self.gather(network, network.features(image, level, self.names(network)))

    def reduction(self, network: DiffusionUnet) -> Reduce:
        """Say how a level's maps become one in this network.

        Raises:
            ConfigError: unknown reduction.
        """
        if self.reduce is None:
            return "last" if self.side == "encoder" else network.usual_block
        if self.reduce not in REDUCE:
            raise ConfigError(f"reduce: unknown {self.reduce!r}; {suggest(str(self.reduce), REDUCE)}")
        return self.reduce


def stack_levels(images: Sequence[Tensor], levels: Tensor | Sequence[float]) -> tuple[Tensor, Tensor]:
    """Put one batch of images for each noise level on one batch axis, level by level, for a single pass of the network.

    Args:
        images: T tensors (B, C, H, W), the same images at T noise levels.
        levels: T noise levels or times; (T, B) where images of one batch differ.

    Returns:
        Images (T * B, C, H, W) and levels (T * B,).
    """
    if len(images) != len(levels):
        raise ConfigError(f"{len(images)} batches of images, {len(levels)} noise levels; give as many of one as of the other")
    values = torch.as_tensor(levels, device=images[0].device)
    each = values[:, None].expand(-1, images[0].shape[0]) if values.ndim == 1 else values
    return torch.cat(list(images)), each.flatten()


def join_levels(feature: Tensor, count: int) -> Tensor:
    """Put the noise levels of :func:`stack_levels` beside each other along channels: (T * B, c, h, w) -> (B, T * c, h, w)."""
    if feature.shape[0] % count:
        raise ConfigError(f"a batch of {feature.shape[0]} does not hold {count} noise levels of every image")
    return feature.reshape(count, -1, *feature.shape[1:]).transpose(0, 1).flatten(1, 2)
