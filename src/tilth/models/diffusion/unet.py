"""The U-Net that both families share: stages with skips, taps handed out explicitly, and nothing run behind the last one asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tilth.errors import ConfigError, suggest
from tilth.models.diffusion.embeddings import Embedding
from tilth.models.diffusion.layers import GroupNorm, ResidualBlock, SpatialAttention, Upsample
from tilth.models.diffusion.taps import Reduce, Tap
from tilth.models.network import pad_to_multiple


class Stage(nn.Module):
    """One step of encoder or decoder; what it gives is one tap. Its parts, those that it has, run in the order of the arguments.

    Args:
        width: channels out.
        stride: of what comes out.
        upsample_before: before the skip is joined (SR3).
        convolution: stem, or a strided one between levels.
        residual: the block proper, which may resample.
        attention: behind the block.
        upsample_after: at the end of the stage (guided-diffusion).
    """

    def __init__(
        self,
        width: int,
        stride: int,
        *,
        upsample_before: Upsample | None = None,
        convolution: nn.Conv2d | None = None,
        residual: ResidualBlock | None = None,
        attention: SpatialAttention | None = None,
        upsample_after: Upsample | ResidualBlock | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.stride = stride
        self.upsample_before = upsample_before
        self.convolution = convolution
        self.residual = residual
        self.attention = attention
        self.upsample_after = upsample_after

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """Compute the stage from x (B, C, H, W), embedding (B, E) and, in the decoder, what the encoder left at this place."""
        if self.upsample_before is not None:
            x = self.upsample_before(x)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        if self.convolution is not None:
            x = self.convolution(x)
        if self.residual is not None:
            x = self.residual(x, embedding)
        if self.attention is not None:
            x = self.attention(x)
        if self.upsample_after is not None:
            x = self.upsample_after(x, embedding) if isinstance(self.upsample_after, ResidualBlock) else self.upsample_after(x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the coarsest level."""

    def __init__(self, first: ResidualBlock, attention: SpatialAttention | None, second: ResidualBlock) -> None:
        super().__init__()
        self.first = first
        self.attention = attention
        self.second = second

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Compute (B, C, H, W) from the same shape and embedding (B, E)."""
        x = self.first(x, embedding)
        if self.attention is not None:
            x = self.attention(x)
        return cast("Tensor", self.second(x, embedding))


class Output(nn.Module):
    """Norm, SiLU and the convolution to what is predicted for each pixel."""

    def __init__(self, width: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, width)
        self.convolution = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, width, H, W) into (B, out_channels, H, W)."""
        return cast("Tensor", self.convolution(F.silu(self.norm(x))))


class DiffusionUnet(nn.Module):
    """A noise predictor; images of any size are padded by repeating their border, and what is predicted is cut back.

    Images hold as many bands as the network was built for, in [-1, 1] as it was trained. How noisy they are is said by one number for an
    image: SR3 type takes the noise level (square root of the running product of alphas, in (0, 1], 1 for a clean image), guided type the
    time (step from 0).

    Attributes:
        layout: name of the published layout that its weights are exchanged in: ``sr3`` or ``guided``.
        divisor: sides inside are multiples of this many pixels.
        usual_block: which map of a decoder level others use, see :class:`tilth.models.diffusion.taps.LevelTaps`.
        schedule: the noise schedule that weights of ``sr3`` are exported with; None leaves it out.
        checkpointing: stages are computed again in the backward pass instead of kept, where there will be one.
    """

    def __init__(
        self,
        *,
        embedding: Embedding,
        encoder: Sequence[Stage],
        middle: Middle,
        decoder: Sequence[Stage],
        output: Output,
        layout: str,
        usual_block: Reduce,
        schedule: str | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoder = nn.ModuleList(encoder)
        self.middle = middle
        self.decoder = nn.ModuleList(decoder)
        self.output = output
        self.layout = layout
        self.usual_block = usual_block
        self.schedule = schedule
        self.checkpointing = checkpointing
        self.divisor = max(stage.stride for stage in encoder)
        names = _numbered("enc", encoder)
        self._encoder_taps = [Tap(name, stage.width, stage.stride) for name, stage in zip(names, encoder, strict=True)]
        self._middle_tap = Tap("mid", encoder[-1].width, self.divisor)
        names = _numbered("dec", decoder)
        self._decoder_taps = [Tap(name, stage.width, stage.stride) for name, stage in zip(names, decoder, strict=True)]

    def taps(self) -> dict[str, Tap]:
        """List every map that can be handed out, by name, in the order in which they are computed."""
        return {tap.name: tap for tap in (*self._encoder_taps, self._middle_tap, *self._decoder_taps)}

    def forward(self, image: Tensor, level: Tensor | float) -> Tensor:
        """Predict the noise, and behind it in the channels the variance where the network learned one.

        Args:
            image: float (B, C, H, W), noisy, about [-1, 1]; any H and W.
            level: noise level or time, see the class: one number, (B,) or (B, 1).

        Returns:
            float (B, C or 2C, H, W).

        Raises:
            ConfigError: as many levels as there are images, or one, are needed.
        """
        height, width = image.shape[-2:]
        _, last = self._run(image, level, None)
        return self._call(self.output, last)[..., :height, :width]

    def features(self, image: Tensor, level: Tensor | float, taps: Sequence[str]) -> dict[str, Tensor]:
        """Compute some of the maps inside, and nothing behind the last of them.

        Maps are of the padded image, so that those of all levels lie on one grid: a map of stride s has the padded sides divided by s. Cut
        what is made of them. Several noise levels of an image go on the batch axis, see
        :func:`tilth.models.diffusion.taps.stack_levels`; no image sees another.

        Args:
            image: as for :meth:`forward`.
            level: as for :meth:`forward`.
            taps: names out of :meth:`taps`.

        Returns:
            Maps (B, c, h, w) by name, in the order of ``taps``; equal, bit for bit, to those of a run to the end.

        Raises:
            ConfigError: no tap or an unknown one is asked for, or levels do not fit the images.
        """
        known = self.taps()
        if not taps:
            raise ConfigError(f"no tap is asked for; choices: {', '.join(known)}")
        for name in taps:
            if name not in known:
                raise ConfigError(f"unknown tap {name!r}; {suggest(name, known)}")
        found, _ = self._run(image, level, frozenset(taps))
        return {name: found[name] for name in taps}

    def parts_behind(self, taps: Sequence[str]) -> list[nn.Module]:
        """List what :meth:`features` does not run for these taps, in the order of execution."""
        order = list(self.taps())
        parts = [*self.encoder, self.middle, *self.decoder, self.output]
        return parts[max(order.index(name) for name in taps) + 1 :]

    def _run(self, image: Tensor, level: Tensor | float, wanted: frozenset[str] | None) -> tuple[dict[str, Tensor], Tensor]:
        """Run until all wanted maps are there, or to the end of the decoder for None; also return what was computed last."""
        embedding = self.embedding(one_each(level, image))
        x = pad_to_multiple(image, self.divisor).to(self.embedding.linear1.weight.dtype)
        found: dict[str, Tensor] = {}
        skips: list[Tensor] = []
        for stage, tap in zip(self.encoder, self._encoder_taps, strict=True):
            x = self._call(stage, x, embedding)
            skips.append(x)
            if _complete(found, tap, x, wanted):
                return found, x
        x = self._call(self.middle, x, embedding)
        if _complete(found, self._middle_tap, x, wanted):
            return found, x
        for stage, tap in zip(self.decoder, self._decoder_taps, strict=True):
            x = self._call(stage, x, embedding, skips.pop())
            if _complete(found, tap, x, wanted):
                return found, x
        return found, x

    def _call(self, part: nn.Module, *arguments: Tensor) -> Tensor:
        # Not the mode: weights may learn while dropout is off.
        if self.checkpointing and torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
            result: Any = checkpoint(part, *arguments, use_reentrant=False)
        else:
            result = part(*arguments)
        return cast("Tensor", result)


def one_each(level: Tensor | float, image: Tensor) -> Tensor:
    """Give every image of a batch its noise level or time.

    Args:
        level: one number, (1,), (1, 1), (B,) or (B, 1), of any type.
        image: (B, C, H, W).

    Returns:
        float32 (B,), on the image's device.

    Raises:
        ConfigError: another number of levels.
    """
    values = torch.as_tensor(level, dtype=torch.float32, device=image.device).reshape(-1)
    batch = image.shape[0]
    if values.shape[0] not in (1, batch):
        raise ConfigError(f"{values.shape[0]} noise levels for {batch} images; give one number, or one for each image")
    return values.expand(batch)


def _complete(found: dict[str, Tensor], tap: Tap, x: Tensor, wanted: frozenset[str] | None) -> bool:
    """Keep a map that is wanted, and tell whether that was the last."""
    if wanted is None or tap.name not in wanted:
        return False
    found[tap.name] = x
    return len(found) == len(wanted)


def _numbered(side: str, stages: Sequence[Stage]) -> list[str]:
    """Name stages by side, stride and place among those of that stride."""
    counts: dict[int, int] = {}
    names = []
    for stage in stages:
        place = counts.get(stage.stride, 0)
        counts[stage.stride] = place + 1
        names.append(f"{side}/{stage.stride}/{place}")
    return names
