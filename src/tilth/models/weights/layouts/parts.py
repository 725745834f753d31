"""Files that hold one network several times, or inside a larger one: which of them to take, and where it goes."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from tilth.errors import UsageError, suggest
from tilth.models.fused import BranchEncoders
from tilth.models.weights.containers import CONTAINER_ALIASES

ALIASES = CONTAINER_ALIASES | {
    "mocoq": "encoder_q",
    "mocok": "encoder_k",
    "decurs1": "backbone_1",
    "decurs2": "backbone_2",
    "s1": "backbone_1",
    "s2": "backbone_2",
}
"""Short words for parts of published files: those of CromSS's transfer program (cromss.md section 7.2), and modalities for DeCUR."""

_PREFERRED = ("encoder_q", "online_encoder", "base_encoder", "teacher", "backbone", "encoder")


def prefixes_before(names: Iterable[str], landmark: str) -> list[str]:
    """Find what stands before a name that every network of a kind has.

    Example:
        >>> prefixes_before(["q.conv1.weight", "k.conv1.weight", "conv1.weight", "my_conv1.weight"], "conv1.weight")
        ['q.', 'k.', '']
    """
    found = [name.removesuffix(landmark) for name in names if name.endswith(landmark)]
    return [prefix for prefix in found if not prefix or prefix.endswith(".")]


def choose_prefix(prefixes: list[str], take: str | None) -> str:
    """Choose one network of several in a file.

    Args:
        prefixes: of all networks in the file, at least one.
        take: part of a prefix, or one of :data:`ALIASES`; None prefers the query encoder, then the teacher.

    Raises:
        UsageError: ``take`` names none of them, or there is no telling.
    """
    words = {prefix: prefix.rstrip(".").split(".") for prefix in prefixes}
    if take is not None:
        asked = [prefix for prefix in prefixes if take in words[prefix] or ALIASES.get(take, take) in words[prefix]]
        if len(asked) == 1:
            return asked[0]
        raise UsageError(
            f"take={take!r}: the file holds {_say(prefixes)}; {suggest(take, [word for part in words.values() for word in part if word])}"
        )
    if len(prefixes) == 1:
        return prefixes[0]
    for word in _PREFERRED:
        found = [prefix for prefix in prefixes if word in words[prefix]]
        if len(found) == 1:
            return found[0]
    raise UsageError(f"the file holds {len(prefixes)} networks, {_say(prefixes)}; say which to take: take={words[prefixes[0]][-1]!r}")


def encoder_roots(network: nn.Module) -> dict[str, nn.Module]:
    """Find the encoders of a network by what stands before their names: one, or one for each branch of a fusion network."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        inside_another = any(name.startswith(root) for root in found)
        if not inside_another and name.rpartition(".")[2] == "encoder":
            several = dict(module.items()) if isinstance(module, BranchEncoders) else {}
            found |= {f"{name}.{branch}.": encoder for branch, encoder in several.items()} or {f"{name}.": module}
    return found


def encoder_of(network: nn.Module) -> nn.Module:
    """Encoder of a network, or the module itself where it is one."""
    found: nn.Module = getattr(network, "encoder", network)
    return found


def names_in_network(network: nn.Module) -> list[str]:
    """Names of a network's tensors; of an encoder alone as if it were in a network."""
    return [name if encoder_of(network) is not network else f"encoder.{name}" for name in network.state_dict()]


def _say(prefixes: list[str]) -> str:
    return ", ".join(prefix.rstrip(".") or "one without prefix" for prefix in prefixes)
