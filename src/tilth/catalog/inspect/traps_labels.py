"""What is to be watched out for in labels and splits; each finder gives (key, weight, one line)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.labels import Label, LabelClass
from tilth.classes import IGNORE_INDEX

Found = Iterator[tuple[str, int, str]]

_RARE = 0.01
_FEW_IMAGES = 30


def unusable_labels(data: DataSet) -> Found:
    """Labels that are no class ids, or hold ids that a training would misread."""
    for label in data.labels:
        title, part = label.part.group.title, label.part
        if part.group.count > 1 and label.kind not in {"colours", "blurred"}:
            bands = ", ".join(name or "-" for name in part.group.band_names)
            yield "label bands", 70, f"{title} cannot be used as it is: {part.group.count} bands ({bands}), a label has one; extract band 1"
        if label.kind == "codes":
            yield "label codes", 80, _codes(label)
        elif label.kind == "colours":
            colours = ", ".join(f"{item.shown(True)} {100 * item.share:.3g} %" for item in _largest(label, 8))
            yield "label colours", 80, f"{title} must be turned into class ids: its classes are colours ({colours})"
        elif label.kind == "percent":
            yield "label percent", 75, _percent(label)
        elif label.kind == "blurred":
            yield (
                "label jpeg",
                85,
                f"{title} has no sharp classes: {len(part.values.pixels) if part.values else 0} different values, as JPEG leaves them; "
                "get the masks in a lossless format",
            )
        elif part.group.palette:
            yield "label palette", 20, f"{title} is a palette image: its indices are taken as class ids, its colours are only for the eye"
        odd = sorted(value for value in label.no_label if value != IGNORE_INDEX)
        if label.kind == "class ids" and odd:
            named = ", ".join(f"{value:g}" + (f" ({label.by_value[int(value)]})" if int(value) in label.by_value else "") for value in odd)
            there = [value for value in odd if part.values is not None and part.values.pixels[value]]
            yield (
                "no-data class",
                60 if there else 45,
                f"Pixels without data would be learnt as a class: {title} means no label by {named}"
                f"{'' if there else ' (none in what was read)'}; tilth ignores 255 only",
            )
    for part in data.targets:
        assert part.values is not None
        low, high = (float(part.sample.extreme(which)[0]) for which in ("minimum", "maximum")) if part.sample else (0.0, 0.0)
        unit = ", ".join(name for name in part.group.band_names if name)
        yield (
            "regression",
            90,
            f"{part.group.title} cannot be trained on: a quantity from {low:.4g} to {high:.4g}{f' ({unit})' if unit else ''}, not classes; "
            "tilth maps classes, so cut it at thresholds first",
        )


def _codes(label: Label) -> str:
    title = label.part.group.title
    values = label.part.values
    assert values is not None
    if set(values.pixels) <= {0, IGNORE_INDEX}:
        return f"Everything marked would be ignored: {title} holds 0 and 255, and 255 means 'no label'; make it 0 and 1"
    shown = ", ".join(item.shown(False) for item in label.classes[:12]) + (", ..." if len(label.classes) > 12 else "")
    numbers = [item.value for item in label.classes]
    if numbers and numbers[0] == 1 and len(numbers) > 1 and numbers[-1] <= len(numbers) + 1:
        return f"The classes of {title} are shifted by one: values {shown} begin at 1, ids begin at 0; is 0 'no label'?"
    return f"{title} must be turned into class ids: its values are codes ({shown}), ids run from 0 without gaps"


def _percent(label: Label) -> str:
    values = label.part.values
    assert values is not None
    above = sum(count for value, count in values.pixels.items() if value > 100) / max(1, values.total)
    too_high = (
        f"; {100 * above:.2g} % of the pixels hold values above 100 (up to {max(values.pixels):g}), which are invalid" if above else ""
    )
    return f"{label.part.group.title} is no class map: percent values{too_high}; choose a threshold to make classes of it"


def values_outside(data: DataSet) -> Found:
    """Values that the class file does not list, and class files that are not read."""
    for label in data.labels:
        if label.outside and label.names is not None and label.part.values is not None:
            share = sum(label.part.values.share(value) for value in label.outside)
            shown = ", ".join(f"{value:g}" for value in label.outside[:8])
            yield (
                "label value",
                85,
                f"A build would stop: {label.part.group.title} holds values that {label.names.file.name} does not list: {shown} "
                f"({100 * share:.2g} % of the pixels)",
            )
    used = [label.names for label in data.labels if label.names is not None]
    if used and not used[0].readable:
        yield "class file", 30, f"{used[0].file.name} is not read by catalog build in this form; the starter writes classes.yaml from it"
    unnamed = [label for label in data.labels if label.names is None and label.kind in {"class ids", "codes", "colours"}]
    if unnamed and data.kind != "change pairs":
        yield "class names", 40, f"Names of the classes of {_titles(unnamed)} are unknown: no class file says what the values mean"


def several_labels(data: DataSet) -> Found:
    """Several labels for the same images, and labels of doubtful origin."""
    main = data.labels_of(data.main) if data.images else []
    if len(main) > 1:
        clean = [data.labels[place].part.group.title for place in main if not data.labels[place].noisy]
        noisy = [data.labels[place].part.group.title for place in main if data.labels[place].noisy]
        sides = [f"{kind}: {', '.join(titles)}" for kind, titles in (("clean by name", clean), ("noisy by name", noisy)) if titles]
        yield "several labels", 65, f"Choose one label: {len(main)} for the same images ({'; '.join(sides)})"
    elif any(label.noisy for label in data.labels):
        noisy_ones = [label for label in data.labels if label.noisy]
        yield "noisy labels", 50, f"Scores will measure agreement with a machine: by its name, {_titles(noisy_ones)} is not a reference"
    for label in data.labels:
        ids = [item for item in label.classes if item.name is None]
        if label.kind == "class ids" and label.part.values is not None and label.part.values.smooth < 0.75 and not label.noisy:
            yield (
                "speckled label",
                48,
                f"{label.part.group.title} may be the output of clustering, not a drawn map: {len(ids)} values, and "
                f"{100 * (1 - label.part.values.smooth):.0f} % of neighbouring pixels differ",
            )


def splits(data: DataSet) -> Found:
    """Split files that do not fit the images."""
    if data.splits is None or not data.images:
        return
    stems = data.images[data.main].group.by_stem.keys()
    if data.splits.twice:
        yield (
            "split twice",
            90,
            f"Test scores would be too good: {len(data.splits.twice)} names are in two splits, such as {data.splits.twice[0]}",
        )
    listed = frozenset[str]().union(*data.splits.stems.values())
    lost = sorted(listed - stems)
    if lost and data.splits.source == "files":
        if lost[0] in {member.stem for part in data.parts if part.role in {"label", "target"} for member in part.group.members}:
            yield "split lines", 60, f"Split files cannot be used as they are: they list {lost[0]} and other labels, each of several images"
            return
        yield "split lines", 60, f"Split files would be refused: {len(lost)} of {len(listed)} lines name no image, such as {lost[0]}"
    free = len(stems - listed)
    if free and listed & stems:
        yield "no split", 35, f"{free} of {len(stems)} images take no part: no split lists them"
    if not {"val", "test"} & data.splits.stems.keys():
        yield (
            "no test split",
            40,
            f"There is nothing to score on: the only split{'s' * (len(data.splits.stems) > 1)}: {', '.join(data.splits.stems)}; "
            "the starter divides the images itself",
        )


def absent_classes(data: DataSet) -> Found:
    """Classes that a split, or the whole set, does not show."""
    for label in _chosen(data):
        if label.kind not in {"class ids", "codes"} or label.part.values is None:
            continue
        present = label.part.values.by_file
        called = {item.value: item.name or f"value {item.value:g}" for item in label.classes}
        whole = label.part.values.looked >= len(label.part.group.members)
        for name, stems in data.splits.stems.items() if data.splits and whole else ():
            seen = frozenset[float]().union(*(values for stem, values in present.items() if stem in stems))
            lost = [called[value] for value in called if value not in seen]
            if seen and lost:
                yield (
                    "class absent in split",
                    70,
                    f"No score is possible for {', '.join(lost)} in {name}: no {name} label of {label.part.group.title} shows it",
                )
        if label.absent:
            listed = ", ".join(label.by_value[value] for value in label.absent)
            yield "class absent", 25, f"{listed}: listed for {label.part.group.title}, shown by none of the labels that were read"


def imbalance(data: DataSet) -> Found:
    """Classes that hardly occur, labels of one class, and few labels."""
    for label in _chosen(data):
        rare = [item for item in label.classes if item.share < _RARE]
        if label.kind in {"class ids", "codes", "colours"} and rare and len(label.classes) > 1:
            shown = ", ".join(f"{item.name or item.shown(label.kind == 'colours')} {100 * item.share:.2g} %" for item in rare[:6])
            yield (
                "imbalance",
                55,
                f"Rare classes will be learnt badly and hardly move the overall accuracy: {shown} of {label.part.group.title}; "
                "judge by IoU per class",
            )
        if not label.classes:
            yield "all ignored", 87, f"There is nothing to learn from {label.part.group.title}: no pixel that was read has a label"
        if len(label.classes) == 1 and label.kind == "class ids":
            yield "one class", 60, f"Nothing can be told apart: {label.part.group.title} shows a single class"
    if data.ties and data.kind != "change pairs":
        count = max(tie.labels for (image, _), tie in data.ties.items() if image == data.main)
        if count < _FEW_IMAGES:
            yield "few labels", 58, f"Scores will be rough: {count} labelled image{'s' * (count != 1)} only"


def other_sizes(data: DataSet) -> Found:
    """Masks of another size than their images, images without mask, masks without image."""
    for (image, column), tie in data.ties.items():
        first, second = data.images[image].group, data.labels[column].part.group
        if tie.how == "stem":
            sizes = {info.uri: (info.width, info.height) for info in (*first.infos, *second.infos)}
            pairs = [
                (stem, str(member.path), str(second.by_stem[stem].path)) for stem, member in first.by_stem.items() if stem in second.by_stem
            ]
            wrong = [
                (stem, sizes[one], sizes[two]) for stem, one, two in pairs if one in sizes and two in sizes and sizes[one] != sizes[two]
            ]
            if wrong:
                stem, (width, height), (wide, high) = wrong[0]
                yield (
                    "label size",
                    88,
                    f"{len(wrong)} of {len(pairs)} images would be left out: their mask in {second.title} has another size "
                    f"(such as {stem}: {width} x {height}, mask {wide} x {high})",
                )
            lost = len(second.members) - tie.labels
            if lost and image == data.main:
                yield (
                    "label without image",
                    40,
                    f"{lost} of {len(second.members)} labels in {second.title} belong to no image of {first.title}",
                )
        unlabelled = len(first.members) - tie.images
        if unlabelled and image == data.main and tie.how in {"stem", "key"} and column == data.best_label:
            yield (
                "image without label",
                28,
                f"{unlabelled} of {len(first.members)} images have no label in {second.title}: good for the unlabelled pool",
            )
        if tie.how == "key" and tie.pattern is None:
            yield (
                "label names",
                45,
                f"catalog build cannot pair {first.title} with {second.title}: the names differ by more than an ending; rename the labels",
            )


def _chosen(data: DataSet) -> list[Label]:
    """The label that a first training would take."""
    return [data.labels[data.best_label]] if data.images and data.best_label is not None else []


def _largest(label: Label, most: int) -> list[LabelClass]:
    return sorted(label.classes, key=lambda item: -item.share)[:most]


def _titles(labels: Iterable[Label]) -> str:
    return ", ".join(label.part.group.title for label in labels)
