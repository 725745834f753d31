"""Correlation of all positions of the deepest feature map, and labels that spread along it (CorrMatch; s5_pretrain.md section 9).

Shapes: B images, n of them with proposals, R proposals, K classes, h x w positions of the deepest map, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.methods.s4p.channels import decode_cut, encode_padded, feature_widths, with_dropped
from tilth.methods.s4p.parts import PseudoLabels
from tilth.models.decoders.parts import ConvolutionBlock
from tilth.models.network import pad_to_multiple
from tilth.models.segmenter import Segmenter


class CorrelationNetwork(nn.Module):
    """A network around the model, with layers that correlate the positions of its deepest map; only training needs them.

    Attributes:
        model: the network.
        projection: 3 x 3 block from the deepest map to ``width`` channels.
        first: 1 x 1 convolution to K channels, whose positions ask.
        second: another, whose positions are asked.

    Args:
        model: the network.
        width: channels between projection and convolutions.
        spare_last: let the last position never propose, as the published program does.
    """

    def __init__(self, model: Segmenter, width: int = 256, *, spare_last: bool = False) -> None:
        super().__init__()
        self.model, self.spare_last = model, spare_last
        self.projection = ConvolutionBlock(feature_widths(model)[-1], width, kernel=3)
        self.first = nn.Conv2d(width, len(model.scheme), kernel_size=1)
        self.second = nn.Conv2d(width, len(model.scheme), kernel_size=1)

    def forward(
        self, image: Tensor, kept: Tensor, dropped: Sequence[Tensor] | None = None, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits, and logits carried along the correlation.

        Args:
            image: float (B, C, H, W), normalised.
            kept: factors for the channels behind the projection, float (B, width).
            dropped: factors for the channels of each feature map, float (n, c), for the last n images, whose copies are decoded, too.
            places: float (n, R) in [0, 1): positions whose rows of the correlation are wanted, for the last n images.

        Returns:
            Logits (B + n, K, H, W), of the images and then of the copies; logits carried along, float32 (B, K, H, W); rows of the
            correlation, float32 (n, R, h, w) without gradient, n = 0 without ``places``.
        """
        features = encode_padded(self.model, image)
        logits = decode_cut(self.model, features if dropped is None else with_dropped(features, dropped), image)
        deep = self.projection(features[-1]) * kept[:, :, None, None].to(features[-1].dtype)
        height, width = deep.shape[-2:]
        correlation = correlate(self.first(deep), self.second(deep))
        moved = carry(logits[: len(image)].detach(), correlation, (height, width))
        sides = padded_sides(self.model, image)
        moved = F.interpolate(moved, size=sides, mode="bilinear", align_corners=True)[..., : image.shape[-2], : image.shape[-1]]
        if places is None:
            return logits, moved, moved.new_zeros(0, 0, height, width)
        count = max(correlation.shape[-1] - self.spare_last, 1)
        positions = (places * count).long().clamp(max=count - 1)  # a share just below 1 may have been rounded up to it
        chosen = correlation.detach()[-len(places) :]
        rows = chosen.gather(1, positions.unsqueeze(2).expand(-1, -1, chosen.shape[-1]))
        return logits, moved, rows.view(*rows.shape[:2], height, width)


def padded_sides(model: Segmenter, image: Tensor) -> tuple[int, int]:
    """Height and width that the network gives images before it encodes them."""
    height, width = pad_to_multiple(image[:1, :1], model.network.divisor, model.network.minimum).shape[-2:]
    return height, width


def correlate(first: Tensor, second: Tensor) -> Tensor:
    """How much each position of a map asks each other one: float32 (B, h w, h w), rows sum to 1.

    Args:
        first: float (B, K, h, w).
        second: float (B, K, h, w).
    """
    with torch.autocast(device_type=first.device.type, enabled=False):
        asking, asked = first.float().flatten(2), second.float().flatten(2)
        return (asking.transpose(1, 2) @ asked / math.sqrt(first.shape[1])).softmax(dim=-1)


def carry(logits: Tensor, correlation: Tensor, size: tuple[int, int]) -> Tensor:
    """Carry logits (B, K, H, W) along a correlation (B, h w, h w): float32 (B, K, h, w)."""
    with torch.autocast(device_type=logits.device.type, enabled=False):
        small = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=True)
        return (small.flatten(2) @ correlation).view_as(small)


@torch.no_grad()
def regions_of(rows: Tensor, sides: tuple[int, int], height: int, width: int) -> Tensor:
    """Turn rows of a correlation into proposals: enlarged, and from their middle value upwards.

    Args:
        rows: float (n, R, h, w).
        sides: height and width of the padded image.
        height: H of the image, which lies in its upper left.
        width: W.

    Returns:
        bool (n, R, H, W); nothing for a row that is the same everywhere.
    """
    if not rows.numel():
        return rows.new_zeros(*rows.shape[:2], height, width, dtype=torch.bool)
    found = []
    for image in rows:  # one by one, since the enlarged rows of a batch are large
        maps = F.interpolate(image.unsqueeze(0), size=sides, mode="bilinear", align_corners=True)[0, :, :height, :width]
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        # Enlarging a row that is the same everywhere leaves differences of rounding.
        found.append(maps > torch.where(high - low > 1e-6 * high, (low + high) / 2, torch.inf))
    return torch.stack(found)


@torch.no_grad()
def spread(labels: PseudoLabels, accepted: Tensor, regions: Tensor, threshold: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Let proposals that are sure and of one mind give their label to all of their pixels, one after the other.

    A proposal acts if at least ``threshold`` of its pixels are accepted and more than ``threshold`` of these have one label, where labels
    are those that earlier proposals left.

    Args:
        labels: pseudo-labels.
        accepted: bool (B, H, W), the filter F.
        regions: bool (B, R, H, W), the proposals.
        threshold: scalar.
        num_classes: K.

    Returns:
        Labels int64 (B, H, W), and the extended filter bool (B, H, W).
    """
    target, extended = labels.target, accepted
    # Products of ones and zeros are whole numbers that float32 holds, and counted many times faster than truth values.
    counted = torch.stack([accepted.flatten(1), torch.ones_like(accepted).flatten(1)], dim=2).float()
    sure, area = torch.stack([image.flatten(1).float() @ pixels for image, pixels in zip(regions, counted, strict=True)]).unbind(2)
    able = (sure > 0) & (sure / area >= threshold)
    # Those that may act come first: on a device this is the only thing to wait for, and most steps are soon done.
    order = able.int().argsort(dim=1, descending=True, stable=True)
    batch = torch.arange(len(order), device=order.device)
    classes = torch.arange(num_classes, device=order.device)[:, None, None]
    for place in range(int(able.sum(1).max()) if able.numel() else 0):
        chosen = order[:, place]
        region = regions[batch, chosen]
        votes = ((target.unsqueeze(1) == classes) & (region & accepted).unsqueeze(1)).sum((2, 3))
        most, label = votes.max(1)
        acts = able[batch, chosen] & (most / sure[batch, chosen] > threshold)
        written = region & acts[:, None, None]
        target = torch.where(written, label[:, None, None], target)
        extended = extended | written
    return target, extended


@torch.no_grad()
def surest(labels: PseudoLabels, num_classes: int) -> Tensor:
    """The greatest confidence of each class over valid pixels: float32 (K,), 0 for a class that no valid pixel is taken for."""
    confidence = torch.where(labels.valid, labels.confidence, 0).flatten()
    return confidence.new_zeros(num_classes).scatter_reduce_(0, labels.target.flatten(), confidence, "amax")
