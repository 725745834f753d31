"""Published weights into a network, all or nothing, with a report; and a network's weights under the names of its publisher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tilth.errors import TilthError, UnreadableFileError, UsageError
from tilth.models.weights.fit import CLASS_LAYERS, fit
from tilth.models.weights.judge import inside_taken_layers, layers_left_over
from tilth.models.weights.layout import COMPUTES_OTHERWISE, Converted, Layout
from tilth.models.weights.layouts import all_layouts
from tilth.models.weights.layouts.parts import encoder_roots
from tilth.models.weights.made_for import compare, read_folder, title_of
from tilth.models.weights.own import encoder_layout, own_layout
from tilth.models.weights.own_tasks import holds_experts
from tilth.models.weights.read import Source, read_weights
from tilth.models.weights.report import LoadReport, groups

_SHOWN = 4
_REASON = 160
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module")
"""What holds the model inside of one that was compiled or wrapped."""


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any], *, take: str | None = None) -> LoadReport:
    """Load published weights into a network, whichever program wrote them.

    The layout is told by the names and shapes of the tensors. Bands, position tables and classes that differ are fitted, see
    :mod:`tilth.models.weights.fit`. Either everything that fits is copied, or the network stays as it was.

    Args:
        model: a network of :func:`tilth.models.create`, a Segmenter (its network is filled), or any network with an ``encoder`` of timm,
            torchvision or segmentation-models-pytorch.
        source: a file, model folder, hub name or state dict; see :func:`tilth.models.weights.read.read_weights`.
        take: which part of a file that holds several: ``s1`` or ``s2`` of a fusion network, ``teacher`` or ``student``, ``encoder_q`` or
            ``encoder_k``. What a layout takes if nothing is said stands in its title in the report.

    Returns:
        What became of every tensor of the file and of every parameter of the network. What the file does not bring stays as it was.

    Raises:
        MissingFileError, UnreadableFileError, RunError: the source cannot be read, is of no known layout, or does not fit this network.
        UsageError: ``take`` names nothing in the file, or the network has no memory.

    Example:
        >>> model, other = (nn.Sequential(nn.Conv2d(3, 2, 1)) for _ in range(2))
        >>> load_weights(model, {"model": other.state_dict()}).verdict
        'complete'
    """
    whole, network = _unwrapped(model)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise UsageError(
            f"{title_of(network)} is on the meta device, which has no memory for weights; build it without torch.device('meta')"
        )
    found = read_weights(source, take)
    layout, converted = convert_weights(network, found, None if found.took else take)
    _compare(found, whole, network, converted)
    state = network.state_dict()
    strangers = [name for name in converted.tensors if name not in state]
    known = {name: tensor for name, tensor in converted.tensors.items() if name in state}
    with _one_line(found.title):
        fitted = fit(known, network, found.title)
    report = _report(network, found, layout, converted, strangers)
    report.lacking = _lacking(found, network, converted, strangers)
    report.resized = fitted.resized
    report.dropped = {**converted.dropped, **fitted.dropped}
    _count(report, network, fitted.tensors)
    _check(report, network, found)
    _note_wild_numbers(report, fitted.tensors)
    # Checked as a whole; from here on nothing can fail, so no network is ever half loaded.
    with torch.no_grad():
        for name, tensor in fitted.tensors.items():
            state[name].copy_(tensor)
    return report


def official_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Give a network's tensors the names, shapes and order in which its publisher's program keeps them.

    Args:
        model: a network of :func:`tilth.models.create` whose kind was published, or a Segmenter of one.

    Returns:
        Tensors by official name, in the memory of the network. What the official program keeps and tilth computes (tables of indices,
        schedules) is added.

    Raises:
        UsageError: nobody published networks of this kind.
    """
    _, network = _unwrapped(model)
    name = getattr(network, "layout", None)
    layout = next((layout for layout in all_layouts() if layout.name == name), None)
    if layout is None or layout.export is None:
        raise UsageError(f"{title_of(network)} has no official layout; save it with Segmenter.save or save_network")
    return layout.export(network)


def _unwrapped(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Take off what compiling and parallel training put around a model; second: its network."""
    from tilth.models.segmenter import Segmenter

    model = _bare(model)
    return model, _bare(model.network) if isinstance(model, Segmenter) else model


def _bare(model: nn.Module) -> nn.Module:
    inside = dict(model.named_children())
    for name in _WRAPPERS:
        if name in inside and len(inside) == 1:
            return _bare(inside[name])
    return model


@contextmanager
def _one_line(title: str) -> Iterator[None]:
    """Say in one line what a file does that nobody thought of."""
    try:
        yield
    except TilthError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_REASON]
        raise UnreadableFileError(f"{title}: damaged, or of a kind that is not known ({reason})") from error


def _compare(found: Source, model: nn.Module, network: nn.Module, converted: Converted) -> None:
    """Heed what a model folder says of itself.

    Raises:
        UnreadableFileError: its network computes otherwise with weights of the same shapes.
    """
    folder = read_folder(found.config)
    if folder is None:
        return
    comparison = compare(folder, model, network)
    if comparison.refusal:
        raise UnreadableFileError(f"{found.title}: {comparison.refusal}")
    converted.notes += comparison.notes
    if comparison.other_classes:
        for name in [name for name in converted.tensors if name.startswith(CLASS_LAYERS)]:
            if converted.tensors.pop(name).shape == network.state_dict()[name].shape:
                converted.dropped[name] = comparison.other_classes


def _lacking(found: Source, network: nn.Module, converted: Converted, strangers: list[str]) -> list[str]:
    """Names of what the file computes with and the network does not have.

    Raises:
        UnreadableFileError: whole layers of it.
    """
    taken = found.tensors.keys() - converted.dropped.keys() - set(converted.unexpected)
    left = [name for name, reason in converted.dropped.items() if reason in COMPUTES_OTHERWISE]
    known = converted.tensors.keys() - set(strangers)
    over = layers_left_over(taken, [*left, *converted.unexpected]) or layers_left_over(known, strangers)
    if over:
        raise UnreadableFileError(
            f"{found.title}: is of another network than {title_of(network)}: {over}; build the network as deep as the file"
        )
    return [*left, *inside_taken_layers(converted.unexpected, taken), *inside_taken_layers(strangers, known)]


def convert_weights(network: nn.Module, found: Source, take: str | None) -> tuple[Layout, Converted]:
    """Find the layout of tensors and translate them to a network's names; shapes may still differ.

    Args:
        network: what they are for; may be without memory (``torch.device("meta")``).
        found: what was read.
        take: which part, unless it was a wrapping that is off already (``found.took``).

    Raises:
        UnreadableFileError: no layout knows the names, or none that does fits the network.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    known = [layout for layout in all_layouts() if layout.recognises(shapes)]
    # Words on what to take are for files that hold several networks or tasks.
    folder = read_folder(found.config)
    own = own_layout(shapes, network, certain=found.own, tasks=folder.tasks if folder else ())
    first = own if take is None or holds_experts(shapes) else None
    layout = first or next((layout for layout in known if layout.fits(network)), None) or encoder_layout(shapes, network) or own
    if layout is not None:
        try:
            with _one_line(found.title):
                return layout, layout.convert(found.tensors, network, take)
        except UsageError as error:
            raise UsageError(f"{found.title}: {error}") from None
    if found.own:
        raise UnreadableFileError(
            f"{found.title}: a model of tilth with another network than {title_of(network)}; build the network it names"
        )
    looks = f"{len(shapes)} tensors such as {', '.join(list(shapes)[:_SHOWN])}"
    fitting = sorted({layout.title for layout in all_layouts() if layout.fits(network)})
    wanted = f"{title_of(network)} takes: {'; '.join(fitting) or 'only its own files'}"
    if known:
        raise UnreadableFileError(f"{found.title}: is a file of {known[0].title}, which this network cannot take; {wanted}")
    hint = f"; tensors lie in {', '.join(found.beside)}, too: take={found.beside[0]!r}" if found.beside else ""
    raise UnreadableFileError(f"{found.title}: no known layout ({looks}){hint}; {wanted}")


def _report(network: nn.Module, found: Source, layout: Layout, converted: Converted, strangers: list[str]) -> LoadReport:
    class_layer = [name for name in network.state_dict() if name.startswith(CLASS_LAYERS)]
    return LoadReport(
        layout=layout.name,
        title=layout.title,
        unexpected=[*converted.unexpected, *strangers],
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        source=found.title,
        sha256=found.sha256,
        notes=[*found.notes, *converted.notes],
        class_layers=class_layer,
    )


def _count(report: LoadReport, network: nn.Module, taken: Mapping[str, Tensor]) -> None:
    report.matched = [name for name in taken if name not in report.resized]
    report.missing = [name for name in network.state_dict() if name not in taken and not _is_counter_of(name, taken)]
    report.matched_parameters = sum(parameter.numel() for name, parameter in network.named_parameters() if name in taken)


def _is_counter_of(name: str, taken: Mapping[str, Tensor]) -> bool:
    """Whether this is the counter of a batch norm whose statistics were taken: files of before 2018 have none, nor is it needed."""
    return name.endswith("num_batches_tracked") and name.replace("num_batches_tracked", "running_mean") in taken


def _check(report: LoadReport, network: nn.Module, found: Source) -> None:
    """Refuse a load that brings the encoder nothing: it would look like success and train from noise.

    Raises:
        UnreadableFileError: no parameter of an encoder, or none at all, is in the file.
    """
    brought = {*report.matched, *report.resized}
    names = [name for name, _ in network.named_parameters()]
    roots = tuple(encoder_roots(network))
    encoder = [name for name in names if name.startswith(roots)] if roots else names
    if not brought.intersection(encoder or names):
        few = ", ".join([*report.unexpected, *found.tensors][:_SHOWN])
        raise UnreadableFileError(
            f"{found.title}: is a file of {report.title} that brings the encoder of {title_of(network)} nothing (names such as {few})"
        )


def _note_wild_numbers(report: LoadReport, tensors: Mapping[str, Tensor]) -> None:
    """Say which tensors hold numbers that are not finite: old files carry no checksum, and one such number spoils every map."""
    wild = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if wild:
        report.notes.append(f"numbers that are not finite in {groups(wild)}; the file is damaged, or its training broke down")
