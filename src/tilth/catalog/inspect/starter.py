"""A starter recipe for a data set: text, and the sensor and class files it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tilth.catalog.inspect.ground import ground_pixel_m
from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.labels import Label
from tilth.catalog.inspect.starter_text import RecipeText
from tilth.classes import IGNORE_INDEX, ClassScheme, Colour, LandClass
from tilth.sensors import Sensor

_PALETTE: tuple[Colour, ...] = (
    (31, 119, 180), (255, 187, 51), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194), (127, 127, 127),
    (188, 189, 34), (23, 190, 207), (57, 59, 121), (206, 219, 156), (231, 203, 148), (173, 73, 74), (222, 158, 214), (99, 121, 57),
)  # fmt: skip
_MOST_FILES = 50
_ENOUGH_TILES = 24


@dataclass(frozen=True)
class Starter:
    """Files to begin with, as text by file name; ``recipe.yaml`` first."""

    files: dict[str, str]


@dataclass(frozen=True)
class _Build:
    """One ``catalog build``: its name, and its options without sensor and scheme."""

    name: str
    options: dict[str, object]


def write_starter(data: DataSet, here: Path) -> Starter | None:
    """Write a starter recipe; None where there is no imagery that a sensor can be given to.

    Args:
        data: what was found out.
        here: folder that the files will be put in, absolute.
    """
    if not data.images or data.proposals[data.main] is None:
        return None
    proposal = data.proposals[data.main]
    assert proposal is not None
    label = _trainable(data)
    builds, window = _builds(data, label)
    text = RecipeText(data, proposal, label, window)
    files = {}
    if proposal.written:
        files["sensor.yaml"] = _sensor_text(proposal.sensor, measured=not proposal.alternatives and "s2" not in proposal.name)
    scheme = None
    codes: dict[str, object] = {}
    if label is not None:
        scheme, codes = _scheme_and_codes(label)
        if scheme is not None:
            files["classes.yaml"] = _scheme_text(scheme, label)
    sensor = "${here}/sensor.yaml" if proposal.written else proposal.name
    stages = [text.build(build.name, _with(build.options, sensor, scheme is not None, codes, label)) for build in builds]
    files = {
        "recipe.yaml": text.whole(stages, [build.name for build in builds], data.root.resolve(), here, block_m=_block(data, window)),
        **files,
    }
    return Starter(files)


def _trainable(data: DataSet) -> Label | None:
    """The label that the recipe trains on: ids, or codes and colours that can be turned into ids by a list."""
    if data.best_label is None or data.kind in {"change pairs", "oriented boxes"}:
        return None
    label = data.labels[data.best_label]
    tie = data.ties[data.main, data.best_label]
    bands = 3 if label.kind == "colours" else 1
    fits = label.kind in {"class ids", "codes", "colours"} and label.part.group.count in {1, bands} and 1 < len(label.classes) <= 60
    return label if fits and tie.pattern is not None else label if fits and tie.how == "grid" and tie.labels == 1 else None


def _with(options: dict[str, object], sensor: str, written: bool, codes: dict[str, object], label: Label | None) -> dict[str, object]:
    more: dict[str, object] = {"sensor": sensor}
    if label is not None:
        if written:
            more["scheme"] = "${here}/classes.yaml"
        if codes:
            more["label_codes"] = codes
        more["label_kind"] = "noisy" if label.noisy else "clean"
    return {**options, **more}


def _builds(data: DataSet, label: Label | None) -> tuple[list[_Build], int | None]:
    """Options of the builds, and the window that images are cut into."""
    group = data.images[data.main].group
    window = _window(data, label)
    cut: dict[str, object] = {} if window is None else {"window_px": window}
    if label is None:
        return [_Build("build", {**_plain_inputs(data), **cut})], window
    tie = data.ties[data.main, data.best_label or 0]
    name = {} if tie.pattern in {"{stem}", None} else {"label_name": tie.pattern}
    labels = label.part.group
    by_split = data.splits is not None and data.splits.source == "folders"
    listed = data.splits is not None and data.splits.source == "files" and _split_lines_fit(data)
    if by_split:
        pairs = _split_folders(data, label)
        made = [
            _Build(
                f"build-{split}",
                {"inputs": ["${data}"], "layout": "pairs", "image_folder": one, "label_folder": two, **name, **cut, "split": split},
            )
            for split, one, two in pairs
        ]
        return made, window
    if tie.how in {"stem", "key"} and group.name != labels.name and (listed or data.splits is None):
        folders = {"image_folder": group.folders[0], "label_folder": labels.folders[0]}
        return [_Build("build", {"inputs": ["${data}"], "layout": "pairs", **folders, **name, **cut})], window
    if tie.how == "grid":
        files = _files_on_grid(data, label)
        place: dict[str, object] = {"labels": f"${{data}}/{_below(data, labels.members[0].path)}"} if tie.labels == 1 else {}
        return [_Build("build", {"inputs": files, "layout": "scenes", **place, **(name if tie.labels > 1 else {}), **cut})], window
    place = {"labels": _folder(labels.folders[0])}
    return [_Build("build", {"inputs": [_folder(folder) for folder in group.folders], "layout": "scenes", **place, **name, **cut})], window


def _plain_inputs(data: DataSet) -> dict[str, object]:
    """Inputs of a pool: the folders of the main imagery, or its files where other rasters lie beside them."""
    pair = data.before_after
    groups = [part.group for part in pair] if pair else [data.images[data.main].group]
    if data.kind in {"unlabelled pool", "web-map tiles"}:
        main = groups[0]
        groups = [part.group for part in data.images if (part.group.count, part.group.dtype) == (main.count, main.dtype)]
    folders = [folder for group in groups for folder in group.folders]
    lonely = {part.group.name for part in data.parts if part.group not in groups}
    if any(group.name in lonely or (group.name == "." and len(data.parts) > 1) for group in groups):
        return {"inputs": [f"${{data}}/{_below(data, member.path)}" for member in groups[0].members[:_MOST_FILES]], "layout": "scenes"}
    if len(folders) > _MOST_FILES:
        return {"inputs": ["${data}"], "layout": "plain"}
    return {"inputs": [_folder(folder) for folder in dict.fromkeys(folders)], "layout": "plain"}


def _folder(name: str) -> str:
    return "${data}" if name == "." else f"${{data}}/{name}"


def _below(data: DataSet, path: Path) -> str:
    return path.relative_to(data.root).as_posix()


def _files_on_grid(data: DataSet, label: Label) -> list[str]:
    grids = {(info.width, info.height, info.crs, info.transform) for info in label.part.group.infos}
    infos = data.images[data.main].group.infos
    return [f"${{data}}/{_below(data, Path(info.uri))}" for info in infos if (info.width, info.height, info.crs, info.transform) in grids]


def _split_folders(data: DataSet, label: Label) -> list[tuple[str, str, str]]:
    """Split, image folder and label folder of each split that has both."""
    assert data.splits is not None

    def folders(members: Sequence[object]) -> dict[str, str]:
        found: dict[str, str] = {}
        for member in members:
            split, path, stem = getattr(member, "split", None), getattr(member, "path", None), getattr(member, "stem", "")
            if split is not None and path is not None:
                found.setdefault(split, _below(data, path.parents[stem.count("/") - 1]))
        return found

    images, labels = folders(data.images[data.main].group.members), folders(label.part.group.members)
    return [(split, images[split], labels[split]) for split in images if split in labels]


def _split_lines_fit(data: DataSet) -> bool:
    """Whether ``catalog build`` takes the split files: every line names an image, and none is in two."""
    assert data.splits is not None
    stems = data.images[data.main].group.by_stem.keys()
    return not data.splits.twice and all(listed <= stems for listed in data.splits.stems.values())


def _window(data: DataSet, label: Label | None) -> int | None:
    """Side of the windows: none for patches; else the largest that leaves enough tiles to divide."""
    infos = data.images[data.main].group.infos
    longest = sorted(max(info.width, info.height) for info in infos)[len(infos) // 2]
    if longest <= 700 and (data.kind != "scenes" or (label is None and longest <= 300)):
        return None
    for side in (512, 256, 128):
        if sum(max(1, info.width // side) * max(1, info.height // side) for info in infos) >= _ENOUGH_TILES:
            return side
    return 64


def _block(data: DataSet, window: int | None) -> int | None:
    """Side of the blocks of ground of a split, in metres, where the images are small: some windows wide."""
    info = data.images[data.main].group.infos[0]
    pixel = ground_pixel_m(info)
    if pixel is None:
        return None
    if window is None:
        return None if len(data.infos) > 20 else max(1, round(2 * max(info.width, info.height) * pixel))
    return min(1000, max(1, round(3 * window * pixel))) if 3 * window * pixel < 1000 else max(1000, round(2 * window * pixel))


def _scheme_and_codes(label: Label) -> tuple[ClassScheme | None, dict[str, object]]:
    """Classes for the starter (None where the data set's own file will do), and what stored values mean."""
    odd = [value for value in label.no_label if value != IGNORE_INDEX]
    if label.kind == "class ids" and label.names is not None and label.names.readable and not odd:
        return None, {}
    listed = label.by_value
    ids = label.kind == "class ids" and not odd
    values: list[float] = [item.value for item in label.classes] + list(label.absent)
    if ids:
        values = [float(value) for value in range(int(max(values)) + 1)] if values else [0.0]
    values.sort()
    called = _distinct(
        [listed.get(int(value)) or (f"#{int(value):06X}" if label.kind == "colours" else f"class {value:g}") for value in values]
    )
    classes = []
    for place, (value, name) in enumerate(zip(values, called, strict=True)):
        known = label.names.colours.get(place) if label.names is not None else None
        own: Colour = (int(value) >> 16 & 255, int(value) >> 8 & 255, int(value) & 255)
        classes.append(LandClass(name=name, colour=own if label.kind == "colours" else known or _PALETTE[place % len(_PALETTE)]))
    title = label.part.group.name.rpartition("/")[2]
    scheme = ClassScheme(name="labels" if title in {".", ""} else title, classes=tuple(classes))
    if ids:
        return scheme, {}
    if label.kind == "colours":
        return scheme, {"colours": {f"#{int(value):06X}": name for value, name in zip(values, called, strict=True)}}
    meant: dict[int, str] = {int(value): "ignore" for value in sorted(label.no_label)}
    return scheme, {"values": {**{int(value): name for value, name in zip(values, called, strict=True)}, **meant}}


def _distinct(called: list[str]) -> list[str]:
    return [name if called.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(called)]


def _sensor_text(sensor: Sensor, measured: bool) -> str:
    """A sensor as YAML, one band a line."""
    tree = sensor.model_dump(mode="json", exclude_none=True)
    lines = [
        "# A sensor for tilth: physical value = stored value * scale + offset.",
        "# mean, std, low and high were measured on the images that tilth inspect looked at; correct names and units where you know better."
        if measured
        else "# Bands, means and deviations of the built-in sensor; number type, scale and offset as the files have them.",
        f"name: {json.dumps(sensor.name)}",
        f"dtype: {sensor.dtype}",
        f"unit: {json.dumps(sensor.unit)}",
        f"rgb: {json.dumps(list(sensor.rgb))}    # bands that pictures show",
        "bands:",
    ]
    lines += [f"  - {yaml.safe_dump(band, default_flow_style=True, sort_keys=False, width=1000).strip()}" for band in tree["bands"]]
    return "\n".join(lines) + "\n"


def _scheme_text(scheme: ClassScheme, label: Label) -> str:
    origin = label.names.file.name if label.names is not None else None
    lines = [
        f"# Classes of {label.part.group.title}; names from {origin}."
        if origin
        else f"# Classes of {label.part.group.title}: put in the names.",
        f"name: {json.dumps(scheme.name)}",
        "classes:",
    ]
    lines += [f"  - {{name: {json.dumps(item.name, ensure_ascii=False)}, colour: {list(item.colour)}}}" for item in scheme.classes]
    return "\n".join(lines) + "\n"
