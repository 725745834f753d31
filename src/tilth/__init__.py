"""tilth turns a lot of imagery and few, noisy or no labels into a land-cover model and a map.

Everything here is also on the command line, under the same name and with the same options. Names are imported on first use, so
that ``import tilth`` loads neither torch nor rasterio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilth.classes import ClassScheme, LandClass
    from tilth.errors import TilthError
    from tilth.sensors import Sensor, get_sensor

    __version__: str

# Name, then the module it lives in; verbs are the functions behind the command line.
_HOMES = {
    "Sensor": "tilth.sensors",
    "get_sensor": "tilth.sensors",
    "ClassScheme": "tilth.classes",
    "LandClass": "tilth.classes",
    "TilthError": "tilth.errors",
}

__all__ = [
    "Sensor",
    "get_sensor",
    "ClassScheme",
    "LandClass",
    "TilthError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("tilth")
    elif name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'tilth' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
