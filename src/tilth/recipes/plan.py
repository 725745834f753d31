"""What a recipe has to do: which stages are finished, which are to be done and why, and which cannot be."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth.config import Config
from tilth.errors import ConfigError, OutputExistsError, suggest
from tilth.recipes.config import StageConfig
from tilth.training.config import LoopConfig
from tilth.verbs.registry import Verb, load, targets

NOT_IN_RECIPES = frozenset({"run", "demo"})
"""Verbs that are recipes themselves."""


@dataclass(frozen=True)
class Task:
    """A stage that is ready to be done.

    Attributes:
        stage: what the recipe says.
        verb: what does it.
        options: validated.
        out: folder of the recipe.
        unseen: what this stage and later ones write; see :func:`tilth.recipes.stamps.describe_stage`.
    """

    stage: StageConfig
    verb: Verb[Any]
    options: Config
    out: Path
    unseen: tuple[Path, ...]

    @property
    def stamp(self) -> Path:
        """File that remembers the stage."""
        return self.out / "stages" / f"{self.stage.name}.json"

    @property
    def values(self) -> dict[str, Any]:
        """The options, JSON-ready."""
        return self.options.model_dump(mode="json")

    def made_from(self) -> dict[str, Any]:
        """Describe what the stage would be made from now."""
        from tilth.recipes.stamps import describe_stage

        return describe_stage(self.verb.name, self.values, self.out, self.unseen)


@dataclass(frozen=True)
class Standing:
    """How it stands with a stage.

    Attributes:
        finished: whether there is nothing to do.
        reason: why it has to be done.
        blocked: folder of a run that would have to be replaced, which never happens.
    """

    finished: bool
    reason: str = ""
    blocked: Path | None = None


def prepare(stages: Sequence[StageConfig], out: Path) -> list[Task]:
    """Find the verb of every stage and validate all options, so that a slip in the last stage shows before the first one begins.

    Raises:
        ConfigError: no such verb, options that do not validate, or a stage that writes over its own input.
    """
    verbs = [_find_verb(stage) for stage in stages]
    parsed = [verb.options.parse(stage.options, source=f"stage {stage.name!r}") for verb, stage in zip(verbs, stages, strict=True)]
    written = [_written(options) for options in parsed]
    tasks = []
    for number, (stage, verb, options) in enumerate(zip(stages, verbs, parsed, strict=True)):
        unseen = [path for paths in written[number:] for path in paths]
        task = Task(stage, verb, options, out, (*unseen, out / "stages"))
        _refuse_in_place(task, written[number])
        tasks.append(task)
    return tasks


def survey(tasks: Sequence[Task]) -> list[Standing]:
    """Tell for every stage how it stands: one that reads what an earlier one will make anew is to be done as well."""
    from tilth.recipes.stamps import input_texts

    found: list[Standing] = []
    for task in tasks:
        standing = look(task)
        if standing.finished:
            texts = list(input_texts(task.values))
            redone = (other for other, known in zip(tasks, found, strict=False) if not known.finished)
            source = next((other for other in redone if _feeds(_written(other.options), texts)), None)
            if source is not None:
                standing = _to_do(task, f"stage {source.stage.name!r} is done before it")
        found.append(standing)
    return found


def look(task: Task) -> Standing:
    """Tell how it stands with one stage, given what lies on disk now."""
    from tilth.recipes.stamps import changes, lost_output, read_stamp

    stamp = read_stamp(task.stamp)
    if stamp is None:
        return _to_do(task, "", resumable=True)
    differ = changes(stamp["made_from"], task.made_from())
    if differ:
        return _to_do(task, ", ".join(differ[:4]) + (f" and {len(differ) - 4} more" if len(differ) > 4 else ""))
    if not stamp.get("finished"):
        return _to_do(task, "it did not come to its end", resumable=True)
    lost = lost_output(stamp, task.out)
    return Standing(finished=True) if lost is None else _to_do(task, f"{lost} is missing or cut short")


def refuse_blocked(standings: Sequence[Standing]) -> None:
    """Stop before anything is done if runs would have to be replaced.

    Raises:
        OutputExistsError: naming every such folder at once.
    """
    blocked = [(standing.blocked, standing.reason) for standing in standings if standing.blocked is not None]
    if blocked:
        folders = ", ".join(f"{folder} ({reason or 'not made by this recipe'})" for folder, reason in blocked)
        raise OutputExistsError(
            f"runs are never replaced, and {len(blocked)} would be: {folders}; remove the folder{'s' * (len(blocked) > 1)} to train anew, "
            "take the change back, or give another --out"
        )


def resumed(task: Task) -> Config:
    """Let a training that was interrupted go on, and other stages replace what they made before."""
    folder = run_folder(task.options)
    if folder is None:
        # What a stage writes is the recipe's own.
        return task.options.model_copy(update={"overwrite": True}) if "overwrite" in type(task.options).model_fields else task.options
    from tilth.training.run import Run

    return task.options.model_copy(update={"resume": Run(folder).checkpoint.is_file()})


def _to_do(task: Task, reason: str, resumable: bool = False) -> Standing:
    """A stage that has to be done; a training cannot where its folder holds a run that began otherwise, or something else."""
    folder = run_folder(task.options)
    if folder is None or not folder.is_dir() or not any(folder.iterdir()):
        return Standing(False, reason)
    from tilth.training.run import Run

    may_go_on = Run(folder).barely_begun or (resumable and Run(folder).checkpoint.is_file())
    return Standing(False, reason, blocked=None if may_go_on else folder)


def run_folder(options: Config) -> Path | None:
    """Folder of the run where the stage is a training."""
    return getattr(options, "out", None) if "resume" in type(options).model_fields else None


def _find_verb(stage: StageConfig) -> Verb[Any]:
    names = set(targets()) - NOT_IN_RECIPES
    if stage.verb not in names:
        raise ConfigError(f"stage {stage.name!r}: no verb {stage.verb!r}; {suggest(stage.verb, names)}")
    return load(stage.verb)


def _written(options: Config) -> list[Path]:
    from tilth.recipes.stamps import OUTPUT_OPTIONS

    # Fields only: every options class has a method called json.
    named = sorted(OUTPUT_OPTIONS & type(options).model_fields.keys())
    return [Path(value) for name in named if (value := getattr(options, name)) is not None]


def _refuse_in_place(task: Task, written: Sequence[Path]) -> None:
    from tilth.recipes.stamps import input_texts

    inputs = {Path(text).resolve() for text in input_texts(task.values)}
    for path in written:
        if path.resolve() in inputs:
            raise ConfigError(f"stage {task.stage.name!r} writes over its own input {path}; give another out")


def refuse_several_devices(tasks: Sequence[Task], standings: Sequence[Standing]) -> None:
    """Stop before anything is done if a training is to have several processes: each would be started with the whole command line.

    Raises:
        ConfigError: naming the stage that has to be done by itself.
    """
    for task, standing in zip(tasks, standings, strict=True):
        loop = getattr(task.options, "loop", None)
        if not standing.finished and isinstance(loop, LoopConfig) and loop.devices * loop.nodes > 1:
            raise ConfigError(
                f"stage {task.stage.name!r}: loop.devices={loop.devices} times loop.nodes={loop.nodes} is {loop.devices * loop.nodes}, "
                "and a whole recipe is done by one process; do the stages before it with --until, this one with "
                f"--only {task.stage.name}, then the whole recipe again, which goes on behind it"
            )


def chosen(tasks: Sequence[Task], standings: Sequence[Standing], only: str | None, until: str | None) -> range:
    """Tell which stages are asked for: all, one, or those before one.

    Raises:
        ConfigError: no such stage, or one that reads what an unfinished one makes.
    """
    names = [task.stage.name for task in tasks]
    for option, name in (("only", only), ("until", until)):
        if name is not None and name not in names:
            raise ConfigError(f"{option}={name}: no stage is called so; {suggest(name, names)}")
    if only is None:
        return range(len(tasks) if until is None else names.index(until))
    place = names.index(only)
    texts = _input_texts(tasks[place])
    for task, standing in zip(tasks[:place], standings, strict=False):
        if not standing.finished and _feeds(_written(task.options), texts):
            raise ConfigError(f"only={only}: it reads what stage {task.stage.name!r} makes, which is not finished; do that first")
    return range(place, place + 1)


def _input_texts(task: Task) -> list[str]:
    from tilth.recipes.stamps import input_texts

    return list(input_texts(task.values))


def _feeds(written: Sequence[Path], texts: Sequence[str]) -> bool:
    """Whether one of the paths is, holds, or lies in what one of the texts (paths or patterns) names."""
    from tilth.recipes.stamps import as_pattern

    patterns = [Path(as_pattern(text)).resolve().parts for text in texts]
    places = [path.resolve().parts for path in written]
    return any(
        all(fnmatch.fnmatchcase(part, wanted) or part == wanted for part, wanted in zip(place, pattern, strict=False))
        for place in places
        for pattern in patterns
    )


def listed(tasks: Sequence[Task], standings: Sequence[Standing]) -> tuple[str, ...]:
    """One line a stage for people."""
    return tuple(f"{task.stage.name}: tilth {task.verb.name} - {_say(standing)}" for task, standing in zip(tasks, standings, strict=True))


def _say(standing: Standing) -> str:
    if standing.finished:
        return "finished"
    because = f" ({standing.reason})" if standing.reason else ""
    return f"cannot be done: {standing.blocked} holds a run{because}" if standing.blocked else f"to do{because}"
