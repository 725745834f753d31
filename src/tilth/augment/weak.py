"""The weak view: random resize, crop, flips and rotation, the same for image, label and validity (s5_pretrain.md section 4).

The loader draws a sample's geometry (:func:`plan_weak`) and reads only the source pixels that the crop needs; :func:`weak_view` then does
resize, crop, flips, turns and rotations of the whole batch at once on the training device.

Axis letters: B samples, C bands, h and w rows and columns as read, S side of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth.augment.config import WeakConfig
from tilth.augment.normalise import check_bands, fill_value, fill_where_invalid, known_whole
from tilth.augment.resample import Taps, linear_reach, linear_taps, nearest_sources, resample_linear, take_nearest
from tilth.augment.rotation import rotate
from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError
from tilth.imagery.read import Window
from tilth.sensors import Sensor

# Devices that resample one sample after the other, each by its own window and number of taps; others take a batch at once, which has
# to go through the most that one of its samples needs.
_ONE_BY_ONE = ("cpu",)


@dataclass(frozen=True)
class WeakDraw:
    """What chance decided for one sample: resize to (new_height, new_width), crop at (x, y), then flip, then turn, then rotate.

    Attributes:
        new_height: rows after the resize.
        new_width: columns after the resize.
        x: left column of the crop in the resized tile; right of the tile lies padding.
        y: upper row of the crop; below the tile lies padding.
        hflip: flip left and right.
        vflip: flip up and down.
        quarter_turns: counter-clockwise turns by 90 degrees, after the flips.
        degrees: counter-clockwise rotation about the centre of the crop, after the turns.
    """

    new_height: int
    new_width: int
    x: int
    y: int
    hflip: bool = False
    vflip: bool = False
    quarter_turns: int = 0
    degrees: float = 0.0


@dataclass(frozen=True)
class WeakGeometry:
    """All that :func:`weak_view` must know of one sample; plain numbers, so it passes through loader workers.

    Attributes:
        window: the source pixels that were read, in pixels of the tile.
        height: rows of the whole tile.
        width: columns of the whole tile.
        draw: what chance decided.
    """

    window: Window
    height: int
    width: int
    draw: WeakDraw


def draw_weak(generator: np.random.Generator, height: int, width: int, config: WeakConfig) -> WeakDraw:
    """Draw the geometry of a weak view.

    The long side L becomes a uniform integer of [int(0.5 L), int(2 L)], both included; the other side int(short * new / L + 0.5). The
    corner of the crop is uniform over all places inside the tile, which is padded on the right and bottom if it is smaller than the crop.

    Args:
        generator: source of the draws, in the order: long side, x, y, horizontal flip, vertical flip, turns,
            rotation and its angle.
        height: rows of the tile, at least 1.
        width: columns of the tile, at least 1.
        config: ranges and probabilities.

    Returns:
        The draw; sides are never less than 1.
    """
    long, short = max(height, width), min(height, width)
    low = max(int(config.scale_min * long), 1)
    new_long = int(generator.integers(low, max(int(config.scale_max * long), low) + 1))
    new_short = max(int(short * new_long / long + 0.5), 1)
    new_height, new_width = (new_long, new_short) if height > width else (new_short, new_long)
    x = int(generator.integers(0, max(new_width - config.size, 0) + 1))
    y = int(generator.integers(0, max(new_height - config.size, 0) + 1))
    hflip = bool(generator.random() < config.horizontal_flip)
    vflip = bool(generator.random() < config.vertical_flip)
    turns = int(generator.integers(0, 4)) if config.rot90 else 0
    rotated = config.rotation > 0 and generator.random() < config.rotation
    degrees = float(generator.uniform(-config.rotation_degrees, config.rotation_degrees)) if rotated else 0.0
    return WeakDraw(new_height, new_width, x, y, hflip, vflip, turns, degrees)


def source_window(draw: WeakDraw, height: int, width: int, size: int) -> Window:
    """Find the pixels of the tile that can influence the crop.

    Args:
        draw: geometry of the sample.
        height: rows of the tile.
        width: columns of the tile.
        size: side S of the crop.

    Returns:
        The smallest rectangle that holds every pixel with a weight, at least 1 x 1.
    """
    lengths, new_lengths = np.array([[width], [height]]), np.array([[draw.new_width], [draw.new_height]])
    starts = np.array([[draw.x], [draw.y]])
    first, end = linear_reach(lengths, new_lengths, np.concatenate([starts, np.minimum(starts + size, new_lengths) - 1], 1))
    (column, row), (right, below) = first.min(axis=1).tolist(), end.max(axis=1).tolist()
    return Window(column, row, right - column, below - row)


def plan_weak(generator: np.random.Generator, height: int, width: int, config: WeakConfig) -> WeakGeometry:
    """Draw a sample's geometry and say which window of the tile to read for it; see :func:`draw_weak` and :func:`source_window`."""
    draw = draw_weak(generator, height, width, config)
    return WeakGeometry(source_window(draw, height, width, config.size), height, width, draw)


@torch.no_grad()
def weak_view(
    stored: Tensor, mask: Tensor | None, valid: Tensor, geometry: Sequence[WeakGeometry], size: int, sensor: Sensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Resize, crop, flip, turn and rotate a batch, each sample by its own geometry.

    Images are resampled as Pillow's antialiased bilinear filter does, along the columns first; uint8 input is rounded to whole numbers
    after each of the two passes and equals Pillow bit for bit. (Pillow 13 takes the rows first for some tall tiles, which differs by 1 in
    some pixels.) Labels and validity take the nearest pixel by Pillow's rule. A rotation interpolates the crop bilinearly, without
    rounding, and mirrors it at its border.

    Args:
        stored: (B, C, h, w), any numeric dtype, storage units. Sample i holds its ``geometry[i].window`` in the upper left; what lies
            beyond that window is never used.
        mask: integer (B, h, w), class ids, 255 = ignore; or (B, L, h, w), several such maps; None if no sample has a label.
        valid: bool (B, h, w), False where nodata. Such pixels, and NaN or infinite values, count as the sensor's fill value when resampled.
        geometry: one a sample.
        size: side S of the crop in pixels.
        sensor: whose bands, for the fill value.

    Returns:
        image: float32 (B, C, S, S), storage units, the fill value where not valid.
        mask: int64 (B, S, S) or (B, L, S, S), 255 in padding, where not valid, and everywhere if there is no mask.
        valid: bool (B, S, S), False in padding and where the nearest source pixel is invalid.

    Raises:
        SensorMismatchError: the number of bands is not the sensor's.
        DataError: shapes do not belong together, or a window is larger than what was read.
    """
    check_bands(stored, sensor)
    _check_shapes(stored, mask, valid, geometry)
    fill = fill_value(sensor).to(stored.device).view(-1, 1, 1)
    columns = _Axes.of(size, [(g.width, g.draw.new_width, g.draw.x, g.window.column, g.window.width, _flips(g.draw)[0]) for g in geometry])
    rows = _Axes.of(size, [(g.height, g.draw.new_height, g.draw.y, g.window.row, g.window.height, _flips(g.draw)[1]) for g in geometry])

    # What a CPU finds out in no time spares it most of the work: tiles without holes, and tiles without labels.
    whole = all(known_whole(part[: g.window.height, : g.window.width]) for part, g in zip(valid, geometry, strict=True))
    image = _resample(_fill_invalid(stored, None if whole else valid, fill), geometry, columns.taps, rows.taps)
    nearest_rows, nearest_columns, rows_inside, columns_inside = (
        torch.from_numpy(one).to(stored.device) for one in (rows.nearest, columns.nearest, rows.inside, columns.inside)
    )
    valid_out = rows_inside.unsqueeze(2) & columns_inside.unsqueeze(1)
    if not whole:
        valid_out &= take_nearest(valid, nearest_rows, nearest_columns)
    if mask is None or _known_unlabelled(mask):
        shape = (*(valid if mask is None else mask).shape[:-2], size, size)
        mask_out = torch.full(shape, IGNORE_INDEX, dtype=torch.int64, device=stored.device)
    else:
        mask_out = _take_labels(mask, nearest_rows, nearest_columns)
        mask_out.masked_fill_(~valid_out if mask.ndim == 3 else ~valid_out.unsqueeze(1), IGNORE_INDEX)
    fill_where_invalid(image, valid_out, fill)

    odd = [sample for sample, g in enumerate(geometry) if g.draw.quarter_turns % 2]
    if odd:
        for tensor in (image, mask_out, valid_out):
            tensor[odd] = tensor[odd].transpose(-1, -2)
    turned = [sample for sample, g in enumerate(geometry) if g.draw.degrees]
    if turned:
        labels = mask_out[turned].view(len(turned), -1, size, size)
        maps = torch.cat([labels, valid_out[turned].unsqueeze(1).to(labels.dtype)], 1)
        image[turned], maps = rotate(image[turned], maps, [geometry[sample].draw.degrees for sample in turned])
        mask_out[turned] = maps[:, :-1].reshape(mask_out[turned].shape)
        valid_out[turned] = maps[:, -1].to(torch.bool)
        fill_where_invalid(image, valid_out, fill)
    return image, mask_out, valid_out


@dataclass(frozen=True)
class _Axes:
    """Where the S outputs of one axis of B samples come from, counted from the first pixel that was read.

    ``nearest`` and ``inside`` are (B, S). ``inside`` is False for outputs in padding; these have no taps and any source.
    """

    taps: Taps
    nearest: NDArray[np.int64]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, size: int, spans: Sequence[tuple[int, ...]]) -> _Axes:
        """Work them out from length, resized length, place of the crop, first pixel and number of pixels read, and flip of each sample."""
        length, new_length, start, first, count, flip = np.array(spans).T[..., None]
        places = np.arange(size)
        outputs = start + np.where(flip, places[::-1], places)
        inside = outputs < new_length
        held = np.minimum(outputs, new_length - 1)
        taps = linear_taps(length, new_length, held)
        # Taps beyond what was read have no weight: source_window holds every pixel that has one.
        sources = (taps.sources - first).clip(0, count - 1)
        nearest = (nearest_sources(length, new_length, held) - first).clip(0, count - 1)
        return cls(Taps(sources, taps.weights * inside), nearest, inside)


def _flips(draw: WeakDraw) -> tuple[bool, bool]:
    """Left-right and up-down flips which, before the transposition of odd turns, give the draw's flips and turns."""
    turns = draw.quarter_turns % 4
    return draw.hflip ^ (turns in (1, 2)), draw.vflip ^ (turns in (2, 3))


def _resample(source: Tensor, geometry: Sequence[WeakGeometry], columns: Taps, rows: Taps) -> Tensor:
    """Resample a batch: float32 (B, C, S, S)."""
    if source.dtype == torch.uint8:
        columns, rows = columns.fixed(), rows.fixed()
    if source.device.type not in _ONE_BY_ONE:
        return resample_linear(source, columns, rows)
    image = torch.empty(*source.shape[:2], rows.sources.shape[2], columns.sources.shape[2])
    for sample, g in enumerate(geometry):
        one = slice(sample, sample + 1)
        resample_linear(source[one, :, : g.window.height, : g.window.width], columns.of(sample), rows.of(sample), image[one])
    return image


def _take_labels(mask: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pick the nearest pixels of (B, h, w) or (B, L, h, w): int64 of the same axes."""
    if mask.ndim == 3:
        return take_nearest(mask, rows, columns).to(torch.int64)
    count = mask.shape[1]
    taken = take_nearest(mask.flatten(0, 1), rows.repeat_interleave(count, 0), columns.repeat_interleave(count, 0))
    return taken.view(-1, count, *taken.shape[1:]).to(torch.int64)


def _known_unlabelled(mask: Tensor) -> bool:
    """Whether no pixel has a label, where looking is cheap."""
    return mask.device.type == "cpu" and mask.dtype == torch.uint8 and int(mask.numpy().min(initial=IGNORE_INDEX)) == IGNORE_INDEX


def _fill_invalid(stored: Tensor, valid: Tensor | None, fill: Tensor) -> Tensor:
    """Replace invalid (none if ``valid`` is None) and non-finite values; keeps uint8, makes everything else float32."""
    usable = None if valid is None else valid.unsqueeze(1)
    if stored.dtype == torch.uint8:
        return stored if usable is None else torch.where(usable, stored, fill.round().clamp(0, 255).to(torch.uint8))
    source = stored.to(torch.float32)
    if stored.is_floating_point():
        finite = torch.isfinite(source)
        usable = finite if usable is None else usable & finite
    return source if usable is None else torch.where(usable, source, fill)


def _check_shapes(stored: Tensor, mask: Tensor | None, valid: Tensor, geometry: Sequence[WeakGeometry]) -> None:
    samples, _, height, width = stored.shape
    for name, tensor, axes in (("valid", valid, 3), ("mask", mask, 4)):
        if tensor is not None and (tensor.shape[:1] + tensor.shape[-2:] != (samples, height, width) or tensor.ndim > axes):
            raise DataError(f"{name} has shape {tuple(tensor.shape)}, the image {tuple(stored.shape)}; expected {(samples, height, width)}")
    if len(geometry) != samples:
        raise DataError(f"{len(geometry)} geometries for {samples} samples; give one a sample")
    for number, g in enumerate(geometry):
        if g.window.height > height or g.window.width > width:
            raise DataError(
                f"sample {number}: a window of {g.window.height} x {g.window.width} pixels, but {height} x {width} were given;"
                " read the whole window"
            )
