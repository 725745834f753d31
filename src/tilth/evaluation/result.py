"""What an evaluation says: scores, the tiles behind them and the gallery, as they lie in ``metrics.json``.

Reading results needs neither torch nor GDAL, so reports and comparisons start lightly.

All scores are fractions 0 to 1 (kappa -1 to 1) or None. A class is *absent* when no counted pixel of the reference belongs to it. Its
scores are None and enter no mean, because nothing could have been found; ``predicted_pixels`` still tells how often it was predicted,
and each such pixel is missed by the class it truly belongs to, so false alarms of absent classes lower the recall and IoU of the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic

from tilth.classes import Colour
from tilth.evaluation.class_group import ClassGroup
from tilth.evaluation.record import Count, Fraction, Interval, Record, read_record

METRICS_FILE = "metrics.json"
"""Name of the file an evaluation leaves in its folder."""


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
        absent: there is no reference pixel; the scores are None.
        boundary_iou: IoU of the two boundary bands, see :mod:`tilth.evaluation.boundary`; None also where it was not measured.
        interval: 95 % interval of the IoU over resampled tiles, see :mod:`tilth.evaluation.bootstrap`; None where there is none.
    """

    name: str
    iou: Fraction
    f1: Fraction
    precision: Fraction
    recall: Fraction
    reference_pixels: Count
    predicted_pixels: Count
    absent: bool
    boundary_iou: Fraction = None
    interval: Interval | None = None


class Summary(Record):
    """The scores of all classes together; means run over the classes that are not absent; None where nothing was counted.

    Attributes:
        mean_iou: unweighted mean of the IoU (``mIoU``).
        mean_f1: unweighted mean of the F1 (``mF1``).
        overall_accuracy: share of counted pixels that are right (``OA``).
        mean_recall: unweighted mean of the recall, "average accuracy" (``AA``).
        mean_precision: unweighted mean of the precision (``mPrecision``); None where an earlier version did not compute it.
        kappa: Cohen's kappa; None also where chance alone agrees everywhere (one class, all of it predicted).
        frequency_weighted_iou: mean of the IoU weighted by reference pixels (``fwIoU``).
        mean_boundary_iou: unweighted mean of the boundary IoU (``bIoU``); None where it was not measured.
    """

    mean_iou: Fraction = pydantic.Field(alias="mIoU")
    mean_f1: Fraction = pydantic.Field(alias="mF1")
    overall_accuracy: Fraction = pydantic.Field(alias="OA")
    mean_recall: Fraction = pydantic.Field(alias="AA")
    mean_precision: Fraction = pydantic.Field(None, alias="mPrecision")
    kappa: Annotated[float, pydantic.Field(ge=-1, le=1)] | None
    frequency_weighted_iou: Fraction = pydantic.Field(alias="fwIoU")
    mean_boundary_iou: Fraction = pydantic.Field(None, alias="bIoU")

    def named(self) -> dict[str, float | None]:
        """Return the scores under the names people know: mIoU, mF1, OA, AA, mPrecision, kappa, fwIoU, bIoU."""
        return self.model_dump(by_alias=True)


SUMMARY_NAMES: tuple[str, ...] = tuple(field.alias or name for name, field in Summary.model_fields.items())
"""mIoU, mF1, OA, AA, mPrecision, kappa, fwIoU, bIoU."""


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


class ImageScore(Record):
    """How the tiles of one image file fared together; the means are None where no pixel was counted.

    Attributes:
        image: path of the file relative to the folder that all images share, or its name; with forward slashes.
        tiles: number of tiles cut from it.
        mean_iou: mean IoU over the classes present in the image.
        overall_accuracy: share of the image's counted pixels that are right.
        pixels: counted pixels of the image.
    """

    image: str
    tiles: Annotated[int, pydantic.Field(ge=1)]
    mean_iou: Fraction = pydantic.Field(alias="mIoU")
    overall_accuracy: Fraction = pydantic.Field(alias="OA")
    pixels: Count


class CalibrationBin(Record):
    """Pixels whose highest class probability lies in ``(lower, upper]``; the first bin holds ``lower`` too.

    Attributes:
        lower: lower end of the bin.
        upper: upper end of the bin.
        pixels: counted pixels in the bin.
        confidence: mean highest probability of these pixels; None for an empty bin.
        accuracy: share of these pixels that are right; None for an empty bin.
    """

    lower: Annotated[float, pydantic.Field(ge=0, le=1)]
    upper: Annotated[float, pydantic.Field(ge=0, le=1)]
    pixels: Count
    confidence: Fraction
    accuracy: Fraction


class Calibration(Record):
    """Whether a model is right as often as it says, see :mod:`tilth.evaluation.calibration`.

    Attributes:
        bins: of equal width, from 0 to 1.
        expected_error: mean of |accuracy - confidence| over bins, weighted by pixels (ECE); None where nothing was counted.
        maximum_error: largest |accuracy - confidence| of a bin (MCE); None where nothing was counted.
    """

    bins: tuple[CalibrationBin, ...]
    expected_error: Fraction
    maximum_error: Fraction


class Resampling(Record):
    """What the intervals of an evaluation rest on.

    Attributes:
        unit: what was drawn with replacement. Tiles of one place are not independent: where several bear one ``location_id``, the
            locations are drawn (an image without one counts as a location), else, where several come from one image file, the images.
        units: number of units that hold counted pixels.
        draws: number of resamples.
    """

    unit: Literal["tile", "image", "location"]
    units: Count
    draws: Count


class InferenceSettings(Record):
    """How a model was run, as far as it decides the result.

    Attributes:
        window: side of the prediction windows in pixels.
        overlap: overlap of neighbouring windows in pixels.
        flips: mirrored views that were averaged: none, horizontal, both or all.
        precision: of the forward pass: 32, bf16-mixed or 16-mixed.
    """

    window: Annotated[int, pydantic.Field(ge=1)]
    overlap: Count
    flips: str
    precision: str


class GalleryEntry(Record):
    """Pictures of one tile; paths are relative to the folder of ``metrics.json``, with forward slashes.

    Attributes:
        tile_id: as in the catalog.
        mean_iou: of the tile.
        image: the bands a picture shows, stretched by the sensor's range.
        label: the reference in class colours, ignored pixels grey.
        prediction: the prediction in class colours.
        errors: grey where right, red where wrong, white where ignored.
        confidence: the highest class probability from black (0) to white (1), where there is imagery; None where it was not drawn.
    """

    tile_id: str
    mean_iou: Fraction = pydantic.Field(alias="mIoU")
    image: str
    label: str
    prediction: str
    errors: str
    confidence: str | None = None


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
        intervals: 95 % intervals over resampled tiles, by the name of the score; only those that could be computed.
        resampling: what the intervals rest on; None where there are none.
        calibration: whether the model is right as often as it says; None where it was not measured.
        boundary_share: distance of the boundary IoU as a share of the diagonal of a tile; None where it was not measured.
        images: one entry an image file, in order of first appearance; empty where every image is one tile.
        inference: how the model was run; None where an earlier version did not record it.
        model_hash: of weights and configuration, see :func:`tilth.models.identity.model_hash`; None as above.
        published: scores by the conventions of CromSS's tables, see :mod:`tilth.evaluation.published`; None where they were not asked for.
        group: means over some of the classes; None as above.
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
    intervals: dict[str, Interval] = pydantic.Field(default_factory=dict)
    resampling: Resampling | None = None
    calibration: Calibration | None = None
    boundary_share: Fraction = None
    images: tuple[ImageScore, ...] = ()
    inference: InferenceSettings | None = None
    model_hash: str | None = None
    published: dict[str, float] | None = None
    group: ClassGroup | None = None

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
