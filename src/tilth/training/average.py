"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch

from tilth.models.segmenter import Segmenter


class Average:
    """A second copy of the model that follows the first slowly.

    Attributes:
        model: the averaged model, always in evaluation mode.
    """

    def __init__(self, model: Segmenter, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def update(self, model: Segmenter, step: int) -> None:
        """Take a step towards ``model``: average = decay * average + (1 - decay) * model.

        Early in a run the decay is min(decay, (1 + step) / (10 + step)), so that the average does not remember the random start.
        Batch statistics are averaged likewise; counters are copied.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = self.model.state_dict(), model.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(theirs[name], 1 - decay)
            else:
                value.copy_(theirs[name])
