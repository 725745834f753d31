"""Optimisers with correct parameter groups, and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from tilth.errors import UsageError
from tilth.models.weights.load import official_state_dict
from tilth.training.config import LoopConfig
from tilth.training.freezing import rate_share

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
            ``official`` exempts what the S5 program's substrings happen to match; ``nothing`` exempts none.
    """
    if rule == "nothing":
        return True
    if rule == "official":
        return not any(part in name for part in _OFFICIAL_NO_DECAY)
    return parameter.ndim > 1 and not any(part in name for part in _NO_DECAY_NAMES)


def build_optimiser(model: nn.Module, config: LoopConfig, published: nn.Module | None = None) -> Optimizer:
    """Build an optimiser with one group of parameters for each learning rate and decay, in the order of the network's parameters.

    Each group says in ``rate_share`` which share of the rate of a step is its own.

    Args:
        model: all that is trained; what needs no gradient now is left out.
        config: optimiser, rates, decay and which parameters it spares.
        published: the part of ``model`` that may have published names; the whole by default.

    Raises:
        ConfigError: rates that differ from block to block, for a decoder without blocks.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    theirs = _published_names(model, published or model) if config.no_decay == "official" else {}
    share_of = rate_share(model, config.transfer)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        kind = share_of(name), decays(theirs.get(name, name), parameter, config.no_decay)
        groups.setdefault(kind, []).append(parameter)
    # Fastest first, and what decays before what does not.
    described: list[dict[str, Any]] = [
        {"params": groups[share, decayed], "weight_decay": config.weight_decay if decayed else 0.0, "rate_share": share}
        for share, decayed in sorted(groups, reverse=True)
    ]
    # The fused step unscales gradients by itself, so Fabric could not clip them under a gradient scaler.
    by_itself = bool(named) and named[0][1].device.type in ("cuda", "cpu") and config.precision != "16-mixed"
    fused = by_itself if config.fused == "auto" else config.fused
    if config.optimiser == "sgd":
        return SGD(described, lr=config.learning_rate, momentum=config.momentum, fused=fused)
    adam = AdamW if config.optimiser == "adamw" else Adam
    return adam(described, lr=config.learning_rate, betas=config.betas, eps=1e-8, fused=fused)


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
        self.warmup = config.schedule.warmup(config.steps)
        self._best = -math.inf
        self._waited = 0
        self._reductions = 0

    def at(self, step: int) -> float:
        """Rate of step 0, 1, ...; with warm-up step 0 already moves: (step + 1) / warm-up of the way to the base rate."""
        schedule = self.schedule
        if step < self.warmup:
            return self.base * (schedule.warmup_from + (1 - schedule.warmup_from) * (step + 1) / self.warmup)
        since = step - self.warmup
        since -= since % schedule.hold_steps
        done = min(1.0, since / (self.steps - self.warmup))
        match schedule.kind:
            case "step":
                return self.base * schedule.factor ** sum(done >= milestone for milestone in schedule.milestones)
            case "plateau":
                return self.base * schedule.factor**self._reductions
            case "constant":
                return self.base
        done = min(1.0, done / schedule.decay_share)
        share: float
        match schedule.kind:
            case "exp":
                share = schedule.final_share**done
                return self.base * share
            case "poly":
                share = (1 - done) ** schedule.power
            case _:
                share = (1 + math.cos(math.pi * done)) / 2
        return self.base * (schedule.final_share + (1 - schedule.final_share) * share)

    def observe(self, score: float) -> None:
        """Tell a validation score, higher is better."""
        if score > self._best + self.schedule.threshold * abs(self._best if math.isfinite(self._best) else 0.0):
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
