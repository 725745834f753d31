"""Networks by name: build them, list them, keep them in folders."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tilth import seeds
from tilth.errors import ConfigError, TilthError, suggest
from tilth.models.config import NetworkSpec
from tilth.models.named import NAMES
from tilth.models.options import check_options, check_sizes

SPEC = "spec"
"""Attribute of a network by name that holds its :class:`tilth.models.config.NetworkSpec`."""

_COMMON = ("in_channels", "num_classes", "image_size")


def create(
    name: str,
    in_channels: int | Sequence[int] | None = None,
    num_classes: int = 16,
    image_size: int = 512,
    *,
    seed: int | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by name, with fresh weights, in training mode on the CPU.

    Args:
        name: a key of :func:`available`.
        in_channels: bands C; one number for each modality for fusion networks. By default what the name is published with.
        num_classes: classes K. Diffusion networks have none, multi-task ones take them from ``tasks``.
        image_size: side in pixels that position embeddings and relative tables are made for; images of other sizes are interpolated to.
            Networks without such tables do not depend on it.
        seed: fresh weights are a pure function of this and the rest, and the global random state stays as it was; None draws from it.
        **options: of the network, see its builder.

    Returns:
        The network; its attribute ``spec`` says all of the above. How it is called depends on its kind, see
        :class:`tilth.models.named.Named`.

    Raises:
        ConfigError: unknown name or option, or one that makes no sense.

    Example:
        >>> network = create("upernet_vit_b", num_classes=5, depth=4, width=48, heads=3)
        >>> tuple(network(torch.zeros(2, 3, 70, 90)).shape)
        (2, 5, 70, 90)
    """
    if name not in NAMES:
        raise ConfigError(f"no network is called {name!r}; {suggest(name, NAMES)}")
    named = NAMES[name]
    module, _, function = named.builder.partition(":")
    builder = getattr(importlib.import_module(module), function)
    known = [option for option in inspect.signature(builder).parameters if option not in _COMMON]
    for option in options:
        if option not in known:
            raise ConfigError(f"{name} takes no option {option!r}; {suggest(option, known)}")
    bands = named.in_channels if in_channels is None else in_channels
    check_sizes(name, named, bands, num_classes, image_size)
    check_options(name, builder, options)
    # Every setting as JSON would give it back, so that a network read from its folder is built by the same values.
    spec = NetworkSpec(
        name=name,
        in_channels=bands if isinstance(bands, int) else tuple(bands),
        num_classes=num_classes,
        image_size=image_size,
        options=options,
    )
    network = _build(builder, spec, named.options, seed)
    setattr(network, SPEC, spec)
    return network


def _build(builder: Any, spec: NetworkSpec, fixed: dict[str, Any], seed: int | None) -> nn.Module:
    arguments = {key: getattr(spec, key) for key in _COMMON} | fixed | spec.options
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seeds.derive(seed, "weights"))
        try:
            network: nn.Module = builder(**arguments)
        except TilthError:
            raise
        # A number where a word is wanted, a width that heads do not divide: torch complains in its own ways.
        except (TypeError, ValueError, KeyError, IndexError, AssertionError, ArithmeticError, RuntimeError) as error:
            raise ConfigError(f"{spec.name} cannot be built with options {spec.options}: {' '.join(str(error).split())[:200]}") from error
    return network


def available() -> dict[str, int]:
    """List the names of networks with their numbers of parameters: of their default bands, 16 classes and 512 pixels.

    Counted on networks without memory, so listing the largest costs nothing. Multi-task networks are counted with the four data sets of
    the S5 paper. Parameters that published files carry and no pass uses (class tokens, 257 in each UperNet of S5) are counted, as the
    papers do.
    """
    # Numbers for weights without memory are drawn nevertheless.
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return {name: sum(parameter.numel() for parameter in create(name).parameters()) for name in NAMES}
