"""The published FixMatch arithmetic, number by number, through the functions that the method calls."""

from __future__ import annotations

import pytest
import torch

from tilth.methods.losses import masked_cross_entropy, supervised_cross_entropy
from tilth.methods.s4p.parts import collapse_warnings, health, pseudo_labels, unlabelled_loss


@pytest.fixture
def labels(recorded):
    own = pseudo_labels(recorded.logits("logits_u_w"), recorded.valid)
    return own.mixed(recorded.box, pseudo_labels(recorded.logits("logits_u_w_mix"), recorded.valid_partner))


def test_mixed_pseudo_labels(recorded, labels):
    assert torch.equal(labels.target, recorded.arrays["fix_target"].long())
    torch.testing.assert_close(labels.confidence, recorded.arrays["fix_conf"], atol=1e-6, rtol=0)
    assert torch.equal(~labels.valid, recorded.arrays["fix_ignore"] == 255)


def test_losses_and_gradient(recorded, labels):
    wanted, tau = recorded.facts["fixmatch"], recorded.facts["conf_thresh"]
    logits = torch.cat([recorded.logits("logits_x"), recorded.logits("logits_u_s1")]).requires_grad_()
    loss_x = supervised_cross_entropy(logits[:2], recorded.arrays["mask_x"].long())
    loss_u, confident = unlabelled_loss(logits[2:], labels, tau)
    total = (loss_x + loss_u) / 2
    total.backward()
    assert loss_x.item() == pytest.approx(wanted["loss_x"], rel=1e-5)
    assert loss_u.item() == pytest.approx(wanted["loss_u"], rel=1e-5)
    assert total.item() == pytest.approx(wanted["total"], rel=1e-5)
    torch.testing.assert_close(logits.grad[:, :, 1::4, 2::4], recorded.arrays["fix_grad"], atol=1e-7, rtol=0)
    assert logits.grad.abs().sum().item() == pytest.approx(wanted["grad_l1"], rel=1e-5)
    above, below = health(labels, confident, torch.full_like(labels.target, 255), 16)["accepted_share"]
    assert above.item() / below.item() == pytest.approx(wanted["mask_ratio"], rel=1e-5)


def test_loss_weighted_by_each_images_share_of_confident_pixels(recorded, labels):
    loss, _ = unlabelled_loss(recorded.logits("logits_u_s1"), labels, recorded.facts["conf_thresh"], "pixelratio", official=True)
    assert loss.item() == pytest.approx(recorded.facts["fixmatch"]["loss_u_pixelratio"], rel=1e-5)


@pytest.mark.parametrize("mode", ["pixelwise", "pixelratio"])
def test_nothing_valid_gives_zero_and_zero_gradient(recorded, labels, mode):
    nothing = type(labels)(labels.target, labels.confidence, torch.zeros_like(labels.valid))
    logits = recorded.logits("logits_u_s1").requires_grad_()
    loss, _ = unlabelled_loss(logits, nothing, 0.95, mode)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_raising_the_threshold_lowers_the_accepted_share(recorded, labels):
    logits = recorded.logits("logits_u_s1")
    counts = [unlabelled_loss(logits, labels, tau)[1].sum().item() for tau in (0, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == labels.valid.sum().item()
    assert len(set(counts)) > 5


def test_confidence_equal_to_the_threshold_counts(labels):
    tau = labels.confidence[0, 10, 10].item()
    assert unlabelled_loss(torch.zeros(2, 16, 32, 32), labels, tau)[1][0, 10, 10]


def test_all_ignored_labels_give_zero_and_zero_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = supervised_cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_cross_entropies_equal_sums_over_pixels():
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 5, 6, 7, generator=draw), torch.randint(0, 5, (2, 6, 7), generator=draw)
    kept = torch.rand(2, 6, 7, generator=draw) > 0.4
    each = -logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(masked_cross_entropy(logits, target, kept, torch.tensor(17)), each[kept].sum() / 17)
    torch.testing.assert_close(supervised_cross_entropy(logits, target.masked_fill(~kept, 255)), each[kept].mean())
    halved = supervised_cross_entropy(logits, target, lambda count: count * 2)
    torch.testing.assert_close(halved, each.mean() / 2)


def test_health_equals_counting_by_hand(labels):
    accepted = (labels.confidence >= 0.9) & labels.valid
    reference = labels.target.clone()
    reference[0, :16], reference[1, 5:9] = 255, (reference[1, 5:9] + 1) % 16
    found = health(labels, accepted, reference, 16)
    for index in range(16):
        of_class = labels.target == index
        assert found["accepted_share_class"][0][index] == (of_class & accepted).sum()
        assert found["accepted_share_class"][1][index] == (of_class & labels.valid).sum()
        assert found["accepted_class"][1][index] == accepted.sum()
    known = accepted & (reference != 255)
    assert found["agreement"][0] == (known & (reference == labels.target)).sum()
    assert found["agreement"][1] == known.sum()
    # Sums over a large batch of ones must not end at what float32 can count.
    assert not any(value.is_floating_point() for pair in found.values() for value in pair)


def test_collapse_is_told_after_the_grace():
    names = ("water", "trees")
    shares = {"accepted_share": [0.4], "accepted_class": [0.005, 0.995]}
    assert collapse_warnings(shares, 9, names, 10) == []
    assert "collapsed: over 98 % of the accepted pixels are 'trees'" in collapse_warnings(shares, 10, names, 10)[0]
    nan = float("nan")
    assert "teach nothing" in collapse_warnings({"accepted_share": [0.0], "accepted_class": [nan, nan]}, 10, names, 10)[0]
    assert collapse_warnings({"accepted_share": [nan], "accepted_class": [nan, nan]}, 10, names, 10) == []
    assert collapse_warnings({"accepted_share": [0.4], "accepted_class": [0.5, 0.5]}, 10, names, 10) == []
    assert collapse_warnings({"accepted_share": [0.4], "accepted_class": [1.0]}, 10, ("land",), 10) == []
