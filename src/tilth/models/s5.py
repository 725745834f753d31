"""The plain ViT networks of S5: with UperNet, and with experts and one UperNet for each task (s5_pretrain.md section 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilth.errors import ConfigError, suggest
from tilth.models.decoders.parts import ClassHead
from tilth.models.decoders.upernet import UperNet
from tilth.models.multi_task import MultiTaskNetwork, check_tasks
from tilth.models.network import LAYOUT, SegmentationNetwork
from tilth.models.vision_transformers.attention import Attention
from tilth.models.vision_transformers.blocks import check_taps, spread_taps
from tilth.models.vision_transformers.plain import PlainVisionTransformer

STRIDE = 4
"""Pixels of the image for one of the decoder's output."""

MINIMUM = 32
"""Smallest side that gives the coarsest level a pixel."""

TASKS: dict[str, int] = {"vaihingen": 5, "potsdam": 5, "openearthmap": 9, "loveda": 7}
"""The four data sets of S5's joint fine-tuning with their classes, in the order of the published experts (s5_finetune.md section 3.1)."""


@dataclass(frozen=True)
class Size:
    """Dimensions of a vision transformer: channels of tokens, layers, heads, and the layers that are tapped."""

    width: int
    depth: int
    heads: int
    taps: tuple[int, int, int, int]


SIZES: dict[str, Size] = {
    "b": Size(768, 12, 12, (3, 5, 7, 11)),
    "l": Size(1024, 24, 16, (7, 11, 15, 23)),
    "h": Size(1280, 32, 16, (15, 23, 27, 31)),
}
"""Of s5_pretrain.md section 7.1."""


def upernet_vit(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    size: str = "b",
    patch: int = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    taps: Sequence[int] | None = None,
    epsilon: float = 1e-5,
    drop_path: float = 0.1,
    decoder_channels: int = 256,
    attention: Attention = "sdpa",
    checkpointing: bool = False,
) -> SegmentationNetwork:
    """Build a plain ViT with feature pyramid and UperNet.

    Args:
        in_channels: bands.
        num_classes: classes K.
        image_size: side in pixels that positions are made for.
        size: ``b``, ``l`` or ``h``; what the next four are where they are not given.
        patch: side of a patch in pixels, 16 or 8.
        width: channels of tokens.
        depth: layers.
        heads: of attention.
        taps: four layers that are tapped, 0-based; for a ``depth`` other than the published one the ends of the quarters.
        epsilon: of the layer norms; S5 computes with 1e-5, MAE was trained with 1e-6.
        drop_path: rate at the last layer.
        decoder_channels: of UperNet.
        attention: ``sdpa`` or ``explicit``.
        checkpointing: save memory in training by computing the activations of layers twice.

    Returns:
        The network; its published layout is ``s5-vit``.

    Raises:
        ConfigError: an option that makes no sense.
    """
    chosen = preset(size, width, depth, heads, taps)
    encoder = PlainVisionTransformer(
        in_channels,
        image_size,
        width=chosen.width,
        depth=chosen.depth,
        heads=chosen.heads,
        taps=chosen.taps,
        patch=check_patch(patch),
        epsilon=epsilon,
        drop_path=drop_path,
        attention=attention,
        checkpointing=checkpointing,
    )
    decoder = UperNet(encoder.channels, decoder_channels, unused_projection=True)
    head = ClassHead(decoder_channels, num_classes, scale=STRIDE)
    network = SegmentationNetwork(encoder, decoder, head, divisor=patch, minimum=MINIMUM)
    setattr(network, LAYOUT, "s5-vit")
    return network


def upernet_vit_moe(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    size: str = "b",
    tasks: Mapping[str, int] | None = None,
    part: int = 256,
    patch: int = 16,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    taps: Sequence[int] | None = None,
    epsilon: float = 1e-5,
    drop_path: float = 0.1,
    decoder_channels: int = 256,
    attention: Attention = "sdpa",
    checkpointing: bool = False,
) -> MultiTaskNetwork:
    """Build a ViT with one expert, one UperNet and one head for each task.

    Args:
        in_channels: bands.
        num_classes: not used: ``tasks`` says how many classes each task has.
        image_size: side in pixels that positions are made for.
        size: ``b``, ``l`` or ``h``.
        tasks: number of classes by name, in the order of the experts; by default the four data sets of S5.
        part: output channels of each layer that belong to an expert.
        patch: see :func:`upernet_vit`, as for all that follow.
        width: channels of tokens.
        depth: layers.
        heads: of attention.
        taps: four layers that are tapped.
        epsilon: of the layer norms.
        drop_path: rate at the last layer.
        decoder_channels: of each UperNet.
        attention: ``sdpa`` or ``explicit``.
        checkpointing: save memory in training.

    Returns:
        The network, called with images and the name of a task; its published layout is ``s5-moe``.

    Raises:
        ConfigError: an option that makes no sense.
    """
    del num_classes  # every builder is given it
    wanted = check_tasks(TASKS if tasks is None else tasks)
    chosen = preset(size, width, depth, heads, taps)
    encoder = PlainVisionTransformer(
        in_channels,
        image_size,
        width=chosen.width,
        depth=chosen.depth,
        heads=chosen.heads,
        taps=chosen.taps,
        patch=check_patch(patch),
        epsilon=epsilon,
        drop_path=drop_path,
        experts=len(wanted),
        part=part,
        attention=attention,
        checkpointing=checkpointing,
    )
    decoders = {task: UperNet(encoder.channels, decoder_channels, unused_projection=True) for task in wanted}
    class_heads = {task: ClassHead(decoder_channels, classes, scale=STRIDE) for task, classes in wanted.items()}
    network = MultiTaskNetwork(encoder, decoders, class_heads, wanted, divisor=patch, minimum=MINIMUM)
    setattr(network, LAYOUT, "s5-moe")
    return network


def preset(size: str, width: int | None, depth: int | None, heads: int | None, taps: Sequence[int] | None) -> Size:
    """Fill in what the options leave open.

    Raises:
        ConfigError: unknown size.
    """
    if size not in SIZES:
        raise ConfigError(f"size={size!r} is not known; {suggest(str(size), SIZES)}")
    base = SIZES[size]
    layers = base.depth if depth is None else depth
    if taps is None:
        taps = base.taps if layers == base.depth else spread_taps(layers)
    first, second, third, fourth = check_taps(taps, layers)
    return Size(base.width if width is None else width, layers, base.heads if heads is None else heads, (first, second, third, fourth))


def check_patch(patch: int) -> int:
    """Return the side of a patch.

    Raises:
        ConfigError: one that the feature pyramid is not made for.
    """
    if patch not in (8, 16):
        raise ConfigError(f"patch={patch}: the feature pyramid makes strides 4 to 32 of patches of 8 or 16 pixels; choose one of these")
    return patch
