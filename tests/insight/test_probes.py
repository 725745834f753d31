"""Probes, against scikit-learn called by hand and planted features whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tilth.insight.config import ProbeConfig
from tilth.insight.probes import Sampled, probe

CONFIG = ProbeConfig(neighbours=5)


def planted(count: int, seed: int, noise: float = 0.8, classes: int = 3) -> Sampled:
    """Features in three dimensions, of which one says nothing and one is a thousand times as large; class 0 is rare."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, count, p=[0.1, 0.3, 0.6][:classes]).astype(np.uint8)
    features = np.stack([labels + noise * draw.normal(size=count), 1000.0 * (labels == 1) + 500 * draw.normal(size=count)], axis=1)
    return Sampled(np.concatenate([features, draw.normal(size=(count, 1))], axis=1).astype(np.float32), labels)


def test_scores_are_those_of_scikit_learn_called_by_hand():
    learn, test = planted(600, 1), planted(400, 2)
    found = probe(learn, test, 3, CONFIG)
    scale = StandardScaler().fit(learn.features)
    for scores, judge in (
        (found.linear, LogisticRegression(max_iter=500)),
        (found.neighbours, KNeighborsClassifier(5)),
    ):
        said = judge.fit(scale.transform(learn.features), learn.classes).predict(scale.transform(test.features))
        assert scores.summary.overall_accuracy == pytest.approx(accuracy_score(test.classes, said))
        assert scores.summary.mean_iou == pytest.approx(jaccard_score(test.classes, said, average="macro"))
        assert [item.iou for item in scores.per_class] == pytest.approx(jaccard_score(test.classes, said, average=None))
    assert found.converged


def test_what_can_be_told_apart_is_told_apart_and_what_cannot_is_not():
    learn, test = planted(600, 1, noise=0.01), planted(400, 2, noise=0.01)
    assert probe(learn, test, 3, CONFIG).neighbours.summary.overall_accuracy > 0.98
    assert probe(learn, test, 3, ProbeConfig(strength=1e4, steps=5000)).linear.summary.overall_accuracy > 0.98
    draw = np.random.default_rng(0)
    blind = Sampled(draw.normal(size=(600, 3)).astype(np.float32), learn.classes)
    # Nothing to go by: the answer is the most frequent class, of three fifths of the pixels.
    asked = Sampled(draw.normal(size=(400, 3)).astype(np.float32), test.classes)
    assert probe(blind, asked, 3, CONFIG).linear.summary.overall_accuracy == pytest.approx(np.mean(test.classes == 2), abs=0.02)


def test_one_class_to_learn_from_is_the_answer_to_everything():
    test = planted(100, 2)
    learn = planted(50, 1)
    found = probe(Sampled(learn.features, np.full(50, 2, np.uint8)), test, 3, CONFIG)
    for scores in (found.linear, found.neighbours):
        assert scores.summary.overall_accuracy == pytest.approx(np.mean(test.classes == 2))
    assert found.converged


def test_fewer_pixels_than_neighbours_and_a_class_that_nobody_learnt():
    found = probe(Sampled(np.array([[0.0], [1.0]], np.float32), np.array([0, 1], np.uint8)), planted_line(), 3, ProbeConfig())
    assert [item.absent for item in found.linear.per_class] == [False, False, False]
    assert found.linear.per_class[2].iou == 0.0


def planted_line() -> Sampled:
    return Sampled(np.array([[0.0], [1.0], [1.0]], np.float32), np.array([0, 1, 2], np.uint8))


def test_a_regression_that_was_stopped_says_so():
    assert not probe(planted(600, 1), planted(10, 2), 3, ProbeConfig(steps=1)).converged
