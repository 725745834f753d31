"""Maps of a noise predictor as the encoder of a segmentation network: images made noisy, one pass, several levels; ddpm.md section 7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tilth import seeds
from tilth.errors import ConfigError
from tilth.models.diffusion.noise import noise_like
from tilth.models.diffusion.schedule import NoiseSchedule
from tilth.models.diffusion.taps import LevelTaps, join_levels, stack_levels
from tilth.models.diffusion.unet import DiffusionUnet

TOGETHER = 12 * 256**2
"""Most pixels that pass the noise predictor at once where none of it learns: those of four images of 256 pixels at three noise levels."""

TOGETHER_ON_CPU = 256**2
"""The same on a CPU, whose caches hold the maps of one such image: small images are faster together, larger ones by themselves."""


class DiffusionFeatures(nn.Module):
    """Encoder (B, C, H, W) -> maps, finest first: what a noise predictor makes inside of noisy images.

    Each map holds the noise levels beside each other in its channels, (B, T * c, H / s, W / s), in the order in which they were given. They
    go through the network on the batch axis, in a pass that ends behind the last map that is needed. Where nothing of the network learns,
    large batches take several such passes (:data:`TOGETHER`, :data:`TOGETHER_ON_CPU`), since only the maps have to stay: no image sees
    another, so that changes nothing but rounding.

    The noise predictor is in evaluation mode whatever the mode of this module is: its dropout is for denoising, not for what is learnt on
    its maps. Nor do its parts behind the last map learn. Whoever trains it to denoise calls ``unet`` itself, and sets both for all of it.

    Attributes:
        unet: the noise predictor.
        schedule: how much noise there is at which time.
        taps: which maps are taken.
        times: at which noise is added, see :mod:`tilth.models.diffusion.schedule`; 0 is the clean image.
        widths: channels of the maps, finest first.
        strides: of the maps, finest first.
    """

    def __init__(
        self,
        unet: DiffusionUnet,
        schedule: NoiseSchedule,
        taps: LevelTaps,
        times: Sequence[int],
        *,
        ranges: Sequence[Sequence[float]] | None = None,
        share_noise: bool = True,
        noise_seed: int = 0,
        jitter_level: bool = False,
        chunk: int | None = None,
        dropout: bool = False,
    ) -> None:
        """Put the parts together.

        Args:
            unet: the noise predictor.
            schedule: with the convention that times are meant in.
            taps: levels from fine to coarse.
            times: T of them.
            ranges: for each band the values in a normalised image that are -1 and 1 to the noise predictor; None: it is scaled so already.
            share_noise: the T noisy images of one image hold the same noise, each as much as its time says.
            noise_seed: of noise that belongs to a place.
            jitter_level: the noise level is drawn between that of the step before and that of the time, as DDPM-CD does; only for noise
                predictors that take a noise level.
            chunk: most noise levels computed at once; None: all.
            dropout: the noise predictor follows the mode of this module after all.

        Raises:
            ConfigError: no time, one that the schedule does not have, or levels that the noise predictor does not have.
        """
        super().__init__()
        if not times:
            raise ConfigError("times: none is given; give at least one, 0 for the clean image")
        if jitter_level and unet.layout != "sr3":
            raise ConfigError("jitter_level: is for noise predictors that take a noise level (SR3 type); this one takes a time")
        self.unet = unet
        self.schedule = schedule
        self.taps = taps
        self.times = tuple(times)
        self.widths = [len(times) * width for width in taps.widths(unet)]
        self.strides = taps.strides
        self._names = taps.names(unet)
        # What never runs must not train: distributed training would wait for its gradients.
        for part in unet.parts_behind(self._names):
            part.requires_grad_(False)
        self._signals = [schedule.signal(time) for time in times]
        self._before = [float(schedule.signals[schedule.index(time)]) if time else 1.0 for time in times]
        self._inputs = None if unet.layout == "sr3" else [float(schedule.index(time)) for time in times]
        self._share, self._seed, self._jitter, self._dropout = share_noise, noise_seed, jitter_level, dropout
        self._together = chunk or len(times)
        # It is made by numpy, which compilers would try to follow.
        self._of_place = torch.compiler.disable(noise_like)  # type: ignore[no-untyped-call]  # torch gives it no types
        low, high = torch.tensor(ranges if ranges is not None else [[-1.0, 1.0]], dtype=torch.float64).T.reshape(2, -1, 1, 1)
        # Recorded in the configuration, from which they are made again: no weights.
        self.register_buffer("gain", (2 / (high - low)).float(), persistent=False)
        self.register_buffer("bias", (-(high + low) / (high - low)).float(), persistent=False)
        self.gain: Tensor
        self.bias: Tensor
        self.train(self.training)

    def train(self, mode: bool = True) -> DiffusionFeatures:
        """Set the mode of this module; the noise predictor stays in evaluation mode, unless ``dropout`` was asked for."""
        super().train(mode)
        self.unet.train(mode and self._dropout)
        return self

    def describe(self) -> dict[str, Any]:
        """Say everything but weights that the maps of an image depend on, as JSON knows it."""
        return {
            "taps": self._names,
            "widths": self.widths,
            "schedule": [self.schedule.name, self.schedule.convention],
            "times": list(self.times),
            "signals": self._signals,
            "jitter_level": self._jitter,
            "noise_seed": self._seed,
            "share_noise": self._share,
            "gain": self.gain.flatten().tolist(),
            "bias": self.bias.flatten().tolist(),
        }

    def scaled(self, image: Tensor) -> Tensor:
        """Scale a normalised image (B, C, H, W) to what the noise predictor knows: [-1, 1] between ``low`` and ``high`` of each band.

        Returns:
            float32 (B, C, H, W); values beyond low and high are not cut.
        """
        return image.float() * self.gain + self.bias

    def forward(self, image: Tensor, origins: Tensor | None = None, *, fresh: bool = False, draw: int = 0) -> list[Tensor]:
        """Compute the maps.

        Args:
            image: float (B, C, H, W), normalised; sides are multiples of the coarsest stride.
            origins: int64 (B, 2), row and column of the first pixel of each image in its raster, by which its noise is made; None: zeros.
            fresh: noise is drawn from torch's random state instead, anew in every call.
            draw: which of several noises of a place.

        Returns:
            float (B, T * c, H / s, W / s) for each level, finest first.
        """
        clean = self.scaled(image)
        signals, inputs = self._levels(len(image), fresh, draw)
        strengths = (1 - signals.square()).sqrt().to(clean)
        signals = signals.to(clean)
        fields = [self._noise(clean, origins, fresh, draw, place) for place in range(1 if self._share else len(self.times))]
        images, together = self._passes(clean)
        found: list[list[Tensor]] = []
        for rows in (slice(first, first + images) for first in range(0, len(clean), images)):
            beside: list[list[Tensor]] = []
            for first in range(0, len(self.times), together):
                places = range(first, min(first + together, len(self.times)))
                noisy = [
                    signals[place, rows, None, None, None] * clean[rows]
                    + strengths[place, rows, None, None, None] * fields[0 if self._share else place][rows]
                    for place in places
                ]
                stacked, levels = stack_levels(noisy, inputs[first : places.stop, rows])
                maps = self.taps.gather(self.unet, self.unet.features(stacked, levels, self._names))
                beside.append([join_levels(level, len(places)) for level in maps])
            found.append(_joined(beside, dim=1))
        return _joined(found, dim=0)

    def _passes(self, clean: Tensor) -> tuple[int, int]:
        """Say how many images, and noise levels of each, pass the network at once.

        Where a gradient will go back through it, its passes are all kept anyway.
        """
        learns = torch.is_grad_enabled() and (clean.requires_grad or any(weight.requires_grad for weight in self.unet.parameters()))
        if learns:
            return len(clean), self._together
        most = TOGETHER_ON_CPU if clean.device.type == "cpu" else TOGETHER
        pairs = max(1, most // (clean.shape[-2] * clean.shape[-1]))
        together = min(self._together, pairs)
        return pairs // together, together

    def _levels(self, batch: int, fresh: bool, draw: int) -> tuple[Tensor, Tensor]:
        """How much of each image is left at each time, and what the network is told of it: float64 (T, B) each, on the CPU."""
        signals = torch.tensor(self._signals, dtype=torch.float64, device="cpu")[:, None].expand(-1, batch)
        if self._jitter:
            before = torch.tensor(self._before, dtype=torch.float64, device="cpu")[:, None]
            if fresh:
                share = torch.rand(signals.shape, dtype=torch.float64, device="cpu")
            else:
                # The same for all windows of a raster: a level of its own in each would show as seams.
                share = torch.from_numpy(seeds.generator(self._seed, "noise level", draw).random((len(self.times), 1)))
            signals = before + (signals - before) * share
        if self._inputs is None:
            return signals, signals
        return signals, torch.tensor(self._inputs, dtype=torch.float64, device="cpu")[:, None].expand(-1, batch)

    def _noise(self, clean: Tensor, origins: Tensor | None, fresh: bool, draw: int, place: int) -> Tensor:
        """Noise for all images at one time: float32 (B, C, H, W)."""
        if fresh:
            return torch.randn_like(clean)
        field = draw if self._share else draw * len(self.times) + place
        found: Tensor = self._of_place(clean, origins, self._seed, field)
        return found


def _joined(parts: list[list[Tensor]], dim: int) -> list[Tensor]:
    """Put what several passes gave for each level behind each other along an axis."""
    return parts[0] if len(parts) == 1 else [torch.cat(level, dim=dim) for level in zip(*parts, strict=True)]
