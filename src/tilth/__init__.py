"""tilth turns a lot of imagery and few, noisy or no labels into a land-cover model and a map.

Everything here is also on the command line, under the same name and with the same options. Names are imported on first use, so
that ``import tilth`` loads neither torch nor rasterio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog
    from tilth.classes import ClassScheme, LandClass
    from tilth.errors import TilthError
    from tilth.models.config import NetworkConfig
    from tilth.models.segmenter import Segmenter, build_segmenter
    from tilth.recipes.run import demo, run
    from tilth.sensors import Sensor, get_sensor
    from tilth.verbs.assess import assess, sample
    from tilth.verbs.catalog import catalog_build, catalog_check, catalog_show, catalog_split
    from tilth.verbs.catalog_export import catalog_export
    from tilth.verbs.catalog_import import catalog_import
    from tilth.verbs.curate import curate
    from tilth.verbs.datasets import datasets_info, datasets_list, datasets_prepare
    from tilth.verbs.evaluate import compare, evaluate
    from tilth.verbs.export import export
    from tilth.verbs.features import features
    from tilth.verbs.inspect import inspect
    from tilth.verbs.label import label
    from tilth.verbs.landscapes import landscapes
    from tilth.verbs.models import models_info, models_list
    from tilth.verbs.pack import pack
    from tilth.verbs.polygons import polygons
    from tilth.verbs.predict import predict
    from tilth.verbs.report import report
    from tilth.verbs.train import finetune, pretrain
    from tilth.verbs.trust import trust
    from tilth.verbs.weights import import_weights

    __version__: str

# Name, then the module it lives in; verbs are the functions behind the command line.
_HOMES = {
    "Sensor": "tilth.sensors",
    "get_sensor": "tilth.sensors",
    "ClassScheme": "tilth.classes",
    "LandClass": "tilth.classes",
    "TilthError": "tilth.errors",
    "Catalog": "tilth.catalog.table",
    "Segmenter": "tilth.models.segmenter",
    "build_segmenter": "tilth.models.segmenter",
    "NetworkConfig": "tilth.models.config",
    "landscapes": "tilth.verbs.landscapes",
    "datasets_list": "tilth.verbs.datasets",
    "datasets_info": "tilth.verbs.datasets",
    "datasets_prepare": "tilth.verbs.datasets",
    "inspect": "tilth.verbs.inspect",
    "catalog_build": "tilth.verbs.catalog",
    "catalog_import": "tilth.verbs.catalog_import",
    "catalog_export": "tilth.verbs.catalog_export",
    "catalog_check": "tilth.verbs.catalog",
    "catalog_split": "tilth.verbs.catalog",
    "catalog_show": "tilth.verbs.catalog",
    "pack": "tilth.verbs.pack",
    "curate": "tilth.verbs.curate",
    "pretrain": "tilth.verbs.train",
    "finetune": "tilth.verbs.train",
    "label": "tilth.verbs.label",
    "trust": "tilth.verbs.trust",
    "models_list": "tilth.verbs.models",
    "models_info": "tilth.verbs.models",
    "import_weights": "tilth.verbs.weights",
    "export": "tilth.verbs.export",
    "evaluate": "tilth.verbs.evaluate",
    "compare": "tilth.verbs.evaluate",
    "features": "tilth.verbs.features",
    "predict": "tilth.verbs.predict",
    "polygons": "tilth.verbs.polygons",
    "sample": "tilth.verbs.assess",
    "assess": "tilth.verbs.assess",
    "report": "tilth.verbs.report",
    "run": "tilth.recipes.run",
    "demo": "tilth.recipes.run",
}

__all__ = [
    "Sensor",
    "get_sensor",
    "ClassScheme",
    "LandClass",
    "TilthError",
    "Catalog",
    "Segmenter",
    "build_segmenter",
    "NetworkConfig",
    "landscapes",
    "datasets_list",
    "datasets_info",
    "datasets_prepare",
    "inspect",
    "catalog_build",
    "catalog_import",
    "catalog_export",
    "catalog_check",
    "catalog_split",
    "catalog_show",
    "pack",
    "curate",
    "pretrain",
    "finetune",
    "label",
    "trust",
    "models_list",
    "models_info",
    "import_weights",
    "export",
    "evaluate",
    "compare",
    "features",
    "predict",
    "polygons",
    "sample",
    "assess",
    "report",
    "run",
    "demo",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("tilth")
    elif name == "models":
        found = importlib.import_module("tilth.models")  # so that tilth.models.create works without a second import
    elif name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'tilth' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
