"""The model that a training starts from: fresh, a model folder, or weights that somebody published."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.classes import ClassScheme, LandClass
from tilth.errors import SensorMismatchError, UnreadableFileError, UsageError
from tilth.models.weights.layouts.cromss import PARTS, belongs_to
from tilth.sensor_ranges import same_input
from tilth.sensors import Band
from tilth.verbs.train_network import DIFFUSION, unheard, with_predictor, with_wishes
from tilth.verbs.train_options import TrainOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from tilth.models.segmenter import Segmenter
    from tilth.sensors import Sensor

_HEAD = "segmentation_head."
_SHOWN = 4

NO_CLASSES = ClassScheme(name="none", classes=(LandClass(name="none", colour=(0, 0, 0)),))
"""What a model that is trained without labels has for classes while it is; they are never written."""


@dataclass(frozen=True)
class Start:
    """A model to train, and where its weights are from.

    Attributes:
        model: in training mode.
        told: lines for people: where weights are from and what of them is used.
        origin: the same as what is kept in the run folder; None for fresh weights.
    """

    model: Segmenter
    told: list[str] = field(default_factory=list)
    origin: dict[str, Any] | None = None


def starting_model(options: TrainOptions, sensor: Sensor, scheme: ClassScheme) -> Start:
    """Build or read the model, for the sensor and the classes of the catalog, in training mode.

    Args:
        options: network and initial weights.
        sensor: of the tiles that are learnt from.
        scheme: of their labels, or :data:`NO_CLASSES`.

    Raises:
        SensorMismatchError: a model or encoder folder of other bands or scaling.
        UsageError: a part is asked for of what is taken as it is.
        TilthError: weights that cannot be read or do not fit the network.
    """
    from tilth.models.segmenter import build_segmenter

    if options.initial_weights is None:
        return Start(build_segmenter(options.network, sensor, scheme, options.loop.seed))
    place, kind = _source(options.initial_weights)
    if kind in ("tilth-segmenter", "tilth-encoder"):
        if options.take is not None and (kind == "tilth-encoder" or not _can_take(place, options.take)):
            raise UsageError(
                f"{place}: holds one model, of which parts can be taken ({', '.join(PARTS)}), and take is {options.take!r}; leave take out"
                if kind == "tilth-segmenter"
                else f"{place}: holds one encoder, of which nothing is chosen, and take is {options.take!r}; leave take out"
            )
        return (_from_folder if kind == "tilth-segmenter" else _from_encoder)(options, place, sensor, scheme)
    from tilth.models.weights.importing import load_all_but_classes, report_tree

    if kind == "tilth-network" and options.network.name == DIFFUSION:
        options = with_predictor(options, place)
    model = build_segmenter(options.network, sensor, scheme, options.loop.seed)
    report = load_all_but_classes(model, str(options.initial_weights), options.take)
    return Start(model, [line for line in report.lines() if not line.startswith("sha256: ")], report_tree(report))


def _source(given: Path) -> tuple[Path, str | None]:
    """Which folder is meant, and what it holds; an unfinished run counts as a Segmenter's, so that whoever reads it says what it is."""
    from tilth.models.weights.importing import folder_of_ours, kind_of

    folder = folder_of_ours(given)
    if folder is not None:
        return (given if given.is_dir() else folder), kind_of(folder)
    if not given.is_dir():
        return given, None
    found = next((kind for kind in map(kind_of, (given, given / "model")) if kind is not None), None)
    return given, found or ("tilth-segmenter" if (given / "checkpoints").is_dir() else None)


def _from_encoder(options: TrainOptions, place: Path, sensor: Sensor, scheme: ClassScheme) -> Start:
    """Take an encoder into the network that it was trained in; all else of it starts fresh, by the seed of this run."""
    from tilth.models.encoder_folder import load_encoder
    from tilth.models.segmenter import build_segmenter

    found = load_encoder(place)
    network = with_wishes(found.config.network, options.network)
    _check_sensor(place, found.config.sensor, sensor)
    model = build_segmenter(network.model_copy(update={"pretrained": False}), sensor, scheme, options.loop.seed)
    found.fill(model)
    told = unheard(options, place, network, sensor)
    if scheme is not NO_CLASSES:
        left = f" without {', '.join(name.rstrip('.') for name in found.config.left_out[:_SHOWN])}" if found.config.left_out else ""
        told.append(f"{place}: the encoder of {network.title}{left}; decoder and class layer start fresh")
    return Start(model, told, _origin(place, "encoder"))


def _origin(place: Path, taken: str) -> dict[str, Any]:
    from tilth.models.weights.importing import folder_of_ours, folder_tree

    folder = folder_of_ours(place)
    assert folder is not None, "it was read"
    return folder_tree(folder, taken)


def _check_sensor(place: Path, theirs: Sensor, ours: Sensor, branch: str | None = None) -> None:
    """Refuse a model of other pixels; what a sensor is called changes nothing. A branch that would fit is named.

    Raises:
        SensorMismatchError: naming the first difference.
    """
    difference = _difference(theirs, ours)
    if difference is not None:
        instead = "" if branch is None else f"; take={branch}:encoder takes the encoder of its branch {branch}, take={branch} all of it"
        raise SensorMismatchError(
            f"{place}: a model for sensor {theirs.name!r}, the catalog has {ours.name!r}; bands and scaling must be the same, "
            f"and {difference}{instead}"
        )


def _difference(theirs: Sensor, ours: Sensor) -> str | None:
    if same_input(theirs, ours):
        return None  # pre-trained on pixels in 8 bits, say, and trained on with the measured ones
    if theirs.band_names != ours.band_names:
        return f"the model has bands {', '.join(theirs.band_names)}, the catalog {', '.join(ours.band_names)}"
    if theirs.dtype != ours.dtype:
        return f"the model reads {theirs.dtype}, the catalog {ours.dtype}"
    for one, other in zip(theirs.bands, ours.bands, strict=True):
        for name in Band.model_fields:
            values = getattr(one, name), getattr(other, name)
            if values[0] != values[1]:
                return f"{name} of band {one.name} is {values[0]} for the model, {values[1]} in the catalog"
    return None


def _from_folder(options: TrainOptions, place: Path, sensor: Sensor, scheme: ClassScheme) -> Start:
    """Take a model; if it is for other classes, all of it but its class layer."""
    from tilth.models.segmenter import Segmenter, build_segmenter

    model = Segmenter.load(place)
    branch, part = _parts_of(options.take or "")
    if branch:
        model = _one_branch(place, model, branch, sensor)
    model.train()
    _check_sensor(place, model.sensor, sensor, _branch_for(model, sensor))
    if part:
        return _part_of(options, place, model, part, sensor, scheme)
    network = model.config.network
    told = unheard(options, place, network, sensor)
    if model.scheme.names == scheme.names:
        # What the catalog calls its bands and scheme, and its colours, go into the new model.
        model.config = model.config.model_copy(update={"sensor": sensor, "scheme": scheme})
        told.append(f"{place}: a model for the {len(scheme)} classes of the catalog, taken whole")
        return Start(model, told, _origin(place, "whole"))
    # Names in another order are other classes: what the layer calls class 0 would be learnt as something else.
    fresh = build_segmenter(network.model_copy(update={"pretrained": False}), sensor, scheme, options.loop.seed)
    taken = {name: value for name, value in model.network.state_dict().items() if not name.startswith(_HEAD)}
    wrong = fresh.network.load_state_dict(taken, strict=False)
    assert not wrong.unexpected_keys, "the same network has the same names"
    assert all(name.startswith(_HEAD) for name in wrong.missing_keys), "all but the class layer was taken"
    if scheme is not NO_CLASSES:
        told.append(
            f"{place}: a model for {_classes(model.scheme.names)}, the catalog has {_classes(scheme.names)}: "
            "encoder and decoder are taken, the class layer starts fresh"
        )
    return Start(fresh, told, _origin(place, "all but the class layer"))


def _can_take(place: Path, take: str) -> bool:
    """Whether a model folder has parts by such a name: of its network, or branches."""
    from tilth.models.weights.importing import describe_folder, folder_of_ours

    folder = folder_of_ours(place)
    found = None if folder is None else describe_folder(folder)
    return take in PARTS or getattr(getattr(found, "network", None), "fusion", None) is not None


def _parts_of(take: str) -> tuple[str, str]:
    """Split ``s2:encoder`` into branch and part; ``s2`` is a branch as a whole, ``encoder`` a part of all there is."""
    branch, _, part = take.partition(":")
    return ("", branch) if branch in PARTS and not part else (branch, part)


def _one_branch(place: Path, model: Segmenter, branch: str, sensor: Sensor) -> Segmenter:
    """Take the branch for one sensor out of a model for a sum of sensors."""
    from tilth.models.fused import branch_segmenter

    try:
        part = branch_segmenter(model, branch)
    except UsageError as error:
        raise UsageError(f"{place}: take={branch}: {error}") from None
    # Bands of a sum are stored in a type that holds all; what a tile holds is the catalog's to say.
    part.config = part.config.model_copy(update={"sensor": part.sensor.model_copy(update={"dtype": sensor.dtype})})
    return part


def _branch_for(model: Segmenter, sensor: Sensor) -> str | None:
    """Find the branch that sees what a sensor has."""
    fusion, bands = model.config.network.fusion, model.sensor.band_names
    branches = {} if fusion is None else fusion.positions
    return next((name for name, places in branches.items() if tuple(bands[place] for place in places) == sensor.band_names), None)


def _part_of(options: TrainOptions, place: Path, model: Segmenter, part: str, sensor: Sensor, scheme: ClassScheme) -> Start:
    """Put a part of a model into the network that this training asks for; without such a wish, into one like the model's."""
    from tilth.models.segmenter import build_segmenter

    if part not in PARTS:
        raise UsageError(f"{place}: take={options.take}: no {part!r}; parts are {', '.join(PARTS)}")
    network = options.network if "network" in options.model_fields_set else model.config.network
    fresh = build_segmenter(network.model_copy(update={"pretrained": False}), sensor, scheme, options.loop.seed)
    if part == "all" and model.scheme.names != scheme.names:
        raise UsageError(
            f"{place}: take={options.take}: a model for {_classes(model.scheme.names)}, the catalog has {_classes(scheme.names)}, so its "
            "class layer cannot be taken; take wocls, the rest"
        )
    tensors = {name: tensor for name, tensor in model.network.state_dict().items() if belongs_to(name, part)}
    _fill_encoder(place, model, fresh)
    _fill_decoder(
        f"{place}: take={options.take}", fresh, {name: value for name, value in tensors.items() if not name.startswith("encoder.")}
    )
    taken = {"encoder": "the encoder", "wocls": "all but the class layer", "all": "the whole"}
    what = f"{taken.get(part, f'the encoder and {part[2:]} decoder blocks')} of {options.take if options.take != part else 'the model'}"
    rest = "" if part == "all" else f"; the rest of {fresh.config.network.title} starts fresh"
    return Start(fresh, [f"{place}: {what}{rest}"], _origin(place, what))


def _fill_encoder(place: Path, model: Segmenter, fresh: Segmenter) -> None:
    """Copy an encoder, or those of all branches, whichever library's they are.

    Raises:
        UsageError: it is another one, or a branch is not there.
    """
    from tilth.models.fused import FusedNetwork
    from tilth.models.weights.load import load_weights
    from tilth.models.weights.report import BEHIND_ENCODER

    other = UsageError(
        f"{place}: its encoder ({model.config.network.title}) is not that of {fresh.config.network.title}; "
        "give a network with the same encoder"
    )
    ours, theirs = fresh.network, model.network
    pairs = [(ours, theirs)]
    if isinstance(ours, FusedNetwork) and isinstance(theirs, FusedNetwork):
        pairs = [(ours.branch(name), theirs.branch(name)) for name in ours.branches if name in theirs.branches]
        if len(pairs) < len(ours.branches):
            raise other
    for network, source in pairs:
        try:
            report = load_weights(network, {name: value for name, value in source.state_dict().items() if name.startswith("encoder.")})
        except (UnreadableFileError, UsageError):
            raise other from None
        if any(name.startswith("encoder.") and not name.startswith(BEHIND_ENCODER) for name in report.missing):
            raise other


def _fill_decoder(title: str, fresh: Segmenter, tensors: Mapping[str, Tensor]) -> None:
    """Copy what follows an encoder.

    Raises:
        UsageError: the network has another decoder.
    """
    import torch

    state = fresh.network.state_dict()
    strange = [name for name, value in tensors.items() if name not in state or state[name].shape != value.shape]
    if strange:
        raise UsageError(
            f"{title}: wants {strange[0]}, which the decoder of {fresh.config.network.title} does not have like this; "
            "take the encoder alone, or leave network.* out"
        )
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].copy_(value)


def _classes(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"classes {', '.join(names[:_SHOWN])}{more}"
