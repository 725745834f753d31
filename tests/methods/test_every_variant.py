"""What holds for a step of every S4P variant, on real and tiny networks."""

from __future__ import annotations

import copy
import pkgutil
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import tilth.methods.s4p
from support.s4p_steps import SETTINGS, SIZE, VARIANTS, make_batch, make_batches, make_method
from support.tiny_networks import OPTIONS
from support.training_sample import NETWORK, SCHEME, make_trainer, tiny_model
from tilth.augment.cutmix import boxes, mix
from tilth.classes import ClassScheme
from tilth.errors import ConfigError
from tilth.methods.base import Method
from tilth.methods.s4p.parts import partners
from tilth.models.config import NetworkConfig
from tilth.models.segmenter import build_segmenter
from tilth.sensors import get_sensor

every = pytest.mark.parametrize("variant", VARIANTS)


def watch(method: Method) -> list[torch.Tensor]:
    """Collect the logits of the student's passes, with their gradients."""
    seen: list[torch.Tensor] = []
    student = method.student

    def call(*given: Any) -> Any:
        found = student(*given)
        logits = found[0] if isinstance(found, tuple) else found
        logits.retain_grad()
        seen.append(logits)
        return found

    method.student = call
    return seen


def test_these_are_all_variants():
    modules = {item.name for item in pkgutil.iter_modules(tilth.methods.s4p.__path__)}
    assert modules - tilth.methods.s4p.SHARED_PARTS == set(VARIANTS)
    assert modules > tilth.methods.s4p.SHARED_PARTS


NETWORKS = {
    "resnet": NetworkConfig(encoder="resnet10t", decoder="unet", options={"decoder_channels": [16, 8, 8, 8, 8]}),
    "vit": NetworkConfig(name="upernet_vit_b", image_size=64, options=OPTIONS["upernet_vit_b"]),
}


@every
@pytest.mark.parametrize("partner", ["stream", "batch"])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_step_on_radar_and_multispectral_bands_is_finite_and_reaches_every_weight(variant, partner, network):
    sensor = get_sensor("s1") + get_sensor("s2_l2a_10")
    model = tiny_model(sensor, NETWORKS[network])
    method = make_method(variant, model, partner=partner)
    batches = make_batches(len(sensor), size=64)
    losses = method.step({name: batches[name] for name in method.streams}, 0)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(value >= 0 for value in losses.terms.values())
    # Several processes wait for each other until every weight has its gradient.
    for name, parameter in method.trained.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and torch.isfinite(parameter.grad).all()), name


@every
@pytest.mark.parametrize("teacher", ["student", "average"])
def test_padded_pixels_never_contribute(variant, teacher):
    loose = {"fixmatch": {"threshold": 0}, "unimatch": {"threshold": 0}, "corrmatch": {"threshold_start": 0, "threshold_momentum": 1}}
    # Boxes are left out: where padding travels to is tested number by number.
    still = {"mix_probability": 0, "kept_percent": 100} if variant == "wscl" else {"cutmix": {"probability": 0}, **loose[variant]}
    method, batches = make_method(variant, teacher=teacher, **still), make_batches()
    method.average = tiny_model(seed=3).eval()
    passes = watch(method)
    method.step(batches, 0).total.backward()
    labelled, valid = batches["labelled"]["mask"] != 255, batches["unlabelled"]["valid"]
    nothing = torch.zeros_like(valid)
    several = {"unimatch": [[labelled, nothing, valid], [valid, valid]], "corrmatch": [[labelled, nothing, valid], [valid]]}
    for logits, wanted in zip(passes, several.get(variant, [[labelled, valid]]), strict=True):
        assert torch.equal(logits.grad.abs().sum(1) > 0, torch.cat(wanted))


@every
def test_no_gradient_reaches_the_teacher(variant):
    method = make_method(variant)
    seen = []
    method.model.network.encoder.register_forward_pre_hook(lambda module, _: seen.append((module.training, torch.is_grad_enabled())))
    method.step(make_batches(), 0)
    assert seen[0] == (False, False)
    assert set(seen[1:]) == {(True, True)}
    assert len(seen) == {"fixmatch": 2, "wscl": 2, "unimatch": 3, "corrmatch": 3}[variant]
    assert all(module.training for module in method.trained.modules())


@every
def test_teacher_that_is_an_average_labels_everything_and_stays_as_it_is(variant):
    method, average = make_method(variant, teacher="average"), tiny_model(seed=5).eval()
    with pytest.raises(ConfigError, match=r"set loop.average_decay"):
        method.check()
    method.average = average
    method.check()
    calls = []
    average.register_forward_hook(lambda _, images, __: calls.append((torch.is_grad_enabled(), len(images[0]))))
    before = {name: value.clone() for name, value in average.state_dict().items()}
    method.step(make_batches(), 0)
    assert [with_gradient for with_gradient, _ in calls] == [False]
    assert calls[0][1] >= 3
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())


@pytest.mark.parametrize("variant", ["fixmatch", "unimatch", "corrmatch"])
def test_no_confident_pixel_leaves_half_the_labelled_loss(variant):
    unsure = {"threshold_start": 1, "threshold_momentum": 1} if variant == "corrmatch" else {"threshold": 1}
    method, batches = make_method(variant, **unsure), make_batches()
    passes = watch(method)
    losses = method.step(batches, 0)
    assert all(value == 0 for name, value in losses.terms.items() if "labelled" not in name or "unlabelled" in name)
    mask = batches["labelled"]["mask"]
    alone = nn.functional.cross_entropy(passes[0][:3], mask, ignore_index=255)
    if variant == "corrmatch":
        alone = alone / 2 + 2 * losses.terms["loss_labelled_carried"]
    torch.testing.assert_close(losses.total, alone / 2)


@pytest.mark.parametrize("variant", ["fixmatch", "unimatch", "corrmatch"])
def test_raising_the_threshold_lowers_the_accepted_share(variant):
    model, shares = tiny_model(), []
    for tau in (0, 0.35, 0.38, 0.5, 1):
        chosen = {"threshold_start": tau, "threshold_momentum": 1, "proposals": 0} if variant == "corrmatch" else {"threshold": tau}
        above, below = make_method(variant, copy.deepcopy(model), **chosen).step(make_batches(), 0).shares["accepted_share"]
        shares.append((above / below).item())
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1, 0)
    assert 0 < shares[1] < 1


@every
def test_batches_without_valid_or_labelled_pixels_are_finite(variant):
    nothing = [make_batch(seed, ignored=True) for seed in (1, 2, 3)]
    for batch in nothing:
        batch["valid"].fill_(value=False)
    method = make_method(variant)
    losses = method.step(dict(zip(("labelled", "unlabelled", "partner"), nothing, strict=True)), 0)
    losses.total.backward()
    assert losses.total.item() == 0
    assert all(not parameter.grad.any() for parameter in method.trained.parameters())


@every
def test_one_class_is_finite(variant):
    scheme, batches = ClassScheme(name="one", classes=SCHEME.classes[:1]), make_batches()
    batches["labelled"]["mask"][batches["labelled"]["mask"] != 255] = 0
    method = make_method(variant, build_segmenter(NETWORK, get_sensor("rgb"), scheme))
    losses = method.step(batches, 0)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(0, abs=1e-7)
    assert method.warnings({"accepted_share": [0.4], "accepted_class": [1.0]}, 500) == []


@every
def test_labels_of_the_unlabelled_streams_never_influence_the_loss(variant):
    model = tiny_model()
    first = make_method(variant, copy.deepcopy(model)).step(make_batches(), 0)
    labelled = make_batches(unlabelled=make_batch(2), partner=make_batch(3))
    second = make_method(variant, copy.deepcopy(model)).step(labelled, 0)
    assert first.total.item() == second.total.item()
    assert first.shares["agreement"][1] == 0
    assert second.shares["agreement"][1] > 0


@every
def test_unlabelled_losses_rise_over_the_ramp(variant):
    model = tiny_model()

    def terms(step: int, **settings: Any) -> dict[str, float]:
        if variant == "wscl":
            settings |= {"mix_probability": 1}
        return {
            name: value.item()
            for name, value in make_method(variant, copy.deepcopy(model), **settings).step(make_batches(), step).terms.items()
        }

    full, quarter, none = terms(0), terms(0, ramp_up_steps=4), terms(0, unlabelled_weight=0)
    for name, value in full.items():
        taught = name.startswith("loss_labelled")
        assert quarter[name] == pytest.approx(value if taught else value / 4), name
        assert none[name] == (pytest.approx(value) if taught else 0), name


@every
def test_health_is_told_and_collapse_is_warned_of(variant):
    method = make_method(variant, collapse_grace=10)
    shares = method.step(make_batches(unlabelled=make_batch(2), partner=make_batch(3)), 0).shares
    assert {"accepted_share", "accepted_share_class", "accepted_class", "agreement"} <= set(shares)
    assert 0 < (shares["accepted_share"][0] / shares["accepted_share"][1]).item() <= 1
    assert ("threshold" in shares) == (variant == "corrmatch")
    said = method.warnings({"accepted_share": [0.4], "accepted_class": [0.001, 0.001, 0.998]}, 10)
    assert len(said) == 1
    assert "collapsed" in said[0]
    assert "settings." in said[0]
    name = said[0].rpartition("settings.")[2].split()[0]
    assert name in type(method.config).model_fields
    assert "teach nothing" in method.warnings({"accepted_share": [0.0], "accepted_class": [0.0, 0.0, 0.0]}, 10)[0]


@every
@pytest.mark.parametrize("partner", ["stream", "batch"])
def test_step_is_a_pure_function_of_weights_and_draws(variant, partner):
    model, found = tiny_model(), []
    for seed in (0, 1):
        torch.manual_seed(seed)  # whatever chance was used for before
        method = make_method(variant, copy.deepcopy(model), partner=partner)
        batches = make_batches()
        found.append(method.step({name: batches[name] for name in method.streams}, 3).total.item())
    assert found[0] == found[1]


@every
def test_partner_of_the_same_batch_asks_for_no_second_one(variant):
    method = make_method(variant, partner="batch")
    assert set(method.streams) == {"labelled", "unlabelled"}
    batches = make_batches()
    del batches["partner"]
    calls = []
    method.model.register_forward_pre_hook(lambda _, images: calls.append(len(images[0])))
    method.step(batches, 0)
    # UniMatch and CorrMatch label the images themselves in the student's pass.
    assert calls[:1] == ([3] if variant in ("fixmatch", "wscl") else [])
    with pytest.raises(ConfigError, match=r"settings\.partner=stream"):
        method.step({**batches, "unlabelled": {name: value[:1] for name, value in batches["unlabelled"].items()}}, 0)


def test_partners_are_other_images_and_other_tiles_where_there_are_any():
    draws = list(range(50, 58))
    for tiles in (list("abcdefgh"), list("aabbccdd"), list("aaaabcde"), list("aabbbbbc")):
        for shift in range(20):
            keys = [draw + 100 * shift for draw in draws]
            found = partners(keys, tiles)
            assert sorted(found) == list(range(8))
            assert all(place != other for place, other in enumerate(found))
            same = sum(tiles[place] == tiles[other] for place, other in enumerate(found))
            most = max(Counter(tiles).values())
            assert same == max(0, 2 * most - 8), tiles
            assert found == partners(keys, tiles)
    assert len({tuple(partners([draw + shift for draw in draws], list("abcdefgh"))) for shift in range(50)}) > 30
    assert partners([1, 2, 3], list("aaa")) in ([1, 2, 0], [2, 0, 1])
    assert partners([1, 2], list("ab")) == [1, 0]


def test_box_of_the_same_batch_brings_image_label_and_validity_of_one_partner():
    method = make_method(
        "fixmatch", partner="batch", threshold=0, strong={"jitter_probability": 0, "grayscale_probability": 0, "blur_probability": 0}
    )
    batches = make_batches()
    u = batches["unlabelled"]
    shown = []
    student = method.student
    method.student = lambda image: (shown.append(image), student(image))[1]
    losses = method.step(batches, 0)
    box, found = boxes(u["draw"], SIZE, SIZE, method.config.cutmix), partners(u["draw"], u["tile_id"])
    assert box.any()
    torch.testing.assert_close(shown[0][3:], mix(box, u["image"][found], u["image"]), atol=1e-5, rtol=1e-5)
    assert losses.shares["accepted_share"][1] == mix(box, u["valid"][found], u["valid"]).sum()


def test_only_partners_with_a_box_are_labelled_and_augmented(monkeypatch):
    import tilth.methods.s4p.fixmatch as module

    seen = []
    strong_view = module.strong_view
    monkeypatch.setattr(module, "strong_view", lambda image, *rest: (seen.append(image), strong_view(image, *rest))[1])
    batches = make_batches()
    for probability in (0, 0.5, 1):
        method = make_method(cutmix={"probability": probability})
        calls = []
        method.model.register_forward_pre_hook(lambda _, images, calls=calls: calls.append(len(images[0])))
        method.step(batches, 0)
        with_box = int(boxes(batches["unlabelled"]["draw"], SIZE, SIZE, method.config.cutmix).flatten(1).any(1).sum())
        # One strong view of each image, and none that nobody sees (defect B13 of the official program).
        assert (len(seen.pop()), calls[0]) == (3 + with_box, 3 + with_box)
        assert not seen
        assert 0 < with_box < 3 or probability != 0.5


def test_mode_that_the_official_program_gets_wrong_is_not_offered():
    # Defect B12: pixelavg counts every image as often as there are images.
    with pytest.raises(ConfigError, match="confidence_mode"):
        make_method(confidence_mode="pixelavg")


@every
@pytest.mark.parametrize("mixed", [False, True])
def test_mixed_precision_of_bfloat16_is_finite(variant, mixed):
    method = make_method(variant, teacher_mixed_precision=mixed)
    method.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    student = method.student

    def within(*given: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return student(*given)

    method.student = within
    losses = method.step(make_batches(), 0)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(value.dtype == torch.float32 for value in losses.terms.values())


@every
def test_trained_in_the_loop_with_accumulation_and_average(variant, tmp_path, catalogs):
    loop = {"steps": 3, "batch_size": 4, "accumulate": 2, "average_decay": 0.9, "learning_rate": 1e-3}
    settings = {"variant": variant, "teacher": "average", **SETTINGS[variant]}
    trainer, _ = make_trainer(tmp_path / "run", loop, catalogs=catalogs, settings=settings, weak={"size": 64})
    before = {name: value.clone() for name, value in trainer.stepper.trained.state_dict().items()}
    trainer.fit()
    moved = [name for name, parameter in trainer.stepper.trained.named_parameters() if not torch.equal(parameter, before[name])]
    # Softmax takes no notice of what is added to all of its arguments.
    assert set(before) - set(moved) - {name for name, _ in trainer.stepper.trained.named_buffers()} <= {"second.bias"}
    assert trainer.stepper.skipped == 0


@every
@pytest.mark.slow
def test_compiled_network_trains(variant, tmp_path, catalogs):
    losses = []
    for name, wanted in (("plain", False), ("compiled", True)):
        loop = {"steps": 3, "batch_size": 4, "compile": wanted, "learning_rate": 1e-4, "log_every": 1}
        trainer, _ = make_trainer(tmp_path / name, loop, catalogs=catalogs, settings={"variant": variant, **SETTINGS[variant]})
        steps = []
        step = trainer.method.step
        trainer.method.step = lambda batches, number, step=step, steps=steps: (steps.append(step(batches, number)), steps[-1])[1]
        trainer.fit()
        losses.append([found.total.item() for found in steps])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
