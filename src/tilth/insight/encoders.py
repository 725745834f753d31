"""Encoders as sources of maps: noise predictors by side, level and time, all others by level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from tilth.errors import DataError, SensorMismatchError, UsageError
from tilth.insight.config import MapsConfig
from tilth.models.diffusion.features import DiffusionFeatures
from tilth.models.diffusion.taps import LevelTaps
from tilth.models.network import pad_to_multiple
from tilth.sensor_ranges import same_input

if TYPE_CHECKING:
    from tilth.imagery.raster import Pixels
    from tilth.models.diffusion.unet import DiffusionUnet
    from tilth.models.segmenter import Segmenter
    from tilth.sensors import Sensor


@dataclass(frozen=True)
class Level:
    """A map of an encoder, whatever the time: on which side it lies, and sides of the padded image over sides of the map."""

    side: Literal["encoder", "decoder", "bands"]
    stride: int


Maps = Mapping[Level, Tensor]
"""float32 (c, h, w) on the CPU for each level, in the order of the network; of the image padded at its lower and right border."""


class MapSource(Protocol):
    """Something that turns tiles into maps."""

    @property
    def times(self) -> tuple[int | None, ...]:
        """When noise is added; (None,) where none is."""

    def maps(self, pixels: Pixels, time: int | None) -> Maps:
        """Compute the maps of a tile."""


@dataclass(frozen=True)
class SeveralTaps(LevelTaps):
    """Levels of both sides of a noise predictor, which so come out of one pass.

    Attributes:
        parts: levels of each side; their maps follow each other.
    """

    parts: tuple[LevelTaps, ...] = ()

    def names(self, network: DiffusionUnet) -> list[str]:
        """List the names of all taps that are needed."""
        return [name for part in self.parts for name in part.names(network)]

    def widths(self, network: DiffusionUnet) -> list[int]:
        """List the channels of each map."""
        return [width for part in self.parts for width in part.widths(network)]

    def gather(self, network: DiffusionUnet, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Make the maps of all parts."""
        return [found for part in self.parts for found in part.gather(network, features)]


class NoisySource:
    """Maps inside of a noise predictor. Noise belongs to the place, as in evaluation, and is the same at all times."""

    def __init__(self, model: Segmenter, config: MapsConfig, device: torch.device) -> None:
        """Prepare the taps.

        Args:
            model: a ``ddpm_segmentor``.
            config: sides, levels and times.
            device: where to compute.

        Raises:
            UsageError: a side has none of the levels, or the schedule not the time.
        """
        encoder = model.network.encoder
        assert isinstance(encoder, DiffusionFeatures), "its network is made of one"
        known = [(tap.name.partition("/")[0], tap.stride) for tap in encoder.unet.taps().values()]
        parts, self._levels = [], list[Level]()
        for side in config.sides:
            there = {stride for name, stride in known if name == side[:3]}
            strides = tuple(sorted(there & set(config.strides), reverse=side == "decoder"))
            if not strides:
                raise UsageError(f"maps.strides: the {side} has none of {_words(config.strides)}; it has {_words(sorted(there))}")
            parts.append(LevelTaps(side=side, strides=strides, reduce=config.reduce))
            self._levels += [Level(side, stride) for stride in strides]
        taps = SeveralTaps(strides=tuple(level.stride for level in self._levels), parts=tuple(parts))
        options = model.config.network.options
        self.times: tuple[int | None, ...] = config.times
        self._model, self._device = model.to(device).eval(), device
        self._at = {
            time: DiffusionFeatures(
                encoder.unet,
                encoder.schedule,
                taps,
                [time],
                ranges=options.get("ranges"),
                noise_seed=int(options.get("noise_seed", 0)),
            )
            .to(device)
            .eval()
            for time in config.times
        }

    @torch.no_grad()
    def maps(self, pixels: Pixels, time: int | None) -> Maps:
        """Compute the maps of a tile."""
        assert time is not None, "one of times"
        image = pad_to_multiple(normalised(self._model, pixels, self._device), self._model.network.divisor)
        found = self._at[time](image, torch.tensor([pixels.origin]))
        return {level: one[0].float().cpu() for level, one in zip(self._levels, found, strict=True)}


class PlainSource:
    """Maps that the encoder of any other network hands to its decoder."""

    times: tuple[int | None, ...] = (None,)

    def __init__(self, model: Segmenter, config: MapsConfig, device: torch.device) -> None:
        """Keep the model.

        Args:
            model: any but a ``ddpm_segmentor``.
            config: levels.
            device: where to compute.
        """
        self._model, self._device, self._strides = model.to(device).eval(), device, config.strides

    @torch.no_grad()
    def maps(self, pixels: Pixels, time: int | None) -> Maps:
        """Compute the maps of a tile; where several are of one level, the last.

        Raises:
            UsageError: there are none, or none of a wanted level.
        """
        del time
        network = self._model.network
        image = pad_to_multiple(normalised(self._model, pixels, self._device), network.divisor, network.minimum)
        found: Any = self._model.encode(image)
        by_stride: dict[int, Tensor] = {}
        for one in found if isinstance(found, list | tuple) else ():
            if isinstance(one, Tensor) and one.ndim == 4 and one.shape[-1] and image.shape[-1] % one.shape[-1] == 0:
                by_stride[image.shape[-1] // one.shape[-1]] = one
        wanted = {Level("encoder", stride): by_stride[stride][0].float().cpu() for stride in sorted(by_stride) if stride in self._strides}
        if not wanted:
            there = _words(sorted(by_stride)) or "none"
            raise UsageError(
                f"maps.strides: the encoder of {self._model.config.network.title} has no map of {_words(self._strides)}; it has {there}"
            )
        return wanted


class BandSource:
    """The image itself as a map: what simple classifiers make of colours alone, below which no feature should be."""

    times: tuple[int | None, ...] = (None,)

    def __init__(self, model: Segmenter) -> None:
        """Keep the model, which knows how values are normalised."""
        self._model = model

    @torch.no_grad()
    def maps(self, pixels: Pixels, time: int | None) -> Maps:
        """Normalise a tile."""
        del time
        return {Level("bands", 1): normalised(self._model, pixels, torch.device("cpu"))[0].float()}


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder to look at, and what to call it.

    Attributes:
        name: unique among those looked at.
        model: a Segmenter; its decoder and classes are not looked at.
    """

    name: str
    model: Segmenter

    def source(self, config: MapsConfig, device: torch.device) -> MapSource:
        """Prepare its maps."""
        noisy = isinstance(self.model.network.encoder, DiffusionFeatures)
        return NoisySource(self.model, config, device) if noisy else PlainSource(self.model, config, device)

    def seeing(self, sensor: Sensor) -> NamedEncoder:
        """Let it look at tiles of a sensor.

        Returns:
            The same, which reads numbers as the tiles hold them where the network gets the same ones.

        Raises:
            SensorMismatchError: other bands or scaling.
        """
        ours = self.model.sensor
        if not same_input(ours, sensor):
            raise SensorMismatchError(
                f"{self.name}: a model for sensor {ours.name!r} ({_words(ours.band_names)}), the tiles are of {sensor.name!r} "
                f"({_words(sensor.band_names)}); bands and scaling must be the same"
            )
        self.model.config = self.model.config.model_copy(update={"sensor": sensor})
        return self


def normalised(model: Segmenter, pixels: Pixels, device: torch.device) -> Tensor:
    """Make network input of a tile: float32 (1, C, H, W)."""
    seen = torch.from_numpy(pixels.valid)[None].to(device)
    stored = torch.from_numpy(pixels.data).to(device).to(torch.float32)[None]
    # NaN would survive any arithmetic masking.
    return model.normalise(torch.where(seen[:, None], stored, 0.0), seen)


def check_finite(found: Tensor, what: str) -> Tensor:
    """Refuse maps that are not numbers.

    Raises:
        DataError: naming the map.
    """
    if not bool(found.isfinite().all()):
        raise DataError(f"{what}: its values are not finite; the weights are damaged")
    return found


def _words(values: Any) -> str:
    return ", ".join(map(str, values))
