"""AdamW with correct parameter groups, and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from tilth.errors import UsageError
from tilth.models.weights.load import official_state_dict
from tilth.training.config import LoopConfig

_OFFICIAL_NO_DECAY = ("norm", "absolute_pos_embed", "relative_position_bias_table")
_NO_DECAY_NAMES = (
    *("position_embedding", "class_position", "class_token", "group_embedding", "relative_bias", "relative_rows", "relative_columns"),
    *("weight_tokens", "bias_token", "mask_token"),
    # Names that timm gives the same things.
    *("pos_embed", "cls_token", "dist_token", "reg_token", "relative_position_bias_table", "rel_pos"),
)


def decays(name: str, parameter: nn.Parameter, rule: str = "standard") -> bool:
    """Say whether weight decay applies to a parameter (s5_pretrain.md section 6).

    Args:
        name: its name in the network; for ``official`` the one that the S5 program gives it.
        parameter: the parameter.
        rule: ``standard`` exempts all one-dimensional parameters, embeddings, tokens and tables of positions;
            ``official`` exempts what the S5 program's substrings happen to match.
    """
    if rule == "official":
        return not any(part in name for part in _OFFICIAL_NO_DECAY)
    return parameter.ndim > 1 and not any(part in name for part in _NO_DECAY_NAMES)


def build_optimiser(model: nn.Module, config: LoopConfig, published: nn.Module | None = None) -> AdamW:
    """Build AdamW with two groups, with and without weight decay, in the order of the network's parameters.

    Args:
        model: all that is trained.
        config: rate, decay and which parameters it spares.
        published: the part of ``model`` that may have published names; the whole by default.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    theirs = _published_names(model, published or model) if config.no_decay == "official" else {}
    decayed = [decays(theirs.get(name, name), parameter, config.no_decay) for name, parameter in named]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for (_, parameter), kept in zip(named, decayed, strict=True) if kept == wanted], "weight_decay": rate}
        for wanted, rate in ((True, config.weight_decay), (False, 0.0))
    ]
    # The fused step unscales gradients by itself, so Fabric could not clip them under a gradient scaler.
    by_itself = bool(named) and named[0][1].device.type in ("cuda", "cpu") and config.precision != "16-mixed"
    fused = by_itself if config.fused == "auto" else config.fused
    return AdamW([group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, eps=1e-8, fused=fused)


def same_layout(optimiser: Optimizer) -> None:
    """Lay what an optimiser remembers out in memory as the weights that it belongs to.

    The fused step walks through memory and knows no axes: memories in another order, as they come from a checkpoint where weights are
    channels-last, would go to other weights.
    """
    for weight, kept in optimiser.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                kept[name] = torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)


def _published_names(model: nn.Module, published: nn.Module) -> dict[str, str]:
    """Find the names that its publisher's program gives a network's parameters; empty for networks that nobody published."""
    try:
        official = official_state_dict(published)
    except UsageError:
        return {}
    # Renaming a tensor leaves it where it is in memory, so the place tells which is which.
    names = {tensor.data_ptr(): name for name, tensor in official.items()}
    return {name: names[parameter.data_ptr()] for name, parameter in model.named_parameters() if parameter.data_ptr() in names}


class LearningRate:
    """The learning rate of every step: a pure function of the step, but for ``plateau``, which listens to validation.

    Example:
        >>> rate = LearningRate(LoopConfig(steps=100, learning_rate=1.0))
        >>> [round(rate.at(step), 3) for step in (0, 50, 100)]
        [1.0, 0.5, 0.0]
    """

    def __init__(self, config: LoopConfig) -> None:
        self.base = config.learning_rate
        self.steps = config.steps
        self.schedule = config.schedule
        self._best = -math.inf
        self._waited = 0
        self._reductions = 0

    def at(self, step: int) -> float:
        """Rate of step 0, 1, ...; with warm-up step 0 already moves: (step + 1) / warmup_steps of the base rate."""
        schedule = self.schedule
        if step < schedule.warmup_steps:
            return self.base * (step + 1) / schedule.warmup_steps
        done = min(1.0, (step - schedule.warmup_steps) / (self.steps - schedule.warmup_steps))
        match schedule.kind:
            case "cosine":
                share = (1 + math.cos(math.pi * done)) / 2
            case "poly":
                share = (1 - done) ** schedule.power
            case "step":
                return self.base * schedule.factor ** sum(done >= milestone for milestone in schedule.milestones)
            case "plateau":
                return self.base * schedule.factor**self._reductions
            case "constant":
                return self.base
        return self.base * (schedule.final_share + (1 - schedule.final_share) * share)

    def observe(self, score: float) -> None:
        """Tell a validation score, higher is better."""
        if score > self._best:
            self._best, self._waited = score, 0
            return
        self._waited += 1
        if self._waited >= self.schedule.patience:
            self._reductions, self._waited = self._reductions + 1, 0

    def state_dict(self) -> dict[str, float | int]:
        """What a resumed run needs."""
        best = self._best if math.isfinite(self._best) else -1e30
        return {"best": best, "waited": self._waited, "reductions": self._reductions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._best, self._waited, self._reductions = float(state["best"]), int(state["waited"]), int(state["reductions"])
