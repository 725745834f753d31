"""What a data set is good for, and what to do next."""

from __future__ import annotations

from pathlib import Path

from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.sampling import MOST_IMAGES
from tilth.catalog.inspect.sensor_guess import STORED


def no_starter(data: DataSet, headline: str) -> str:
    """Why no starter recipe can be written; ``headline`` says what there is where that is no imagery."""
    if not data.images:
        return headline
    group = data.images[data.main].group
    if group.dtype not in STORED:
        return f"{group.title} is stored as {group.dtype}; convert it to {', '.join(STORED)}"
    return f"no valid pixel in the images of {group.title} that were looked at"


def uses(data: DataSet) -> list[str]:
    """What can be done with a data set."""
    if not data.images:
        return ["nothing with tilth as it is: it needs rasters"]
    return [*_uses(data), *_polygons(data)]


def _uses(data: DataSet) -> list[str]:
    labels = [data.labels[place] for place in data.labels_of(data.main)]
    classes = [label for label in labels if label.kind in {"class ids", "codes", "colours"}]
    if data.kind == "change pairs":
        return [
            "an unlabelled pool, and scenes to map with a model trained elsewhere",
            "not change detection: tilth maps land cover of one date; map both dates and compare the maps",
        ]
    if data.kind == "oriented boxes":
        return ["an unlabelled pool, and images to map; tilth does not learn from boxes"]
    if classes:
        best = data.labels[data.best_label] if data.best_label is not None else classes[0]
        bands = best.part.group.count not in {1, 3}
        ready = "" if best.usable else f", once it has {'one band' if bands else 'class ids (the starter sees to that)'}"
        trained = f"supervised training on {best.part.group.title}{ready}: tilth finetune"
        pool = "with few of the labels and the rest as a pool: tilth pretrain s4p"
        noisy = (
            ["pre-training on the noisy labels, then finetuning on the clean ones"]
            if {label.noisy for label in classes} == {True, False}
            else []
        )
        return [trained, pool, *noisy]
    found = ["an unlabelled pool for pre-training: tilth pretrain s4p, together with labelled tiles of the same sensor"]
    if data.kind == "scenes":
        return ["scenes to map with a trained model of the same sensor: tilth predict", *found]
    if data.targets:
        found.append("training only after the quantity is cut into classes")
    return found


def _polygons(data: DataSet) -> list[str]:
    files = [file for folder in data.listing.folders.values() for file in folder.of("vector")]
    if not files:
        return []
    return [f"training on polygons, if a column of {files[0].name} names classes: tilth catalog build --labels FILE --label-column COLUMN"]


def looked_at(data: DataSet) -> str:
    """How thoroughly the data was looked at."""
    files = sum(len(part.group.members) for part in data.parts)
    headers = sum(len(part.group.infos) for part in data.parts)
    return f"{headers} of {files} headers read, pixels of up to {MOST_IMAGES} images of a kind"


def next_steps(data: DataSet, folder: Path, starter: Path | None) -> list[str]:
    """Commands to type next."""
    if not data.images or data.proposals[data.main] is None:
        return (
            ["give a folder of rasters (tif, jpg, png, npy, jp2, vrt)"]
            if not data.images
            else ["convert the images to a type that tilth takes"]
        )
    if starter is None:
        return [f"tilth inspect {folder} --out starter    writes a recipe for this data"]
    return [
        f"read {starter}/recipe.yaml, then: tilth run {starter}/recipe.yaml --out run --dry-run",
        f"tilth run {starter}/recipe.yaml --out run",
    ]
