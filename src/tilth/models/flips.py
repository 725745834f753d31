"""Views of an image for prediction: mirrored, turned, and back."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class View(NamedTuple):
    """One of the eight ways to lay a square onto itself.

    Attributes:
        transposed: rows and columns are exchanged, first.
        mirrored: axes that are then reversed: -1 left to right, -2 top to bottom.
    """

    transposed: bool = False
    mirrored: tuple[int, ...] = ()


_MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))

FLIPS: dict[str, tuple[View, ...]] = {
    "none": (View(),),
    "horizontal": tuple(View(False, axes) for axes in _MIRRORS[:2]),
    "both": tuple(View(False, axes) for axes in _MIRRORS),
    "all": tuple(View(transposed, axes) for transposed in (False, True) for axes in _MIRRORS),
}
"""Views by name: the image itself; and its mirror image; mirrored along either or both axes; all eight with quarter turns."""


def look(image: Tensor, view: View) -> Tensor:
    """Lay images (..., w, w) as a view wants them."""
    turned = image.transpose(-2, -1) if view.transposed else image
    return turned.flip(view.mirrored) if view.mirrored else turned


def look_back(image: Tensor, view: View) -> Tensor:
    """Undo :func:`look`."""
    turned = image.flip(view.mirrored) if view.mirrored else image
    return turned.transpose(-2, -1) if view.transposed else turned
