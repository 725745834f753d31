"""A published file as a folder of ours: a Segmenter where images become maps of classes, a network alone where they do not."""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from tilth.classes import IGNORE_INDEX, ClassScheme, Colour, LandClass
from tilth.imagery.files import whole_folder
from tilth.imagery.write import write_json
from tilth.models.folder import save_network
from tilth.models.segmenter import Segmenter
from tilth.models.weights.load import _convert
from tilth.models.weights.read import read_weights
from tilth.models.weights.report import LoadReport

IMPORT_FILE = "import.json"
"""In the folder: where the weights are from, and what became of them."""

_PROBE = 251
"""A number of classes that nothing else in a network has the size of."""

_GOLDEN = 0.618034
"""Share of the circle of hues by which the colour of a class differs from the one before."""


def count_classes(source: str | Path, build: Callable[[int], nn.Module], take: str | None = None) -> int | None:
    """Find out for how many classes a file's class layer is.

    Args:
        source: as for :func:`tilth.models.weights.read.read_weights`.
        build: makes the network that the file is for, with a number of classes.
        take: which part of the file.

    Returns:
        The number, or None where the file has no such layer for this network.

    Raises:
        TilthError: the file cannot be read, is of no known layout, or does not fit this network.
    """
    with torch.device("meta"):
        network = build(_PROBE)
    class_layers = {name for name, value in network.state_dict().items() if value.ndim and value.shape[0] == _PROBE}
    found = read_weights(source, take)
    _, converted = _convert(network, found, None if found.took else take)
    tensors = converted.tensors
    counts = {int(tensors[name].shape[0]) for name in class_layers & tensors.keys()}
    return counts.pop() if len(counts) == 1 and max(counts) <= IGNORE_INDEX else None


def generic_scheme(classes: int) -> ClassScheme:
    """Make a scheme of classes without names: "class 0", "class 1", ..., in colours that differ."""
    return ClassScheme(
        name=f"classes_{classes}",
        classes=tuple(LandClass(name=f"class {index}", colour=_colour(index)) for index in range(classes)),
    )


def save_imported(model: nn.Module, report: LoadReport, folder: Path) -> Path:
    """Write the folder of a network that was filled from a file, with ``import.json`` beside it; all of it or nothing.

    Args:
        model: a Segmenter, or a network by name.
        report: of :func:`tilth.models.load_weights`.
        folder: must not be there, or be empty.

    Returns:
        The folder.

    Raises:
        OutputExistsError: the folder holds something.
        TilthError: it cannot be written.
    """
    note = {"source": report.source, "sha256": report.sha256, "verdict": report.verdict, "tilth": version("tilth")}
    with whole_folder(folder) as temporary:
        if isinstance(model, Segmenter):
            model.save(temporary)
        else:
            save_network(model, temporary)
        write_json(temporary / IMPORT_FILE, note | dataclasses.asdict(report))
    return folder


def _colour(index: int) -> Colour:
    red, green, blue = (
        round(255 * part) for part in colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.55 + 0.15 * (index % 3), 0.9 - 0.2 * (index % 2))
    )
    return red, green, blue
