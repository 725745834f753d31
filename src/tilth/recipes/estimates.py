"""What the trainings of a recipe would take, said in its dry run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilth.errors import TilthError
from tilth.recipes.plan import Standing, Task
from tilth.verbs.options import SpeedConfig

if TYPE_CHECKING:
    from tilth.training.rates import Rates


def with_estimates(
    lines: Sequence[str], tasks: Sequence[Task], standings: Sequence[Standing], speed: SpeedConfig
) -> tuple[list[str], dict[str, Any]]:
    """Add to the list of stages what each training that is to be done would take.

    Args:
        lines: one for each stage.
        tasks: the stages.
        standings: how it stands with them.
        speed: of the device, if it is not this one.

    Returns:
        The lines, and the numbers by the name of the stage. A training that takes what an earlier one takes, as with another seed, is
        counted once and named.
    """
    from tilth.verbs.dry_run import foresee, measured_rates, missing_catalogs, same_work
    from tilth.verbs.train_options import FinetuneOptions, PretrainOptions

    shown: list[str] = []
    values: dict[str, Any] = {}
    first: dict[str, str] = {}
    rates: dict[str, Rates] = {}
    for line, task, standing in zip(lines, tasks, standings, strict=True):
        shown.append(line)
        options = task.options
        if standing.finished or not isinstance(options, PretrainOptions | FinetuneOptions):
            continue
        options = options.model_copy(update={"speed": speed})
        work = same_work(options)
        if work in first:
            shown.append(f"    as {first[work]}")
            values[task.stage.name] = values[first[work]]
            continue
        key = f"{options.loop.accelerator} {options.loop.precision}"
        if speed.tflops is None and key not in rates:
            rates[key] = measured_rates(options)
        try:
            found = foresee(options, tiles_there=not missing_catalogs(options), rates=rates.get(key))
        except TilthError as error:
            shown.append(f"    not to be told: {error}")
            continue
        first[work] = task.stage.name
        values[task.stage.name] = found.values
        shown += [f"    {text}" for text in found.lines]
    return shown, values
