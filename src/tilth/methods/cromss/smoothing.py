"""Labels that know their neighbourhood and the other seasons of their place (cromss.md sections 4.6 and 5).

Whole batches are filtered at once where training runs; the loader does none of it. Shapes: B images, T seasons, K classes, H x W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tilth.classes import IGNORE_INDEX
from tilth.methods.cromss.confidence import labelled_pixels

PriorKind = Literal["ts", "t", "s"]

_TRUNCATE = 4.0
"""Standard deviations after which the filter ends."""

_SHORTEST = 24
"""Outputs of a stretch that is filtered at once."""

_MOST = 255
"""What a byte counts to."""

_TINY = 1e-30
"""Added to every class: nothing beside any label, and an equal share for all where there is none."""


@torch.no_grad()
def label_prior(label: Tensor, seasons: Tensor | None, classes: int, kind: PriorKind, sigma: float = 3.0) -> Tensor:
    """Compute how probable each class is at each pixel, from the labels around it and those of other seasons.

    One-hot maps are averaged (``s``: of this season alone; ``t``: of all seasons; ``ts``: half and half), each class is filtered with a
    Gaussian, and what results is divided by its sum. Filtering is linear, so that averaging before it changes nothing and one filter a
    class is enough.

    Args:
        label: int64 (B, H, W), the season that is learnt; all that is no class is ignored.
        seasons: int64 (B, T, H, W), all seasons of the place, this one among them; None for this one alone, when all kinds are the same.
        classes: K.
        kind: ``ts``, ``t`` or ``s``.
        sigma: standard deviation of the filter in pixels; it ends after four of them, and mirrors the image at its border, edge repeated.

    Returns:
        float32 (B, K, H, W), sums to 1. Ignored pixels lend nothing to their neighbours; where no label is near, all classes are equal.
    """
    batch, height, width = label.shape
    found = torch.empty(batch, classes, height, width, device=label.device)
    # On a CPU image by image, in the same memory again and again, which stays in the processor's cache.
    count = 1 if label.device.type == "cpu" else max(batch, 1)
    planes, across = (torch.empty(count, height, classes, width, device=label.device) for _ in range(2))
    for start in range(0, batch, count):
        part = slice(start, start + count)
        _fill_evidence(planes, label[part], None if seasons is None else seasons[part], kind)
        _gaussian(planes, across, sigma)
        planes.add_(_TINY)
        torch.div(planes, planes.sum(2, keepdim=True), out=across)
        found[part] = across.transpose(1, 2)
    return found


@torch.no_grad()
def soft_labels(label: Tensor, prior: Tensor | None, classes: int, prior_share: float = 0.0, uniform_share: float = 0.0) -> Tensor:
    """Mix labels with the prior and with the uniform distribution: (1 - a - b) Z + a M + b / K.

    Args:
        label: int64 (B, H, W); all that is no class is ignored.
        prior: float32 (B, K, H, W), M; needed if its share is not 0.
        classes: K.
        prior_share: a.
        uniform_share: b.

    Returns:
        float32 (B, K, H, W), sums to 1 over classes, or is all 0 where the pixel is ignored.
    """
    known = labelled_pixels(label, classes).unsqueeze(1)
    if prior_share:
        assert prior is not None, "a share of a prior needs one"
        soft = prior * prior_share
    else:
        soft = torch.zeros(label.shape[0], classes, *label.shape[1:], device=label.device)
    if uniform_share:
        soft += uniform_share / classes
    hard = torch.full_like(soft[:, :1], 1 - prior_share - uniform_share)
    return soft.scatter_add_(1, torch.where(known, label.unsqueeze(1), 0), hard).mul_(known.to(soft.dtype))


def _fill_evidence(planes: Tensor, label: Tensor, seasons: Tensor | None, kind: PriorKind) -> None:
    """Put the mean of one-hot maps over the seasons that have a label, this season alone, or half of both into float32 (B, H, K, W).

    Counted in bytes where these hold it, since memory is what this costs.
    """
    classes = planes.shape[2]
    own = _one_hot(_as_bytes(label, classes), classes)
    if seasons is None or kind == "s":
        planes.copy_(own)
        return
    maps = _as_bytes(seasons, classes)
    number = torch.uint8 if 2 * maps.shape[1] <= _MOST else torch.int32
    known = maps.clone().ne_(IGNORE_INDEX).sum(1, dtype=number).clamp(min=1).unsqueeze(2)
    counts = _one_hot(maps[:, 0], classes).to(number)
    for season in range(1, maps.shape[1]):
        counts += _one_hot(maps[:, season], classes)
    if kind == "ts":
        # As often again as there are seasons: half of the whole.
        counts += own * known
    torch.mul(counts, 1 / known, out=planes)


def _as_bytes(maps: Tensor, classes: int) -> Tensor:
    maps = maps.to(torch.int32)
    return torch.where(labelled_pixels(maps, classes), maps, IGNORE_INDEX).to(torch.uint8)


def _one_hot(maps: Tensor, classes: int) -> Tensor:
    """uint8 (B, H, W) -> uint8 (B, H, K, W); compared in place, which is ten times as fast as with a result of another type."""
    ids = torch.arange(classes, dtype=torch.uint8, device=maps.device).unsqueeze(1)
    return maps.unsqueeze(2).expand(-1, -1, classes, -1).clone(memory_format=torch.contiguous_format).eq_(ids)


def _gaussian(planes: Tensor, across: Tensor, sigma: float) -> None:
    """Filter (B, H, K, W) along height and width, in place; ``across`` is memory of the same size.

    Each stretch of outputs is a product of a small matrix with the inputs that it depends on: several times faster than a convolution with
    a kernel so long. Classes lie between the axes, so that both products are of few large matrices.
    """
    if sigma == 0:
        return
    batch, height, classes, width = planes.shape
    radius = int(_TRUNCATE * sigma + 0.5)
    # In full precision: the planes are probabilities that must be right to 1e-5.
    with torch.autocast(device_type=planes.device.type, enabled=False):
        rows, columns = (_filter_matrix(size, sigma, radius, planes.device) for size in (height, width))
        flat, filtered = planes.view(-1, width), across.view(-1, width)
        for target, source in _stretches(width, radius):
            filtered[:, target] = flat[:, source] @ columns[target, source].T
        high, down = (values.view(batch, height, classes * width) for values in (across, planes))
        for target, source in _stretches(height, radius):
            down[:, target] = rows[target, source] @ high[:, source]


def _stretches(size: int, radius: int) -> list[tuple[slice, slice]]:
    """Cut an axis into stretches; returns outputs and the inputs that they depend on."""
    length = -(-size // -(-size // max(2 * radius, _SHORTEST)))  # all about as long
    return [
        (slice(start, min(start + length, size)), slice(max(start - radius, 0), min(start + length + radius, size)))
        for start in range(0, size, length)
    ]


def _filter_matrix(size: int, sigma: float, radius: int, device: torch.device) -> Tensor:
    """Matrix (size, size) that filters one axis."""
    steps = torch.arange(-radius, radius + 1, device=device)
    taps = torch.exp(-(steps.double() ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).float()
    # d c b a | a b c d | d c b a: the mirrored line repeats after twice its length.
    sources = (torch.arange(size, device=device).unsqueeze(1) + steps) % (2 * size)
    sources = torch.where(sources >= size, 2 * size - 1 - sources, sources)
    return torch.zeros(size, size, device=device).scatter_add_(1, sources, taps.expand(size, -1).contiguous())
