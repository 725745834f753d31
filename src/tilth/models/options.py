"""What may be said about a network by name: numbers that count something, and options of the kinds that its builder names."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tilth.errors import ConfigError
from tilth.models.named import Named

_FROM_ZERO = ("taps", "groups", "times", "noise_seed")
"""Options that are positions, not numbers of something."""

_ANY_SIGN = ("ranges",)
"""Options that may be below 0."""

_ABOVE_ZERO = ("epsilon", "embed_scale")
"""Options that nothing can be computed with where they are 0."""


def check_sizes(name: str, named: Named, in_channels: Any, num_classes: Any, image_size: Any) -> None:
    """Check what every network is built with.

    Args:
        name: of the network, for messages.
        named: what the name stands for.
        in_channels: bands; fusion networks take one number for each modality, all others a single one.
        num_classes: classes.
        image_size: side in pixels.

    Raises:
        ConfigError: one of them is no number from 1, or the bands are not as many numbers as the network has modalities.
    """
    if named.kind == "fusion":
        counts = in_channels if isinstance(in_channels, list | tuple) else ()
        if len(counts) != 2 or not all(_counts(count) for count in counts):
            raise ConfigError(f"in_channels={in_channels!r}: {name} takes one band count for S1 and one for S2, such as (2, 13)")
    elif not _counts(in_channels):
        raise ConfigError(f"in_channels={in_channels!r}: {name} takes one image; give its bands, a whole number from 1, such as 3")
    if not _counts(num_classes):
        raise ConfigError(f"num_classes={num_classes!r}: expected a whole number from 1")
    if not _counts(image_size):
        raise ConfigError(f"image_size={image_size!r}: expected the side of an image in pixels, a whole number from 1, such as 512")


def check_options(name: str, builder: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check numbers among options by the annotations of the function that takes them. Which words there are it knows best itself.

    Args:
        name: of the network, for messages.
        builder: takes the options.
        options: as given, all known to the builder.

    Raises:
        ConfigError: another kind of value than annotated, or a number that counts nothing.
    """
    hints = typing.get_type_hints(builder)
    for option, value in options.items():
        wanted = _wanted(option, value, hints[option])
        if wanted is not None:
            raise ConfigError(f"{name}: {option}={value!r}: expected {wanted}")


def _counts(value: Any) -> bool:
    return type(value) is int and value >= 1  # True is an int to Python


def _wanted(option: str, value: Any, hint: Any) -> str | None:
    """Say what was expected where a value does not fit its annotation."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in inside:
            return None
        answers = [_wanted(option, value, part) for part in inside if part is not types.NoneType]
        return None if None in answers else answers[0]
    if origin is Sequence:
        if not isinstance(value, list | tuple):
            return "a list"
        return next((wanted for item in value if (wanted := _wanted(option, item, inside[0])) is not None), None)
    if origin is Mapping:
        return None if isinstance(value, Mapping) else "names with values"
    return _wanted_single(option, value, hint)


def _wanted_single(option: str, value: Any, hint: Any) -> str | None:
    if hint is bool:
        return None if isinstance(value, bool) else "true or false"
    if hint is int:
        least = 0 if option in _FROM_ZERO else 1
        return None if type(value) is int and value >= least else f"a whole number from {least}"
    if hint is float:
        above = option in _ABOVE_ZERO
        fits = type(value) in (int, float) and math.isfinite(value)
        if option in _ANY_SIGN:
            return None if fits else "a number"
        return None if fits and (value > 0 if above else value >= 0) else f"a number {'above' if above else 'from'} 0"
    return None if isinstance(value, str) else "a word"
