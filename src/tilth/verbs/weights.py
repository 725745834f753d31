"""``tilth import-weights``: a checkpoint that somebody published becomes a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pydantic

from tilth.config import Config, read_numbers
from tilth.errors import UsageError, suggest
from tilth.models.config import Decoder, NetworkConfig, NetworkSpec
from tilth.models.named import NAMES
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from torch import nn

    from tilth.classes import ClassScheme
    from tilth.models.weights.made_for import Folder
    from tilth.models.weights.report import LoadReport
    from tilth.sensors import Sensor

_OF_BANDS = ("wavelengths", "groups")
"""Options of networks that say what the bands are."""

_ANY_CLASSES = 2


class ImportWeightsOptions(Config):
    """Options of ``tilth import-weights``."""

    file: str = pydantic.Field(
        min_length=1,
        json_schema_extra={"positional": True},
        description="torch or safetensors file, model folder, hf-hub:owner/name or timm:name",
    )
    as_: str = pydantic.Field(description="network to build: a name of tilth models list, or an encoder of timm")
    out: Path = pydantic.Field(description="model folder to write")
    decoder: Decoder | None = pydantic.Field(
        None, description="for an encoder of timm; unet, or upernet for plain ViTs, if nothing is said"
    )
    sensor: str | None = pydantic.Field(
        None, description="sensor of the model, built-in or a YAML file; that of a model folder, or rgb for networks of three bands"
    )
    scheme: Path | None = pydantic.Field(
        None, description="class scheme file of the model; by default that of a model folder, or classes without names"
    )
    classes: int | None = pydantic.Field(
        None, ge=1, le=255, description="number of classes where there is no scheme; by default the file's"
    )
    bands: tuple[int, ...] = pydantic.Field((), description="bands, one number for each modality; by default the sensor's or as published")
    image_size: int = pydantic.Field(512, ge=16, description="side in pixels that position embeddings are made for")
    take: str | None = pydantic.Field(None, description="which part of a file that holds several networks: s1, s2, teacher, encoder_q, ...")
    options: dict[str, Any] = pydantic.Field(
        default_factory=dict, description="options of the network, as tilth models info NAME lists them"
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _as_it_is_typed(cls, values: Any) -> Any:
        """Take ``as:`` in a file for ``--as``: Python keeps the word for itself, YAML does not."""
        if not isinstance(values, Mapping) or "as" not in values:
            return values
        return {"as_": values["as"], **{key: value for key, value in values.items() if key != "as"}}

    @pydantic.field_validator("options", mode="before")
    @classmethod
    def _numbers(cls, options: Any) -> Any:
        return read_numbers(options)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if any(count < 1 for count in self.bands):
            raise ValueError(f"bands: {', '.join(map(str, self.bands))}: every modality has at least one band")
        if self.as_ in NAMES and self.decoder is not None:
            raise ValueError(f"--decoder is for encoders of timm; {self.as_} is a whole network: leave it out")
        return self


@verb("import-weights", ImportWeightsOptions)
def import_weights(options: ImportWeightsOptions, console: Console) -> Result:
    """Turn a published checkpoint into a model folder, and report what was taken.

    The layout of the file is recognised by its names; nothing in it is executed. Bands, positions and classes that differ are fitted.
    """
    from tilth.imagery.files import check_free

    check_free(options.out)
    if options.as_ in NAMES and NAMES[options.as_].kind != "segmentation":
        return _import_network(options, console)
    return _import_segmenter(options, console)


def _import_segmenter(options: ImportWeightsOptions, console: Console) -> Result:
    """A network that turns one image into one map: with sensor and classes, ready to predict."""
    from tilth.models.networks import build_network, for_sensor
    from tilth.models.segmenter import build_segmenter
    from tilth.models.weights.importing import brings_encoder_alone, count_classes, generic_scheme, save_imported
    from tilth.models.weights.load import load_weights

    source, theirs = _source(options)
    sensor = _sensor(options, theirs)
    config = for_sensor(_config(options, theirs, sensor), sensor)
    scheme = _scheme(options, theirs)
    if scheme is None:
        classes = options.classes or count_classes(source, lambda count: build_network(config, len(sensor), count), options.take)
        scheme = generic_scheme(classes) if classes else None
    console.status(f"building {config.title}")
    # Without a class layer in the file, an encoder may be all there is; that shows when it is loaded.
    model = build_segmenter(config, sensor, scheme or generic_scheme(_ANY_CLASSES))
    report = load_weights(model, source, take=options.take)
    lines = [f"sensor: {sensor.name} ({', '.join(sensor.band_names)}); normalisation: that of the sensor"]
    values: dict[str, Any] = {"sensor": sensor.name}
    if brings_encoder_alone(report):
        lines += ["an encoder folder: decoder and classes are not in it, so nothing can be predicted; train them onto it"]
        if options.scheme is not None or options.classes is not None:
            lines += ["scheme and classes are not looked at: an encoder has none, a training takes those of its catalog"]
        return _result(report, save_imported(model, report, options.out), lines, values | {"classes": None})
    if scheme is None:
        raise UsageError(
            f"{options.file}: brings weights of a decoder and no class layer for {options.as_}; give --scheme FILE, or --classes N"
        )
    folder = save_imported(model.eval(), report, options.out)
    unnamed = scheme == generic_scheme(len(scheme))
    lines += [f"classes: {len(scheme)}{', without names; give --scheme FILE for names and colours' if unnamed else ''}"]
    if report.missing and report.verdict != "complete":
        lines += ["what is missing has fresh weights: train before you trust a prediction"]
    return _result(report, folder, lines, values | {"classes": len(scheme)})


def _source(options: ImportWeightsOptions) -> tuple[str, Folder | None]:
    """Where to read from, and what it says of itself: a model folder knows its sensor, its classes and how its network is built."""
    from tilth.models.weights.importing import describe_folder, folder_of_ours

    folder = folder_of_ours(options.file)
    return (options.file, None) if folder is None else (str(folder), describe_folder(folder))


def _same_network(options: ImportWeightsOptions, theirs: Folder | None) -> bool:
    """Whether a folder holds the very network that is asked for, so that its options are the right ones."""
    network = None if theirs is None else theirs.network
    return network is not None and options.as_ in (network.name, getattr(network, "encoder", None))


def _import_network(options: ImportWeightsOptions, console: Console) -> Result:
    """A network of another kind: alone in its folder."""
    from tilth.models.by_name import create
    from tilth.models.weights.importing import count_classes, save_imported
    from tilth.models.weights.load import load_weights

    source, theirs = _source(options)
    named = NAMES[options.as_]
    for name in ("sensor", "scheme"):
        if getattr(options, name) is not None:
            raise UsageError(f"{options.as_} is a {named.kind} network, whose folder holds no {name}; leave --{name} out")
    if len(options.bands) > 1 and named.kind != "fusion":
        raise UsageError(f"bands: {options.as_} sees one image, so one number is expected, and there are {len(options.bands)}")
    bands = None if not options.bands else options.bands if named.kind == "fusion" else options.bands[0]

    settings, image_size, classes = options.options, options.image_size, options.classes
    spec = theirs.network if theirs is not None and _same_network(options, theirs) else None
    if isinstance(spec, NetworkSpec):
        settings = spec.options | settings
        image_size = options.image_size if "image_size" in options.model_fields_set else spec.image_size
        classes, bands = classes or spec.num_classes, bands or spec.in_channels

    def build(classes: int) -> nn.Module:
        return create(options.as_, bands, classes, image_size, seed=0, **settings)

    if classes is None and named.kind == "fusion":
        classes = count_classes(source, build, options.take)
    console.status(f"building {options.as_}")
    network = build(classes or 16)
    report = load_weights(network, source, take=options.take)
    lines = ["what is missing has fresh weights: train before you use it"] if report.missing and report.verdict != "complete" else []
    return _result(report, save_imported(network, report, options.out), lines, {})


def _result(report: LoadReport, folder: Path, lines: list[str], more: dict[str, Any]) -> Result:
    values = {
        "verdict": report.verdict,
        "layout": report.layout,
        "matched": len(report.matched),
        "resized": len(report.resized),
        "missing": len(report.missing),
        "unexpected": len(report.unexpected),
        "dropped": len(report.dropped),
        "share": report.share,
        "sha256": report.sha256,
    }
    return Result(summary=(*report.lines(), *lines), outputs={"model": folder}, values=values | more)


def _config(options: ImportWeightsOptions, theirs: Folder | None, sensor: Sensor) -> NetworkConfig:
    """Which network is meant; of a folder that holds the same one come the settings that are not typed.

    Raises:
        UsageError: neither one of ours nor an encoder of timm.
    """
    given: dict[str, Any] = {"image_size": options.image_size, "options": options.options}
    known = theirs.network if theirs is not None and _same_network(options, theirs) else None
    if theirs is not None and isinstance(known, NetworkConfig):
        # Options that follow the bands are found anew for others.
        followed = () if theirs.sensor is not None and theirs.sensor.bands == sensor.bands else _OF_BANDS
        given["options"] = {key: value for key, value in known.options.items() if key not in followed} | options.options
        if "image_size" not in options.model_fields_set:
            given["image_size"] = known.image_size
    if options.as_ in NAMES:
        return NetworkConfig.parse({"name": options.as_, **given}, source="import-weights")
    import timm

    from tilth.models.networks import is_encoder
    from tilth.models.vision_transformers.timm_backbone import is_plain_vit

    if ":" not in options.as_ and not is_encoder(options.as_):
        near = timm.list_models(f"{options.as_.split('_')[0]}*")[:6] or ["resnet50", "vit_base_patch16_224"]
        raise UsageError(
            f"--as: no network is called {options.as_!r}; {suggest(options.as_, NAMES)}; or an encoder of timm: {', '.join(near)}"
        )
    decoder = options.decoder or getattr(known, "decoder", None) or ("upernet" if is_plain_vit(options.as_) else "unet")
    return NetworkConfig.parse({"encoder": options.as_, "decoder": decoder, **given}, source="import-weights")


def _sensor(options: ImportWeightsOptions, theirs: Folder | None) -> Sensor:
    """Which sensor the model sees: the one that is typed, or that of a model folder.

    Raises:
        UsageError: none was given and three bands will not do, or another number of bands.
    """
    from tilth.sensors import get_sensor, sensor_names

    if len(options.bands) > 1:
        raise UsageError(f"bands: {options.as_} sees one image, so one number is expected, and there are {len(options.bands)}")
    published = NAMES[options.as_].in_channels if options.as_ in NAMES else 3
    wanted = options.bands[0] if options.bands else published
    if options.sensor is None:
        if theirs is not None and theirs.sensor is not None:
            if options.bands and wanted != len(theirs.sensor):
                raise UsageError(
                    f"--bands {wanted}: the model sees the {len(theirs.sensor)} bands of sensor {theirs.sensor.name!r}; leave --bands out, "
                    "or say with --sensor what it is to see instead"
                )
            return theirs.sensor
        if wanted == 3:
            return get_sensor("rgb")
        fitting = [name for name in sensor_names() if len(get_sensor(name)) == wanted]
        raise UsageError(
            f"missing --sensor: {options.as_} is to see {wanted} bands, and which they are, and how they are scaled, must be said; "
            f"built-in with that many: {', '.join(fitting) or 'none'}; or a YAML file"
        )
    sensor = get_sensor(options.sensor)
    if options.bands and len(sensor) != wanted:
        raise UsageError(f"--bands {wanted}: sensor {sensor.name!r} has {len(sensor)} bands; leave --bands out, or give another sensor")
    return sensor


def _scheme(options: ImportWeightsOptions, theirs: Folder | None) -> ClassScheme | None:
    """Which classes the model tells apart, where that is said: by a file, or by a model folder of as many.

    Raises:
        UsageError: two say different things.
    """
    from tilth.classes import get_scheme

    if options.scheme is not None:
        scheme = get_scheme(options.scheme)
        if options.classes not in (None, len(scheme)):
            raise UsageError(f"--classes {options.classes}: {options.scheme} has {len(scheme)} classes; leave one of the two out")
        return scheme
    known = None if theirs is None else theirs.scheme
    return known if known is not None and options.classes in (None, len(known)) else None
