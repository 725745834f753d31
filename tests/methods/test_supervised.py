"""Supervised losses: recorded numbers of the CromSS program's transfer, ignored pixels, and what they are of."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from support.cromss_method import CLASSES, log_probabilities, make_batch, scheme, tensors
from support.training_sample import NETWORK
from tilth.classes import IGNORE_INDEX
from tilth.errors import ConfigError
from tilth.methods.base import build_method
from tilth.methods.losses import supervised_cross_entropy, supervised_dice
from tilth.models.segmenter import build_segmenter
from tilth.sensors import get_sensor


def test_losses_of_transfer_are_the_recorded_ones():
    """Section 7.1 of cromss.md: CE and Dice against hard labels, with and without ignored pixels."""
    stored, logits = tensors("transfer"), log_probabilities()[0][1]
    for label, suffix in ((stored["y"], ""), (stored["y_nomask"], "_nomask")):
        mask = torch.where(label < CLASSES, label, IGNORE_INDEX)
        assert supervised_cross_entropy(logits, mask).item() == pytest.approx(stored[f"ft_ce{suffix}"].item(), rel=1e-5)
        assert supervised_dice(logits, mask).item() == pytest.approx(stored[f"ft_dice{suffix}"].item(), rel=1e-5)


def test_dice_is_that_of_segmentation_models():
    from segmentation_models_pytorch.losses import DiceLoss

    logits = torch.randn(2, 4, 9, 7)
    mask = torch.randint(0, 3, (2, 9, 7))  # class 3 is absent
    mask[:, :2] = IGNORE_INDEX
    oracle = DiceLoss("multiclass", ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(supervised_dice(logits, mask), oracle(logits, mask))


def test_ignored_pixels_change_nothing_and_tiles_of_them_cost_nothing():
    logits = torch.randn(1, 3, 6, 8, requires_grad=True)
    mask = torch.randint(0, 3, (1, 6, 8))
    mask[..., 4:] = IGNORE_INDEX
    torch.testing.assert_close(supervised_dice(logits, mask), supervised_dice(logits[..., :4], mask[..., :4]))
    nothing = supervised_dice(logits, torch.full_like(mask, IGNORE_INDEX))
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_one_class_alone_is_learnt_to_the_end():
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert supervised_dice(torch.zeros(1, 1, 4, 4), mask).item() == 0
    sure = F.one_hot(mask, 3).permute(0, 3, 1, 2) * 100.0
    assert supervised_dice(sure, mask).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("terms", ["c", "d", "cd"])
def test_step_adds_the_terms_that_are_asked_for(terms):
    model = build_segmenter(NETWORK, get_sensor("rgb"), scheme(3)).eval()
    method = build_method("supervised", {"terms": terms}, model)
    batch = make_batch(bands=3, classes=3)
    found = method.step({"labelled": batch}, 0)
    assert list(found.terms) == [name for letter, name in (("c", "loss_labelled"), ("d", "loss_dice")) if letter in terms]
    logits = model(batch["image"])
    wanted = {"c": supervised_cross_entropy, "d": supervised_dice}
    torch.testing.assert_close(found.total, sum(wanted[letter](logits, batch["mask"]) for letter in terms))


def test_options_that_do_nothing_do_not_exist():
    """Finding 20: the published program takes flags that nothing reads, and one that does the opposite of its name."""
    model = build_segmenter(NETWORK, get_sensor("rgb"), scheme(3))
    with pytest.raises(ConfigError, match="terms"):
        build_method("supervised", {"terms": "cc"}, model)
    with pytest.raises(ConfigError, match="label_smoothing_exclude_class"):
        build_method("cromss", {"label_smoothing_exclude_class": [0]}, model)
