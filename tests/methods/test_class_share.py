"""The share of each class that counts at least: against sorting by hand, and in the step."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from support.s4p_steps import make_batches, make_method
from support.training_sample import tiny_model
from tilth.methods.s4p.parts import PseudoLabels, class_thresholds

CLASSES = 4


def drawn(seed: int) -> PseudoLabels:
    """Pseudo-labels of classes 0 to 2 of four, with equal confidences among them and pixels that are not valid."""
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (2, 9, 11), generator=draw)
    confidence = (torch.rand(2, 9, 11, generator=draw) * 50).round() / 50
    return PseudoLabels(target, confidence, torch.rand(2, 9, 11, generator=draw) > 0.2)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_thresholds_are_those_of_sorting_each_class_by_hand(share, threshold):
    labels = drawn(7)
    found = class_thresholds(labels, CLASSES, share, threshold)
    for index in range(CLASSES):
        values = sorted(labels.confidence[(labels.target == index) & labels.valid].tolist(), reverse=True)
        wanted = min(threshold, values[math.ceil(share * len(values)) - 1]) if values else threshold
        assert found[index].item() == pytest.approx(wanted, abs=1e-7)
    assert found.dtype == torch.float32


def test_nothing_valid_leaves_the_threshold_to_all_classes():
    labels = drawn(3)
    nothing = PseudoLabels(labels.target, labels.confidence, torch.zeros_like(labels.valid))
    assert class_thresholds(nothing, CLASSES, 0.5, 0.95).tolist() == pytest.approx([0.95] * CLASSES)


def accepted_by_class(**settings: float) -> torch.Tensor:
    """Share of the pixels of each class that a step accepts, of one and the same network."""
    torch.manual_seed(0)
    above, below = make_method(model=copy.deepcopy(MODEL), **settings).step(make_batches(), 0).shares["accepted_share_class"]
    return above / below


MODEL = tiny_model()

TAU = 0.4
"""So strict that some class of the fresh network has fewer pixels than its share, and another one more."""


def test_step_accepts_at_least_the_share_of_every_class_and_all_that_the_threshold_accepts():
    alone, none = accepted_by_class(threshold=TAU), accepted_by_class(threshold=1.0)
    assert (none[none.isfinite()] == 0).all()
    assert (alone[alone.isfinite()] < 0.4).any(), "a class must be starving"
    assert (alone[alone.isfinite()] > 0.4).any()
    both, share = accepted_by_class(threshold=TAU, class_share=0.4), accepted_by_class(threshold=1.0, class_share=0.4)
    there = alone.isfinite()
    assert (share[there] >= 0.4).all()
    assert (share[there] < 0.5).all()
    torch.testing.assert_close(both[there], torch.maximum(alone, share)[there])


def test_share_of_one_accepts_every_valid_pixel_and_none_is_the_threshold_alone():
    everything = accepted_by_class(threshold=1.0, class_share=1.0)
    assert (everything[everything.isfinite()] == 1).all()
    plain, written = (make_method(model=copy.deepcopy(MODEL), **given).step(make_batches(), 0) for given in ({}, {"class_share": 0.0}))
    assert plain.total.item() == written.total.item()


def test_shares_are_those_of_all_processes_together():
    """What a process is given of the others decides with its own pixels: here a copy of them that is surer."""
    method = make_method(threshold=1.0, class_share=0.4)
    alone = method.step(make_batches(), 0).shares["accepted_share"]
    method.gather = lambda value: torch.stack([value, value + 0.2 if value.is_floating_point() else value])
    together = method.step(make_batches(), 0).shares["accepted_share"]
    assert (together[0] < alone[0]).all(), "the other process has the surer pixels, so fewer of these count"
