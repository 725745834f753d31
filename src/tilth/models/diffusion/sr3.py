"""Noise predictor of SR3 and DDPM-CD; ddpm.md section 4."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tilth.models.diffusion.embeddings import Embedding
from tilth.models.diffusion.layers import Attend, ResidualBlock, SpatialAttention, Upsample
from tilth.models.diffusion.unet import DiffusionUnet, Middle, Output, Stage


def build_sr3(
    *,
    in_channels: int,
    out_channels: int,
    width: int,
    multipliers: Sequence[int],
    res_blocks: int,
    attention_strides: Sequence[int],
    middle_attention: bool,
    norm_groups: int,
    dropout: float,
    embed_scale: float,
    schedule: str | None,
    attention: Attend,
    checkpointing: bool,
    zero_residual: bool,
) -> DiffusionUnet:
    """Put the network together; for arguments see :func:`tilth.models.diffusion.build.sr3_unet`."""

    def block(in_width: int, out_width: int) -> ResidualBlock:
        return ResidualBlock(in_width, out_width, width, groups=norm_groups, dropout=dropout, zero=zero_residual)

    def attend(at: int, there: bool) -> SpatialAttention | None:
        return SpatialAttention(at, groups=norm_groups, heads=1, bias=False, attention=attention, zero=zero_residual) if there else None

    widths = [width * multiplier for multiplier in multipliers]
    encoder = [Stage(width, 1, convolution=nn.Conv2d(in_channels, width, 3, padding=1))]
    for level, now in enumerate(widths):
        stride = 2**level
        if level:
            before = encoder[-1].width
            encoder.append(Stage(before, stride, convolution=nn.Conv2d(before, before, 3, stride=2, padding=1)))
        for _ in range(res_blocks):
            attended = attend(now, stride in attention_strides)
            encoder.append(Stage(now, stride, residual=block(encoder[-1].width, now), attention=attended))

    middle = Middle(block(widths[-1], widths[-1]), attend(widths[-1], middle_attention), block(widths[-1], widths[-1]))

    decoder: list[Stage] = []
    at = widths[-1]
    skips = [stage.width for stage in encoder]
    for level, now in reversed(list(enumerate(widths))):
        stride = 2**level
        for index in range(res_blocks + 1):
            # Between levels the map is enlarged first, then joined with what the encoder left: the first stage of a level does both.
            enlarge = Upsample(at) if decoder and index == 0 else None
            residual = block(at + skips.pop(), now)
            decoder.append(
                Stage(now, stride, upsample_before=enlarge, residual=residual, attention=attend(now, stride in attention_strides))
            )
            at = now

    return DiffusionUnet(
        embedding=Embedding(width, 4 * width, width, kind="level", scale=embed_scale),
        encoder=encoder,
        middle=middle,
        decoder=decoder,
        output=Output(at, out_channels, norm_groups),
        layout="sr3",
        usual_block="first",
        schedule=schedule,
        checkpointing=checkpointing,
    )
