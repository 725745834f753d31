"""``tilth features``: what the maps inside of an encoder show, in pictures and in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from tilth.errors import MissingFileError, UsageError
from tilth.insight.config import LookConfig
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from tilth.evaluation.feature_result import FeatureRecord
    from tilth.models.segmenter import Segmenter
    from tilth.sensors import Sensor

RANDOM = "random"
IMAGENET = "imagenet:"


class FeaturesOptions(LookConfig):
    """Options of ``tilth features``."""

    model: Path = pydantic.Field(
        json_schema_extra={"positional": True}, description="run, model or encoder folder, or a folder of a noise predictor"
    )
    catalog: Path = pydantic.Field(json_schema_extra={"positional": True}, description="catalog; labels are for colours and probes")
    out: Path = pydantic.Field(description="folder for features.json, probes.csv, tsne.parquet and figures")
    beside: tuple[str, ...] = pydantic.Field(
        (), description="further ones: folders, random for the same network untrained, imagenet:NAME for a timm encoder"
    )
    split: tuple[str, ...] = pydantic.Field(("train",), description="splits that probes learn from; split=[] takes all rows")
    test_split: tuple[str, ...] = pydantic.Field(("test",), description="splits that they are tested on")
    device: str = pydantic.Field("auto", description="auto, cpu, cuda or cuda:N")

    @pydantic.field_validator("beside", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


@verb("features", FeaturesOptions)
def features(options: FeaturesOptions, console: Console) -> Result:
    """Look at features: k-means maps, colours, t-SNE, and probes with their scores."""
    from tilth.catalog.table import Catalog
    from tilth.evaluation.feature_result import FEATURES_FILE
    from tilth.insight.encoders import NamedEncoder
    from tilth.insight.look import look_at_features
    from tilth.insight.tables import POINTS_FILE, PROBES_FILE
    from tilth.verbs.options import pick_device

    device = pick_device(options.device, "device")
    catalog = Catalog.open(options.catalog)
    sensor = catalog.sensor()
    first = _open(options.model, sensor)
    encoders = [NamedEncoder(_name(options.model), first)]
    for given in options.beside:
        name, model = _beside(given, first, sensor, options.seed)
        taken = [one.name for one in encoders]
        number = next(count for count in range(1, len(taken) + 2) if _numbered(name, count) not in taken)
        encoders.append(NamedEncoder(_numbered(name, number), model))
    record = look_at_features(
        encoders,
        catalog.filter(split=options.split) if options.split else catalog,
        catalog.filter(split=options.test_split),
        options.out,
        LookConfig(**{name: getattr(options, name) for name in LookConfig.model_fields}),
        catalog=options.catalog.name,
        fingerprint=catalog.fingerprint(),
        device=device,
        say=console.status,
        warn=console.warn,
    )
    files = {"features": FEATURES_FILE, "probes": PROBES_FILE, "t-SNE": POINTS_FILE}
    outputs = {label: options.out / name for label, name in files.items() if (options.out / name).exists()}
    figures = {figure.title: options.out / figure.file for figure in record.figures if figure.encoder is None}
    return Result(summary=_summary(record), outputs=outputs | figures, values=_values(record))


def _beside(given: str, first: Segmenter, sensor: Sensor, seed: int) -> tuple[str, Segmenter]:
    """Open one more encoder."""
    from tilth.models.config import NetworkConfig
    from tilth.models.segmenter import build_segmenter

    if given == RANDOM:
        fresh = first.config.network.model_copy(update={"pretrained": False})
        return RANDOM, build_segmenter(fresh, sensor, first.scheme, seed)
    if given.startswith(IMAGENET):
        network = NetworkConfig.parse({"encoder": given.removeprefix(IMAGENET), "pretrained": True}, source=f"beside={given}")
        return given.replace(":", " "), build_segmenter(network, sensor, first.scheme, seed)
    return _name(Path(given)), _open(Path(given), sensor)


def _open(place: Path, sensor: Sensor) -> Segmenter:
    """Read a folder as a Segmenter; what it does not hold of one is fresh and not looked at.

    Raises:
        MissingFileError: no such folder.
        UsageError: a network without an encoder for such tiles.
        TilthError: it cannot be read.
    """
    from tilth.models.config import NetworkConfig
    from tilth.models.encoder_folder import load_encoder
    from tilth.models.folder import read_network_config
    from tilth.models.named import NAMES
    from tilth.models.segmenter import Segmenter, build_segmenter
    from tilth.models.weights.importing import folder_of_ours, kind_of, load_all_but_classes
    from tilth.verbs.train_model import NO_CLASSES

    if not place.is_dir():
        raise MissingFileError(f"{place}: no such folder; give a run, model or encoder folder, {RANDOM}, or {IMAGENET}NAME")
    folder = folder_of_ours(place)
    kind = None if folder is None else kind_of(folder)
    if kind == "tilth-encoder":
        weights = load_encoder(place)
        network = weights.config.network.model_copy(update={"pretrained": False})
        model = build_segmenter(network, weights.config.sensor, NO_CLASSES)
        weights.fill(model)
        return model
    if kind == "tilth-network" and folder is not None:
        found = read_network_config(folder).network
        if NAMES[found.name].kind != "diffusion":
            raise UsageError(f"{place}: holds {found.name} alone, without a sensor; only noise predictors can be looked at like that")
        options = {"unet": found.name, "unet_options": dict(found.options)}
        model = build_segmenter(NetworkConfig(name="ddpm_segmentor", options=options), sensor, NO_CLASSES)
        load_all_but_classes(model, str(place))
        return model
    return Segmenter.load(place)


def _name(place: Path) -> str:
    """Call a folder by its own name, or its run's."""
    found = place.resolve()
    return found.parent.name if found.name == "model" and found.parent.name else found.name


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} ({number})"


def _summary(record: FeatureRecord) -> tuple[str, ...]:
    """Lines for people: what was looked at, and the best map of each encoder."""
    lines = [f"{record.learn_tiles + record.test_tiles} tiles, {len(record.maps)} maps"]
    if record.test_pixels:
        shared = f"; {record.shared_tiles} tiles that show the same ground left out" if record.shared_tiles else ""
        lines[0] += (
            f": probes learn from {record.learn_pixels} pixels of {record.learn_tiles} tiles, are tested on {record.test_pixels} of "
            f"{record.test_tiles} others{shared}"
        )
    for name in dict.fromkeys(item.encoder for item in record.maps):
        mine = [item for item in record.maps if item.encoder == name]
        for what, score in (("linear", "linear_mean_iou"), ("k-NN", "neighbour_mean_iou")):
            known = [item for item in mine if getattr(item, score) is not None]
            if known:
                best = max(known, key=lambda item: getattr(item, score))
                lines.append(f"  {name}: best {what} probe mIoU {100 * getattr(best, score):.1f} % ({_map_name(best)})")
    slow = sum(item.linear_converged is False for item in record.maps)
    if slow:
        lines.append(f"{slow} linear probes did not come to an end; more probes.steps, or a smaller probes.strength, might change them")
    return tuple(lines)


def _map_name(item: Any) -> str:
    place = "the bands themselves" if item.side == "bands" else f"{item.side} H/{item.stride}"
    return place if item.time is None else f"{place}, t = {item.time}"


def _values(record: FeatureRecord) -> dict[str, Any]:
    return {
        "learn_pixels": record.learn_pixels,
        "test_pixels": record.test_pixels,
        "maps": [item.model_dump(mode="json") for item in record.maps],
    }
