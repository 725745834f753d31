"""How sure CromSS is of labels and predictions, how selection sets in, and how labels are softened: as published, number by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from support.cromss_method import CLASSES, log_probabilities, numbers, tensors
from tilth.methods.cromss.confidence import enhance, label_confidence, labelled_pixels, prediction_confidence
from tilth.methods.cromss.consistency import trust
from tilth.methods.cromss.ramps import kept_ratio, ramp
from tilth.methods.cromss.smoothing import label_prior, soft_labels


def test_ramps_of_every_length_are_the_published_ones():
    stored = numbers("ramps")
    for length in (0, 50, 80, 100):
        for kind, name in (("exp", "sigmoid"), ("linear", "linear")):
            found = [ramp(kind, float(epoch), length) for epoch in stored["epochs"]]
            np.testing.assert_allclose(found, stored[f"{name}_{length}"], atol=1e-12, rtol=0)
            if length:
                np.testing.assert_allclose(found, stored[f"consist_mix_{kind}_{length}"], atol=1e-12, rtol=0)
                ratios = [kept_ratio(value, float(stored["prop"])) for value in found]
                np.testing.assert_allclose(ratios, stored[f"select_ratio_{kind}_{length}"], atol=1e-12, rtol=0)


def test_without_a_ramp_selection_is_complete_at_once():  # finding 1
    assert [ramp("none", passes, 80) for passes in (0, 1, 200)] == [1, 1, 1]


def test_exponential_ramp_starts_at_exp_minus_5():  # finding 4
    assert ramp("exp", 0, 80) == pytest.approx(math.exp(-5))
    assert ramp("exp", 80, 80) == ramp("exp", 500, 80) == 1


def test_confidences_alone_and_enhanced_are_the_published_ones():
    stored = tensors("confidence")
    _, found = log_probabilities()
    own = torch.stack([label_confidence(item, stored["y"]) for item in found])
    kinds = {"lbl": (own, "lbl_conf", "lbl_enh")}
    for kind in ("ce", "gini"):
        kinds[kind] = (torch.stack([prediction_confidence(item, kind) for item in found]), f"{kind}_pred_conf", f"{kind}_pred_enh")
    for values, alone, enhanced in kinds.values():
        for place in range(2):
            torch.testing.assert_close(values[place], stored[f"{alone}{place + 1}"], atol=2e-6, rtol=0)
            torch.testing.assert_close(enhance(values)[place], stored[f"{enhanced}{place + 1}"], atol=2e-6, rtol=0)


def test_saturated_logits_have_an_exact_confidence():  # finding 2
    logits = torch.tensor([1e4, 0.0, -1e4]).view(1, 3, 1, 1).repeat(1, 1, 2, 2)
    certain = logits.log_softmax(1)
    assert torch.equal(prediction_confidence(certain, "ce"), torch.ones(1, 2, 2))
    assert torch.equal(prediction_confidence(certain, "gini"), torch.ones(1, 2, 2))
    assert torch.equal(label_confidence(certain, torch.zeros(1, 2, 2, dtype=torch.int64)), torch.ones(1, 2, 2))
    undecided = torch.zeros(1, 3, 2, 2).log_softmax(1)
    assert prediction_confidence(undecided, "ce").abs().max() < 1e-6
    assert prediction_confidence(undecided, "gini").sub(1 / 3).abs().max() < 1e-6


def test_numbers_that_are_not_finite_are_no_confidence():
    spoilt = torch.full((1, 3, 1, 1), math.nan).log_softmax(1)
    assert prediction_confidence(spoilt, "ce").item() == prediction_confidence(spoilt, "gini").item() == 0
    assert label_confidence(spoilt, torch.zeros(1, 1, 1, dtype=torch.int64)).item() == 0


def test_one_class_is_certain():
    assert prediction_confidence(torch.randn(1, 1, 2, 2).log_softmax(1), "ce").tolist() == [[[1, 1], [1, 1]]]


def test_confidence_is_discounted_to_one_half_where_the_other_modality_disagrees():
    own = torch.tensor([0.8, 0.0]).view(2, 1, 1, 1)
    assert enhance(own).flatten().tolist() == pytest.approx([0.4, 0.0])
    assert enhance(torch.ones(2, 1, 1, 1)).flatten().tolist() == [1, 1]


def test_a_modality_alone_keeps_its_confidence_and_three_hear_the_mean_of_two():
    own = torch.tensor([0.6, 0.2, 1.0]).view(3, 1, 1, 1)
    assert enhance(own[:1]).item() == pytest.approx(0.6)
    assert enhance(own).flatten().tolist() == pytest.approx([0.6 * 1.6 / 2, 0.2 * 1.8 / 2, 1.0 * 1.4 / 2])


def test_a_joint_branch_hears_both_modalities_and_none_hears_it():  # finding 7
    own, joint = torch.rand(2, 1, 4, 4), torch.rand(1, 4, 4)
    found = enhance(own, joint)
    assert torch.equal(found[:2], enhance(own))
    torch.testing.assert_close(found[2], (joint + joint * (own[0] + own[1]) / 2) / 2)


def test_ignored_pixels_have_no_confidence():
    label = torch.tensor([[[0, 255], [-1, 3]]])
    assert labelled_pixels(label, 3).tolist() == [[[True, False], [False, False]]]
    assert label_confidence(torch.zeros(1, 3, 2, 2).log_softmax(1), label).gt(0).tolist() == [[[True, False], [False, False]]]


def test_weights_of_teachers_are_the_published_ones():
    stored, recorded = tensors("selection"), 0
    every = torch.ones_like(stored["y"], dtype=torch.bool)
    for name in stored:
        if name.endswith("predmask1"):
            kind, epoch, confidence, _ = name.split("_")
            found = trust(stored[f"{confidence}_pred_enh1"].unsqueeze(0), ramp(kind, int(epoch[2:]), 80), every)
            torch.testing.assert_close(found[0], stored[name], atol=1e-6, rtol=0)
            recorded += 1
    assert recorded == 8


@pytest.mark.parametrize("kind", ["t", "s", "ts"])
def test_priors_of_seasons_and_neighbourhood_are_the_published_ones(kind):
    stored = tensors("smoothing")
    label = stored["labels"].long()
    found = label_prior(label, label.expand(4, -1, -1, -1), CLASSES, kind)[:, :, stored["rows"]][..., stored["columns"]]
    for season in range(3):
        wanted = stored["prior_t"] if kind == "t" else stored[f"prior_{kind}_season{season}"]
        torch.testing.assert_close(found[season], wanted, atol=1e-6, rtol=0)


def test_softened_labels_are_the_published_ones():
    stored = tensors("smoothing")
    label = stored["labels"].long()
    prior = label_prior(label, label.expand(4, -1, -1, -1), CLASSES, "ts")

    def compare(found: torch.Tensor, name: str) -> None:
        for season in range(3):
            if f"{name}_season{season}" in stored:
                seen = found[season][:, stored["rows"]][..., stored["columns"]]
                torch.testing.assert_close(seen, stored[f"{name}_season{season}"], atol=1e-6, rtol=0)

    compare(soft_labels(label, prior, CLASSES, 0.15, 0.05), "target_ts2")
    compare(soft_labels(label, prior, CLASSES, 0.2), "target_ts1")
    compare(soft_labels(label, None, CLASSES, uniform_share=0.2), "target_uniform")


def test_filtering_before_averaging_is_the_same():  # finding 18
    label = torch.randint(0, 4, (1, 3, 37, 50))
    planes = torch.stack([(label[0] == index).double() for index in range(4)], dim=1).numpy()
    filtered = np.stack([[gaussian_filter(plane, 3, mode="reflect", truncate=4) for plane in season] for season in planes])
    wanted = filtered.mean(0) / filtered.mean(0).sum(0)
    found = label_prior(label[:, 1], label, 4, "t")[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 40), (1, 1), (40, 7)])
def test_images_smaller_than_the_filter_are_mirrored_as_often_as_needed(size):
    label = torch.randint(0, 3, (2, *size))
    planes = np.stack(
        [[gaussian_filter((item == index).double().numpy(), 3, mode="reflect", truncate=4) for index in range(3)] for item in label]
    )
    np.testing.assert_allclose(label_prior(label, None, 3, "s").numpy(), planes / planes.sum(1, keepdims=True), atol=2e-6)


def test_ignored_pixels_lend_nothing_to_their_neighbours_and_are_softened_to_nothing():
    label = torch.zeros(1, 30, 30, dtype=torch.int64)
    label[:, :, 15:] = 255
    prior = label_prior(label, None, 3, "s")
    torch.testing.assert_close(prior[0, 0, :, :27], torch.ones(30, 27))  # as far as the filter reaches
    torch.testing.assert_close(prior[0, :, :, 28:], torch.full((3, 30, 2), 1 / 3))
    soft = soft_labels(label, prior, 3, 0.15, 0.05)
    assert soft[..., 15:].abs().max() == 0
    torch.testing.assert_close(soft[..., :15].sum(1), torch.ones(1, 30, 15))


def test_seasons_without_a_label_leave_the_others_their_say():
    label = torch.zeros(1, 20, 20, dtype=torch.int64)
    other, none = torch.ones_like(label), torch.full_like(label, 255)
    found = label_prior(label, torch.stack([label, other, none], 1), 2, "t")
    torch.testing.assert_close(found, torch.full((1, 2, 20, 20), 0.5))
    both = label_prior(label, torch.stack([label, other, none], 1), 2, "ts")
    torch.testing.assert_close(both[0, 0], torch.full((20, 20), 0.75))


def test_seasons_may_be_more_than_a_byte_counts():
    label = torch.zeros(1, 20, 20, dtype=torch.int64)
    seasons = torch.cat([label.unsqueeze(1).expand(-1, 100, -1, -1), torch.ones(1, 200, 20, 20, dtype=torch.int64)], 1)
    torch.testing.assert_close(label_prior(label, seasons, 2, "t")[0, 0], torch.full((20, 20), 1 / 3))
    torch.testing.assert_close(label_prior(label, seasons, 2, "ts")[0, 0], torch.full((20, 20), 2 / 3))


def test_one_season_alone_is_its_own_time_series():
    label = torch.randint(0, 3, (2, 24, 24))
    kinds = [label_prior(label, seasons, 3, kind) for kind in ("t", "s", "ts") for seasons in (None, label.unsqueeze(1))]
    for other in kinds[1:]:
        torch.testing.assert_close(other, kinds[0])


def test_tiles_that_are_ignored_whole_have_no_opinion():
    none = torch.full((2, 16, 16), 255)
    torch.testing.assert_close(label_prior(none, None, 4, "ts"), torch.full((2, 4, 16, 16), 0.25))
    assert soft_labels(none, None, 4, 0, 0.1).abs().max() == 0


def test_mixed_precision_does_not_touch_the_prior():
    label = torch.randint(0, 3, (1, 32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = label_prior(label, None, 3, "s")
    assert torch.equal(mixed, label_prior(label, None, 3, "s"))
