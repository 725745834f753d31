"""What an assessment of a map by reference points says, as it lies in ``assessment.json``.

Reading it needs neither torch nor GDAL. The estimators are in :mod:`tilth.evaluation.area_estimate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic

from tilth.classes import Colour
from tilth.evaluation.record import Count, Fraction, Interval, Record, read_record

ASSESSMENT_FILE = "assessment.json"
"""Name of the file an assessment leaves in its folder."""

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
SquareMetres = Annotated[float, pydantic.Field(ge=0)]


class AreaClass(Record):
    """One class of a map: how well it was mapped, and how much of it there is.

    Intervals are 95 % intervals, the estimate +- 1.96 standard errors, cut off at 0 and (for shares) at 1. They are None where a stratum
    that they rest on has fewer than two points; accuracies are None where there is nothing to divide by.

    Attributes:
        name: of the class.
        mapped_area_m2: ground that the map gives to the class, in square metres; None where the map has no place on the Earth.
        mapped_share: share of the mapped ground, 0 to 1; the weight of the class as a stratum.
        samples: points that lie where the map shows the class.
        reference_samples: points whose reference is the class.
        users_accuracy: share of what the map shows as the class that is the class.
        users_accuracy_interval: of it.
        producers_accuracy: share of what is the class that the map shows as the class.
        producers_accuracy_interval: of it.
        area_share: error-adjusted share of the mapped ground that is the class.
        area_share_standard_error: of it; None where it cannot be estimated.
        area_share_interval: of it.
        area_m2: error-adjusted area in square metres; None where ``mapped_area_m2`` is.
        area_interval_m2: of it.
        colour: 8-bit RGB that the map gives to the class, where it gives one.
    """

    name: str
    mapped_area_m2: SquareMetres | None
    mapped_share: Share
    samples: Count
    reference_samples: Count
    users_accuracy: Fraction
    users_accuracy_interval: Interval | None = None
    producers_accuracy: Fraction
    producers_accuracy_interval: Interval | None = None
    area_share: Share
    area_share_standard_error: Annotated[float, pydantic.Field(ge=0)] | None = None
    area_share_interval: Interval | None = None
    area_m2: SquareMetres | None
    area_interval_m2: Interval | None = None
    colour: Colour | None = None


class AreaAssessment(Record):
    """A map judged by a stratified random sample of reference points; the content of ``assessment.json``.

    Attributes:
        schema_version: version of this layout.
        map: which map, as its file is called.
        reference: which points, as their file is called.
        classes: in the order of rows and columns of the matrices: by class id.
        error_matrix: sample counts; rows = map, columns = reference.
        area_proportions: estimated shares of the mapped ground, rows = map, columns = reference; they sum to 1.
        overall_accuracy: share of the mapped ground that is right.
        overall_interval: 95 % interval of it; None where it cannot be estimated.
        samples: points that count.
        left_out: points that do not count (without reference, outside of the map, or where it has no data), by reason.
        weights: what ``mapped_share`` is a share of: ``ground area``, or ``pixels`` where the map has no place on the Earth.
    """

    schema_version: Literal[1] = 1
    map: str
    reference: str
    classes: tuple[AreaClass, ...]
    error_matrix: tuple[tuple[Count, ...], ...]
    area_proportions: tuple[tuple[Share, ...], ...]
    overall_accuracy: Share
    overall_interval: Interval | None = None
    samples: Count
    left_out: dict[str, int] = pydantic.Field(default_factory=dict)
    weights: Literal["ground area", "pixels"] = "ground area"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.classes)
        for name, matrix in (("error_matrix", self.error_matrix), ("area_proportions", self.area_proportions)):
            if len(matrix) != count or any(len(row) != count for row in matrix):
                raise ValueError(f"{name} must be {count} x {count}, one row and one column a class")
        return self

    def to_json(self) -> str:
        """Return the text of ``assessment.json``."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read an assessment from an ``assessment.json`` or the folder that holds it.

        Raises:
            MissingFileError: there is no such file.
            DataError: it is not an assessment, or was written by a newer version.
        """
        return read_record(cls, path, ASSESSMENT_FILE)
