"""Counting pixels and turning the counts into scores; what "absent" means is said in :mod:`tilth.evaluation.result`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from tilth.classes import IGNORE_INDEX, Colour
from tilth.errors import DataError
from tilth.evaluation.record import mean, ratio
from tilth.evaluation.result import ClassScore, Scores, Summary

if TYPE_CHECKING:
    from torch import Tensor

_NONE_SEEN = -(2**62)


class ConfusionMatrix:
    """Pixel counts by reference class (rows) and predicted class (columns).

    Counting stays on the device of the tensors it is given, and does not wait for it: on a CPU a wrong value is reported at once, on an
    accelerator when the counts are next looked at (:attr:`matrix`, :attr:`pixels`, :attr:`ignored_pixels`, :meth:`merge`).

    Args:
        num_classes: number of classes K, 1 to 255.

    Example:
        >>> import torch
        >>> counts = ConfusionMatrix(2)
        >>> counts.update(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 255]))
        >>> counts.matrix.tolist(), counts.ignored_pixels
        ([[1, 1], [0, 0]], 1)
    """

    def __init__(self, num_classes: int) -> None:
        import torch

        if not 1 <= num_classes <= IGNORE_INDEX:
            raise DataError(f"a confusion matrix needs 1 to {IGNORE_INDEX} classes, got {num_classes}")
        self.num_classes = num_classes
        # K*K cells, then one for ignored pixels; beside it the largest wrong reference and prediction value met so far.
        self._counts = torch.zeros(num_classes * num_classes + 1, dtype=torch.int64)
        self._wrong = torch.full((2,), _NONE_SEEN, dtype=torch.int64)

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Count pixels.

        Args:
            prediction: integer tensor of any shape, class ids 0 to K-1; anything is allowed where ``mask`` is 255.
            mask: integer tensor of the same shape and device, the reference: class ids 0 to K-1, 255 = ignored.

        Raises:
            DataError: shapes differ, a tensor is not of integers, or a value is neither a class id nor ignored.
        """
        import torch

        if prediction.shape != mask.shape:
            raise DataError(f"prediction {tuple(prediction.shape)} and mask {tuple(mask.shape)} must have the same shape")
        for name, tensor in (("prediction", prediction), ("mask", mask)):
            if tensor.is_floating_point() or tensor.is_complex():
                raise DataError(f"{name} must hold class ids as integers, got {tensor.dtype}; take the argmax over classes first")
        if mask.numel() == 0:
            return
        classes = self.num_classes
        reference, predicted = mask.reshape(-1).to(torch.int64), prediction.reshape(-1).to(torch.int64)
        counted = reference != IGNORE_INDEX
        wrong_reference = counted & ((reference < 0) | (reference >= classes))
        wrong_prediction = counted & ((predicted < 0) | (predicted >= classes))
        right = counted & ~wrong_reference & ~wrong_prediction
        cell = torch.where(right, reference * classes + predicted, classes * classes)
        wrong = torch.stack(
            (torch.where(wrong_reference, reference, _NONE_SEEN).amax(), torch.where(wrong_prediction, predicted, _NONE_SEEN).amax())
        )
        if self._counts.device != mask.device:
            self._counts, self._wrong = self._counts.to(mask.device), self._wrong.to(mask.device)
        # index_add_ and not bincount: on an accelerator bincount waits to learn its output size.
        added = torch.zeros_like(self._counts).index_add_(0, cell, torch.ones((), dtype=torch.int64, device=mask.device).expand_as(cell))
        if mask.device.type == "cpu":
            self._refuse(wrong)
        self._counts = self._counts + added
        self._wrong = torch.maximum(self._wrong, wrong)

    def merge(self, other: ConfusionMatrix) -> Self:
        """Add the counts of another matrix to this one and return this one.

        Raises:
            DataError: the numbers of classes differ, or either met a wrong value.
        """
        if other.num_classes != self.num_classes:
            raise DataError(f"cannot merge confusion matrices of {self.num_classes} and {other.num_classes} classes")
        self._refuse(self._wrong)
        self._refuse(other._wrong)
        self._counts = self._counts + other._counts.to(self._counts.device)
        return self

    @property
    def matrix(self) -> Tensor:
        """The counts, int64 (K, K) on the CPU: rows = reference, columns = prediction."""
        self._refuse(self._wrong)
        return self._counts[:-1].reshape(self.num_classes, self.num_classes).cpu().clone()

    @property
    def pixels(self) -> int:
        """Number of counted pixels."""
        return int(self.matrix.sum())

    @property
    def ignored_pixels(self) -> int:
        """Number of pixels whose mask was 255."""
        self._refuse(self._wrong)
        return int(self._counts[-1])

    def _refuse(self, wrong: Tensor) -> None:
        reference, predicted = wrong.tolist()
        legal = f"0 to {self.num_classes - 1}"
        if reference != _NONE_SEEN:
            raise DataError(f"label value {reference} is not a class: expected {legal}, or {IGNORE_INDEX} for ignored pixels")
        if predicted != _NONE_SEEN:
            raise DataError(f"predicted value {predicted} is not a class: expected {legal}; does the model belong to this class scheme?")


def scores(matrix: Tensor, names: Sequence[str], colours: Sequence[Colour]) -> Scores:
    """Compute every score of a confusion matrix.

    Args:
        matrix: integer (K, K), rows = reference, columns = prediction.
        names: K class names in id order.
        colours: K 8-bit RGB colours in id order.

    Returns:
        The scores; all None where nothing was counted, never NaN.

    Raises:
        DataError: the matrix is not K x K for K names and colours.

    Example:
        >>> import torch
        >>> result = scores(torch.tensor([[3, 1], [0, 4]]), ("land", "water"), ((0, 0, 0), (0, 0, 255)))
        >>> result.per_class[0].iou, result.per_class[0].precision, result.summary.overall_accuracy
        (0.75, 1.0, 0.875)
    """
    if tuple(matrix.shape) != (len(names), len(names)) or len(colours) != len(names):
        raise DataError(
            f"expected one name and colour for each row of a square matrix; got {tuple(matrix.shape)}, {len(names)}, {len(colours)}"
        )
    # Python integers: products of pixel counts of a country overflow int64.
    rows: list[list[int]] = matrix.tolist()
    reference = [sum(row) for row in rows]
    predicted = [sum(column) for column in zip(*rows, strict=True)]
    per_class = tuple(_class_score(name, rows[index][index], reference[index], predicted[index]) for index, name in enumerate(names))
    return Scores(
        summary=_summary(per_class, [rows[index][index] for index in range(len(rows))], reference, predicted),
        per_class=per_class,
        colours=tuple(colours),
        pixels=sum(reference),
    )


def _class_score(name: str, hits: int, reference: int, predicted: int) -> ClassScore:
    """Score one class from its true positives, reference pixels (tp + fn) and predicted pixels (tp + fp)."""
    absent = reference == 0
    return ClassScore(
        name=name,
        iou=None if absent else hits / (reference + predicted - hits),
        f1=None if absent else 2 * hits / (reference + predicted),
        precision=None if absent else ratio(hits, predicted) or 0.0,
        recall=None if absent else hits / reference,
        reference_pixels=reference,
        predicted_pixels=predicted,
        absent=absent,
    )


def _summary(per_class: Sequence[ClassScore], hits: Sequence[int], reference: Sequence[int], predicted: Sequence[int]) -> Summary:
    total, right = sum(reference), sum(hits)
    # Cohen's kappa (p_o - p_e) / (1 - p_e), with both sides multiplied by total squared to stay in integers.
    by_chance = sum(rows * columns for rows, columns in zip(reference, predicted, strict=True))
    weighted = [item.iou * item.reference_pixels for item in per_class if item.iou is not None]
    return Summary(
        mean_iou=mean([item.iou for item in per_class if item.iou is not None]),
        mean_f1=mean([item.f1 for item in per_class if item.f1 is not None]),
        overall_accuracy=ratio(right, total),
        mean_recall=mean([item.recall for item in per_class if item.recall is not None]),
        mean_precision=mean([item.precision for item in per_class if item.precision is not None]),
        kappa=ratio(total * right - by_chance, total * total - by_chance),
        frequency_weighted_iou=ratio(math.fsum(weighted), total),
    )
