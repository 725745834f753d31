"""A published file as a folder of ours: a Segmenter where images become maps of classes, a network alone where they do not."""

from __future__ import annotations

import colorsys
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tilth.classes import IGNORE_INDEX, ClassScheme, Colour, LandClass
from tilth.imagery.files import whole_folder
from tilth.imagery.write import write_json
from tilth.models.encoder_folder import ENCODER, save_encoder
from tilth.models.folder import CONFIG_FILE, WEIGHTS_FILE, save_network
from tilth.models.networks import build_network
from tilth.models.segmenter import Segmenter
from tilth.models.weights.load import convert_weights, load_weights
from tilth.models.weights.made_for import Folder, read_folder
from tilth.models.weights.read import read_weights
from tilth.models.weights.report import BEHIND_ENCODER, LoadReport, groups

IMPORT_FILE = "import.json"
"""In the folder: where the weights are from, and what became of them."""

_PROBE = 251
"""A number of classes that nothing else in a network has the size of."""

_GOLDEN = 0.618034
"""Share of the circle of hues by which the colour of a class differs from the one before."""


def folder_of_ours(source: str | Path) -> Path | None:
    """Find the model folder that a source is or lies in, so that ``FOLDER/model.safetensors`` is read as ``FOLDER`` is.

    Args:
        source: a folder, a run folder with ``model/`` in it, or the file of weights in either.

    Returns:
        The folder with ``config.json``; None where the source is anything else, such as a published file.
    """
    place = Path(source)
    with contextlib.suppress(OSError, ValueError):  # text that cannot be a path is no folder
        inside = [place.parent] if place.name == WEIGHTS_FILE and place.is_file() else [place, place / "model"]
        return next((folder for folder in inside if (folder / WEIGHTS_FILE).is_file() and kind_of(folder) is not None), None)
    return None


def kind_of(folder: Path) -> str | None:
    """Read ``model_type`` of a folder of ours; None for folders of other programs."""
    try:
        tree = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = str(tree.get("model_type", "")) if isinstance(tree, dict) else ""
    return kind if kind.startswith("tilth-") else None


def describe_folder(folder: Path) -> Folder | None:
    """Read network, sensor and classes of a folder of ours; None if they are not to be understood."""
    return read_folder(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))


def load_all_but_classes(model: Segmenter, source: str | Path, take: str | None = None) -> LoadReport:
    """Load published weights; what follows the classes stays fresh, since a file does not say what its class 0 is.

    Args, raises: as :func:`tilth.models.load_weights`.

    Returns:
        Its report, in which the class layers are left out on purpose.
    """
    state = model.network.state_dict()
    names = class_layers(model)
    fresh = {name: state[name].clone() for name in names}
    report = load_weights(model, source, take=take)
    with torch.no_grad():
        for name, value in fresh.items():
            state[name].copy_(value)
    left = [name for name in names if name in report.matched or name in report.resized]
    parameters = dict(model.network.named_parameters())
    for name in left:
        report.dropped[name] = f"class layer of {len(state[name])} classes, as many as here: what they mean, the file does not say"
        report.resized.pop(name, None)
    report.matched = [name for name in report.matched if name not in left]
    report.missing += left
    report.class_layers = list(dict.fromkeys([*report.class_layers, *names]))
    report.matched_parameters -= sum(parameters[name].numel() for name in left if name in parameters)
    return report


def class_layers(model: Segmenter) -> list[str]:
    """Names of the tensors whose shape follows the number of classes."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = model.config.network.model_copy(update={"pretrained": False})
        other = build_network(network, len(model.sensor), len(model.scheme) + 1).state_dict()
    return [name for name, value in model.network.state_dict().items() if value.shape != other[name].shape]


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
    _, converted = convert_weights(network, found, None if found.took else take)
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

    Of a Segmenter that got nothing but weights of its encoder, an encoder folder is written: it cannot predict, only start a training.

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
    with whole_folder(folder) as temporary:
        if isinstance(model, Segmenter) and brings_encoder_alone(report):
            save_encoder(model, temporary, _left_out(report))
        elif isinstance(model, Segmenter):
            model.save(temporary)
        else:
            save_network(model, temporary)
        write_json(temporary / IMPORT_FILE, report_tree(report))
    return folder


def report_tree(report: LoadReport) -> dict[str, Any]:
    """Write a report as what goes into a file."""
    note = {"source": report.source, "sha256": report.sha256, "verdict": report.verdict, "tilth": version("tilth")}
    return note | dataclasses.asdict(report)


def folder_tree(folder: Path, taken: str) -> dict[str, Any]:
    """The same for a folder of ours.

    Args:
        folder: which.
        taken: what of it, for people.
    """
    with (folder / WEIGHTS_FILE).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"source": str(folder), "sha256": digest, "verdict": taken, "tilth": version("tilth"), "layout": "tilth"}


def brings_encoder_alone(report: LoadReport) -> bool:
    """Whether a network got nothing from a file but weights of its encoder, and has other parts."""
    brought = [*report.matched, *report.resized]
    return all(name.startswith(ENCODER) for name in brought) and any(not name.startswith(ENCODER) for name in report.missing)


def warning_of_fresh_parts(folder: Path) -> str | None:
    """Say that a model folder has weights that nobody trained: what came from a file, with the rest fresh.

    Args:
        folder: a model folder, or anything that is none.

    Returns:
        A line for people, or None for models that were trained or imported whole.
    """
    try:
        note = json.loads((folder / IMPORT_FILE).read_text(encoding="utf-8"))
        missing = [str(name) for name in note["missing"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not missing or note.get("verdict") == "complete":
        return None
    return (
        f"{folder}: was imported without {groups(missing)}, so these weights are random and what it predicts means nothing; "
        f"train first: tilth finetune segment --initial-weights {folder}"
    )


def _left_out(report: LoadReport) -> tuple[str, ...]:
    """Beginnings of the names in the encoder that a file did not bring."""
    missing = [name for name in report.missing if name.startswith(ENCODER)]
    behind = [start for start in BEHIND_ENCODER if any(name.startswith(start) for name in missing)]
    brought = [*report.matched, *report.resized]
    whole = tuple(start for start in behind if not any(name.startswith(start) for name in brought))
    return tuple(name.removeprefix(ENCODER) for name in [*whole, *(name for name in missing if not name.startswith(whole))])


def _colour(index: int) -> Colour:
    red, green, blue = (
        round(255 * part) for part in colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.55 + 0.15 * (index % 3), 0.9 - 0.2 * (index % 2))
    )
    return red, green, blue
