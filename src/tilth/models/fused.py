"""A network for a sum of sensors: one branch for each part, and one map of all of them (cromss.md section 3).

One image in, one map out, so that it is trained, scored, exported and used like any other network. The branches are networks of one kind
that share decoder and head (middle fusion) or nothing (late fusion). The map is the mean of the branches' probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tilth.errors import ConfigError, UsageError, suggest
from tilth.models.config import FusionConfig, SegmenterConfig
from tilth.models.network import SegmentationNetwork, pad_to_multiple, with_statistics
from tilth.sensors import get_sensor

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter
    from tilth.sensors import Sensor

JOINT = "joint"
"""The branch that sees the bands of all others, one after the other."""


class BranchEncoders(nn.ModuleDict):
    """Encoders by branch, each of which sees its bands.

    Attributes:
        positions: of the bands of each branch.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], positions: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(dict(encoders))
        self.positions = dict(positions)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Turn images (B, C, H, W) into feature maps: those of the first branch, finest first, then those of the next."""
        return [maps for branch, encoder in self.items() for maps in encoder(_bands(image, self.positions[branch]))]


class FusedNetwork(SegmentationNetwork):
    """Networks of one kind, one for each branch.

    Attributes:
        branches: names, in the order in which they run.
        shared: whether decoder and head are those of all branches; batch norm in them meets the branches one by one.
        layout: names under which such networks are published, if they are.
    """

    layout: str | None = None

    def __init__(self, positions: Mapping[str, tuple[int, ...]], networks: Mapping[str, SegmentationNetwork], *, shared: bool) -> None:
        """Put networks together.

        Args:
            positions: of the bands of each branch.
            networks: by branch, built alike but for their bands.
            shared: take decoder and head of the first for all.
        """
        first = next(iter(networks.values()))
        encoders = BranchEncoders({name: network.encoder for name, network in networks.items()}, positions)
        decoder: nn.Module = first.decoder if shared else nn.ModuleDict({name: network.decoder for name, network in networks.items()})
        head: nn.Module = (
            first.segmentation_head if shared else nn.ModuleDict({name: network.segmentation_head for name, network in networks.items()})
        )
        super().__init__(encoders, decoder, head, divisor=first.divisor, minimum=first.minimum)
        self.branches = tuple(networks)
        self.shared = shared

    def branch(self, name: str) -> SegmentationNetwork:
        """Get the network of one branch, which sees an image of its bands alone; it is made of the same layers, not of copies.

        Raises:
            UsageError: there is no such branch.
        """
        if name not in self.branches:
            raise UsageError(f"this network has no branch {name!r}; {suggest(name, self.branches)}")
        return SegmentationNetwork(
            cast("BranchEncoders", self.encoder)[name], self._part(self.decoder, name), self._part(self.segmentation_head, name),
            divisor=self.divisor, minimum=self.minimum,
        )  # fmt: skip

    def branch_logits(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the logits of every branch.

        Args:
            image: float (B, C, H, W), normalised, bands of all branches; any H and W.

        Returns:
            Logits float (B, K, H, W) of each branch.
        """
        height, width = image.shape[-2:]
        features = self.encode(pad_to_multiple(image, self.divisor, self.minimum))
        return tuple(logits[..., :height, :width] for logits in self._decoded(features))

    def decode(self, features: list[Tensor]) -> Tensor:
        """Turn the feature maps of all branches into logits (B, K, H, W) whose softmax is the mean of the branches' probabilities."""
        return fuse(self._decoded(features))

    def _decoded(self, features: list[Tensor]) -> list[Tensor]:
        levels = len(features) // len(self.branches)
        return [
            cast(
                "Tensor",
                self._part(self.segmentation_head, name)(
                    with_statistics(self._part(self.decoder, name), features[place * levels : (place + 1) * levels])
                ),
            )
            for place, name in enumerate(self.branches)
        ]

    def _part(self, module: nn.Module, name: str) -> nn.Module:
        return module if self.shared else cast("nn.ModuleDict", module)[name]


def fuse(logits: Sequence[Tensor]) -> Tensor:
    """Average probabilities: logits (B, K, H, W) of each branch -> float32 logits whose softmax is the mean of theirs."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([item.float().log_softmax(1) for item in logits]).logsumexp(0) - math.log(len(logits))


def place_branches(fusion: FusionConfig, sensor: Sensor) -> FusionConfig:
    """Find the bands of each branch; what is found already stays.

    By default a sum of built-in sensors has one branch for each of them; otherwise radar and optical bands are told apart.

    Raises:
        ConfigError: a band or branch that is not there, or it cannot be told which bands belong together.
    """
    if fusion.positions:
        if max(max(bands) for bands in fusion.positions.values()) >= len(sensor):
            raise ConfigError(
                f"network.fusion.positions: sensor {sensor.name!r} has {len(sensor)} bands; leave positions out, or mend them"
            )
        return fusion
    names = fusion.branches or _parts(sensor)
    for branch, bands in names.items():
        if hasattr(BranchEncoders, branch):
            raise ConfigError(
                f"network.fusion.branches: a branch cannot be called {branch!r}, a word that torch has for itself; take another"
            )
        for band in bands:
            if band not in sensor.band_names:
                raise ConfigError(
                    f"network.fusion.branches.{branch}: sensor {sensor.name!r} has no band {band!r}; {suggest(band, sensor.band_names)}"
                )
    for branch in fusion.use:
        if branch not in names:
            raise ConfigError(f"network.fusion.use: there is no branch {branch!r}; {suggest(branch, names)}")
    positions = {
        branch: tuple(sensor.band_names.index(band) for band in bands) for branch, bands in names.items() if branch in (fusion.use or names)
    }
    if fusion.joint:
        positions[JOINT] = tuple(dict.fromkeys(place for places in positions.values() for place in places))
    return fusion.model_copy(update={"positions": positions})


def branch_segmenter(model: Segmenter, branch: str) -> Segmenter:
    """Take one branch out of a Segmenter for a sum of sensors: a Segmenter for its part, of the same layers.

    Args:
        model: whose network is a :class:`FusedNetwork`.
        branch: its name, or a beginning that fits no other: ``s2`` for ``s2_l2a``.

    Raises:
        UsageError: a network without branches, or no such branch.
    """
    from tilth.models.segmenter import Segmenter as Made

    network, config = model.network, model.config
    if not isinstance(network, FusedNetwork) or config.network.fusion is None:
        raise UsageError(f"{config.network.title} has no branches; leave take out")
    fitting = [name for name in network.branches if name.startswith(branch)]
    name = fitting[0] if len(fitting) == 1 else branch
    part = network.branch(name)
    bands = [config.sensor.band_names[place] for place in config.network.fusion.positions[name]]
    own = config.network.model_copy(update={"fusion": None})
    part.title = own.title
    return Made(SegmenterConfig(network=own, sensor=config.sensor.select(bands, name), scheme=config.scheme), part)


def _bands(image: Tensor, places: tuple[int, ...]) -> Tensor:
    """Bands of a branch; a view where they stand together."""
    if places == tuple(range(places[0], places[0] + len(places))):
        return image[:, places[0] : places[0] + len(places)]
    return image[:, list(places)]


def _parts(sensor: Sensor) -> dict[str, tuple[str, ...]]:
    """Say which bands belong together, by the name of a sum or by their kind."""
    found: dict[str, tuple[str, ...]] = {}
    names = sensor.name.split("+")
    try:
        found = {name: get_sensor(name).band_names for name in names}
    except ConfigError:
        found = {}
    if len(found) == len(names) > 1 and tuple(band for bands in found.values() for band in bands) == sensor.band_names:
        return found
    kinds = {kind: tuple(band.name for band in sensor.bands if band.kind == kind) for kind in ("radar", "optical")}
    if all(kinds.values()) and sum(map(len, kinds.values())) == len(sensor):
        return kinds
    raise ConfigError(
        f"network.fusion: which bands of sensor {sensor.name!r} belong together, its name does not say; name them, for example "
        f"network.fusion.branches.first=[{sensor.band_names[0]}] network.fusion.branches.second=[{sensor.band_names[-1]}]"
    )
