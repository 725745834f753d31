"""Trained encoders under new decoders: what does not learn, and what learns at another rate (cromss.md section 7.3)."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from tilth.errors import ConfigError
from tilth.models.fused import FusedNetwork
from tilth.models.network import SegmentationNetwork
from tilth.models.segmenter import Segmenter
from tilth.models.weights.report import BEHIND_ENCODER
from tilth.training.config import TransferConfig

_BLOCK = re.compile(r"\bdecoder\.(?:\w+\.)?blocks\.(\d+)\.")
_ENCODER = re.compile(r"^(?:(?:\w+\.)*network\.)?encoder\.")


class Freezing:
    """Keeps an encoder from learning, for the whole of a training or at its beginning: a pure function of the step.

    What sits behind the encoder for segmentation alone and never comes with its weights (pyramids, norms of maps) learns always.

    Attributes:
        parameters: of the encoder; those that never learn, because nothing uses them, are not among them.
    """

    def __init__(self, model: Segmenter, config: TransferConfig, *, alone: bool = True) -> None:
        """Freeze what never learns, so that an optimiser made afterwards does not hold it.

        Args:
            model: the network.
            config: what is frozen, and when.
            alone: this is the only process. Among several all parameters keep their gradients, which the processes exchange, and those
                of a frozen encoder are thrown away afterwards.
        """
        self._config, self._alone = config, alone
        self._encoder = model.network.encoder
        behind = _behind_encoders(model.network)
        self._behind = [part for name, part in model.network.named_modules() if f"{name}.".startswith(behind)]
        self.parameters = [
            parameter
            for name, parameter in model.network.named_parameters()
            if name.startswith("encoder.") and not name.startswith(behind) and parameter.requires_grad
        ]
        if config.frozen == "always":
            self._learn(on=False)

    def at(self, step: int) -> bool:
        """Whether the encoder is frozen in a step."""
        return self._config.frozen == "always" or (self._config.frozen_steps is not None and step < self._config.frozen_steps)

    def before(self, step: int) -> None:
        """Prepare the network, which is in training mode, for a step."""
        frozen = self.at(step)
        if self._alone and self._config.frozen == "first":
            self._learn(on=not frozen)
        if frozen and self._config.frozen_bn == "fixed":
            # Batch norms in evaluation mode use their statistics and leave them alone; dropout and stochastic depth are off, too.
            self._encoder.eval()
            for part in self._behind:
                part.train()

    def after(self, step: int) -> None:
        """Throw gradients of a frozen encoder away, before anything looks at them."""
        if self.at(step):
            for parameter in self.parameters:
                parameter.grad = None

    def _learn(self, *, on: bool) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(on)


def _behind_encoders(network: SegmentationNetwork) -> tuple[str, ...]:
    """Beginnings of the names of what sits behind the encoder, or behind that of each branch."""
    if not isinstance(network, FusedNetwork):
        return BEHIND_ENCODER
    return tuple(start.replace("encoder.", f"encoder.{branch}.", 1) for branch in network.branches for start in BEHIND_ENCODER)


def rate_share(model: nn.Module, config: TransferConfig) -> Callable[[str], float]:
    """Say which share of a step's learning rate a parameter has.

    With ``ascending`` the head has all of it, the last block of the decoder ``rate_factor`` of it, the one before that of the last, and so
    on; with ``descending`` the first block has all of it. Everything else, the encoder above all, has the smallest share of these.
    ``encoder_rate`` multiplies the encoder's.

    Args:
        model: a network, or a module around one.
        config: how rates differ.

    Returns:
        A function of the parameter's name in ``model``: above 0, at most 1.

    Raises:
        ConfigError: the decoder has no blocks.
    """
    if config.rates == "same":
        return lambda name: config.encoder_rate if _ENCODER.match(name) else 1.0
    places = [int(found[1]) for name, _ in model.named_parameters() if (found := _BLOCK.search(name))]
    if not places:
        raise ConfigError(
            f"loop.transfer.rates={config.rates}: is for decoders made of blocks, as that of a U-Net, and this network's has none; "
            "leave it at same"
        )
    head = max(places) + 1

    def share(name: str) -> float:
        found = _BLOCK.search(name)
        place = int(found[1]) if found else head if "segmentation_head." in name else None
        if place is None:
            return config.rate_factor**head * (config.encoder_rate if _ENCODER.match(name) else 1.0)
        return config.rate_factor ** (head - place if config.rates == "ascending" else place)

    return share
