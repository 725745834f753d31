"""``tilth inspect``: what is this folder?"""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.errors import OutputExistsError
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb


class InspectOptions(Config):
    """Options of ``tilth inspect``."""

    folder: Path = pydantic.Field(json_schema_extra={"positional": True}, description="folder to look at")
    out: Path | None = pydantic.Field(None, description="folder for a starter recipe and the files it needs")
    sensor: str | None = pydantic.Field(None, description="what took the images, if you know; otherwise one is proposed")
    facts: Path | None = pydantic.Field(None, description="JSON file for everything that was found")


@verb("inspect", InspectOptions)
def inspect(options: InspectOptions, console: Console) -> Result:
    """Say what a folder of imagery is and what its traps are; write a recipe."""
    from tilth.catalog.inspect.whole import inspect_folder
    from tilth.imagery.write import write_json, write_text

    # Before anything is looked at: a recipe that was worked on must not be lost.
    taken = (
        [options.out / name for name in ("recipe.yaml", "sensor.yaml", "classes.yaml") if (options.out / name).exists()]
        if options.out
        else []
    )
    if taken:
        raise OutputExistsError(f"{taken[0]}: is there already and may have been worked on; give another --out, or remove it")
    found = inspect_folder(options.folder, sensor=options.sensor, out=options.out, progress=console.status)
    console.close()
    outputs = {}
    if options.out is not None and found.starter is not None:
        _validate(found.starter.files["recipe.yaml"], options.out)
        # The recipe comes last: where it is, all that it needs is there.
        for name in sorted(found.starter.files, key=lambda name: name == "recipe.yaml"):
            outputs[name.removesuffix(".yaml")] = write_text(options.out / name, found.starter.files[name])
        outputs = dict(reversed(outputs.items()))
    if options.facts is not None:
        outputs["facts"] = write_json(options.facts, found.values)
    return Result(summary=found.lines, outputs=outputs, values=found.values)


def _validate(text: str, out: Path) -> None:
    """Check every stage of a recipe against the options of its verb."""
    import yaml

    from tilth.verbs.registry import load

    tree = yaml.safe_load(text)
    values = {**tree["values"], "out": str(out)}
    for stage in tree["stages"]:
        load(stage["verb"]).options.parse(_filled(stage["options"], values), source=f"stage {stage['name']!r} of the starter recipe")


def _filled(node: object, values: dict[str, object]) -> object:
    """Replace ``${name}`` as recipes do, as far as a starter uses it."""
    if isinstance(node, dict):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, values) for value in node]
    if isinstance(node, str):
        for name, value in values.items():
            if node == f"${{{name}}}":
                return value
            node = node.replace(f"${{{name}}}", str(value))
    return node
