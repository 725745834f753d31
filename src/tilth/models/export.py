"""A Segmenter as a graph that runs without tilth: ONNX, or a program of torch.export."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tilth.augment.normalise import check_linear
from tilth.errors import ConfigError, RunError, TilthError, needs_extra
from tilth.imagery.files import folder_lock, make_folder, move_into_place, reason_of, remove_empty
from tilth.models.graph import Graph, describe_graph, random_image
from tilth.models.network import set_checkpointing
from tilth.models.segmenter import Segmenter
from tilth.models.weights.report import groups

Format = Literal["onnx", "torch"]

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit where that is above 1, with which a graph counts as the same."""

INPUT, OUTPUT = "image", "logits"
"""Names in the graph."""

_NOTE = "tilth"
_TRIED = 2
"""Images that a graph for any number of them is made and tried with; torch takes 1 for a constant."""
_LONGEST = 100
"""Characters of a file's name that the folder it is made in is called after."""
_INLINE_BYTES = 1_500_000_000
"""Weights larger than this lie in a file beside: one ONNX file holds 2 GB at most."""


@dataclass(frozen=True)
class Exported:
    """What an export left.

    Attributes:
        files: the graph, then the file of its weights where they lie beside.
        batch: the number of images it takes, or None for any.
        difference: largest difference of its logits to the model's, on random pixels; None where it could not be run here.
    """

    files: tuple[Path, ...]
    batch: int | None
    difference: float | None


def export_model(
    model: Segmenter, target: Path, kind: Format, size: tuple[int, int], *, batch: int | None = None, normalisation: bool = False
) -> Exported:
    """Write a model as a graph, run it on random pixels, and say how far it is from the model.

    A note in the graph (ONNX: metadata ``tilth``; torch: file ``tilth.json``) holds sensor with normalisation, classes, and sizes.

    Args:
        model: what to export, on the CPU; is put into evaluation mode.
        target: file to write. It is replaced in one go, and weights that lay beside the old one go with it.
        kind: of graph.
        size: height and width in pixels of the images it takes; these are fixed in the graph.
        batch: number of images it takes; None for any, where the network allows it, else 1.
        normalisation: take stored values, in the sensor's number type, instead of normalised ones. A graph knows no mask of valid pixels.

    Raises:
        MissingExtraError: a library for ONNX is not installed.
        ConfigError: normalisation is wanted of a sensor that cuts values, or the network must know where an image lies.
        RunError: the network cannot be written as such a graph, the graph computes something else, or the model's logits are not finite.
        TilthError: the file cannot be written.
    """
    if kind == "onnx":
        with needs_extra("export", "export to ONNX"):
            import onnx  # noqa: F401 - torch needs both, and says so late and at length
            import onnxscript  # noqa: F401 - as above
    if normalisation:
        check_linear(model.sensor)
    if model.takes_origins:
        raise ConfigError(
            f"{model.config.network.title} adds noise that belongs to the place of a pixel, which an exported graph is not told; "
            "predict with tilth predict, or from Python with Segmenter.load"
        )
    graph = Graph(model, normalisation=normalisation).eval()
    with contextlib.suppress(ConfigError):  # raised where nothing can be computed twice, so nothing is
        set_checkpointing(graph, on=False)
    if target.is_dir():
        raise TilthError(f"{target}: is a folder; give the path of a file")
    made = make_folder(target.parent)
    try:
        # Under its own name in a folder of its own: an ONNX file names the file of its weights.
        with _workshop(target) as folder:
            written = folder / target.name
            taken = _write(graph, model, written, kind, size, batch)
            difference = _compare(graph, model, written, kind, size, taken)
            # The weights first: a graph that is there has them.
            files = sorted(folder.iterdir(), key=lambda path: path == written)
            replaced = target.is_file()
            for path in files:
                move_into_place(path, target.parent / path.name)
            stale = weights_beside(target)
            if replaced and stale.name not in {path.name for path in files}:
                stale.unlink(missing_ok=True)
    except BaseException as error:
        remove_empty(made)
        if isinstance(error, OSError) and not isinstance(error, TilthError):
            raise TilthError(f"{target}: cannot be written: {reason_of(error)}") from error
        raise
    return Exported(tuple(target.parent / path.name for path in reversed(files)), taken, difference)


def weights_beside(target: Path) -> Path:
    """The file in which an ONNX graph keeps weights that it does not hold itself."""
    return target.with_name(f"{target.name}.data")


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """Give an empty folder beside a file to make it in; the name is always the same, so what a killed export left goes with the next one.

    Raises:
        TilthError: another process is making the same file.
    """
    folder = target.with_name(f".{target.name.encode()[:_LONGEST].decode(errors='ignore')}.export")
    folder.mkdir(exist_ok=True)
    with folder_lock(folder, "exporting into"):
        try:
            for left in folder.iterdir():
                left.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write(graph: Graph, model: Segmenter, target: Path, kind: Format, size: tuple[int, int], batch: int | None) -> int | None:
    """Write the graph; returns the number of images it takes."""
    problem: Exception | None = None
    for count in [batch] if batch is not None else [None, 1]:
        image = random_image(model, size, count or _TRIED, stored=graph.normalisation)
        note = describe_graph(model, size, count, stored=graph.normalisation)
        try:
            with _quiet(), torch.no_grad():
                (_write_onnx if kind == "onnx" else _write_torch)(graph, image, target, count, note)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # torch.export and the converter behind it raise errors of many kinds, none of them promised
            problem = error
            continue
        return count
    raise RunError(
        f"{model.config.network.title} at {size[0]} x {size[1]} pixels cannot be written as a graph of {kind}: {_one_line(problem)}"
    ) from problem


def _write_onnx(graph: Graph, image: Tensor, target: Path, batch: int | None, note: str) -> None:
    shapes = {"image": {0: torch.export.Dim("batch")}} if batch is None else None
    program = torch.onnx.export(
        graph, (image,), dynamo=True, dynamic_shapes=shapes, input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    assert program is not None, "only a file given at once leaves none"
    shape = program.model.graph.inputs[0].shape
    if batch is None and shape is not None and isinstance(shape[0], int):
        raise ValueError("the number of images is fixed in the graph")  # where torch finds no other way, it does that unasked
    program.model.metadata_props[_NOTE] = note
    weights = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
    program.save(target, external_data=weights > _INLINE_BYTES)


def _write_torch(graph: Graph, image: Tensor, target: Path, batch: int | None, note: str) -> None:
    shapes = {"image": {0: torch.export.Dim("batch")}} if batch is None else None
    program = torch.export.export(graph, (image,), dynamic_shapes=shapes)
    torch.export.save(program, target, extra_files={f"{_NOTE}.json": note})


def _compare(graph: Graph, model: Segmenter, written: Path, kind: Format, size: tuple[int, int], batch: int | None) -> float | None:
    """Run what was written, and the model.

    Raises:
        RunError: they do not agree, or the model's own logits are not finite, so that nothing can be compared.
    """
    title = model.config.network.title
    worst, scale = 0.0, 1.0
    for count in [batch] if batch is not None else [_TRIED, 1]:
        image = random_image(model, size, count, stored=graph.normalisation)
        with torch.no_grad():
            expected = graph(image)
        # Before anything is compared: max() of Python passes over what is no number.
        if not torch.isfinite(expected).all():
            raise RunError(
                f"the logits of {title} are not finite, whatever the graph does; {_wild(model) or 'numbers run over on random pixels'}; "
                "nothing was kept"
            )
        found = _run_onnx(written, image) if kind == "onnx" else _run_torch(written, image)
        if found is None:
            return None
        if found.shape != expected.shape:
            raise RunError(
                f"the graph of {title} gives logits of shape {tuple(found.shape)}, the model {tuple(expected.shape)}; it was not kept"
            )
        if not torch.isfinite(found).all():
            raise RunError(f"the graph of {title} gives logits that are not finite, the model does not; it was not kept")
        worst = max(worst, float((found - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    if worst > TOLERANCE * scale:
        raise RunError(f"the graph of {title} differs from the model by {worst:.1e} in its logits; it was not kept")
    return worst


def _wild(model: Segmenter) -> str | None:
    """Name the weights that are not finite; None if all are."""
    state = model.network.state_dict()
    names = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    return f"so are its weights in {groups(names)}" if names else None


def _run_onnx(written: Path, image: Tensor) -> Tensor | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(written), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {INPUT: image.numpy()})[0])


def _run_torch(written: Path, image: Tensor) -> Tensor:
    with _quiet(), torch.no_grad():
        found: Tensor = torch.export.load(written).module()(image)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress reports and advice of the libraries from the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _one_line(error: Exception | None) -> str:
    """First line of what a library says; it explains at length."""
    cause = error.__cause__ or error if error is not None else None
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(cause).__name__)[:200]
