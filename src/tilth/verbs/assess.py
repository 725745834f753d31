"""``tilth sample`` and ``tilth assess``: how right a map is, and how much there is of each class, by points that people looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from tilth.config import Config
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from tilth.evaluation.area_result import AreaClass


class SampleOptions(Config):
    """Options of ``tilth sample``."""

    map: Path = pydantic.Field(json_schema_extra={"positional": True}, description="class map, .tif")
    out: Path = pydantic.Field(description="points to write, .gpkg or .csv")
    samples: int | None = pydantic.Field(None, ge=1, description="number of points; by default from the standard error")
    minimum: int = pydantic.Field(50, ge=1, description="points of each mapped class at least")
    standard_error: float = pydantic.Field(0.01, gt=0, lt=1, description="that the overall accuracy shall have, as a fraction")
    users_accuracy: float = pydantic.Field(0.9, ge=0, le=1, description="what the user's accuracy of the classes is thought to be")
    users_accuracies: dict[str, float] = pydantic.Field(
        default_factory=dict, description="the same for single classes by name, such as water=0.98"
    )
    seed: int = pydantic.Field(0, ge=0, description="seed of the draw")


class AssessOptions(Config):
    """Options of ``tilth assess``."""

    map: Path = pydantic.Field(json_schema_extra={"positional": True}, description="class map that the points were drawn from, .tif")
    reference: Path = pydantic.Field(description="points with reference classes: .csv, .gpkg or another file of points")
    out: Path = pydantic.Field(description="folder for assessment.json and assessment.csv")
    column: str = pydantic.Field("reference", description="column that holds the reference class, by name or id")


@verb("sample", SampleOptions)
def sample(options: SampleOptions, console: Console) -> Result:
    """Draw a stratified random sample of a map, for people to look at."""
    from tilth.evaluation.map_strata import read_strata
    from tilth.evaluation.sampling import check_target, draw_points, plan_points, write_points

    check_target(options.out)
    console.status(f"counting the classes of {options.map.name}")
    strata = read_strata(str(options.map))
    numbers = plan_points(
        strata,
        samples=options.samples,
        minimum=options.minimum,
        standard_error=options.standard_error,
        users_accuracy=options.users_accuracy,
        users_accuracies=options.users_accuracies,
    )
    console.status(f"drawing {sum(numbers)} points")
    path = write_points(strata, draw_points(strata, numbers, options.seed), options.out)
    rows = zip(strata.names, strata.shares.tolist(), numbers, strict=True)
    lines = tuple(f"  {name}: {number} points, {100 * share:.2f} % of the map" for name, share, number in rows)
    head = f"{sum(numbers)} points in random order; fill the column reference with the class that is truly there"
    return Result(summary=(head, *lines), outputs={"points": path}, values={"points": dict(zip(strata.names, numbers, strict=True))})


@verb("assess", AssessOptions)
def assess(options: AssessOptions, console: Console) -> Result:
    """Judge a map by reference points: accuracies, and areas with intervals."""
    from tilth.evaluation.assess import assess_map

    console.status(f"counting the classes of {options.map.name}")
    found = assess_map(str(options.map), options.reference, column=options.column, out=options.out)
    overall = f"{found.samples} points: overall accuracy {_percent(found.overall_accuracy, found.overall_interval)}"
    note = "error-adjusted area and accuracies with 95 % intervals" + (
        "" if found.weights == "ground area" else "; no CRS: shares of pixels"
    )
    return Result(
        summary=(overall, note, *(_class_line(item) for item in found.classes)),
        outputs={"assessment": options.out},
        values={
            "overall_accuracy": found.overall_accuracy,
            "area_share": {item.name: item.area_share for item in found.classes},
            "area_m2": {item.name: item.area_m2 for item in found.classes},
        },
    )


def _class_line(item: AreaClass) -> str:
    """Describe one class: ``water: 21,158 ha (15,000 to 27,316), mapped 18,000 ha; user's 88.0 % (80.9 to 95.1), producer's ...``."""
    if item.area_m2 is None or item.mapped_area_m2 is None:
        area = f"{_percent(item.area_share, item.area_share_interval)} of the map, mapped {100 * item.mapped_share:.1f} %"
    else:
        ends = "" if item.area_interval_m2 is None else f" ({_hectares(item.area_interval_m2[0])} to {_hectares(item.area_interval_m2[1])})"
        area = f"{_hectares(item.area_m2)} ha{ends}, mapped {_hectares(item.mapped_area_m2)} ha"
    users = _percent(item.users_accuracy, item.users_accuracy_interval)
    return f"  {item.name}: {area}; user's {users}, producer's {_percent(item.producers_accuracy, item.producers_accuracy_interval)}"


def _percent(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "unknown"
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * value:.1f} %{ends}"


def _hectares(square_metres: float) -> str:
    """Write square metres as hectares, with decimals where there are few."""
    hectares = square_metres / 1e4
    return f"{hectares:,.0f}" if hectares >= 100 else f"{hectares:,.2f}"
