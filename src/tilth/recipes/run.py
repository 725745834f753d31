"""``tilth run`` and ``tilth demo``: stages in order, finished ones skipped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic

from tilth.config import Config
from tilth.errors import ConfigError, TilthError, suggest
from tilth.recipes.config import RecipeConfig, StageConfig, expand
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, Verb, load, targets, verb


class RunOptions(Config):
    """Options of ``tilth run``."""

    recipe: str = pydantic.Field(json_schema_extra={"positional": True}, description="YAML file, or the name of a shipped recipe")
    out: Path = pydantic.Field(description="folder for everything the recipe makes")
    values: dict[str, Any] = pydantic.Field(default_factory=dict, description="values of the recipe, such as values.data=FOLDER")
    dry_run: bool = pydantic.Field(False, description="only list the stages, and which of them are finished")


class DemoOptions(Config):
    """Options of ``tilth demo``."""

    out: Path = pydantic.Field(Path("demo-output"), description="folder for everything the demo makes")
    values: dict[str, Any] = pydantic.Field(default_factory=dict, description="values of the demo's recipe, such as values.steps=100")


@verb("run", RunOptions)
def run(options: RunOptions, console: Console) -> Result:
    """Do the stages of a recipe in order; finished ones are skipped, an interrupted training goes on."""
    recipe = load_recipe(options.recipe)
    stages = expand(recipe, options.out, options.values)
    verbs = {stage.verb: _find_verb(stage) for stage in stages}
    if options.dry_run:
        return Result(summary=tuple(f"{stage.name}: tilth {stage.verb}" for stage in stages))
    outputs: dict[str, Path] = {}
    began = time.perf_counter()
    for number, stage in enumerate(stages, start=1):
        console.say(f"[{number}/{len(stages)}] {stage.name}: tilth {stage.verb}")
        outputs |= _do(stage, verbs[stage.verb], options.out / "stages" / f"{stage.name}.json", console)
    shown = {name: path for name, path in outputs.items() if path.suffix in {".html", ".tif"}} or outputs
    return Result(summary=(f"{recipe.name}: {len(stages)} stages in {time.perf_counter() - began:.0f} s",), outputs=shown)


@verb("demo", DemoOptions)
def demo(options: DemoOptions, console: Console) -> Result:
    """Go the whole way on embedded data: scenes, catalog, training with and without unlabelled tiles, map, report."""
    return run.run(RunOptions(recipe="demo", out=options.out, values=options.values), console)


def load_recipe(name: str) -> RecipeConfig:
    """Read a recipe from a YAML file, or a shipped one by name.

    Raises:
        MissingFileError: no such file.
        ConfigError: no shipped recipe of that name, or a recipe that does not validate.
    """
    if name.endswith((".yaml", ".yml")):
        return RecipeConfig.read(name)
    shipped = dict(_shipped())
    if name not in shipped:
        raise ConfigError(f"no shipped recipe {name!r}; {suggest(name, shipped)}; or give the path of a YAML file")
    with resources.as_file(shipped[name]) as file:
        return RecipeConfig.read(file)


def recipe_names() -> tuple[str, ...]:
    """Names of the shipped recipes."""
    return tuple(sorted(name for name, _ in _shipped()))


def _shipped() -> Iterator[tuple[str, Any]]:
    for item in resources.files("tilth.recipes").iterdir():
        if item.name.endswith(".yaml"):
            yield item.name.removesuffix(".yaml"), item


def _find_verb(stage: StageConfig) -> Verb[Any]:
    if stage.verb not in targets() or stage.verb in {"run", "demo"}:
        raise ConfigError(f"stage {stage.name!r}: no verb {stage.verb!r}; {suggest(stage.verb, set(targets()) - {'run', 'demo'})}")
    return load(stage.verb)


def _do(stage: StageConfig, found: Verb[Any], stamp: Path, console: Console) -> Mapping[str, Path]:
    """Do one stage, unless it is finished."""
    from tilth.recipes.stamps import is_finished, read_stamp, stage_fingerprint, write_stamp

    options = found.options.parse(stage.options, source=f"stage {stage.name!r}")
    fingerprint = stage_fingerprint(stage.verb, options.model_dump(mode="json"))
    if is_finished(stamp, fingerprint):
        console.say("    finished before, skipped")
        return {name: Path(path) for name, path in (read_stamp(stamp) or {})["outputs"].items()}
    began = time.perf_counter()
    result = found.run(_resumed(options), console)
    console.close()
    for line in result.summary:
        console.say(f"    {line}")
    if result.exit_code:
        raise TilthError(f"stage {stage.name!r} ended with a finding that stops the recipe; see the lines above")
    write_stamp(stamp, fingerprint, result.outputs, time.perf_counter() - began)
    return result.outputs


def _resumed(options: Config) -> Config:
    """Let a training that was interrupted go on."""
    if "resume" not in type(options).model_fields:
        return options
    from tilth.training.run import Run

    folder = Run(options.out)  # type: ignore[attr-defined]  # every options class with resume has out
    return options.model_copy(update={"resume": folder.checkpoint.is_file() and not folder.finished})
