"""How large windows are in the pixels of each image, by pixels or by metres on the ground."""

from __future__ import annotations

from collections.abc import Sequence

from tilth.catalog.config import BuildConfig
from tilth.errors import DataError
from tilth.imagery.area import pixel_size_m
from tilth.imagery.read import RasterInfo

_OBLONG = 1.5
"""Pixels whose sides differ by more on the ground are refused: a square of pixels would be no square of ground. In degrees, this is
latitude 48."""


def window_sizes(infos: Sequence[RasterInfo], config: BuildConfig) -> list[tuple[int, int] | None]:
    """Say how large the windows of each image are.

    Metres are measured in the middle of an image, whatever its projection does to them. Where pixels are not quite square on the
    ground, the window has the area asked for.

    Returns:
        Side and step in pixels; None takes an image whole.

    Raises:
        DataError: windows in metres for an image that has no place on the Earth, whose pixels are far from square on the ground, or
            are larger than a window.
    """
    if config.window_px is not None:
        return [(config.window_px, config.stride_px or config.window_px)] * len(infos)
    if config.window_m is None:
        return [None] * len(infos)
    return [_in_pixels(info, config.window_m, config.stride_m or config.window_m) for info in infos]


def _in_pixels(info: RasterInfo, window_m: float, stride_m: float) -> tuple[int, int]:
    size = None if info.crs is None or info.transform is None else pixel_size_m(info.width, info.height, info.crs, info.transform)
    if size is None:
        raise DataError(f"{info.uri}: has no place on the Earth, so windows in metres cannot be cut; use window_px")
    width, height = size
    if max(width, height) > _OBLONG * min(width, height):
        raise DataError(
            f"{info.uri}: pixels are {width:.3g} x {height:.3g} m on the ground, too far from square for windows in metres; "
            "warp the image to a CRS in metres, or use window_px"
        )
    side_m = (width * height) ** 0.5
    side, step = round(window_m / side_m), round(stride_m / side_m)
    if side < 1 or step < 1:
        raise DataError(f"{info.uri}: pixels are {side_m:.3g} m on the ground, more than a window or step of {min(window_m, stride_m):g} m")
    return side, step
