"""How a network learns: one file a method, found by its name."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

_SHARED_PARTS = frozenset({"base", "counting", "losses"})

VARIANT_BY_VERB: Mapping[str, Mapping[str, str]] = {"ddpm": {"pretrain": "denoise", "finetune": "segment"}}
"""Methods whose variant, where none is asked for, goes by what is done. They may have usual options of their own, see
:attr:`tilth.methods.base.Method.defaults`."""


def method_names() -> tuple[str, ...]:
    """Names of the methods there are: the modules of this room that are not shared parts. Loads none of them."""
    return tuple(sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in _SHARED_PARTS))


def usual_options(name: str, verb: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Say what options a training has where nothing else is said; a method that is not listed above has none, and is not loaded.

    Args:
        name: of the method.
        verb: ``pretrain`` or ``finetune``.
        settings: as given; may ask for a variant.

    Raises:
        ConfigError: the method has no such variant.
    """
    if name not in VARIANT_BY_VERB:
        return {}
    from tilth.methods.base import choose_method

    variant = settings.get("variant") or VARIANT_BY_VERB[name].get(verb)
    method, _ = choose_method(name, {"variant": variant} if variant else {})
    return {"settings": {"variant": variant}, **method.defaults}
