"""S5's plain ViT networks: one task (``s5-vit``) and several with experts (``s5-moe``), whole, encoder only, or inside a detector.

Keys and what becomes of them: s5_finetune.md sections 2 to 4; conversion between the two kinds: section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tilth.errors import UsageError
from tilth.models.vision_transformers.blocks import Block
from tilth.models.vision_transformers.experts import ExpertFeedForward
from tilth.models.vision_transformers.plain import PlainVisionTransformer
from tilth.models.weights.conversion import join_feed_forwards, split_feed_forwards
from tilth.models.weights.layout import Converted, Layout, Tensors
from tilth.models.weights.layouts.parts import encoder_of
from tilth.models.weights.layouts.s5_file import (
    EXPERT,
    LAYER,
    OUR_EXPERT,
    OURS_OF_TASK,
    S5File,
    general_name,
    read_file,
    tasks_of,
    usual_name,
)
from tilth.models.weights.layouts.s5_names import DENSE, EXPERTS, PUBLISHED_TASKS, SPELLED
from tilth.models.weights.rename import Renaming


def convert(tensors: Tensors, network: nn.Module, take: str | None) -> Converted:
    """Translate a file of either kind for a network of either kind.

    A file without experts gives every expert and every decoder of a network the same weights, and its heads none. Of a file with experts, a
    network without takes one task; a network with experts takes each task by its name, and tasks that the file lacks start as the task
    ``take`` (heads excepted), or stay fresh.

    Args:
        tensors: of the file, under its names.
        network: a plain ViT, or a network whose encoder is one.
        take: a task of the file, by name or number.

    Returns:
        Tensors under the names of the network.

    Raises:
        UsageError: ``take`` is missing or names nothing, the file has more layers than the network, or experts of another size.
    """
    if take is not None and not any(EXPERT.fullmatch(usual_name(name)) for name in tensors):
        raise UsageError(f"take={take}: the file holds one task; leave take out")
    file = read_file(tensors, network)
    _check_depth(tensors, network)
    return fill(file, network, take)


def fill(file: S5File, network: nn.Module, take: str | None) -> Converted:
    """Bring a file that was sorted out to a network, which may be of the other kind; see :func:`convert`."""
    tasks = tasks_of(network)
    if not tasks:
        made = _one_of_experts(file, take) if file.experts else file.encoder | file.parts.get("", {})
    else:
        made = _experts_of_experts(file, network, tasks, take) if file.experts else _experts_of_one(file, network, tasks)
    if encoder_of(network) is network:
        made = {name.removeprefix("encoder."): tensor for name, tensor in made.items()}
    file.result.tensors = made
    return file.result


def _check_depth(tensors: Tensors, network: nn.Module) -> None:
    """Refuse a deeper file: its first layers alone would compute something else, and the report would call them complete."""
    found = 1 + max(int(match[1]) for name in tensors if (match := LAYER.match(usual_name(name))))
    blocks = sum(isinstance(module, Block) for module in encoder_of(network).modules())
    if found > blocks:
        raise UsageError(f"the file has {found} layers, the network {blocks}; build it with depth={found}")


def _part(network: nn.Module) -> int:
    """Channels of each expert."""
    block = next(module for module in encoder_of(network).modules() if isinstance(module, Block))
    return block.feed_forward.part if isinstance(block.feed_forward, ExpertFeedForward) else 0


def _one_of_experts(file: S5File, take: str | None) -> Tensors:
    if take is None and file.experts > 1:
        raise UsageError(
            f"the file has experts for {file.experts} tasks, the network has none; say which to take: {', '.join(file.choices)}"
        )
    expert = file.expert(take) if take is not None else 0
    task = file.choices[expert]
    file.drop(lambda other, name: _is_other(file, other, name, {expert}), f"of another task than {task}")
    file.result.notes.append(f"task {task} of {', '.join(file.choices)}")
    return join_feed_forwards(file.encoder, expert) | file.parts.get(task, {})


def _experts_of_one(file: S5File, network: nn.Module, tasks: tuple[str, ...]) -> Tensors:
    file.drop(lambda _, name: name.startswith("segmentation_head."), "class layer of the file's own classes; heads of tasks start fresh")
    made = split_feed_forwards(file.encoder, len(tasks), _part(network))
    file.result.notes.append(f"experts of {', '.join(tasks)} start equal, from the last {_part(network)} channels of each layer")
    for task in tasks:
        made |= _for_task(file.parts.get("", {}), task, head=False)
    return made


def _experts_of_experts(file: S5File, network: nn.Module, tasks: tuple[str, ...], take: str | None) -> Tensors:
    found = next(tensor.shape[0] for name, tensor in file.encoder.items() if OUR_EXPERT.search(name))
    if found != _part(network):
        raise UsageError(f"experts of the file have {found} channels, those of the network {_part(network)}; build it with part={found}")
    sources = _match_tasks(file, tasks, take)
    file.drop(lambda other, name: _is_other(file, other, name, set(sources.values())), "of a task that this network does not have")
    made = {name: tensor for name, tensor in file.encoder.items() if not OUR_EXPERT.search(name)}
    for index, task in enumerate(tasks):
        if task not in sources:
            continue
        source = sources[task]
        mark = f".feed_forward.experts.{source}."
        made |= {name.replace(mark, f".feed_forward.experts.{index}."): tensor for name, tensor in file.encoder.items() if mark in name}
        theirs = file.choices[source]
        made |= _for_task(file.parts.get(theirs, {}), task, head=theirs == task.lower() or not file.tasks)
    return made


def _match_tasks(file: S5File, tasks: tuple[str, ...], take: str | None) -> dict[str, int]:
    """Say which expert of the file each task of the network starts from; a task is left out where there is none."""
    by_number = not file.tasks or all(task.isdecimal() for task in tasks)
    if by_number and take is None:
        if file.unordered:
            raise UsageError("the file was sorted by name, so that nothing tells which expert belongs to which task; give it unsorted")
        if len(tasks) != file.experts:
            raise UsageError(f"the file has {file.experts} experts, the network {len(tasks)}, and no names tell which is which")
        return {task: index for index, task in enumerate(tasks)}
    other = None if take is None else file.expert(take)
    found = {task: file.tasks.index(task.lower()) if task.lower() in file.tasks else other for task in tasks}
    matched = {task: index for task, index in found.items() if index is not None}
    if not matched:
        raise UsageError(
            f"the file's tasks ({', '.join(file.choices)}) are none of the network's ({', '.join(tasks)}); "
            "name one that all tasks start from with take=..."
        )
    return matched


def _is_other(file: S5File, task: str, name: str, kept: set[int]) -> bool:
    """Whether a tensor belongs to an expert, decoder or head of other tasks than those kept."""
    expert = OUR_EXPERT.search(name)
    if expert:
        return int(expert[1]) not in kept
    return task != "" and task not in {file.choices[index] for index in kept}


def _for_task(parts: Tensors, task: str, *, head: bool) -> Tensors:
    """Name decoder and head as those of a task of a multi-task network."""
    made = {f"decoders.{task}.{name.removeprefix('decoder.')}": tensor for name, tensor in parts.items() if name.startswith("decoder.")}
    if head:
        mark = "segmentation_head."
        made |= {f"heads.{task}.{name.removeprefix(mark)}": tensor for name, tensor in parts.items() if name.startswith(mark)}
    return made


def export_dense(network: nn.Module) -> Tensors:
    """Give the tensors of a one-task network their official names."""
    return {_theirs(DENSE, name): tensor for name, tensor in network.state_dict().items()}


def export_experts(network: nn.Module) -> Tensors:
    """Give the tensors of a network with experts their official names; published sets of tasks get the published order.

    The decoder of the first task has no task in its name, those of the others and all heads have.
    """
    tasks = tuple(task.lower() for task in tasks_of(network))
    order = next((known for known in PUBLISHED_TASKS if set(known) == set(tasks)), tasks)
    exported: Tensors = {}
    for name, tensor in network.state_dict().items():
        of_task = OURS_OF_TASK.fullmatch(name)
        if of_task is None:
            ours = OUR_EXPERT.sub(lambda found: f".feed_forward.experts.{order.index(tasks[int(found[1])])}.", name)
            exported[_theirs(EXPERTS, ours)] = tensor
            continue
        part, _, rest = _theirs(EXPERTS, general_name(name)).partition(".")
        task = of_task[2].lower()
        first = part == "semsegdecoder" and task == order[0]
        exported[f"{part}.{rest}" if first else f"{part}_{SPELLED.get(task, of_task[2])}.{rest}"] = tensor
    return exported


def _theirs(renaming: Renaming, name: str) -> str:
    found = renaming.to_theirs(name)
    assert found is not None, name
    return found


def _recognises(shapes: Mapping[str, tuple[int, ...]], *, experts: bool) -> bool:
    names = {usual_name(name) for name in shapes}
    if "encoder.layers.0.attn.attn.in_proj_weight" not in names or "encoder.patch_embed.projection.weight" not in names:
        return False
    return ("encoder.layers.0.ffn.experts.0.weight" in names) == experts


def _fits(network: nn.Module) -> bool:
    return isinstance(encoder_of(network), PlainVisionTransformer)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "s5-vit",
        "S5, plain ViT: whole network or encoder",
        lambda shapes: _recognises(shapes, experts=False),
        _fits,
        convert,
        export_dense,
    ),
    Layout(
        "s5-moe",
        "S5, ViT with experts: whole network, encoder or detector",
        lambda shapes: _recognises(shapes, experts=True),
        _fits,
        convert,
        export_experts,
    ),
)
"""In the order in which they are tried."""
