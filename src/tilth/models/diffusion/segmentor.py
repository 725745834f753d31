"""Heads that turn tapped maps into classes: one of pixel-wise layers, one of UPer type; ddpm.md sections 8 and 10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError
from tilth.models.decoders.upernet import UperNet

STRIDES = (16, 8, 4, 2)
"""Levels of the published head, in the order in which their maps are joined."""
TARGET = 4
"""Stride at which levels are joined."""


def pixel_linear(in_width: int, width: int) -> nn.Conv2d:
    """Make a linear layer for each pixel; weights start as He's normal, biases as zeros (ddpm.md section 8)."""
    linear = nn.Conv2d(in_width, width, 1)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


class PixelBlock(nn.Module):
    """Three linear layers for each pixel, the first two with a way around added before the norm (ddpm.md section 8, equation 11).

    ``z1 = ReLU(BN(L1 x + x)); z2 = ReLU(BN(L2 z1 + z1)); y = L3 z2``

    Args:
        in_width: channels in, and between the layers.
        width: channels out; None: the last layer is somewhere else, and ``z2`` goes out.
    """

    def __init__(self, in_width: int, width: int | None) -> None:
        super().__init__()
        self.linear1 = pixel_linear(in_width, in_width)
        self.norm1 = nn.BatchNorm2d(in_width)
        self.linear2 = pixel_linear(in_width, in_width)
        self.norm2 = nn.BatchNorm2d(in_width)
        self.linear3 = nn.Identity() if width is None else pixel_linear(in_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, in_width, H, W) into (B, width, H, W)."""
        return self.behind_first(self.linear1(x) + x)

    def behind_first(self, x: Tensor) -> Tensor:
        """Go on from the sum of first layer and way around."""
        x = F.relu(self.norm1(x))
        x = F.relu(self.norm2(self.linear2(x) + x))
        return self.linear3(x)  # type: ignore[no-any-return]  # modules return Any


class PixelDecoder(nn.Module):
    """Pixel-wise layers: a block for each level, all levels at H/4, joined, one more block; ddpm.md section 8.

    Each level brings its noise levels beside each other in the channels and leaves with the channels of one.

    Args:
        widths: channels of each level's map for one noise level, as :meth:`tilth.models.diffusion.taps.LevelTaps.widths` gives them.
        out: channels of the last block; None: it ends before its last layer, with as many as all levels have together.
        noise_levels: how many lie beside each other in the channels.
        strides: of the levels, in the same order as ``widths``; maps are joined in this order.
        products: ``native`` multiplies coarse levels by the final block's first layer before they are enlarged, ``plain`` after. The layer
            is linear and bilinear weights sum to one, so the result is the same but for rounding, with 16 times fewer products for H/16.
        pool_before: levels finer than H/4 are averaged to H/4 before their block instead of behind it: another network, and a quarter of
            the work there.
    """

    def __init__(
        self,
        widths: Sequence[int],
        out: int | None = None,
        *,
        noise_levels: int = 3,
        strides: Sequence[int] = STRIDES,
        products: str = "native",
        pool_before: bool = False,
    ) -> None:
        super().__init__()
        _check(widths, strides)
        if products not in ("native", "plain"):
            raise ConfigError(f"products: unknown {products!r}; choices: native, plain")
        self.strides = tuple(strides)
        self.products = products
        self.pool_before = pool_before
        self.levels = nn.ModuleList([PixelBlock(noise_levels * width, width) for width in widths])
        self.fuse = PixelBlock(sum(widths), out)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Compute one map at H/4.

        Args:
            features: a map (B, noise_levels * c, H / s, W / s) for each level, in the order of ``strides``; H and W of the padded image.

        Returns:
            float (B, out or sum of widths, H/4, W/4).
        """
        height, width = _padded(features, self.strides)
        target = (height // TARGET, width // TARGET)
        refined = []
        for block, stride, feature in zip(self.levels, self.strides, features, strict=True):
            pooled = self.pool_before and stride < TARGET
            refined.append(block(_resized(feature, target) if pooled else feature))
        return self._fused(refined, target)

    def _fused(self, refined: list[Tensor], target: tuple[int, int]) -> Tensor:
        joined = torch.cat([_resized(feature, target) for feature in refined], dim=1)
        if self.products == "plain":
            return self.fuse(joined)  # type: ignore[no-any-return]  # modules return Any
        first = self.fuse.linear1
        widths = [feature.shape[1] for feature in refined]
        levels = list(zip(refined, torch.split(joined, widths, dim=1), torch.split(first.weight, widths, dim=1), strict=True))
        coarse = [(feature, weight) for feature, resized, weight in levels if feature.shape[-2] < resized.shape[-2]]
        # Finer levels are cheaper once they are pooled. They go together, with the bias, which is the same before and after resizing.
        fine = [(resized, weight) for feature, resized, weight in levels if feature.shape[-2] >= resized.shape[-2]]
        total, bias = joined, first.bias
        if fine:
            features, weights = zip(*fine, strict=True)
            total, bias = total + F.conv2d(torch.cat(features, dim=1), torch.cat(weights, dim=1), bias), None
        for feature, weight in coarse:
            total, bias = total + _resized(F.conv2d(feature, weight, bias), target), None
        return self.fuse.behind_first(total)


class PixelSegmentor(PixelDecoder):
    """Pixel-wise head with its class layer; with widths 512, 512, 256, 128, three noise levels and 12 classes 16,747,404 parameters.

    Args:
        widths: as for :class:`PixelDecoder`, and so all others.
        num_classes: classes K.
        options: of :class:`PixelDecoder`.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, **options: Any) -> None:
        super().__init__(widths, num_classes, **options)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Compute logits.

        Args:
            features: as for :meth:`PixelDecoder.forward`.
            size: height and width of the image before padding; without it, logits stay at H/4.

        Returns:
            float (B, K, H/4, W/4), or (B, K, height, width), enlarged bilinearly and cut.
        """
        return _to_image(super().forward(features), _padded(features, self.strides), size)


class ClassLayer(nn.Module):
    """The class layer alone, for each pixel; what it says is enlarged to the image.

    Args:
        width: channels in.
        num_classes: classes K.
        enlarge: sides of the image over sides of the map.
    """

    def __init__(self, width: int, num_classes: int, enlarge: int) -> None:
        super().__init__()
        self.linear = pixel_linear(width, num_classes)
        self.enlarge = enlarge

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, width, h, w) into logits (B, K, enlarge * h, enlarge * w)."""
        return _resized(self.linear(x), (x.shape[-2] * self.enlarge, x.shape[-1] * self.enlarge))


class UperSegmentor(nn.Module):
    """UperNet and a classifier over the same maps; fused at the finest level (ddpm.md section 10).

    With widths 512, 512, 256, 128, three noise levels, 512 channels and 12 classes it has about 37.6 million parameters.

    Args:
        widths: as for :class:`PixelSegmentor`.
        num_classes: classes K.
        noise_levels: how many lie beside each other in the channels.
        strides: of the levels, in the same order as ``widths``; each twice as fine as the one before.
        channels: of the decoder.
    """

    def __init__(
        self, widths: Sequence[int], num_classes: int, *, noise_levels: int = 3, strides: Sequence[int] = STRIDES, channels: int = 512
    ) -> None:
        super().__init__()
        _check(widths, strides)
        if list(strides) != sorted(strides, reverse=True):
            raise ConfigError(f"strides {', '.join(map(str, strides))}: UperNet goes from coarse to fine; give the largest stride first")
        self.strides = tuple(strides)
        self.decoder = UperNet([noise_levels * width for width in reversed(widths)], channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Compute logits; arguments as for :meth:`PixelSegmentor.forward`.

        Returns:
            float (B, K, H/s, W/s) at the finest stride s, or (B, K, height, width), enlarged bilinearly and cut.
        """
        padded = _padded(features, self.strides)
        return _to_image(self.classifier(self.decoder(list(reversed(features)))), padded, size)


def _check(widths: Sequence[int], strides: Sequence[int]) -> None:
    if len(widths) != len(strides) or not widths:
        raise ConfigError(f"{len(widths)} widths for {len(strides)} levels; give one width for each level")


def _padded(features: Sequence[Tensor], strides: Sequence[int]) -> tuple[int, int]:
    """Compute the padded image's size from its maps.

    Raises:
        ConfigError: maps of other levels, in another order, or cut.
    """
    if len(features) != len(strides):
        raise ConfigError(
            f"{len(features)} maps for {len(strides)} levels; give one map for each of strides {', '.join(map(str, strides))}"
        )
    sizes = [(feature.shape[-2] * stride, feature.shape[-1] * stride) for feature, stride in zip(features, strides, strict=True)]
    if any(size != sizes[0] for size in sizes):
        shapes = ", ".join(f"{feature.shape[-2]} x {feature.shape[-1]}" for feature in features)
        raise ConfigError(
            f"maps of {shapes} are not of one image at strides {', '.join(map(str, strides))}; give them in this order, uncut"
        )
    return sizes[0]


def _resized(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly; exactly the mean of 2 x 2 pixels where sides are halved."""
    if tuple(feature.shape[-2:]) == size:
        return feature
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)


def _to_image(logits: Tensor, padded: tuple[int, int], size: tuple[int, int] | None) -> Tensor:
    return logits if size is None else _resized(logits, padded)[..., : size[0], : size[1]]
