"""Finding images, their labels and their splits in folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tilth.catalog.config import VECTOR_SUFFIXES, BuildConfig
from tilth.catalog.uris import absolute_uri
from tilth.classes import ClassScheme, get_scheme
from tilth.errors import DataError, MissingFileError, UnreadableFileError, UsageError

LABEL_FOLDERS = ("masks", "labels", "label", "mask", "annotations")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".bmp")
SCHEME_FILES = ("classes.json", "classes.yaml", "classes.yml")


@dataclass(frozen=True)
class Found:
    """One image file and what belongs to it.

    Attributes:
        name: first part of the tile ids: prefix and path without suffix.
        image: absolute path.
        label: absolute path, or None.
        split: name, or None.
        scheme: of the label; None without label.
        layers: absolute paths of the rasters of further sensors to join with it, in the order of the sensor's parts.
        origin: absolute path of the image as it was found, where ``image`` was made of it.
        is_scene: a label on another grid stops the build, as a mistake in the request. Pairs come as many small files, of which a bad one
            is left out.
    """

    name: str
    image: str
    label: str | None
    split: str | None
    scheme: ClassScheme | None
    is_scene: bool = False
    layers: tuple[str, ...] = ()
    origin: str | None = None


@dataclass(frozen=True)
class Problem:
    """A file that was left out of a catalog.

    Attributes:
        file: its path.
        reason: why, in one line.
    """

    file: str
    reason: str


def find_images(config: BuildConfig) -> tuple[list[Found], list[Problem]]:
    """Find every image of a build, in a fixed order.

    Returns:
        The images, and label files that belong to no image.

    Raises:
        MissingFileError: an input does not exist.
        DataError: nothing found, labels that match no image, split files that name no image, or two images of one name.
        UsageError: the inputs do not fit the layout.
        ConfigError: the class scheme cannot be read.
    """
    inputs = [Path(absolute_uri(item)) for item in config.inputs]
    for item in inputs:
        if not item.exists():
            raise MissingFileError(f"{item}: no such file or folder; give folders or files of imagery")
    found: list[Found] = []
    problems: list[Problem] = []
    layout = _layout(config, inputs)
    for item, prefix in zip(inputs, _prefixes(inputs, config.prefix), strict=True):
        if layout == "pairs":
            images, lost = _find_pairs(config, item, prefix)
            problems += lost
        else:
            images = _find_scenes(config, item, prefix, recursive=layout == "plain")
        found += images
    if layout == "scenes" and config.labels is not None and not any(item.label for item in found):
        example = _label_stem(config, Path(found[0].image).stem) + (VECTOR_SUFFIXES[0] if config.vector_labels else ".tif")
        raise DataError(f"{config.labels}: no label matches any of {len(found)} scenes, for example {example}; set label_name")
    _refuse_same_names(found)
    return found, problems


def _layout(config: BuildConfig, inputs: list[Path]) -> str:
    """Tell the layout from the look of the inputs, unless it is named."""
    if config.layout != "auto":
        return config.layout
    if config.vector_labels:
        return "scenes"
    pairs = [item for item in inputs if item.is_dir() and (item / config.image_folder).is_dir() and _mask_folder(config, item)]
    if pairs and len(pairs) < len(inputs):
        other = next(item for item in inputs if item not in pairs)
        raise UsageError(f"{other}: not a folder of image/mask pairs as {pairs[0]} is; build one catalog a layout, then join them")
    if pairs:
        return "pairs"
    scenes = (
        config.labels is not None or config.window_px is not None or config.window_m is not None or any(item.is_file() for item in inputs)
    )
    return "scenes" if scenes else "plain"


def _prefixes(inputs: list[Path], given: str | None) -> list[str]:
    """First parts of tile ids: the given one, or as much of the folders' ends as tells them apart."""
    if given is not None and len(inputs) == 1:
        return [given]
    folders = [item if item.is_dir() else item.parent for item in inputs]
    distinct = sorted(set(folders))
    depth = 1
    while len({folder.parts[-depth:] for folder in distinct}) < len(distinct):
        depth += 1
    names = ["/".join(part for part in folder.parts[-depth:] if part != folder.anchor) or "root" for folder in folders]
    return names if given is None else [given if len(distinct) == 1 else f"{given}/{name}" for name in names]


def list_files(folder: Path, suffixes: Iterable[str], recursive: bool) -> list[Path]:
    """List the files of some suffixes below a folder, sorted; hidden files and folders are no data."""
    endings = {suffix.lower() for suffix in suffixes}
    files = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        file
        for file in files
        if file.suffix.lower() in endings and not any(part.startswith(".") for part in file.relative_to(folder).parts) and file.is_file()
    )


def _name(prefix: str, folder: Path, file: Path) -> str:
    return f"{prefix}/{file.relative_to(folder).with_suffix('').as_posix()}"


def _find_scenes(config: BuildConfig, item: Path, prefix: str, recursive: bool) -> list[Found]:
    """Find scenes and, when there is a label folder or a label name, the label of each; or plain images anywhere below a folder."""
    folder = item if item.is_dir() else item.parent
    files = list_files(item, config.suffixes, recursive) if item.is_dir() else [item]
    labels: dict[Path, Path] = {}
    if not recursive and (config.labels is not None or config.label_name != "{stem}"):
        place = Path(absolute_uri(config.labels)) if config.labels is not None else folder
        if not place.exists():
            raise MissingFileError(f"{place}: no such folder or file of labels")
        for file in files:
            label = _label_of(config, file.stem, place)
            if label is not None and label != file:
                labels[file] = label
        taken = set(labels.values())
        files = [file for file in files if file not in taken]
    if not files:
        raise DataError(f"{item}: no image found; looked for {', '.join(config.suffixes)}{' in all folders below' if recursive else ''}")
    scheme = _scheme(config, folder, *(label.parent for label in labels.values())) if labels else None
    return [
        Found(
            _name(prefix, folder, file),
            str(file),
            str(labels[file]) if file in labels else None,
            config.split,
            scheme if file in labels else None,
            is_scene=True,
        )
        for file in files
    ]


def _find_pairs(config: BuildConfig, item: Path, prefix: str) -> tuple[list[Found], list[Problem]]:
    """Find images and masks of one stem, and the split that lists each."""
    images = item / config.image_folder
    masks = _mask_folder(config, item)
    if not images.is_dir() or masks is None:
        expected = config.label_folder or config.labels or " or ".join(LABEL_FOLDERS[:2])
        raise DataError(
            f"{item}: expected folders {config.image_folder!r} and {expected!r} for layout 'pairs'; set image_folder, label_folder"
        )
    files = list_files(images, config.suffixes, recursive=True)
    if not files:
        raise DataError(f"{images}: no image found; looked for {', '.join(config.suffixes)}")
    stems = {file: file.relative_to(images).with_suffix("").as_posix() for file in files}
    labels = {file: _label_of(config, stem, masks) for file, stem in stems.items()}
    known = {label for label in labels.values() if label is not None}
    if not known:
        raise DataError(f"{masks}: no mask belongs to any of {len(files)} images, for example {_label_stem(config, stems[files[0]])}.png")
    taken = {label.with_suffix(""): f"its image has the mask {label.name}" for label in known}
    others = [file for file in list_files(masks, LABEL_SUFFIXES, recursive=True) if file not in known]
    lost = [Problem(str(file), taken.get(file.with_suffix(""), "mask without image")) for file in others]
    splits = _read_splits(item / "splits", set(stems.values()))
    scheme = _scheme(config, item, masks)
    found = []
    for file, stem in stems.items():
        label = labels[file]
        split = config.split if splits is None else splits.get(stem, config.unsplit)
        found.append(Found(_name(prefix, images, file), str(file), str(label) if label else None, split, scheme if label else None))
    return found, lost


def _mask_folder(config: BuildConfig, item: Path) -> Path | None:
    if config.labels is not None:
        return Path(absolute_uri(config.labels))
    names = (config.label_folder,) if config.label_folder else LABEL_FOLDERS
    return next((item / name for name in names if (item / name).is_dir()), None)


def _label_stem(config: BuildConfig, stem: str) -> str:
    return config.label_name.replace("{stem}", stem)


def _label_of(config: BuildConfig, stem: str, place: Path) -> Path | None:
    """Find the label file of an image by name; ``place`` may be the label file itself."""
    folder, _, last = stem.rpartition("/")
    wanted = _label_stem(config, last)
    if place.is_file() and config.vector_labels:
        return place
    if place.is_file():
        return place if place.stem == wanted or config.label_name == "{stem}" else None
    suffixes = VECTOR_SUFFIXES if config.vector_labels else LABEL_SUFFIXES
    candidates = (place / folder / f"{wanted}{suffix}" for suffix in (*suffixes, *(suffix.upper() for suffix in suffixes)))
    return next((file for file in candidates if file.is_file()), None)


def _read_splits(folder: Path, stems: set[str]) -> dict[str, str] | None:
    """Read ``splits/<name>.txt``: one stem a line; None where there is no such file.

    Raises:
        DataError: no text, a stem without image, or one in two splits.
    """
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        return None
    splits: dict[str, str] = {}
    for file in files:
        try:
            # The mark that some editors put first is no part of the first stem.
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        except UnicodeDecodeError:
            raise UnreadableFileError(f"{file}: no text in UTF-8; expected one stem a line") from None
        listed = [line for line in lines if line and not line.startswith("#")]
        missing = [stem for stem in listed if stem not in stems]
        if missing:
            place = lines.index(missing[0]) + 1
            raise DataError(
                f"{file}: {len(missing)} of {len(listed)} lines name no image, first {missing[0]!r} in line {place}; "
                "list stems without suffix"
            )
        for stem in listed:
            if splits.setdefault(stem, file.stem) != file.stem:
                raise DataError(f"{file}: {stem!r} is also in {splits[stem]}.txt; an image belongs to one split")
    return splits


def _scheme(config: BuildConfig, *folders: Path) -> ClassScheme:
    if config.scheme is not None:
        return get_scheme(config.scheme)
    candidates = (place / name for folder in dict.fromkeys(folders) for place in (folder, folder.parent) for name in SCHEME_FILES)
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise DataError(f"{folders[0]}: labels need a class scheme; put {SCHEME_FILES[0]} there or give scheme=FILE")
    return ClassScheme.load(file)


def _refuse_same_names(found: list[Found]) -> None:
    first: dict[str, str] = {}
    for item in found:
        other = first.setdefault(item.name, item.image)
        if other is not item.image:
            raise DataError(f"{item.image} and {other} would share the tile id {item.name!r}; rename one, or restrict suffixes")
