"""FixMatch with a real network: what the teacher and the student see, and what must never matter."""

from __future__ import annotations

import copy

import pytest
import torch

from support.training_sample import NETWORK, SCHEME, tiny_model
from tilth.augment.cutmix import boxes, mix
from tilth.batch import Batch
from tilth.classes import ClassScheme
from tilth.errors import ConfigError
from tilth.methods.base import build_method, choose_method
from tilth.models.segmenter import build_segmenter
from tilth.sensors import get_sensor

SIZE = 32


def make_batch(seed: int, count: int = 3, *, ignored: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    valid = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    valid[0, 20:], valid[1, :, 25:] = False, False
    image = torch.randn(count, 3, SIZE, SIZE, generator=draw).masked_fill(~valid[:, None], -2.0)
    mask = torch.randint(0, 3, (count, SIZE, SIZE), generator=draw).masked_fill(~valid, 255)
    if ignored:
        mask.fill_(255)
    return Batch(
        image=image, mask=mask, valid=valid, tile_id=[f"{seed}/{i}" for i in range(count)], draw=[seed * 100 + i for i in range(count)]
    )


def make_batches(**kinds: Batch) -> dict[str, Batch]:
    return {"labelled": make_batch(1), "unlabelled": make_batch(2, ignored=True), "partner": make_batch(3, ignored=True), **kinds}


def make_method(model=None, **settings):
    # A fresh network is sure of nothing: the threshold lies among its confidences.
    return build_method("s4p", {"threshold": 0.36, **settings}, (model or tiny_model()).train())


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


def test_no_confident_pixel_leaves_half_the_labelled_loss():
    losses = make_method(threshold=1.0).step(make_batches(), 0)
    assert losses.terms["loss_unlabelled"].item() == 0
    assert losses.total.item() == losses.terms["loss_labelled"].item() > 0


def test_raising_the_threshold_lowers_the_accepted_share():
    model = tiny_model()
    shares = []
    for tau in (0, 0.35, 0.4, 0.5, 1):
        above, below = make_method(copy.deepcopy(model), threshold=tau).step(make_batches(), 0).shares["accepted_share"]
        shares.append((above / below).item())
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1, 0)


def test_batches_without_valid_or_labelled_pixels_are_finite():
    nothing = [make_batch(seed, ignored=True) for seed in (1, 2, 3)]
    for batch in nothing:
        batch["valid"].fill_(value=False)
    method = make_method(threshold=0)
    losses = method.step(dict(zip(("labelled", "unlabelled", "partner"), nothing, strict=True)), 0)
    losses.total.backward()
    assert losses.total.item() == 0
    assert all(not parameter.grad.any() for parameter in method.model.parameters())


def test_labels_of_the_unlabelled_streams_never_influence_the_loss():
    model = tiny_model()
    first = make_method(copy.deepcopy(model)).step(make_batches(), 0)
    labelled = make_batches(unlabelled=make_batch(2), partner=make_batch(3))
    second = make_method(copy.deepcopy(model)).step(labelled, 0)
    assert first.total.item() == second.total.item()
    assert first.shares["agreement"][1] == 0
    assert second.shares["agreement"][1] > 0


def test_one_class_is_finite():
    scheme = ClassScheme(name="one", classes=SCHEME.classes[:1])
    batches = make_batches()
    batches["labelled"]["mask"][batches["labelled"]["mask"] != 255] = 0
    losses = make_method(build_segmenter(NETWORK, get_sensor("rgb"), scheme), threshold=0.95).step(batches, 0)
    assert losses.total.item() == 0
    assert losses.shares["accepted_share"][0] == losses.shares["accepted_share"][1] > 0


def test_weight_of_the_unlabelled_loss_rises_over_the_ramp():
    model = tiny_model()

    def unlabelled(step: int, **settings) -> float:
        return make_method(copy.deepcopy(model), **settings).step(make_batches(), step).terms["loss_unlabelled"].item()

    full = unlabelled(0)
    assert unlabelled(0, ramp_up_steps=4) == pytest.approx(full / 4)
    assert unlabelled(2, ramp_up_steps=4) == pytest.approx(full * 3 / 4)
    assert unlabelled(9, ramp_up_steps=4) == pytest.approx(full)
    assert unlabelled(0, unlabelled_weight=0.5) == pytest.approx(full / 2)


def test_averaged_teacher_labels_where_it_is_asked_to():
    method, average = make_method(teacher="average", threshold=0), tiny_model(seed=5).eval()
    with pytest.raises(ConfigError, match=r"set loop.average_decay"):
        method.check()
    method.average = average
    method.check()
    calls = []
    average.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    before = {name: value.clone() for name, value in average.state_dict().items()}
    method.step(make_batches(), 0)
    assert calls == [False]
    assert not average.training
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())


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
