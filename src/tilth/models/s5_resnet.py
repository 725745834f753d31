"""The convolutional network of S5: ResNet with a stem of three convolutions, and DeepLabV3+ (s5_pretrain.md section 7.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tilth.errors import ConfigError
from tilth.models.decoders.deeplab import DeepLabDecoder
from tilth.models.decoders.parts import ClassHead
from tilth.models.network import LAYOUT, SegmentationNetwork
from tilth.models.s5 import STRIDE

LAYERS: dict[int, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of each stage by depth."""


class DeepStemResNet(nn.Module):
    """ResNet of timm (``resnet50s``, ``resnet101s``) with stem 64-64-128 and a dilated last stage.

    Fresh weights are timm's, which start the last norm of each block at zero, so that every block begins as its shortcut. What the
    published program starts from without a file is not stated in s5_pretrain.md; with published weights it makes no difference.

    Attributes:
        body: timm's network without its classifier.
        channels: of the four maps, finest first.
        checkpointing: compute the activations of stages again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        layers: Sequence[int] = LAYERS[101],
        planes: Sequence[int] = (64, 128, 256, 512),
        checkpointing: bool = False,
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: bands.
            layers: blocks of each stage.
            planes: narrow width of each stage; a stage gives four times as many channels.
            checkpointing: save memory in training by computing activations twice.

        Raises:
            ConfigError: not four stages.
        """
        super().__init__()
        if len(layers) != 4 or len(planes) != 4:
            raise ConfigError(f"layers={list(layers)}, planes={list(planes)}: a ResNet has four stages; give four numbers each")
        self.body = timm.create_model(
            "resnet101s", in_chans=in_channels, output_stride=16, num_classes=0, layers=tuple(layers), channels=tuple(planes)
        )
        self.channels = tuple(4 * plane for plane in planes)
        self.checkpointing = checkpointing

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute feature maps from images float (B, bands, H, W): four of strides 4, 8, 16 and 16, finest first."""
        body = cast("Any", self.body)
        features: Tensor = body.maxpool(body.act1(body.bn1(body.conv1(image))))
        maps: list[Tensor] = []
        for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
            if self.checkpointing and self.training and torch.is_grad_enabled():
                features = _again_in_backward(stage, features)
            else:
                features = stage(features)
            maps.append(features)
        return maps


def _again_in_backward(stage: nn.Module, features: Tensor) -> Tensor:
    # A compiled graph updates statistics once by itself, and takes no contexts.
    contexts: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": partial(_contexts, stage)}
    return cast("Tensor", checkpoint(stage, features, use_reentrant=False, **contexts))


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _frozen_statistics(stage)


@contextmanager
def _frozen_statistics(stage: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a batch a second time when it is computed again."""
    norms = [part for part in stage.modules() if isinstance(part, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Statistics move by nothing but stay in place, as the tensors kept for the backward pass must be the same in number. Synchronised
        # norms insist on a count: they get one that is thrown away.
        norm.momentum, norm.num_batches_tracked = 0.0, None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted


def deeplabv3plus_resnet(
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    depth: int = 101,
    layers: Sequence[int] | None = None,
    planes: Sequence[int] = (64, 128, 256, 512),
    dilations: Sequence[int] = (6, 12, 18),
    decoder_channels: int = 256,
    fine_channels: int = 48,
    checkpointing: bool = False,
) -> SegmentationNetwork:
    """Build a ResNet with DeepLabV3+.

    Args:
        in_channels: bands.
        num_classes: classes K.
        image_size: not used: nothing depends on it.
        depth: 50 or 101.
        layers: blocks of each stage, instead of those of ``depth``.
        planes: narrow width of each stage; a stage gives four times as many channels.
        dilations: distances that the pyramid looks to, in pixels of the deepest map.
        decoder_channels: of the pyramid and behind it.
        fine_channels: that the finest map is reduced to.
        checkpointing: save memory in training by computing the activations of stages twice.

    Returns:
        The network; its published layout is ``s5-deeplab``.

    Raises:
        ConfigError: an option that makes no sense.
    """
    del image_size  # every builder is given it
    if layers is None and depth not in LAYERS:
        raise ConfigError(f"depth={depth}: choose {' or '.join(map(str, LAYERS))}, or give the blocks of each stage as layers=[...]")
    encoder = DeepStemResNet(in_channels, layers=LAYERS[depth] if layers is None else layers, planes=planes, checkpointing=checkpointing)
    decoder = DeepLabDecoder(encoder.channels, channels=decoder_channels, fine_channels=fine_channels, dilations=dilations)
    head = ClassHead(decoder_channels, num_classes, scale=STRIDE, dropout=0.0)
    network = SegmentationNetwork(encoder, decoder, head, divisor=STRIDE, minimum=STRIDE)
    setattr(network, LAYOUT, "s5-deeplab")
    return network
