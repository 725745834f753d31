"""Probes: what simple classifiers make of single pixels of a map, tested on pixels of other tiles."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tilth.errors import needs_extra
from tilth.evaluation.metrics import ConfusionMatrix, scores
from tilth.evaluation.result import Scores
from tilth.insight.config import ProbeConfig


@dataclass(frozen=True)
class Sampled:
    """Pixels of a map.

    Attributes:
        features: float32 (n, c).
        classes: uint8 (n,), class ids; ignored pixels are not among them.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.uint8]


@dataclass(frozen=True)
class Probed:
    """What the probes of one map score.

    Attributes:
        linear: of multinomial logistic regression.
        neighbours: of the nearest neighbours.
        converged: whether the steps of the regression sufficed.
    """

    linear: Scores
    neighbours: Scores
    converged: bool


def probe(learn: Sampled, test: Sampled, classes: int, config: ProbeConfig) -> Probed:
    """Fit both probes and test them. Channels are standardised by the pixels that are learnt from.

    Args:
        learn: at least one pixel; where all are of one class, that class is the answer to everything.
        test: at least one pixel, of other tiles.
        classes: number of classes K.
        config: settings of the probes.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    with needs_extra("insight", "probes"):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(learn.features)
    known, asked = scale.transform(learn.features), scale.transform(test.features)
    nearest = KNeighborsClassifier(min(config.neighbours, len(known))).fit(known, learn.classes)
    near = _score(nearest.predict(asked), test.classes, classes)
    if len(np.unique(learn.classes)) == 1:
        return Probed(_score(np.full(len(asked), learn.classes[0]), test.classes, classes), near, converged=True)
    with warnings.catch_warnings():
        # Told in the result.
        warnings.simplefilter("ignore", ConvergenceWarning)
        line = LogisticRegression(C=config.strength, max_iter=config.steps).fit(known, learn.classes)
    converged = int(np.max(line.n_iter_)) < config.steps
    return Probed(_score(line.predict(asked), test.classes, classes), near, converged)


def _score(predicted: NDArray[np.uint8], reference: NDArray[np.uint8], classes: int) -> Scores:
    counts = ConfusionMatrix(classes)
    counts.update(torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(reference.astype(np.int64)))
    names = [str(number) for number in range(classes)]
    return scores(counts.matrix, names, [(0, 0, 0)] * classes)
