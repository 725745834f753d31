"""``tilth landscapes``: embedded synthetic scenes with exact and noisy labels."""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.imagery.landscape.config import ScenesConfig
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb


class LandscapesOptions(ScenesConfig):
    """Options of ``tilth landscapes``."""

    out: Path = pydantic.Field(json_schema_extra={"positional": True}, description="folder to write scenes, labels and classes.json into")


@verb("landscapes", LandscapesOptions)
def landscapes(options: LandscapesOptions, _console: Console) -> Result:
    """Write synthetic georeferenced scenes with exact and, if wanted, noisy labels."""
    from tilth.imagery.landscape.scenes import write_scenes

    paths = write_scenes(options.out, options)
    return Result(
        summary=(f"{len(paths)} scene{'s' * (len(paths) != 1)}",),
        outputs={"folder": options.out},
        values={"scenes": [str(path) for path in paths]},
    )
