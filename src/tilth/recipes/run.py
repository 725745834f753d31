"""``tilth run`` and ``tilth demo``: stages in order, finished ones skipped."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

import pydantic
import yaml

from tilth.config import Config
from tilth.errors import ConfigError, InterruptedRunError, TilthError, suggest
from tilth.recipes import plan
from tilth.recipes.config import RecipeConfig, expand
from tilth.recipes.estimates import with_estimates
from tilth.verbs.console import Console
from tilth.verbs.options import SpeedConfig
from tilth.verbs.registry import Result, verb


def recipe_names() -> tuple[str, ...]:
    """Names of the shipped recipes."""
    return tuple(sorted(name for name, _ in _shipped()))


def _shipped() -> Iterator[tuple[str, Any]]:
    for item in resources.files("tilth.recipes").iterdir():
        if item.name.endswith(".yaml"):
            yield item.name.removesuffix(".yaml"), item


class RunOptions(Config):
    """Options of ``tilth run``."""

    recipe: str = pydantic.Field(
        json_schema_extra={"positional": True}, description=f"YAML file, or the name of a shipped recipe: {', '.join(recipe_names())}"
    )
    out: Path = pydantic.Field(description="folder for everything the recipe makes")
    values: dict[str, Any] = pydantic.Field(default_factory=dict, description="values of the recipe, such as values.data=FOLDER")
    only: str | None = pydantic.Field(
        None, description="do this stage alone, as in processes that torchrun or srun starts, so that it may train on several devices"
    )
    until: str | None = pydantic.Field(None, description="do the stages before this one")
    dry_run: bool = pydantic.Field(False, description="only list the stages: which are finished, which are to be done and why")
    estimate: bool = pydantic.Field(False, description="with dry_run: what each training would take: steps, tiles, memory, time")
    speed: SpeedConfig = pydantic.Field(default_factory=SpeedConfig, description="speed that estimate reckons with")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.only is not None and self.until is not None:
            raise ValueError("only and until exclude each other; give one")
        if self.estimate and not self.dry_run:
            raise ValueError("estimate goes with dry_run; give both")
        return self


class DemoOptions(Config):
    """Options of ``tilth demo``."""

    out: Path = pydantic.Field(Path("demo-output"), description="folder for everything the demo makes")
    values: dict[str, Any] = pydantic.Field(default_factory=dict, description="values of the demo's recipe, such as values.steps=100")


@verb("run", RunOptions)
def run(options: RunOptions, console: Console) -> Result:
    """Do the stages of a recipe in order; finished ones are skipped.

    A stage is done again when its options, an input or an output changed, and so is every stage that reads what it makes. A training
    that was interrupted goes on. A run that would have to be replaced stops the recipe before anything is done.
    """
    return _run(options, console, ("run", options.recipe))


def _run(options: RunOptions, console: Console, words: Sequence[str]) -> Result:
    """Do a recipe that was asked for with these first words of the command line."""
    recipe = load_recipe(options.recipe)
    # "." has no name that paths below it would begin with.
    out = options.out if options.out.name else options.out.resolve()
    tasks = plan.prepare(expand(recipe, out, options.values, _command(words, options)), out)
    standings = plan.survey(tasks)
    asked = plan.chosen(tasks, standings, options.only, options.until)
    tasks, standings = tasks[asked.start : asked.stop], standings[asked.start : asked.stop]
    if options.dry_run:
        lines, estimates = list(plan.listed(tasks, standings)), dict[str, Any]()
        if options.estimate:
            lines, estimates = with_estimates(lines, tasks, standings, options.speed)
        return Result(summary=tuple(lines), values={"to_do": _names(tasks, standings, finished=False), "estimates": estimates})
    plan.refuse_blocked(standings)
    if options.only is None:
        plan.refuse_several_devices(tasks, standings)
        if not first_process():
            raise ConfigError("a whole recipe is done by one process, and several were started; give --only STAGE, or start one")
    elif not first_process():
        return _join(tasks[0], standings[0])
    outputs: dict[str, Path] = {}
    began = time.perf_counter()
    for number, (task, standing) in enumerate(zip(tasks, standings, strict=True), start=1):
        console.say(f"[{number}/{len(tasks)}] {task.stage.name}: tilth {task.verb.name}")
        outputs |= _do(task, standing, console)
    shown = {name: path for name, path in outputs.items() if path.suffix in {".html", ".tif"}} or outputs
    done, skipped = (_names(tasks, standings, finished=finished) for finished in (False, True))
    took = f"{len(done)} done, {len(skipped)} finished before, in {time.perf_counter() - began:.0f} s"
    return Result(summary=(f"{recipe.name}: {len(tasks)} stages, {took}",), outputs=shown, values={"done": done, "skipped": skipped})


def _join(task: plan.Task, standing: plan.Standing) -> Result:
    """Take part in a training as a process that is not the first: that one speaks, keeps the stamp, and does other stages by itself."""
    if not standing.finished and plan.run_folder(task.options) is not None:
        task.verb.run(plan.resumed(task), Console())
    return Result()


@verb("demo", DemoOptions)
def demo(options: DemoOptions, console: Console) -> Result:
    """Go the whole way on synthetic scenes: catalog, trainings, scores, map, report."""
    return _run(RunOptions(recipe="demo", out=options.out, values=options.values), console, ("demo",))


def _command(words: Sequence[str], options: RunOptions) -> str:
    """The command line that does the same, as a shell takes it."""
    settings = (f"values.{name}={_written(value)}" for name, value in options.values.items())
    return shlex.join(["tilth", *words, "--out", str(options.out), *settings])


def _written(value: Any) -> str:
    """A value as the command line reads it: plain text where YAML reads that as the same text, else JSON, which YAML reads as well."""
    if isinstance(value, str) and not _reads_otherwise(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _reads_otherwise(text: str) -> bool:
    try:
        return bool(yaml.safe_load(text) != text)
    except yaml.YAMLError:
        return True


def first_process() -> bool:
    """Whether this process is the first of those that torchrun, srun or a training itself started, or the only one."""
    # SLURM sets SLURM_PROCID in a batch script, too, where nothing has been started yet; it is 0 there.
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))


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


def _names(tasks: Sequence[plan.Task], standings: Sequence[plan.Standing], finished: bool) -> list[str]:
    return [task.stage.name for task, standing in zip(tasks, standings, strict=True) if standing.finished == finished]


def _do(task: plan.Task, standing: plan.Standing, console: Console) -> Mapping[str, Path]:
    """Do one stage, unless it is finished."""
    from tilth.recipes import stamps

    if standing.finished:
        console.say("    finished before, skipped")
        return stamps.stamped_outputs(stamps.read_stamp(task.stamp) or {"outputs": {}}, task.out)
    if standing.reason:
        console.say(f"    {standing.reason}")
    made_from = task.made_from()
    stamps.forget(task.stamp)
    if plan.run_folder(task.options) is not None:
        stamps.write_begun(task.stamp, made_from)
    began = time.perf_counter()
    try:
        result = task.verb.run(plan.resumed(task), console)
    except InterruptedRunError as error:
        where = str(error).partition(";")[0]
        raise InterruptedRunError(f"stage {task.stage.name!r} {where}; the same command goes on from there") from None
    except BaseException:
        folder = plan.run_folder(task.options)
        if folder is not None and not folder.exists():
            stamps.forget(task.stamp)
        raise
    console.close()
    for line in result.summary:
        console.say(f"    {line}")
    if result.exit_code:
        raise TilthError(f"stage {task.stage.name!r} found what must not be; see the lines above, then run the same command again")
    stamps.write_finished(task.stamp, made_from, result.outputs, time.perf_counter() - began, task.out, result.parts)
    return result.outputs
