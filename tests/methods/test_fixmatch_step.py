"""FixMatch with a real network: what the teacher and the student see, and what must never matter."""

from __future__ import annotations

import copy

import pytest
import torch

from support.s4p_steps import SIZE, make_batch, make_batches, make_method
from support.training_sample import tiny_model
from tilth.augment.cutmix import boxes, mix
from tilth.errors import ConfigError
from tilth.methods.base import build_method, choose_method


class Watch:
    """Calls the student, and keeps what went in and came out with its gradient."""

    def __init__(self, method) -> None:
        self.model = method.model
        method.student = self

    def __call__(self, image):
        self.image, self.logits = image, self.model(image)
        self.logits.retain_grad()
        return self.logits


def test_losses_are_those_of_the_parts():
    method, batches = make_method(), make_batches()
    watch = Watch(method)
    teacher = copy.deepcopy(method.model).eval()
    losses = method.step(batches, 0)
    u, v = batches["unlabelled"], batches["partner"]
    box = boxes(u["draw"], SIZE, SIZE, method.config.cutmix)
    assert 0 < box.sum() < box.numel()
    with torch.no_grad():
        own, partner = (teacher(torch.cat([u["image"], v["image"]])).softmax(1)).max(1).values.split(3)
        own_class, partner_class = (teacher(torch.cat([u["image"], v["image"]]))).argmax(1).split(3)
    confidence, target, valid = mix(box, partner, own), mix(box, partner_class, own_class), mix(box, v["valid"], u["valid"])
    accepted = (confidence >= 0.36) & valid
    assert 0.05 < accepted.float().mean() < 0.95
    logits = watch.logits.detach()
    each = -logits[3:].log_softmax(1).gather(1, target[:, None])[:, 0]
    x = batches["labelled"]["mask"]
    each_x = -logits[:3].log_softmax(1).gather(1, x.clamp(max=2)[:, None])[:, 0]
    torch.testing.assert_close(losses.terms["loss_unlabelled"], each[accepted].sum() / valid.sum() / 2)
    torch.testing.assert_close(losses.terms["loss_labelled"], each_x[x != 255].mean() / 2)
    torch.testing.assert_close(losses.total, losses.terms["loss_labelled"] + losses.terms["loss_unlabelled"])


def test_padded_pixels_never_contribute():
    method, batches = make_method(threshold=0), make_batches()
    watch = Watch(method)
    method.step(batches, 0).total.backward()
    u, v = batches["unlabelled"], batches["partner"]
    valid = torch.cat([batches["labelled"]["mask"] != 255, mix(boxes(u["draw"], SIZE, SIZE, method.config.cutmix), v["valid"], u["valid"])])
    received = watch.logits.grad.abs().sum(1) > 0
    assert torch.equal(received, valid)


def test_teacher_is_the_network_itself_in_evaluation_without_gradient():
    method = make_method()
    seen = []
    method.model.network.register_forward_pre_hook(lambda module, _: None)
    method.model.network.encoder.register_forward_pre_hook(
        lambda module, _: seen.append((module.training, any(part.training for part in module.modules()), torch.is_grad_enabled()))
    )
    method.step(make_batches(), 0)
    assert seen == [(False, False, False), (True, True, True)]
    assert all(module.training for module in method.model.modules())


def test_running_statistics_come_from_the_student_pass_alone():
    method = make_method()
    copied, watch = copy.deepcopy(method.model), Watch(method)
    method.step(make_batches(), 0)
    copied(watch.image)
    for (name, found), wanted in zip(method.model.named_buffers(), copied.buffers(), strict=True):
        assert torch.equal(found, wanted), name


@pytest.mark.parametrize("mixed", [False, True])
def test_teacher_runs_in_full_precision_unless_asked_otherwise(mixed):
    method = make_method(teacher_mixed_precision=mixed)
    method.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    seen = []
    method.model.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    assert torch.isfinite(method.step(make_batches(), 0).total)
    assert seen == [mixed, False]


def test_supervised_training_learns_from_labelled_pixels_alone():
    method, batch = build_method("supervised", {}, tiny_model().train()), make_batch(1)
    watch = Watch(method)
    losses = method.step({"labelled": batch}, 0)
    losses.total.backward()
    assert torch.equal(watch.image, batch["image"])
    assert torch.equal(watch.logits.grad.abs().sum(1) > 0, batch["mask"] != 255)
    strong = build_method("supervised", {"strong": {"jitter_probability": 1}}, method.model)
    strong.student = watch
    strong.step({"labelled": batch}, 0)
    assert not torch.equal(watch.image, batch["image"])


def test_wrong_names_are_refused_with_the_nearest_right_one():
    with pytest.raises(ConfigError, match="did you mean 's4p'"):
        choose_method("s4", {})
    with pytest.raises(ConfigError, match="did you mean 'fixmatch'"):
        choose_method("s4p", {"variant": "fixmach"})
    with pytest.raises(ConfigError, match="did you mean 'threshold'"):
        make_method(treshold=0.9)
