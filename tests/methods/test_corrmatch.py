"""CorrMatch: the published arithmetic and correlation layer, the official switch, and the threshold that moves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from support.s4p_steps import SIZE, make_batches, make_method
from support.training_sample import tiny_model
from tilth.methods.s4p.channels import feature_widths
from tilth.methods.s4p.correlation import CorrelationNetwork, carry, correlate, regions_of, spread, surest
from tilth.methods.s4p.corrmatch import divergence
from tilth.methods.s4p.parts import PseudoLabels

from .conftest import noise

FIXTURES = Path(__file__).parents[1] / "fixtures" / "s5"


def replayed(recorded, replay, **settings):
    """A step on what was recorded; returns what took its place, its losses, and what `spread` gave."""
    again = replay("corrmatch", threshold_start=0.6, **settings)
    again.replace("boxes", lambda *_: recorded.box)
    again.replace("regions_of", lambda *_: recorded.bits("corr_prop", 2, 12, 32, 32))
    spreading, found = again.module.spread, []
    again.replace("spread", lambda *given: (found.append((given, spreading(*given))), found[0][1])[1])

    def student(image, kept, dropped=None, places=None):
        again.passes.append(image)
        if dropped is None:
            return again.given("logits_u_s1"), again.given("corr_u_s1"), torch.zeros(0)
        perturbed = ["logits_x_fp", "logits_u_w_fp"] if again.method.config.official else ["logits_u_w_fp"]
        logits = torch.cat([again.given(name) for name in ("logits_x", "logits_u_w", *perturbed)])
        return logits, torch.cat([again.given("corr_x"), again.given("corr_u_w")]), torch.zeros(0)

    again.method.student = student
    return again, again.method.step(again.batches(), 0), found[0]


def test_published_losses_with_the_official_switch(recorded, replay):
    again, losses, (given, (target, extended)) = replayed(recorded, replay, official=True)
    wanted = recorded.facts["corrmatch"]
    found = {name: value.item() for name, value in losses.terms.items()}
    assert again.method.threshold.item() == pytest.approx(wanted["thresh_global"], rel=1e-5)
    assert given[1].sum().item() == wanted["filter_pixels"]
    assert extended.sum().item() == wanted["filter_pixels_after_propagation"]
    assert (target != given[0].target).sum().item() == wanted["changed_labels"]
    assert torch.equal(target, recorded.arrays["corr_target"].long())
    assert torch.equal(extended, recorded.bits("corr_filter", 2, 32, 32))
    assert found["loss_labelled"] == pytest.approx(wanted["loss_x"] / 4, rel=1e-5)
    assert found["loss_labelled_carried"] == pytest.approx(wanted["loss_x_corr"] / 4, rel=1e-5)
    assert found["loss_unlabelled"] == pytest.approx(wanted["loss_u_s1"] / 8, rel=1e-5)
    assert found["loss_soft"] == pytest.approx(wanted["loss_u_kl"] / 8, rel=1e-5)
    assert found["loss_features"] == pytest.approx(wanted["loss_u_w_fp"] / 8, rel=1e-5)
    assert found["loss_carried"] == pytest.approx(wanted["loss_u_corr"] / 8, rel=1e-5)
    assert losses.total.item() == pytest.approx(wanted["loss"], rel=1e-5)
    losses.total.backward()
    assert not again.logits["logits_u_w"].grad.any()
    torch.testing.assert_close(again.passes[1][:, 0, ::2, ::2], recorded.arrays["fix_img"], atol=0, rtol=0)


def test_soft_targets_are_mixed_like_the_images_by_default(recorded, replay):
    _, losses, ((mixed, sure, *_), _) = replayed(recorded, replay)
    box = recorded.box[:, None]
    soft = torch.where(box, recorded.logits("logits_u_w_mix").softmax(1), recorded.logits("logits_u_w").softmax(1))
    said = recorded.logits("logits_u_s1").softmax(1)
    each = (soft * (soft / said).log()).sum(1)
    wanted = each[sure].sum() / mixed.valid.sum() / 8
    torch.testing.assert_close(losses.terms["loss_soft"].detach(), wanted)
    assert losses.terms["loss_soft"].item() != recorded.facts["corrmatch"]["loss_u_kl"] / 8


def test_threshold_looks_at_the_padding_of_the_images_it_judges(recorded, replay):
    for official, valid in ((False, recorded.valid), (True, torch.where(recorded.box, recorded.valid_partner, recorded.valid))):
        again, _, _ = replayed(recorded, replay, official=official, threshold_momentum=0.5)
        confidence, target = recorded.logits("logits_u_w").softmax(1).max(1)
        best = [confidence[valid & (target == index)].max().item() for index in range(16) if (valid & (target == index)).any()]
        assert again.method.threshold.item() == pytest.approx(0.5 * 0.6 + 0.5 * np.mean(best), rel=1e-6)


def test_published_correlation_layer():
    facts, arrays = json.loads((FIXTURES / "corr_module.json").read_text()), np.load(FIXTURES / "corr_module.npz")
    features, logits = noise("input:corr_module_feat", 2, 256, 12, 12), noise("input:corr_module_out", 2, 16, 48, 48)
    network = CorrelationNetwork(tiny_model())
    network.first, network.second = torch.nn.Conv2d(256, 16, 1), torch.nn.Conv2d(256, 16, 1)
    with torch.no_grad():
        for layer, name in ((network.first, "conv1"), (network.second, "conv2")):
            layer.weight.copy_(noise(f"corr.{name}.weight", 16, 256, 1, 1) * np.float32(0.02) * 5)
            layer.bias.copy_(noise(f"corr.{name}.bias", 16) * np.float32(0.02) * 5)
        correlation = correlate(network.first(features), network.second(features))
        carried = carry(logits, correlation, (12, 12))
    torch.testing.assert_close(carried, torch.from_numpy(arrays["corr_out"]), atol=1e-4, rtol=0)
    for name, value in {"mean": carried.mean(), "std": carried.std(), "min": carried.min(), "max": carried.max()}.items():
        assert value.item() == pytest.approx(facts["corr_out"][name], rel=1e-3, abs=1e-5), name
    rows = correlation[:, (7 * torch.arange(128)) % 143].view(2, 128, 12, 12)
    regions = regions_of(rows, (48, 48), 48, 48)
    wanted = np.unpackbits(arrays["corr_map_first16"])[: 2 * 16 * 48 * 48].reshape(2, 16, 48, 48).astype(bool)
    assert (regions[:, :16].numpy() == wanted).mean() >= 0.999
    assert regions.float().mean().item() == pytest.approx(facts["map_true_fraction"], rel=0.01)


def test_row_that_is_the_same_everywhere_proposes_nothing():
    rows = torch.full((1, 2, 4, 4), 1 / 16)
    rows[0, 1, 1, 1] = 0.5
    assert regions_of(rows, (16, 16), 13, 16).flatten(2).any(2).tolist() == [[False, True]]


@pytest.mark.parametrize("official", [False, True])
def test_every_position_can_propose_but_for_the_last_in_the_published_program(official):
    network = CorrelationNetwork(tiny_model(), 8, spare_last=official).eval()
    image, kept = torch.randn(1, 3, 64, 64), torch.ones(1, 8)
    with torch.no_grad():
        rows = network(image, kept, None, torch.tensor([[0.0, 0.3, 0.999999, 1.0]]))[2]
        deep = network.projection(network.model.encode(image)[-1])
        correlation = correlate(network.first(deep), network.second(deep))[0]
    assert torch.equal(rows[0].flatten(1), correlation[[0, 0, 2, 2] if official else [0, 1, 3, 3]])


def test_places_of_proposals_follow_the_samples_seed_alone():
    method = make_method("corrmatch", proposals=1000)
    places, turned = (method._places(draws, torch.zeros(1)) for draws in ([1, 2], [2, 1]))
    assert torch.equal(places, turned.flip(0))
    assert not torch.equal(places[0], places[1])
    assert (places.min() >= 0, places.max() <= 1) == (True, True)
    assert places.mean().item() == pytest.approx(0.5, abs=0.05)


def brute_force(target, accepted, regions, threshold):
    target, extended = target.clone(), accepted.clone()
    for image in range(len(target)):
        for region in regions[image]:
            trusted = region & accepted[image]
            if not trusted.any() or trusted.sum() / region.sum() < threshold:
                continue
            votes = torch.bincount(target[image][trusted])
            if votes.max() / trusted.sum() > threshold:
                target[image][region] = votes.argmax()
                extended[image] |= region
    return target, extended


@pytest.mark.parametrize("seed", range(4))
def test_spreading_equals_one_proposal_after_the_other(seed):
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (3, 5, 6), generator=draw).repeat_interleave(4, 1).repeat_interleave(4, 2)
    accepted = torch.rand(3, 20, 24, generator=draw) > 0.25
    regions = torch.rand(3, 9, 5, 6, generator=draw).repeat_interleave(4, 2).repeat_interleave(4, 3) > (0.8 if seed else 0.97)
    regions[0, 3] = False
    labels = PseudoLabels(target, torch.rand(3, 20, 24), torch.ones(3, 20, 24, dtype=torch.bool))
    found = spread(labels, accepted, regions, torch.tensor(0.55), 3)
    wanted = brute_force(target, accepted, regions, 0.55)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    assert seed == 0 or not torch.equal(found[0], target)
    assert torch.equal(labels.target, target)


def test_spreading_without_proposals_changes_nothing():
    labels = PseudoLabels(torch.zeros(2, 4, 4, dtype=torch.int64), torch.ones(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool))
    accepted = torch.rand(2, 4, 4) > 0.5
    for regions in (torch.zeros(2, 3, 4, 4, dtype=torch.bool), torch.zeros(2, 0, 4, 4, dtype=torch.bool)):
        target, extended = spread(labels, accepted, regions, torch.tensor(0.5), 3)
        assert torch.equal(target, labels.target)
        assert torch.equal(extended, accepted)


def test_divergence_of_certain_targets_is_their_cross_entropy():
    logits = torch.randn(2, 4, 3, 3)
    target = torch.randint(0, 4, (2, 3, 3))
    certain = torch.nn.functional.one_hot(target, 4).movedim(-1, 1).float()
    torch.testing.assert_close(divergence(certain, logits), torch.nn.functional.cross_entropy(logits, target, reduction="none"))
    torch.testing.assert_close(divergence(logits.softmax(1), logits), torch.zeros(2, 3, 3), atol=1e-6, rtol=0)


def test_threshold_stays_where_no_pixel_is_valid_or_the_network_is_lost():
    method = make_method("corrmatch")
    nothing = PseudoLabels(torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    assert method._follow(nothing, nothing).item() == pytest.approx(0.36)
    lost = PseudoLabels(nothing.target, torch.full((1, 2, 2), torch.nan), ~nothing.valid)
    assert method._follow(lost, lost).item() == pytest.approx(0.36)
    assert surest(nothing, 3).tolist() == [0, 0, 0]


def test_threshold_takes_the_surest_pixel_of_all_processes():
    method = make_method("corrmatch", threshold_momentum=0.0)
    other = torch.tensor([0.0, 0.9, 0.2])
    method.gather = lambda own: torch.stack([own, other])
    target = torch.tensor([[[0, 1]]])
    labels = PseudoLabels(target, torch.tensor([[[0.5, 0.4]]]), torch.ones(1, 1, 2, dtype=torch.bool))
    assert method._follow(labels, labels).item() == pytest.approx((0.5 + 0.9 + 0.2) / 3)


def test_threshold_is_kept_in_the_state():
    method = make_method("corrmatch")
    method.step(make_batches(), 0)
    other = make_method("corrmatch")
    assert other.threshold != method.threshold
    other.load_state_dict(method.state_dict())
    assert other.threshold == method.threshold


def test_layers_of_its_own_are_trained_and_not_exported():
    method = make_method("corrmatch")
    own = {name for name, _ in method.trained.named_parameters() if not name.startswith("model.")}
    assert {name.partition(".")[0] for name in own} == {"projection", "first", "second"}
    assert not any("projection" in name for name in method.model.state_dict())
    assert method.trained.projection.convolution.in_channels == feature_widths(method.model)[-1]
    # Smaller crops have one position, which correlates with itself alone.
    method.step(make_batches(size=64), 0).total.backward()
    received = {name for name, parameter in method.trained.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    # Softmax takes no notice of what is added to all of its arguments.
    assert received >= own - {"second.bias"}


def test_logits_are_carried_at_the_images_own_size():
    network = CorrelationNetwork(tiny_model(), 8)
    logits, carried, rows = network(torch.randn(2, 3, 45, 70), torch.ones(2, 8), None, torch.rand(1, 5))
    assert logits.shape == carried.shape == (2, 3, 45, 70)
    assert rows.shape[:2] == (1, 5)
    assert not rows.requires_grad
    torch.testing.assert_close(rows.sum((2, 3)), torch.ones(1, 5))
    assert SIZE < 45
