"""Maps of one crop as one row of bytes, in 16 bits or 8 a value, with its labels; ddpm.md section 13.

A row holds, one behind the other: all numbers of 16 bits (the maps themselves, or the scales of 8-bit ones), the 8-bit maps, labels, one
bit a pixel of what is valid, whether the tile could be read, and a checksum of all before. All maps of a crop lie together, so a sample is
one read; and the row goes to the training device as it is, where it becomes numbers again.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tilth.classes import IGNORE_INDEX
from tilth.errors import DataError
from tilth.models.diffusion.segmentation import DiffusionSegmentor
from tilth.models.diffusion.segmentor import TARGET

DTYPES = ("fp16", "int8")

BLOCK = 256
"""Values of one channel, neighbours in a map, that share a scale in int8."""

LARGEST = {"fp16": 6e4, "int8": 7.6e6}
"""Values beyond are refused: fp16 ends at 65504, and so do the scales of 127 steps of int8."""

_TAIL = 8
_READABLE, _UNREADABLE = 0, 1
_STEPS = 127


class KeptMap(NamedTuple):
    """One level as it is kept.

    Attributes:
        channels: of all noise levels together.
        height: rows kept.
        width: columns kept.
        enlarge: rows of the map that the head takes, over rows kept: more than 1 where the head averages it first anyway.
    """

    channels: int
    height: int
    width: int
    enlarge: int

    @property
    def blocks(self) -> int:
        """Blocks of a channel; the last may be shorter."""
        return -(-self.height * self.width // BLOCK)

    @property
    def values(self) -> int:
        """Numbers in it."""
        return self.channels * self.height * self.width


class Row(NamedTuple):
    """What :meth:`RowLayout.unpack` gives: maps float32 (B, c, h, w), finest first; mask int64 (B, S, S), 255 = ignore; valid bool."""

    maps: list[Tensor]
    mask: Tensor
    valid: Tensor


@dataclass(frozen=True)
class RowLayout:
    """Where what lies in a row.

    Attributes:
        maps: levels, finest first.
        dtype: ``fp16`` or ``int8``.
        side: S of the crop in pixels, which labels have.

    Example:
        >>> layout = RowLayout((KeptMap(2, 4, 4, 1),), "int8", 8)
        >>> maps, mask = [torch.linspace(-1, 1, 32).reshape(2, 4, 4)], torch.zeros(8, 8, dtype=torch.int64)
        >>> row = layout.pack(maps, mask, mask == 0)
        >>> found = layout.unpack(torch.from_numpy(row)[None])
        >>> len(row) == layout.row_bytes, float((found.maps[0][0] - maps[0]).abs().max()) < 0.01
        (True, True)
    """

    maps: tuple[KeptMap, ...]
    dtype: str
    side: int

    @classmethod
    def of(cls, network: DiffusionSegmentor, side: int, dtype: str) -> RowLayout:
        """Find what a network makes of a crop of ``side`` pixels; nothing is computed."""
        encoder = network.encoder
        padded = side + -side % network.divisor
        averages = bool(getattr(network.decoder, "pool_before", False))
        kept = []
        for width, stride in zip(encoder.widths, encoder.strides, strict=True):
            enlarge = TARGET // stride if averages and stride < TARGET else 1
            kept.append(KeptMap(width, padded // stride // enlarge, padded // stride // enlarge, enlarge))
        return cls(tuple(kept), dtype, side)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, a multiple of 8."""
        return self._places[-1][1]

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """First byte and the one behind the last of 16-bit parts, 8-bit parts, labels, valid bits, tail."""
        wide = [2 * (item.values if self.dtype == "fp16" else item.channels * item.blocks) for item in self.maps]
        narrow = [item.values for item in self.maps] if self.dtype == "int8" else []
        sizes = [*wide, *narrow, self.side**2, -(-(self.side**2) // 8)]
        ends = np.cumsum(sizes).tolist()
        last = ends[-1] + -ends[-1] % 8
        return [*zip([0, *ends[:-1]], ends, strict=True), (last, last + _TAIL)]

    def pack(self, maps: Sequence[Tensor], mask: Tensor, valid: Tensor) -> NDArray[np.uint8]:
        """Make the row of one crop.

        Args:
            maps: float (c, h, w), finest first, as the encoder gives them.
            mask: int64 (S, S), 255 = ignore.
            valid: bool (S, S).

        Returns:
            uint8 (row_bytes,), on the CPU.

        Raises:
            DataError: values that are not finite, or too large.
        """
        wide, narrow = [], []
        for found, kept in zip(maps, self.maps, strict=True):
            values = found.float()
            if kept.enlarge > 1:
                values = F.interpolate(values[None], size=(kept.height, kept.width), mode="bilinear", align_corners=False)[0]
            self._check(values)
            if self.dtype == "fp16":
                wide.append(values.half())
            else:
                scales, steps = _in_steps(values.reshape(kept.channels, -1), kept.blocks)
                wide.append(scales)
                narrow.append(steps)
        parts = [_bytes_of(part) for part in (*wide, *narrow, mask.to(torch.uint8))]
        return self._row([*parts, np.packbits(valid.cpu().numpy().reshape(-1))], _READABLE)

    def unreadable(self) -> NDArray[np.uint8]:
        """Make the row of a crop whose tile cannot be read."""
        return self._row([], _UNREADABLE)

    def unpack(self, rows: Tensor) -> Row:
        """Turn rows uint8 (B, row_bytes) into numbers, on their device."""
        batch, count = len(rows), len(self.maps)
        parts = [rows[:, start:stop] for start, stop in self._places]
        maps = []
        for place, kept in enumerate(self.maps):
            wide = parts[place].view(torch.float16)
            if self.dtype == "fp16":
                values = wide.float()
            else:
                steps = parts[count + place].view(torch.int8)
                values = _from_steps(steps.view(batch, kept.channels, -1), wide.view(batch, kept.channels, -1))
            values = values.view(batch, kept.channels, kept.height, kept.width)
            # What the head averages again is the same number everywhere in its square, so nothing is lost on the way.
            maps.append(F.interpolate(values, scale_factor=float(kept.enlarge)) if kept.enlarge > 1 else values)
        labels, bits, _ = parts[-3:]
        shifts = torch.arange(7, -1, -1, device=rows.device, dtype=torch.uint8)
        valid = ((bits.unsqueeze(-1) >> shifts) & 1).flatten(1)[:, : self.side**2].bool()
        shape = (batch, self.side, self.side)
        return Row(maps, labels.reshape(shape).to(torch.int64), valid.reshape(shape))

    def whole(self, row: NDArray[np.uint8]) -> bool:
        """Whether a row is one that was written to its end."""
        return len(row) == self.row_bytes and row[-4:].tobytes() == _checksum(row[:-4])

    def readable(self, row: NDArray[np.uint8]) -> bool:
        """Whether the tile of a row could be read."""
        return bool(row[-_TAIL] == _READABLE)

    def _check(self, values: Tensor) -> None:
        most = float(values.abs().max())
        if not np.isfinite(most):
            raise DataError("features are not finite; the noise predictor's weights or the imagery are damaged")
        if most >= (largest := LARGEST[self.dtype]):
            other = "set settings.cache_dtype=int8" if most < LARGEST["int8"] else "set settings.cache=online"
            raise DataError(f"features up to {most:g} do not fit into {self.dtype}, which ends at {largest:g}; {other}")

    def _row(self, parts: Sequence[NDArray[np.uint8]], status: int) -> NDArray[np.uint8]:
        row = np.zeros(self.row_bytes, np.uint8)
        for (start, stop), part in zip(self._places, parts, strict=False):
            row[start:stop] = part
        if status == _UNREADABLE:
            start, stop = self._places[-3]
            row[start:stop] = IGNORE_INDEX
        row[-_TAIL] = status
        row[-4:] = np.frombuffer(_checksum(row[:-4]), np.uint8)
        return row


def _in_steps(values: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Scales float16 (c, blocks) and steps int8 (c, n) of values float32 (c, n)."""
    channels, count = values.shape
    cut = F.pad(values, (0, blocks * BLOCK - count)).view(channels, blocks, BLOCK)
    scales = (cut.abs().amax(-1) / _STEPS).half()
    divisor = scales.float().unsqueeze(-1)
    # Blocks of nothing, or of less than 16 bits can say, become zeros.
    steps = torch.where(divisor > 0, cut / divisor, 0.0).round_().clamp_(-_STEPS, _STEPS)
    return scales, steps.to(torch.int8).flatten(1)[:, :count]


def _from_steps(steps: Tensor, scales: Tensor) -> Tensor:
    """Turn steps int8 (B, c, n) with scales float16 (B, c, blocks) into float32 (B, c, n)."""
    count, blocks = steps.shape[-1], scales.shape[-1]
    if count == blocks * BLOCK:
        return (steps.view(*scales.shape, BLOCK) * scales.float().unsqueeze(-1)).flatten(2)
    return steps * scales.float().repeat_interleave(BLOCK, -1)[..., :count]


def _bytes_of(part: Tensor) -> NDArray[np.uint8]:
    return cast("NDArray[np.uint8]", part.contiguous().cpu().numpy().view(np.uint8).reshape(-1))


def _checksum(content: NDArray[np.uint8]) -> bytes:
    return zlib.crc32(content.data).to_bytes(4, "little")
