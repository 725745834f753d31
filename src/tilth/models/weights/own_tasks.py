"""Files of tilth's own plain ViTs between one task and several, sorted out as those of S5 are: experts have numbers, tasks have names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from tilth.errors import UsageError
from tilth.models.vision_transformers.plain import PlainVisionTransformer
from tilth.models.weights.layout import Converted, Tensors
from tilth.models.weights.layouts import s5_vit
from tilth.models.weights.layouts.parts import encoder_of, names_in_network
from tilth.models.weights.layouts.s5_file import OUR_EXPERT, OURS_OF_TASK, S5File, general_name, in_order, no_place, tasks_of

_OF_TASK = re.compile(r"(decoder|segmentation_head)\..*")
_WHOLE_PART = {"decoders": "decoder", "heads": "segmentation_head"}


def holds_experts(names: Iterable[str]) -> bool:
    """Whether a file has several tasks."""
    return any(OUR_EXPERT.search(name) for name in names)


def needs_sorting(names: Iterable[str], network: nn.Module) -> bool:
    """Whether file or network has experts, so that a tensor's name alone does not say where it goes."""
    plain = isinstance(encoder_of(network), PlainVisionTransformer)
    return plain and (bool(tasks_of(network)) or holds_experts(names))


def convert(tensors: Tensors, network: nn.Module, take: str | None, tasks: tuple[str, ...]) -> Converted:
    """Translate a file under our names; see :func:`tilth.models.weights.layouts.s5_vit.convert`.

    Args:
        tensors: of the file.
        network: whose encoder is a plain ViT.
        take: a task of the file.
        tasks: of the file in the order of the experts; empty where no folder says it.

    Raises:
        UsageError: ``take`` is missing or names nothing, or nothing tells which expert is whose.
    """
    whole = {name if encoder_of(network) is not network or name.startswith("encoder.") else f"encoder.{name}": name for name in tensors}
    experts = 1 + max((int(found[1]) for name in whole if (found := OUR_EXPERT.search(name))), default=-1)
    if take is not None and not experts:
        raise UsageError(f"take={take!r}: the file holds one task; leave take out")
    named = tuple(dict.fromkeys(found[2] for name in whole if (found := OURS_OF_TASK.fullmatch(name))))
    order = [""]
    if experts:
        order = [task.lower() for task in tasks or (named if len(named) == 1 or in_order(list(whole), "encoder.patch_embedding.") else ())]
    if len(order) not in (0, max(experts, 1)):
        raise UsageError(f"the file has {experts} experts and tasks {', '.join(order)}: no telling which is whose")
    file = S5File(experts, tuple(order), not order and bool(named))
    places = {general_name(name) for name in names_in_network(network)}
    for name, source in whole.items():
        of_task = OURS_OF_TASK.fullmatch(name)
        ours = f"{_WHOLE_PART[of_task[1]]}.{of_task[3]}" if of_task else name
        if general_name(ours) not in places:
            known = ours.startswith("encoder.")
            file.result.dropped[source] = no_place(ours) if known else "of another decoder or head"
        elif of_task or _OF_TASK.fullmatch(name):
            task = of_task[2].lower() if of_task else ""
            file.parts.setdefault(task, {})[ours] = tensors[source]
            file.sources[task, ours] = source
        else:
            file.encoder[ours] = tensors[source]
            file.sources["", ours] = source
    return s5_vit.fill(file, network, take)
