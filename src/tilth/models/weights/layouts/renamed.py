"""Layouts whose tensors have other names than ours and nothing else: one file tensor, one of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from tilth.errors import UsageError
from tilth.models.weights.layout import NO_SUCH_LAYER, Converted, Layout, Tensors
from tilth.models.weights.layouts.parts import encoder_of, names_in_network
from tilth.models.weights.rename import Renaming

COMPUTED = {"relative_position_index": "computed by the network", "attn_mask": "computed by the network"}
"""Parts of names of what files carry and our networks compute, with the reason to leave it out."""

STRANGERS = {
    "encoder.cls_token": "class token; this network has none",
    "encoder.norm.": "norm behind the last layer; this network has none",
    "encoder.head.": "class layer of the pictures that the encoder was trained on",
    **{f"encoder.{part}": "belongs to pre-training with masks" for part in ("mask_token", "decoder_")},
    **{
        f"encoder.{part}.": "decoder or detector of another program"
        for part in ("decode_head", "auxiliary_head", "neck", "rpn_head", "roi_head")
    },
}
"""Parts of names, as in a whole file, of what stands beside the same encoders in files of other programs."""


@dataclass(frozen=True)
class RenamedLayout:
    """What makes up such a layout.

    Attributes:
        renaming: our names in a whole network beside those of a whole file.
        whole: beginnings of names in a whole file.
        encoder: beginning of the encoder's names in a whole file; files of an encoder alone leave it out.
        aliases: beginnings that mean the same as ``encoder``.
        dropped: parts of names that are left out without a complaint, with the reason.
        computed: gives tensors that files carry and our networks compute, by name in a whole file.
        kind: class of the encoder.
    """

    renaming: Renaming
    whole: tuple[str, ...]
    encoder: str
    kind: type[nn.Module]
    aliases: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    computed: Callable[[nn.Module], Tensors] | None = None

    def usual(self, name: str) -> str:
        """Name that a tensor has in a whole file."""
        name = name.removeprefix("module.")
        if name.startswith(self.whole):
            return name
        for alias in self.aliases:
            if name.startswith(alias):
                return self.encoder + name.removeprefix(alias)
        return self.encoder + name

    def fits(self, network: nn.Module) -> bool:
        """Whether a network's encoder, or the network itself, is of the right kind."""
        return isinstance(encoder_of(network), self.kind)

    def convert(self, tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
        """Translate a file, whole or of an encoder alone, for a network or an encoder alone.

        Raises:
            UsageError: ``take`` is given, which has nothing to choose.
        """
        if take is not None:
            raise UsageError(f"take={take!r}: the file holds one network; leave take out")
        places = set(names_in_network(network))
        known = [ours for name in tensors if (ours := self.renaming.to_ours(self.usual(name))) is not None]
        same_decoder = any(ours in places for ours in known if ours.startswith("decoder."))
        result = Converted({})
        for name, tensor in tensors.items():
            usual = self.usual(name)
            reason = next((reason for part, reason in self.dropped.items() if part in usual), None)
            ours = self.renaming.to_ours(usual)
            if reason is not None:
                result.dropped[name] = reason
            elif ours is None:
                result.unexpected.append(name)
            elif ours not in places:
                inside = ours.startswith("encoder.") or same_decoder
                result.dropped[name] = NO_SUCH_LAYER if inside else "of another decoder or head"
            else:
                result.tensors[ours if encoder_of(network) is not network else ours.removeprefix("encoder.")] = tensor
        return result

    def export(self, network: nn.Module) -> Tensors:
        """Give the tensors of a whole network, or of an encoder alone, their official names."""
        alone = encoder_of(network) is network
        named = zip(names_in_network(network), network.state_dict().values(), strict=True)
        exported = {theirs: tensor for name, tensor in named if (theirs := self.renaming.to_theirs(name)) is not None}
        exported |= self.computed(network) if self.computed else {}
        return {name.removeprefix(self.encoder): tensor for name, tensor in exported.items()} if alone else exported

    def layout(self, name: str, title: str, recognises: Callable[[set[str]], bool]) -> Layout:
        """Make the layout; ``recognises`` is asked with names as in a whole file."""
        return Layout(name, title, lambda shapes: recognises({self.usual(found) for found in shapes}), self.fits, self.convert, self.export)


def relative_indices(renaming: Renaming) -> Callable[[nn.Module], Tensors]:
    """Make a function that gives the index of each table of biases, beside which published files store it."""

    def computed(network: nn.Module) -> Tensors:
        indices = {}
        for name, module in network.named_modules():
            index = getattr(module, "relative_index", None)
            if index is not None:
                whole = name if encoder_of(network) is not network else f"encoder.{name}"
                table = str(renaming.to_theirs(f"{whole}.relative_bias"))
                indices[table.replace("relative_position_bias_table", "relative_position_index")] = index
        return indices

    return computed
