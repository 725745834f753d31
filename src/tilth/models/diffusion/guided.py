"""Noise predictor of guided-diffusion and, with other options, improved-diffusion; ddpm.md section 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from tilth.errors import ConfigError
from tilth.models.diffusion.embeddings import Embedding
from tilth.models.diffusion.layers import Attend, HeadOrder, ResidualBlock, SpatialAttention, Upsample, zero_weights
from tilth.models.diffusion.unet import DiffusionUnet, Middle, Output, Stage


def build_guided(
    *,
    in_channels: int,
    out_channels: int,
    width: int,
    multipliers: Sequence[int],
    res_blocks: int,
    attention_strides: Sequence[int],
    head_width: int | None,
    heads: int,
    head_order: HeadOrder,
    film: bool,
    resampling_blocks: bool,
    norm_groups: int,
    dropout: float,
    embed_scale: float,
    attention: Attend,
    checkpointing: bool,
) -> DiffusionUnet:
    """Put the network together; for arguments see :func:`tilth.models.diffusion.build.guided_unet`."""
    embedding = 4 * width

    def block(in_width: int, out_width: int, resample: Literal["down", "up"] | None = None) -> ResidualBlock:
        return ResidualBlock(
            in_width,
            out_width,
            embedding,
            groups=norm_groups,
            dropout=dropout,
            film=film,
            activate=True,
            resample=resample,
            zero=True,
        )

    def attend(at: int, there: bool = True) -> SpatialAttention | None:
        if not there:
            return None
        if head_width is not None and at % head_width:
            raise ConfigError(
                f"head_width {head_width} does not divide a width of {at} that has attention; take a divisor, or None and heads"
            )
        count = heads if head_width is None else at // head_width
        return SpatialAttention(at, groups=norm_groups, heads=count, bias=True, order=head_order, attention=attention, zero=True)

    def enlarge(at: int) -> Upsample | ResidualBlock:
        return block(at, at, "up") if resampling_blocks else Upsample(at)

    widths = [width * multiplier for multiplier in multipliers]
    encoder = [Stage(widths[0], 1, convolution=nn.Conv2d(in_channels, widths[0], 3, padding=1))]
    for level, now in enumerate(widths):
        stride = 2**level
        if level:
            before = encoder[-1].width
            encoder.append(
                Stage(before, stride, residual=block(before, before, "down"))
                if resampling_blocks
                else Stage(before, stride, convolution=nn.Conv2d(before, before, 3, stride=2, padding=1))
            )
        for _ in range(res_blocks):
            attended = attend(now, stride in attention_strides)
            encoder.append(Stage(now, stride, residual=block(encoder[-1].width, now), attention=attended))

    middle = Middle(block(widths[-1], widths[-1]), attend(widths[-1]), block(widths[-1], widths[-1]))

    decoder: list[Stage] = []
    at = widths[-1]
    skips = [stage.width for stage in encoder]
    for level, now in reversed(list(enumerate(widths))):
        stride = 2**level
        for index in range(res_blocks + 1):
            residual = block(at + skips.pop(), now)
            # The last block of a level ends at the next one's size, so its map counts there.
            ends = bool(level) and index == res_blocks
            attended = attend(now, stride in attention_strides)
            after = enlarge(now) if ends else None
            decoder.append(Stage(now, stride // 2 if ends else stride, residual=residual, attention=attended, upsample_after=after))
            at = now

    output = Output(at, out_channels, norm_groups)
    zero_weights(output.convolution)
    return DiffusionUnet(
        embedding=Embedding(width, embedding, embedding, kind="time", scale=embed_scale),
        encoder=encoder,
        middle=middle,
        decoder=decoder,
        output=output,
        layout="guided",
        usual_block="last",
        checkpointing=checkpointing,
    )
