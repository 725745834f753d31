"""Denoising: a network learns what land looks like by telling the noise from the image, without any label; ddpm.md sections 3 and 6."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from tilth import seeds
from tilth.batch import Batch
from tilth.config import Config
from tilth.errors import ConfigError
from tilth.methods.base import Losses, Method, Score, Stream
from tilth.methods.ddpm.previews import write_preview
from tilth.models.diffusion.build import make_orthogonal
from tilth.models.diffusion.denoiser import Denoiser, diffusion_features
from tilth.models.diffusion.process import add_noise, noise_errors, variational_bits
from tilth.models.encoder_folder import save_encoder
from tilth.models.segmenter import Segmenter

_QUARTERS = 4
"""Parts of the schedule whose losses are told apart."""


class DenoiseConfig(Config):
    """Settings of denoising; defaults are those of the specification."""

    target_share: float = pydantic.Field(
        0.1, ge=0, le=1, description="share of the steps, at the end, that learn from the tiles of --target alone (paper: 20k of 200k)"
    )
    legacy_batch_t: bool = pydantic.Field(
        False, description="one time for all tiles of a step, as SR3's program draws it, instead of one for each tile"
    )
    continuous_level: bool = pydantic.Field(
        True, description="SR3 type: draw the noise level anywhere between two steps, as its program does, instead of at a step"
    )
    bound_weight: float = pydantic.Field(
        1.0, ge=0, description="weight of the variational bound that a learned variance is learnt by, times steps of the schedule / 1000"
    )
    weights: Literal["usual", "orthogonal"] = pydantic.Field(
        "usual", description="fresh weights: torch's, or orthogonal with biases of zero, as in SR3's program; minutes for wide networks"
    )
    held_out_levels: int = pydantic.Field(
        4, ge=1, description="noise levels, spread over the schedule, at which every held-out tile is scored; each is a pass"
    )
    preview_every: int = pydantic.Field(5000, ge=0, description="steps between two pictures of samples, and one at the end; 0 for none")
    preview_samples: int = pydantic.Field(8, ge=1, description="samples in a picture")
    preview_steps: int = pydantic.Field(50, ge=2, description="steps of DDIM in which they are made; each is a pass of the network")
    preview_side: int | None = pydantic.Field(None, ge=8, description="side of a sample in pixels; that of the crops by default")


@dataclass(frozen=True)
class _Task:
    """What the network is asked about a batch.

    Attributes:
        clean: float32 (B, C, H, W) in [-1, 1].
        noise: float32, the same shape: the answer.
        noisy: float32, the same shape: what it sees.
        told: float32 (B,): what it is told of the noise.
        index: int64 (B,), on the CPU: step of the schedule.
    """

    clean: Tensor
    noise: Tensor
    noisy: Tensor
    told: Tensor
    index: Tensor


class Denoise(Method):
    """Noise of a random strength is added to a tile, and the network predicts the noise: the squared error is the loss."""

    Config: ClassVar[type[Config]] = DenoiseConfig
    needs_labels = False
    takes_target = True
    score = Score("validation_loss", higher_is_better=False)
    defaults: ClassVar[Mapping[str, Any]] = {
        "network": {"name": "ddpm_segmentor"},
        "weak": {"size": 256, "scale_min": 1.0, "scale_max": 1.0, "rot90": True},
        "loop": {
            "learning_rate": 1e-5,
            "weight_decay": 0.01,
            "schedule": {"kind": "constant", "warmup_share": 0.05, "warmup_from": 0.1},
            "clip_norm": 1.0,
            "average_decay": 0.9999,
            # The last weights: the best loss may lie before the steps on the target.
            "export": "last",
        },
    }
    streams: Mapping[str, Stream] = {"unlabelled": Stream("unlabelled")}
    config: DenoiseConfig

    def __init__(self, config: DenoiseConfig, model: Segmenter) -> None:
        super().__init__(config, model)
        self.denoiser = Denoiser(model)
        self.trained = self.student = self.denoiser
        self.encoder = diffusion_features(model)
        self.target_share, self.preview_every = config.target_share, config.preview_every
        unet, bands = self.encoder.unet, len(model.sensor)
        self.sr3 = unet.layout == "sr3"
        predicted = unet.output.convolution.out_channels
        self.learns_variance = predicted == 2 * bands
        if predicted not in (bands, 2 * bands) or (self.learns_variance and self.sr3):
            raise ConfigError(
                f"the noise predictor gives {predicted} channels for {bands} bands; leave out_channels out, so that it gives the noise, "
                "and for guided type with learned_sigma the variance"
            )
        self._start = int(torch.randint(2**31, ()))  # from the seed of the run, which surrounds this
        self._side = config.preview_side

    def start_fresh(self) -> None:
        """Make weights orthogonal where that was asked for."""
        if self.config.weights == "orthogonal":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._start)
                make_orthogonal(self.encoder.unet)

    def check(self) -> None:
        """Score the weights as they are, too, where their average is what is exported."""
        self.also_scored = ("validation_loss_last",) if self.average is not None else ()

    def step(self, batches: Mapping[str, Batch], step: int) -> Losses:
        """Mean squared error of the noise over valid pixels; with a learned variance also the bound, whose mean takes no gradient."""
        batch = batches["unlabelled"]
        self._side = self._side or batch["image"].shape[-1]
        task = self._task(batch, step if self.config.legacy_batch_t else None)
        output = self.student(task.noisy, task.told)
        error, count = self._weighed(noise_errors(self._noise(output), task.noise), batch)
        mean = self.count(count.sum()).clamp(min=1)
        terms = {"loss_noise": error.sum() / mean}
        if self.learns_variance:
            bits, _ = self._weighed(self._bound(task, output), batch)
            terms["loss_bound"] = self.config.bound_weight * self.encoder.schedule.steps / 1000 * bits.sum() / mean
        quarter = F.one_hot(task.index * _QUARTERS // self.encoder.schedule.steps, _QUARTERS).to(error)
        return Losses(terms, {"loss_by_time": (error.detach() @ quarter, count.to(error) @ quarter)})

    def validation_sums(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The error of the noise on held-out tiles, of the average and of the weights as they are; always the same noise on a tile."""
        models: list[Callable[..., Tensor]] = [self.denoiser.unet]
        if self.average is not None:
            models.insert(0, diffusion_features(self.average).unet)
        levels, totals = self.config.held_out_levels, []
        for level in range(levels):
            # Errors differ a hundredfold between noise levels: drawn from the whole schedule, few tiles would say little.
            task = self._task(batch, None, (level / levels, 1 / levels))
            for predict in models:
                with self.autocast():
                    output = predict(task.noisy, task.told)
                totals.append(self._weighed(noise_errors(self._noise(output), task.noise), batch)[0].sum())
        count = batch["valid"].sum() * batch["image"].shape[1] * levels
        return torch.stack(totals).view(levels, len(models)).sum(dim=0), count

    def preview(self, model: Segmenter, step: int, folder: Path) -> None:
        """Write samples as one picture, ``step-00005000.png``."""
        config = self.config
        assert self._side is not None, "a step was done before"
        file = folder / f"step-{step:08d}.png"
        with self.autocast():
            write_preview(model, file, samples=config.preview_samples, steps=config.preview_steps, side=self._side, seed=self.seed)

    def export(self, model: Segmenter, folder: Path) -> None:
        """Write the noise predictor alone, with its schedule and scaling: no head was trained."""
        save_encoder(model, folder)

    def _task(self, batch: Batch, common: int | None, part: tuple[float, float] = (0.0, 1.0)) -> _Task:
        """Draw times and noise; each is a function of the tile's draw, the time with ``common`` of that step alone.

        Args:
            batch: tiles.
            common: number of the step whose time all tiles share; None: each has its own.
            part: of the schedule that times are drawn from, where it begins and how long it is, as shares.
        """
        clean, schedule = self.encoder.scaled(batch["image"]), self.encoder.schedule
        places, signals, noise = [], [], []
        for draw in batch["draw"]:
            chance = seeds.generator(draw, "noise level")
            drawn = chance.random() if common is None else seeds.generator(self.seed, "noise level", common).random()
            index = int((part[0] + part[1] * drawn) * schedule.steps)
            before, at = schedule.signals[index], schedule.signals[index + 1]
            share = chance.random() if self.sr3 and self.config.continuous_level else 1.0
            places.append(index)
            signals.append(before + (at - before) * share)
            # Drawn where it is needed: other kinds of devices draw other noise, the same in distribution.
            generator = torch.Generator(clean.device).manual_seed(seeds.derive(draw, "noise"))
            noise.append(torch.randn(clean.shape[1:], generator=generator, device=clean.device))
        index_of, signal, added = torch.tensor(places), torch.tensor(signals, dtype=torch.float64), torch.stack(noise)
        told = (signal if self.sr3 else index_of).float().to(clean.device)
        return _Task(clean, added, add_noise(clean, added, signal), told, index_of)

    def _noise(self, output: Tensor) -> Tensor:
        return output.chunk(2, dim=1)[0] if self.learns_variance else output

    def _bound(self, task: _Task, output: Tensor) -> Tensor:
        noise, values = output.float().chunk(2, dim=1)
        return variational_bits(self.encoder.schedule, task.index, task.clean, task.noisy, noise.detach(), values)

    @staticmethod
    def _weighed(errors: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum (B,) over the values of valid pixels, and their number (B,)."""
        valid = batch["valid"]
        return (errors * valid[:, None]).sum(dim=(1, 2, 3)), valid.sum(dim=(1, 2)) * errors.shape[1]


METHOD = Denoise
