"""A segmentation network on the maps of a noise predictor; see :mod:`tilth.models.named`, ``ddpm_segmentor``. ddpm.md sections 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from tilth.errors import ConfigError, suggest
from tilth.models.by_name import create
from tilth.models.decoders.upernet import UperNet
from tilth.models.diffusion.features import DiffusionFeatures
from tilth.models.diffusion.schedule import build_schedule
from tilth.models.diffusion.segmentor import TARGET, ClassLayer, PixelDecoder
from tilth.models.diffusion.taps import LevelTaps, Reduce
from tilth.models.diffusion.unet import DiffusionUnet
from tilth.models.named import NAMES
from tilth.models.network import SegmentationNetwork, pad_to_multiple

if TYPE_CHECKING:
    from tilth.sensors import Sensor

TIMES = (50, 100, 150)
HEADS = ("mlp", "uper")
NOISE = ("fixed", "fresh")
SIDES = ("decoder", "encoder")

OF_WEIGHTS = ("unet", "unet_options", "schedule", "ranges")
"""Options that say what the weights of the noise predictor are and mean; all others say what is made of them, and may change."""


class DiffusionSegmentor(SegmentationNetwork):
    """Noise predictor with a head; images know where they lie, for their noise does.

    Attributes:
        encoder: gives the maps.
        draws: in evaluation, the mean of the logits over so many noises is taken.
    """

    takes_origins = True
    encoder: DiffusionFeatures

    def __init__(
        self, encoder: DiffusionFeatures, decoder: nn.Module, segmentation_head: nn.Module, *, noise: str | None, draws: int
    ) -> None:
        """Put the parts together.

        Args:
            encoder: gives maps, finest first.
            decoder: that list -> one map.
            segmentation_head: the class layer.
            noise: ``fixed`` belongs to a place, ``fresh`` is drawn anew; None: fresh in training mode, otherwise fixed.
            draws: in evaluation, noises whose logits are averaged.
        """
        super().__init__(encoder, decoder, segmentation_head, divisor=encoder.unet.divisor)
        self.draws = draws
        self._noise = noise

    @property
    def fresh(self) -> bool:
        """Whether noise is drawn anew. A frozen encoder is in evaluation mode in training, too, so the mode of the whole decides."""
        return self.training if self._noise is None else self._noise == "fresh"

    def encode(self, image: Tensor, origins: Tensor | None = None, draw: int = 0) -> list[Tensor]:
        """Turn images (B, C, H, W), sides multiples of ``divisor``, into feature maps, finest first.

        Args:
            image: normalised.
            origins: int64 (B, 2), row and column of the first pixel of each image in its raster; None: zeros.
            draw: which of several noises of a place.
        """
        return self.encoder(image, origins, fresh=self.fresh, draw=draw)  # type: ignore[no-any-return]  # modules return Any

    def forward(self, image: Tensor, origins: Tensor | None = None) -> Tensor:
        """Compute logits (B, K, H, W) of normalised images (B, C, H, W) of any size; ``origins`` as for :meth:`encode`."""
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.divisor)
        draws = 1 if self.training else self.draws
        logits = self.decode(self.encode(padded, origins))
        for draw in range(1, draws):
            logits = logits + self.decode(self.encode(padded, origins, draw))
        return (logits / draws if draws > 1 else logits)[..., :height, :width]


class FinestFirst(PixelDecoder):
    """A :class:`PixelDecoder` that gets its maps finest first, as the decoder of every network here; they are joined coarsest first."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute one map at H/4."""
        return super().forward(list(reversed(features)))


def ddpm_segmentor(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    unet: str = "ddpm_sr3_64",
    unet_options: Mapping[str, Any] | None = None,
    schedule: str | Mapping[str, Any] | None = None,
    times: Sequence[int] | None = None,
    noise_levels: Sequence[float] | None = None,
    convention: str | None = None,
    side: str = "decoder",
    strides: Sequence[int] = (16, 8, 4, 2),
    reduce: str | None = None,
    head: str = "mlp",
    channels: int = 512,
    pool_before: bool = False,
    share_noise: bool = True,
    noise: str | None = None,
    noise_seed: int = 0,
    draws: int = 1,
    jitter_level: bool = False,
    chunk: int | None = None,
    dropout: bool = False,
    ranges: Sequence[Sequence[float]] | None = None,
) -> DiffusionSegmentor:
    """Build a segmentation network on the maps of a noise predictor: image (B, C, H, W) -> logits (B, K, H, W); ddpm.md sections 7 and 8.

    Args:
        in_channels: bands C.
        num_classes: classes K.
        image_size: not used.
        unet: name of the noise predictor: ``ddpm_sr3_64``, ``ddpm_sr3_128`` or ``ddpm_guided_256``.
        unet_options: its own options, such as a smaller ``width``.
        schedule: how noise grows with time, see :func:`tilth.models.diffusion.schedule.build_schedule`; by default ``sr3_linear`` for SR3
            type and ``linear`` for guided type.
        times: at which noise is added, 0 for none; by default 50, 100 and 150.
        noise_levels: the same said by the standard deviation of the noise in the noisy image, 0 to 1; instead of ``times``.
        convention: ``sr3`` (``paper``) takes time t for t steps of noise, ``guided`` for t + 1; by default that of the noise predictor.
        side: ``decoder`` or ``encoder`` of the noise predictor.
        strides: levels that maps are taken of.
        reduce: which maps of a level, see :class:`tilth.models.diffusion.taps.LevelTaps`.
        head: ``mlp``, pixel-wise layers, or ``uper``, a UperNet.
        channels: of the UperNet.
        pool_before: for ``mlp``, levels finer than H/4 are averaged to H/4 before their layers instead of behind them.
        share_noise: the noisy images of one image hold the same noise.
        noise: ``fixed`` belongs to a place, ``fresh`` is drawn anew; by default fresh in training and fixed in evaluation.
        noise_seed: of fixed noise.
        draws: in evaluation, noises whose logits are averaged.
        jitter_level: draw each noise level between two steps, as DDPM-CD does.
        chunk: noise levels computed at once; by default all.
        dropout: of the noise predictor, in training.
        ranges: for each band the normalised values that are -1 and 1 to the noise predictor; a Segmenter's sensor says them.

    Raises:
        ConfigError: options that do not go together.
    """
    for name, value, choices in (("head", head, HEADS), ("noise", noise, NOISE), ("side", side, SIDES)):
        if value is not None and value not in choices:
            raise ConfigError(f"{name}: unknown {value!r}; {suggest(str(value), choices)}")
    if times is not None and noise_levels is not None:
        raise ConfigError("times and noise_levels say the same thing twice; give one of the two")
    if ranges is not None and len(ranges) != in_channels:
        raise ConfigError(f"ranges: {len(ranges)} for {in_channels} bands; give low and high for each band")
    if any(len(ends) != 2 or not ends[0] < ends[1] for ends in ranges or ()):
        raise ConfigError(f"ranges: {list(ranges or ())}: give low and high for each band, low below high")
    _check_strides(strides)
    predictor = _noise_predictor(unet, in_channels, image_size, unet_options or {})
    noise_schedule = build_schedule(schedule or default_schedule(unet), convention or default_convention(unet))
    if noise_levels is not None:
        if not noise_levels:
            raise ConfigError("noise_levels: none is given; give at least one, 0 for the clean image")
        times = [noise_schedule.time_of(level) for level in noise_levels]
    # Checked above; Literal types of what comes as text.
    taps = LevelTaps(side=cast("Any", side), strides=tuple(sorted(strides)), reduce=cast("Reduce | None", reduce))
    encoder = DiffusionFeatures(
        predictor,
        noise_schedule,
        taps,
        TIMES if times is None else times,
        ranges=ranges,
        share_noise=share_noise,
        noise_seed=noise_seed,
        jitter_level=jitter_level,
        chunk=chunk,
        dropout=dropout,
    )
    decoder: nn.Module
    if head == "uper":
        decoder = UperNet(encoder.widths, channels)
        layer = ClassLayer(channels, num_classes, encoder.strides[0])
    else:
        widths = list(reversed(taps.widths(predictor)))
        decoder = FinestFirst(widths, noise_levels=len(encoder.times), strides=tuple(reversed(encoder.strides)), pool_before=pool_before)
        layer = ClassLayer(sum(widths), num_classes, TARGET)
    return DiffusionSegmentor(encoder, decoder, layer, noise=noise, draws=draws)


def complete_options(options: Mapping[str, Any], sensor: Sensor) -> dict[str, Any]:
    """Write out what the sensor and defaults decide, so that a network is built alike wherever its configuration is read.

    Args:
        options: of :func:`ddpm_segmentor`; what is given stays.
        sensor: ``low`` and ``high`` of its bands are -1 and 1 to the noise predictor; 8-bit RGB so becomes what published weights know.

    Returns:
        All of them, with ``unet``, ``schedule``, ``convention``, ``times`` (unless noise levels are given) and ``ranges``.
    """
    unet = str(options.get("unet", "ddpm_sr3_64"))
    ranges = [[(band.low - band.mean) / band.std, (band.high - band.mean) / band.std] for band in sensor.bands]
    found: dict[str, Any] = {
        "unet": unet,
        "schedule": default_schedule(unet),
        "convention": default_convention(unet),
        "ranges": ranges,
    }
    if options.get("noise_levels") is None:
        found["times"] = list(TIMES)
    return found | {name: value for name, value in options.items() if value is not None}


def other_use(trained: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Put other wishes about what is made of a noise predictor's maps beside what its weights are.

    Args:
        trained: options of the network that the noise predictor was trained in.
        wanted: options as somebody gave them; of these, what says what the weights are is not taken.

    Returns:
        Options for a network with the same noise predictor.
    """
    free = {name: value for name, value in wanted.items() if name not in OF_WEIGHTS}
    kept = dict(trained)
    if "times" in free or "noise_levels" in free:
        kept = {name: value for name, value in kept.items() if name not in ("times", "noise_levels")}
    return kept | free


def default_schedule(unet: str) -> str:
    """Name the schedule that a kind of noise predictor was published with; that of SR3 type is not certain (ddpm.md section 2)."""
    return "linear" if _guided(unet) else "sr3_linear"


def default_convention(unet: str) -> str:
    """Say how a kind of noise predictor counts times."""
    return "guided" if _guided(unet) else "sr3"


def _guided(unet: str) -> bool:
    return unet in NAMES and NAMES[unet].builder.endswith(":guided_unet")


def _noise_predictor(name: str, in_channels: int, image_size: int, options: Mapping[str, Any]) -> DiffusionUnet:
    choices = [other for other, named in NAMES.items() if named.kind == "diffusion"]
    if name not in choices:
        raise ConfigError(f"unet: no noise predictor is called {name!r}; {suggest(name, choices)}")
    return cast("DiffusionUnet", create(name, in_channels, image_size=image_size, **options))


def _check_strides(strides: Sequence[int]) -> None:
    if not strides:
        raise ConfigError("strides: none is given; give levels such as [16, 8, 4, 2]")
    if len(set(strides)) != len(strides):
        raise ConfigError(f"strides: {', '.join(map(str, strides))}: give every level once")
