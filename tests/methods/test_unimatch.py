"""UniMatch: the published arithmetic, and what its passes must see."""

from __future__ import annotations

import copy

import pytest
import torch

from support.s4p_steps import SIZE, make_batches, make_method
from support.training_sample import tiny_model
from tilth.methods.s4p.channels import ChannelDropping, feature_widths, kept_channels, with_dropped


@pytest.mark.parametrize("official", [False, True])
def test_published_losses_and_gradients(recorded, replay, official):
    again = replay("unimatch", official=official)
    again.replace("boxes", lambda _draw, _height, _width, _config, view=0: (recorded.box, recorded.box_2)[view])

    def student(image, kept=None):
        again.passes.append(image)
        if kept is None:
            return torch.cat([again.given("logits_u_s1"), again.given("logits_u_s2")])
        assert [len(factors) for factors in kept] == [4 if official else 2] * len(kept)
        perturbed = ["logits_x_fp", "logits_u_w_fp"] if official else ["logits_u_w_fp"]
        return torch.cat([again.given(name) for name in ("logits_x", "logits_u_w", *perturbed)])

    again.method.student = student
    losses = again.method.step(again.batches(), 0)
    losses.total.backward()
    wanted = recorded.facts["unimatch"]
    assert losses.terms["loss_labelled"].item() == pytest.approx(wanted["loss_x"] / 2, rel=1e-5)
    assert losses.terms["loss_unlabelled"].item() == pytest.approx((wanted["loss_u_s1"] + wanted["loss_u_s2"]) / 8, rel=1e-5)
    assert losses.terms["loss_features"].item() == pytest.approx(wanted["loss_u_w_fp"] / 4, rel=1e-5)
    assert losses.total.item() == pytest.approx(wanted["loss"], rel=1e-5)

    def grown(*names):
        return sum(again.logits[name].grad.abs().sum().item() for name in names if again.logits[name].grad is not None)

    assert grown("logits_u_w") == wanted["grad_on_weak_unlabelled"] == 0
    assert grown("logits_x", "logits_u_w") == pytest.approx(wanted["grad_l1_w"], rel=1e-5)
    assert grown("logits_u_w_fp", *(["logits_x_fp"] if official else [])) == pytest.approx(wanted["grad_l1_fp"], rel=1e-5)
    assert grown("logits_u_s1", "logits_u_s2") == pytest.approx(wanted["grad_l1_s"], rel=1e-5)
    assert torch.equal(again.passes[0], torch.cat([recorded.image("img_x"), recorded.image("img_u_w")]))
    mixed = again.passes[1]
    torch.testing.assert_close(mixed[:2, 0, ::2, ::2], recorded.arrays["fix_img"], atol=0, rtol=0)
    box = recorded.box_2[:, None]
    assert torch.equal(mixed[2:], torch.where(box, recorded.image("img_u_s2_mix"), recorded.image("img_u_s2")))


def test_published_targets(recorded, replay, monkeypatch):
    again = replay("unimatch")
    again.replace("boxes", lambda _draw, _height, _width, _config, view=0: (recorded.box, recorded.box_2)[view])
    seen = []
    loss = again.module.unlabelled_loss
    again.replace(
        "unlabelled_loss", lambda logits, labels, *rest, **more: (seen.append(labels.target), loss(logits, labels, *rest, **more))[1]
    )
    again.method.student = lambda image, kept=None: torch.cat(
        [
            recorded.logits(name)
            for name in (("logits_u_s1", "logits_u_s2") if kept is None else ("logits_x", "logits_u_w", "logits_u_w_fp"))
        ]
    )
    again.method.step(again.batches(), 0)
    assert torch.equal(seen[0], recorded.arrays["uni_target1"].long())
    assert torch.equal(seen[1], recorded.arrays["uni_target2"].long())


def test_strong_views_and_their_boxes_differ():
    method, seen = make_method("unimatch"), []
    student = method.student
    method.student = lambda image, kept=None: (seen.append(image), student(image, kept))[1]
    method.step(make_batches(), 0)
    first, second = seen[1].chunk(2)
    assert not torch.equal(first, second)
    assert seen[0].shape == seen[1].shape == (6, 3, SIZE, SIZE)


def test_partner_is_labelled_in_evaluation_and_the_image_itself_in_training():
    method = make_method("unimatch")
    seen = []
    method.model.network.encoder.register_forward_pre_hook(
        lambda module, images: seen.append((module.training, torch.is_grad_enabled(), len(images[0])))
    )
    method.step(make_batches(), 0)
    assert [item[:2] for item in seen] == [(False, False), (True, True), (True, True)]
    assert seen[0][2] <= 3
    assert all(module.training for module in method.model.modules())
    batches = make_batches()
    del batches["partner"]
    alone = make_method("unimatch", method.model, partner="batch")
    seen.clear()
    alone.step(batches, 0)
    assert [item[:2] for item in seen] == [(True, True), (True, True)]


def test_dropped_channels_follow_the_samples_seed_alone():
    widths = [5, 300]
    first, second = kept_channels([7, 8], widths, 0.5, torch.device("cpu")), kept_channels([8, 7], widths, 0.5, torch.device("cpu"))
    for left, right in zip(first, second, strict=True):
        assert torch.equal(left, right.flip(0))
        assert set(left.unique().tolist()) <= {0.0, 2.0}
    assert first[1].mean().item() == pytest.approx(1, abs=0.15)
    assert not torch.equal(first[1][0], first[1][1])
    third = kept_channels([7], widths, 0.25, torch.device("cpu"))[1]
    assert third.max().item() == pytest.approx(4 / 3)
    assert third.mean().item() == pytest.approx(1, abs=0.15)


def test_perturbed_copies_are_decoded_beside_the_images():
    model = tiny_model()
    network = ChannelDropping(copy.deepcopy(model).eval())
    image = torch.randn(3, 3, 30, 41)
    widths = feature_widths(model)
    whole = [torch.ones(2, width) for width in widths]
    with torch.no_grad():
        plain, both = network(image), network(image, whole)
        torch.testing.assert_close(both, torch.cat([plain, plain[-2:]]), atol=1e-5, rtol=1e-5)
        nothing = network(image, [torch.zeros(2, width) for width in widths])
        torch.testing.assert_close(nothing[:3], plain, atol=1e-5, rtol=1e-5)
        # Nothing is left of the images in their copies.
        torch.testing.assert_close(nothing[3], nothing[4], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(nothing[3], plain[1], atol=1e-3)
    maps = [torch.randn(3, 2, 4, 4)]
    assert torch.equal(with_dropped(maps, [torch.tensor([[0.0, 2.0]])])[0][3], maps[0][2] * torch.tensor([0.0, 2.0])[:, None, None])


def test_evaluation_perturbs_nothing():
    method = make_method("unimatch")
    image = torch.randn(2, 3, SIZE, SIZE)
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    assert torch.equal(method.teach(image), method.teach(image))
    assert all(torch.equal(value, before[name]) for name, value in method.model.state_dict().items())
