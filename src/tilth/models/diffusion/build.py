"""Builders of noise predictors by name; see :mod:`tilth.models.named`. ``tilth.models.create`` calls them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tilth.errors import ConfigError
from tilth.models.diffusion.guided import build_guided
from tilth.models.diffusion.layers import Attend, HeadOrder
from tilth.models.diffusion.sr3 import build_sr3
from tilth.models.diffusion.unet import DiffusionUnet

SCHEDULES = ("sr3_linear",)


def sr3_unet(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    width: int = 64,
    multipliers: Sequence[int] = (1, 2, 4, 8, 8),
    res_blocks: int = 2,
    attention_strides: Sequence[int] = (16,),
    middle_attention: bool = True,
    norm_groups: int = 32,
    dropout: float = 0.2,
    out_channels: int | None = None,
    embed_scale: float = 1.0,
    schedule: str | None = "sr3_linear",
    attention: Attend = "sdpa",
    checkpointing: bool = False,
    orthogonal: bool = False,
    zero_residual: bool = False,
) -> DiffusionUnet:
    """Build a noise predictor of SR3 type: image (B, C, H, W) and noise level (B,) -> noise (B, C, H, W); ddpm.md section 4.

    Args:
        in_channels: bands C, taken and predicted.
        num_classes: not used; a noise predictor knows no classes.
        image_size: not used: attention lies where the published configuration (256 pixels, attention at 16) has it, whatever the image.
        width: channels at full size.
        multipliers: of that width, for each level; every level halves the sides.
        res_blocks: blocks for each level of the encoder; the decoder has one more.
        attention_strides: levels with attention: those where 256 pixels are 16, so stride 16.
        middle_attention: attention between the two blocks in the middle.
        norm_groups: of every norm; divides every width.
        dropout: in every block, in training.
        out_channels: bands predicted where they are not those taken (SR3 itself takes a second image).
        embed_scale: factor on the noise level; 1 for published weights.
        schedule: noise schedule that weights in the published layout are exported with: ``sr3_linear`` (2000 steps, 1e-6 to 1e-2), or None
            to leave it out.
        attention: ``sdpa``, or ``explicit`` softmax.
        checkpointing: stages are computed again in the backward pass instead of kept.
        orthogonal: first weights are orthogonal and biases zero, as in SR3's trainings; minutes for the wide network, so not the default.
        zero_residual: the last convolution of every block, and of attention, starts as zeros.

    Raises:
        ConfigError: sizes that do not go together.
    """
    del num_classes, image_size  # every builder gets them
    _check(multipliers, attention_strides)
    if schedule is not None and schedule not in SCHEDULES:
        raise ConfigError(f"schedule: only {', '.join(SCHEDULES)} or nothing can be exported, not {schedule!r}")
    network = build_sr3(
        in_channels=in_channels,
        out_channels=out_channels or in_channels,
        width=width,
        multipliers=multipliers,
        res_blocks=res_blocks,
        attention_strides=attention_strides,
        middle_attention=middle_attention,
        norm_groups=norm_groups,
        dropout=dropout,
        embed_scale=embed_scale,
        schedule=schedule,
        attention=attention,
        checkpointing=checkpointing,
        zero_residual=zero_residual,
    )
    if orthogonal:
        make_orthogonal(network)
    return network


def guided_unet(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    width: int = 256,
    multipliers: Sequence[int] = (1, 1, 2, 2, 4, 4),
    res_blocks: int = 2,
    attention_strides: Sequence[int] = (8, 16, 32),
    head_width: int | None = 64,
    heads: int = 4,
    head_order: HeadOrder = "legacy",
    film: bool = True,
    resampling_blocks: bool = True,
    learned_sigma: bool = True,
    norm_groups: int = 32,
    dropout: float = 0.0,
    out_channels: int | None = None,
    embed_scale: float = 1.0,
    attention: Attend = "sdpa",
    checkpointing: bool = False,
) -> DiffusionUnet:
    """Build a noise predictor of guided-diffusion type: image (B, C, H, W) and time (B,) -> noise, and variance; ddpm.md section 5.

    Args:
        in_channels: bands C, taken and predicted.
        num_classes: not used; a noise predictor knows no classes.
        image_size: not used: attention lies where the published configuration (256 pixels, attention at 32, 16 and 8) has it.
        width: channels at full size.
        multipliers: of that width, for each level; every level halves the sides.
        res_blocks: blocks for each level of the encoder; the decoder has one more.
        attention_strides: levels with attention.
        head_width: channels of an attention head; None takes ``heads`` heads everywhere.
        heads: attention heads where ``head_width`` is None.
        head_order: ``legacy`` splits heads before queries, keys and values, ``new`` after.
        film: the embedding scales and shifts; otherwise it is added.
        resampling_blocks: resample within blocks; otherwise by convolutions between them.
        learned_sigma: C further channels that interpolate the variance.
        norm_groups: of every norm; divides every width.
        dropout: in every block, in training; 0.1 in the LSUN models.
        out_channels: bands predicted where they are not those taken; ``learned_sigma`` doubles them.
        embed_scale: factor on the time; 1 for published weights.
        attention: ``sdpa``, or ``explicit`` softmax.
        checkpointing: stages are computed again in the backward pass instead of kept.

    Raises:
        ConfigError: sizes that do not go together.
    """
    del num_classes, image_size  # every builder gets them
    _check(multipliers, attention_strides)
    return build_guided(
        in_channels=in_channels,
        out_channels=(out_channels or in_channels) * (2 if learned_sigma else 1),
        width=width,
        multipliers=multipliers,
        res_blocks=res_blocks,
        attention_strides=attention_strides,
        head_width=head_width,
        heads=heads,
        head_order=head_order,
        film=film,
        resampling_blocks=resampling_blocks,
        norm_groups=norm_groups,
        dropout=dropout,
        embed_scale=embed_scale,
        attention=attention,
        checkpointing=checkpointing,
    )


def _check(multipliers: Sequence[int], attention_strides: Sequence[int]) -> None:
    if not multipliers:
        raise ConfigError("multipliers is empty; give one number for each level, such as [1, 2, 4, 8, 8]")
    known = [2**level for level in range(len(multipliers))]
    for stride in attention_strides:
        if stride not in known:
            raise ConfigError(f"attention_strides: {len(multipliers)} levels have strides {', '.join(map(str, known))}, not {stride}")


def make_orthogonal(network: nn.Module) -> None:
    """Draw orthogonal weights for all convolutions and linear layers, and set their biases to zero; minutes for a wide network."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
