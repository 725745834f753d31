"""What an evaluation says: scores, the tiles behind them and the gallery, as they lie in ``metrics.json``.

Reading results needs neither torch nor GDAL, so reports and comparisons start lightly.

All scores are fractions 0 to 1 (kappa -1 to 1) or None. A class is *absent* when no counted pixel of the reference belongs to it. Its
scores are None and enter no mean, because nothing could have been found; ``predicted_pixels`` still tells how often it was predicted,
and each such pixel is missed by the class it truly belongs to, so false alarms of absent classes lower the recall and IoU of the others.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import pydantic

from tilth.classes import Colour
from tilth.errors import DataError, MissingFileError, UnreadableFileError

METRICS_FILE = "metrics.json"
"""Name of the file an evaluation leaves in its folder."""

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)] | None
Count = Annotated[int, pydantic.Field(ge=0)]


class Record(pydantic.BaseModel):
    """Base of everything that is stored in result files: frozen, closed, finite numbers only, JSON names as aliases."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


R = TypeVar("R", bound=Record)


class ClassScore(Record):
    """How well one class was found.

    Attributes:
        name: of the class.
        iou: intersection over union, tp / (tp + fp + fn).
        f1: 2 tp / (2 tp + fp + fn).
        precision: tp / (tp + fp); 0 for a class of the reference that was never predicted.
        recall: tp / (tp + fn).
        reference_pixels: counted pixels that belong to the class.
        predicted_pixels: counted pixels that were predicted as the class.
        absent: there is no reference pixel; the four scores are None.
    """

    name: str
    iou: Fraction
    f1: Fraction
    precision: Fraction
    recall: Fraction
    reference_pixels: Count
    predicted_pixels: Count
    absent: bool


class Summary(Record):
    """The scores of all classes together; means run over the classes that are not absent; None where nothing was counted.

    Attributes:
        mean_iou: unweighted mean of the IoU (``mIoU``).
        mean_f1: unweighted mean of the F1 (``mF1``).
        overall_accuracy: share of counted pixels that are right (``OA``).
        mean_recall: unweighted mean of the recall, "average accuracy" (``AA``).
        kappa: Cohen's kappa; None also where chance alone agrees everywhere (one class, all of it predicted).
        frequency_weighted_iou: mean of the IoU weighted by reference pixels (``fwIoU``).
    """

    mean_iou: Fraction = pydantic.Field(alias="mIoU")
    mean_f1: Fraction = pydantic.Field(alias="mF1")
    overall_accuracy: Fraction = pydantic.Field(alias="OA")
    mean_recall: Fraction = pydantic.Field(alias="AA")
    kappa: Annotated[float, pydantic.Field(ge=-1, le=1)] | None
    frequency_weighted_iou: Fraction = pydantic.Field(alias="fwIoU")

    def named(self) -> dict[str, float | None]:
        """Return the scores under the names people know: mIoU, mF1, OA, AA, kappa, fwIoU."""
        return self.model_dump(by_alias=True)


SUMMARY_NAMES: tuple[str, ...] = tuple(field.alias or name for name, field in Summary.model_fields.items())
"""mIoU, mF1, OA, AA, kappa, fwIoU."""


class Scores(Record):
    """Everything that follows from one confusion matrix.

    Attributes:
        summary: scores of all classes together.
        per_class: one entry a class, in id order.
        colours: 8-bit RGB of the classes, in id order.
        pixels: number of counted (labelled, valid) pixels.
    """

    summary: Summary
    per_class: tuple[ClassScore, ...]
    colours: tuple[Colour, ...]
    pixels: Count


class TileScore(Record):
    """How one tile fared; ``mean_iou`` and ``overall_accuracy`` are None for a tile without a counted pixel.

    Attributes:
        tile_id: as in the catalog.
        mean_iou: mean IoU over the classes present in the tile.
        overall_accuracy: share of the tile's counted pixels that are right.
        pixels: counted pixels of the tile.
    """

    tile_id: str
    mean_iou: Fraction = pydantic.Field(alias="mIoU")
    overall_accuracy: Fraction = pydantic.Field(alias="OA")
    pixels: Count


class GalleryEntry(Record):
    """Four pictures of one tile; paths are relative to the folder of ``metrics.json``, with forward slashes.

    Attributes:
        tile_id: as in the catalog.
        mean_iou: of the tile.
        image: the bands a picture shows, stretched by the sensor's range.
        label: the reference in class colours, ignored pixels white.
        prediction: the prediction in class colours.
        errors: grey where right, red where wrong, white where ignored.
    """

    tile_id: str
    mean_iou: Fraction = pydantic.Field(alias="mIoU")
    image: str
    label: str
    prediction: str
    errors: str


class Evaluation(Record):
    """One model measured on the labelled tiles of one catalog; the content of ``metrics.json``.

    Attributes:
        schema_version: version of this layout.
        model: which model was evaluated.
        catalog_fingerprint: of the labelled tiles, see :meth:`tilth.catalog.table.Catalog.fingerprint`.
        split: the splits the tiles come from, sorted; empty where the catalog has none.
        scheme: name of the class scheme.
        classes: class names in id order.
        colours: 8-bit RGB in id order.
        confusion: K rows (reference) of K pixel counts (prediction).
        scores: scores of all classes together.
        per_class: one entry a class, in id order.
        tiles: one entry a tile, in catalog order.
        pixels: counted pixels.
        ignored_pixels: pixels left out because their label is 255 or their imagery is not valid.
        seconds: wall time of reading, predicting and counting.
        gallery: from the worst to the best tile shown.
    """

    schema_version: Literal[1] = 1
    model: str
    catalog_fingerprint: str
    split: tuple[str, ...]
    scheme: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    confusion: tuple[tuple[Count, ...], ...]
    scores: Summary
    per_class: tuple[ClassScore, ...]
    tiles: tuple[TileScore, ...]
    pixels: Count
    ignored_pixels: Count
    seconds: Annotated[float, pydantic.Field(ge=0)]
    gallery: tuple[GalleryEntry, ...] = ()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.classes)
        if len(self.confusion) != count or any(len(row) != count for row in self.confusion):
            raise ValueError(f"confusion must be {count} x {count}, one row and one column a class")
        if len(self.per_class) != count or len(self.colours) != count:
            raise ValueError(f"per_class and colours must have one entry for each of the {count} classes")
        return self

    def to_json(self) -> str:
        """Return the text of ``metrics.json``."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read an evaluation.

        Args:
            path: a ``metrics.json``, or the folder that holds it.

        Raises:
            MissingFileError: there is no such file.
            DataError: it is not an evaluation, or was written by a newer version.
        """
        return read_record(cls, path, METRICS_FILE)


def read_record(kind: type[R], path: str | Path, name: str) -> R:
    """Read a stored record, naming the file and the first wrong place in any message.

    Args:
        kind: class to validate against.
        path: the file, or the folder that holds it.
        name: file name looked for in a folder.

    Raises:
        MissingFileError: there is no such file.
        UnreadableFileError: it cannot be read as text.
        DataError: the content does not validate.
    """
    file = Path(path)
    file = file / name if file.is_dir() else file
    if not file.is_file():
        raise MissingFileError(f"{file}: no such file; give a {name} or the folder that holds it")
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{file}: cannot be read: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{file}: not a {name} of this version: {where}: {message}; evaluate again to rewrite it") from None


def ratio(numerator: float, denominator: float) -> float | None:
    """Divide; None where the denominator is 0, so that NaN never arises."""
    return numerator / denominator if denominator else None


def mean(values: list[float]) -> float | None:
    """Mean with exactly rounded summation; None of an empty list."""
    return ratio(math.fsum(values), len(values))
