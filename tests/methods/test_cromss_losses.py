"""Losses of CromSS and their gradients are the published ones; ignored pixels teach nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from support.cromss_method import CLASSES, log_probabilities, numbers, scenarios, settings_of, tensors
from tilth.evaluation.metrics import ConfusionMatrix
from tilth.evaluation.published import published_scores
from tilth.methods.cromss.consistency import disagreement
from tilth.methods.cromss.objective import consistency_losses, judge, segmentation_loss
from tilth.methods.cromss.ramps import ramp
from tilth.methods.cromss.segmentation import dice_loss, focal_loss, soft_cross_entropy, weighted_mean
from tilth.methods.cromss.settings import CromssConfig
from tilth.methods.cromss.smoothing import soft_labels

SCENARIOS = scenarios()


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_losses_of_every_scenario_are_the_published_ones(name):
    wanted, recorded = SCENARIOS[name], tensors("losses")
    label, config = tensors("confidence")["y"], settings_of(wanted["config"])
    logits, found = log_probabilities(gradient=True)
    weights = judge(found, 2, label, ramp(config.ramp, wanted["config"]["epoch"], config.ramp_passes), config)
    target = soft_labels(label, recorded["prior"], CLASSES, config.prior_share, config.uniform_share)
    learnt = [
        segmentation_loss(raw, item, label, target, weight, config)
        for raw, item, weight in zip(logits, found, weights.chosen.weight, strict=True)
    ]
    taught = [] if config.consistency == "none" else consistency_losses(found, weights.trusted, config)
    total = torch.stack([*learnt, *(config.consistency_weight * item for item in taught)]).sum()

    logged = wanted["logged"]
    assert total.item() == pytest.approx(wanted["total"], rel=1e-5)
    assert [item.item() for item in learnt] == pytest.approx([logged["tr_segloss_1"], logged["tr_segloss_2"]], rel=1e-5)
    if taught:
        assert [item.item() for item in taught] == pytest.approx([logged["tr_conloss_2t"], logged["tr_conloss_2i"]], rel=1e-5)
    if f"{name}/grad1" in recorded:
        total.backward()
        for place in (1, 2):
            torch.testing.assert_close(logits[place - 1].grad, recorded[f"{name}/grad{place}"], atol=2e-8, rtol=1e-4)


def test_gradients_are_recorded_for_two_scenarios():
    assert {name.split("/")[0] for name in numbers("losses") if "/grad" in name} == {"ss_ce_exp_ep20", "ss_gini_exp_ep20"}


def test_validation_and_the_variant_without_selection_are_the_hard_losses():  # finding 8
    stored = numbers("losses")
    assert float(stored["validation"]) == pytest.approx(SCENARIOS["noss_hard"]["total"], rel=1e-6)
    assert float(stored["plain"]) == pytest.approx(SCENARIOS["noss_hard"]["total"], rel=1e-6)


def test_means_over_labelled_pixels_and_over_all_are_the_published_ones():  # finding 6
    stored = tensors("ignore")
    label, (logits, found) = stored["y"], log_probabilities()
    hard = soft_labels(label, None, CLASSES)
    for place, item in enumerate(found, start=1):
        pixels, valid, weight = soft_cross_entropy(item, hard), (label < CLASSES).float(), stored[f"lblmask{place}"]
        torch.testing.assert_close(pixels, stored[f"ce_pixel{place}"], atol=1e-6, rtol=1e-5)
        for name, given, divisor in (
            ("ce_mean_valid", valid, valid.sum()),
            ("ce_mean_all", valid, torch.tensor(label.numel())),
            ("ce_weighted", weight, weight.sum()),
        ):
            assert weighted_mean(pixels, given, divisor).item() == pytest.approx(stored[f"{name}{place}"].item(), rel=1e-5), name
        assert dice_loss(item.exp(), hard, valid).item() == pytest.approx(stored[f"dice{place}"].item(), rel=1e-5)
        assert dice_loss(item.exp(), hard, weight).item() == pytest.approx(stored[f"dice_weighted{place}"].item(), rel=1e-5)

    config = CromssConfig(selection="off", ignore_mean="all", prior_share=0, uniform_share=0)
    weights = judge(found, 2, label, 1.0, config)
    parts = [segmentation_loss(*each, label, hard, weights.chosen.weight[0], config) for each in zip(logits, found, strict=True)]
    total = torch.stack([*parts, *consistency_losses(found, weights.trusted, config)]).sum()
    assert total.item() == pytest.approx(stored["official_total_ce_mean_over_all_pixels"].item(), rel=1e-5)


def test_losses_of_transfer_are_the_published_ones():
    stored, (_, found) = tensors("transfer"), log_probabilities()
    for label, suffix in ((stored["y"], ""), (stored["y_nomask"], "_nomask")):
        hard, valid = soft_labels(label, None, CLASSES), (label < CLASSES).float()
        loss = weighted_mean(soft_cross_entropy(found[1], hard), valid, valid.sum())
        assert loss.item() == pytest.approx(stored[f"ft_ce{suffix}"].item(), rel=1e-5)
        assert dice_loss(found[1].exp(), hard, valid).item() == pytest.approx(stored[f"ft_dice{suffix}"].item(), rel=1e-5)


def test_scores_by_the_published_conventions_are_the_published_ones():  # finding 16
    stored = numbers("transfer")
    logits, label = log_probabilities()[0][1].clone(), torch.from_numpy(stored["y"])
    for case in ("a", "b_class0_never_predicted"):
        if case != "a":
            logits[:, 0] = -1e9
        counts = ConfusionMatrix(CLASSES)
        counts.update(logits.argmax(1), label)
        matrix = counts.matrix.numpy()
        hits, reference, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        for name, wanted in (("tp", hits), ("fp", predicted - hits), ("fn", reference - hits)):
            assert np.array_equal(stored[f"{case}/{name}"], wanted), name
        assert np.array_equal(stored[f"{case}/tn"], matrix.sum() - reference - predicted + hits)
        found = published_scores(matrix)
        for name, values, mean in (
            ("iou", found.iou, "mIoU"),
            ("f1", found.f1, "mF1"),
            ("precise", found.precision, "mPrecision"),
            ("recall", found.recall, "mRecall"),
        ):
            np.testing.assert_allclose([*values, found.summary[mean]], stored[f"{case}/{name}"], rtol=1e-5, err_msg=name)
        assert found.overall_accuracy == pytest.approx(float(stored[f"{case}/oa"]), rel=1e-5)
        assert found.summary["AA (published)"] == found.summary["mPrecision"]
    assert stored["b_class0_never_predicted/precise"][0] == 1  # nothing predicted, nothing wrong


def test_dice_counts_every_class_under_uniform_smoothing_unless_asked_otherwise():  # finding 5
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    perfect = soft_labels(label, None, 5).clamp(min=1e-6)
    soft = soft_labels(label, None, 5, uniform_share=0.05)
    every = torch.ones(1, 8, 8)
    assert dice_loss(perfect, soft, every) > 0.7
    assert dice_loss(perfect, soft, every, label) < 0.02
    assert dice_loss(perfect, soft_labels(label, None, 5), every) < 1e-4


def test_focal_loss_looks_at_hard_labels_also_under_smoothing():  # finding 10
    logits, found = log_probabilities(gradient=True)
    label = tensors("confidence")["y"]
    config = CromssConfig(terms="cf")
    weights = judge(found, 2, label, 0.5, config)
    target = soft_labels(label, None, CLASSES, uniform_share=0.2)
    loss = segmentation_loss(logits[0], found[0], label, target, weights.chosen.weight[0], config)
    loss.backward()
    assert torch.isfinite(logits[0].grad).all()
    probability = logits[0].detach().sigmoid()
    hard = F.one_hot(label, CLASSES).permute(0, 3, 1, 2)
    right = torch.where(hard == 1, probability, 1 - probability)
    wanted = ((1 - right).square() * -right.log()).sum(1)
    torch.testing.assert_close(focal_loss(logits[0].detach(), label), wanted, atol=1e-4, rtol=1e-4)


def test_no_gradient_reaches_the_teacher():
    teacher, student = (torch.randn(1, 3, 4, 4, requires_grad=True) for _ in range(2))
    for kind in ("ce", "kl", "mse"):
        disagreement(kind, teacher.log_softmax(1), student.log_softmax(1)).sum().backward()
        assert teacher.grad is None
        assert student.grad is not None


def test_three_modalities_learn_from_the_mean_of_their_teachers():
    found = [torch.randn(1, 3, 8, 8).log_softmax(1) for _ in range(3)]
    trusted = torch.rand(3, 1, 8, 8)
    losses = consistency_losses(found, trusted, CromssConfig())
    pairs = [consistency_losses([found[0], found[place]], trusted[[0, place]], CromssConfig())[0] for place in (1, 2)]
    assert losses[0].item() == pytest.approx((pairs[0] + pairs[1]).item() / 2, rel=1e-6)


def test_ignored_pixels_get_no_gradient_and_tiles_ignored_whole_no_loss():
    label = tensors("ignore")["y"]
    for config in (CromssConfig(terms="cdf"), CromssConfig(selection="off", terms="cdf")):
        for mask in (label, torch.full_like(label, 255)):
            logits, found = log_probabilities(gradient=True)
            weights = judge(found, 2, mask, 0.7, config)
            target = soft_labels(mask, None, CLASSES, uniform_share=0.05)
            terms = [
                segmentation_loss(raw, item, mask, target, weights.chosen.weight[0], config)
                for raw, item in zip(logits, found, strict=True)
            ]
            total = torch.stack([*terms, *consistency_losses(found, weights.trusted, config)]).sum()
            total.backward()
            known = (mask < CLASSES).unsqueeze(1)
            for raw in logits:
                assert torch.isfinite(raw.grad).all()
                assert raw.grad[~known.expand_as(raw)].abs().max() == 0
            assert (total == 0) == (not known.any())
