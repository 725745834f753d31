"""Files of S5's plain ViT networks, sorted out: encoder, and for each task decoder and head, under our names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from tilth.errors import UsageError, suggest
from tilth.models.multi_task import MultiTaskNetwork
from tilth.models.vision_transformers.plain import PlainVisionTransformer
from tilth.models.weights.layout import NO_SUCH_LAYER, Converted, Tensors
from tilth.models.weights.layouts.parts import encoder_of, names_in_network
from tilth.models.weights.layouts.s5_names import DENSE, EXPERTS, PUBLISHED_TASKS

_ENCODER_FILE = ("cls_token", "pos_embed", "patch_embed.", "layers.", "fpn1.", "fpn2.")
_DETECTOR = ("neck", "rpn_head", "roi_head")
_PART = re.compile(r"(?P<part>semsegdecoder|semseghead)(?:_(?P<task>[^.]+))?\.(?P<rest>.*)")
_TASK = re.compile(r"(?:semseghead|neck|rpn_head|roi_head)_([^.]+)\..*")
LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
"""Beginning of a name in a file, of a layer."""

EXPERT = re.compile(r"encoder\.layers\.\d+\.ffn\.experts\.(\d+)\..*")
"""Whole name in a file, of an expert."""

OUR_EXPERT = re.compile(r"\.feed_forward\.experts\.(\d+)\.")
"""Part of our name, of an expert."""

OURS_OF_TASK = re.compile(r"(decoders|heads)\.([^.]+)\.(.*)")
"""Whole name of ours: kind of part, task, rest."""

_WHOLE_PART = {"decoders": "decoder", "heads": "segmentation_head"}


@dataclass
class S5File:
    """What a file holds, sorted out.

    Attributes:
        experts: their number; 0 for a file without.
        tasks: in small letters, in the order of the experts; empty where nobody can know. One task "" in a file without experts.
        unordered: whether it names tasks, but nothing tells which expert is whose.
        encoder: tensors under our names of a whole network, beginning with ``encoder.``.
        parts: for each task, tensors under our names beginning with ``decoder.`` and ``segmentation_head.``.
        sources: names in the file, by task ("" for the encoder) and our name.
        result: collects what is left out or unknown.
    """

    experts: int
    tasks: tuple[str, ...]
    unordered: bool
    encoder: Tensors = field(default_factory=dict)
    parts: dict[str, Tensors] = field(default_factory=dict)
    sources: dict[tuple[str, str], str] = field(default_factory=dict)
    result: Converted = field(default_factory=lambda: Converted({}))

    def drop(self, which: Callable[[str, str], bool], reason: str) -> None:
        """Note why tensors are left out; ``which`` judges a task ("" for the encoder) and our name."""
        for (task, name), source in self.sources.items():
            if which(task, name):
                self.result.dropped.setdefault(source, reason)

    def expert(self, take: str) -> int:
        """Position of a task, given by its name or number.

        Raises:
            UsageError: there is none.
        """
        if take.lower() in self.tasks:
            return self.tasks.index(take.lower())
        if take.isdecimal() and int(take) < self.experts:
            return int(take)
        unnamed = "" if self.tasks else ", and nothing in it tells which expert belongs to which task"
        raise UsageError(f"take={take}: the file has no such task{unnamed}; {suggest(take, self.choices)}")

    @property
    def choices(self) -> tuple[str, ...]:
        """What ``take`` can be."""
        return self.tasks or tuple(str(index) for index in range(self.experts))


def read_file(tensors: Tensors, network: nn.Module) -> S5File:
    """Sort out a file for a network; what the network has no place for is noted and left out."""
    usual = {source: usual_name(source) for source in tensors}
    experts = 1 + max((int(found[1]) for name in usual.values() if (found := EXPERT.fullmatch(name))), default=-1)
    tasks = _task_order(usual, network) if experts else ("",)
    file = S5File(experts, tasks, not tasks and any(_TASK.fullmatch(name) for name in usual.values()))
    places = {general_name(name) for name in names_in_network(network)}
    renaming = EXPERTS if experts else DENSE
    for source, name in usual.items():
        if name.startswith(_DETECTOR):
            file.result.dropped[source] = "part of a detector"
            continue
        found = _PART.fullmatch(name)
        ours = renaming.to_ours(f"{found['part']}.{found['rest']}" if found else name)
        if ours is None:
            file.result.unexpected.append(source)
        elif general_name(ours) not in places:
            file.result.dropped[source] = no_place(ours)
        elif found:
            # The decoder without a task in its name is the one of the first task.
            task = (found["task"] or file.choices[0]).lower()
            file.parts.setdefault(task, {})[ours] = tensors[source]
            file.sources[task, ours] = source
        else:
            file.encoder[ours] = tensors[source]
            file.sources["", ours] = source
    return file


def in_order(names: list[str], layer: str) -> bool:
    """Whether names stand as a program wrote them, told by a layer whose weight comes before its bias."""
    places = [names.index(f"{layer}{kind}") for kind in ("weight", "bias") if f"{layer}{kind}" in names]
    return len(places) == 2 and places[0] < places[1]


def no_place(ours: str) -> str:
    """Say why a tensor of a plain ViT is left out, by the name that it would have."""
    return NO_SUCH_LAYER if ours.startswith("encoder.blocks.") else "this network has no such part"


def usual_name(name: str) -> str:
    """Name that a tensor has in a whole segmentation file."""
    name = name.removeprefix("module.")
    if name.startswith("backbone."):
        return f"encoder.{name.removeprefix('backbone.')}"
    return f"encoder.{name}" if name.startswith(_ENCODER_FILE) else name


def _task_order(usual: Mapping[str, str], network: nn.Module) -> tuple[str, ...]:
    """Find the tasks of a file in the order of its experts, which have numbers only."""
    names = list(usual.values())
    found = tuple(dict.fromkeys(match[1].lower() for name in names if (match := _TASK.fullmatch(name))))
    for known in PUBLISHED_TASKS:
        if set(known) == set(found):
            return known
    # Programs write a weight before its bias, and tasks in their order. Where bias comes first, somebody sorted by name.
    stem = "encoder.patch_embed.projection."
    if in_order(names, stem):
        return found
    # What is left to know is the first task, whose decoder is the one without a task in its name. Any other guess would be silently wrong.
    own = tuple(task.lower() for task in tasks_of(network))
    first = next((task for task in found if f"semsegdecoder_{task}." not in "".join(names).lower()), None)
    return own if set(own) == set(found) and own[:1] == (first,) else ()


def general_name(name: str) -> str:
    """Our name without task and expert, the same for every kind of network."""
    found = OURS_OF_TASK.fullmatch(name)
    if found:
        return f"{_WHOLE_PART[found[1]]}.{found[3]}"
    return re.sub(r"\.feed_forward\.(?:contract|shared|experts\.\d+)\.", ".feed_forward.last.", name)


def tasks_of(network: nn.Module) -> tuple[str, ...]:
    """Tasks of a network in the order of its experts, an encoder alone names them by number; none for a network without experts."""
    if isinstance(network, MultiTaskNetwork):
        return tuple(network.tasks)
    encoder = encoder_of(network)
    return tuple(str(index) for index in range(encoder.experts)) if isinstance(encoder, PlainVisionTransformer) else ()
