from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from support.tiny_networks import OPTIONS
from support.training_sample import tiny_model
from tilth.models.by_name import create
from tilth.models.weights.load import official_state_dict
from tilth.training.config import LoopConfig, ScheduleConfig
from tilth.training.optimiser import LearningRate, build_optimiser, decays

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "s5" / "optimizer.json").read_text())


def named(model: str) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.zeros([1] * count)) for name, count in RECORDED["models"][model]["dimensions"].items()}


@pytest.mark.parametrize("model", ["vit_b", "vit_b_rvsa", "swin_t"])
def test_official_rule_exempts_what_the_published_program_exempts(model):
    exempt = [name for name, parameter in named(model).items() if not decays(name, parameter, "official")]
    assert exempt == RECORDED["models"][model]["no_decay"]


TINY = {
    "vit_b": ("upernet_vit_b", {"width": 24, "heads": 2, "decoder_channels": 8}),
    "vit_b_rvsa": ("upernet_vit_b_rvsa", {"width": 24, "heads": 2, "decoder_channels": 8}),
    "swin_t": ("upernet_swin_t", {"width": 6, "heads": (1, 2, 3, 6), "decoder_channels": 8}),
}
"""The networks behind the recorded names: as deep, but narrow."""


@pytest.mark.parametrize("model", TINY)
def test_official_rule_holds_for_our_networks_by_the_published_names(model):
    name, options = TINY[model]
    network = create(name, image_size=64, **options)
    theirs = {tensor.data_ptr(): name for name, tensor in official_state_dict(network).items()}
    optimiser = build_optimiser(network, LoopConfig(no_decay="official", weight_decay=0.3))
    found = {group["weight_decay"]: {theirs[parameter.data_ptr()] for parameter in group["params"]} for group in optimiser.param_groups}
    exempt = set(RECORDED["models"][model]["no_decay"])
    assert found.get(0.0, set()) == exempt
    idle = {theirs[parameter.data_ptr()] for parameter in network.parameters() if not parameter.requires_grad}
    assert found[0.3] | idle == set(RECORDED["models"][model]["dimensions"]) - exempt
    assert not found[0.3] & idle


@pytest.mark.parametrize("name", ["deeplabv3plus_resnet101", "upernet_vit_b_moe"])
def test_official_rule_exempts_nothing_where_published_names_speak_of_no_norm(name):
    # Ours do: a rule that looked at them would exempt the norms.
    network = create(name, image_size=64, **OPTIONS[name])
    assert any("norm" in name for name, _ in network.named_parameters())
    assert [group["weight_decay"] for group in build_optimiser(network, LoopConfig(no_decay="official")).param_groups] == [0.01]


def test_official_rule_goes_by_own_names_where_nobody_published_the_network():
    model = tiny_model()
    optimiser = build_optimiser(model, LoopConfig(no_decay="official", weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimiser.param_groups:
        assert all(("norm" in names[id(parameter)]) == (group["weight_decay"] == 0) for parameter in group["params"])


@pytest.mark.parametrize("model", ["vit_b", "vit_b_rvsa", "swin_t"])
def test_standard_rule_exempts_vectors_embeddings_tokens_and_position_tables(model):
    for name, parameter in named(model).items():
        table = any(part in name for part in ("pos_embed", "cls_token", "relative_position_bias_table", "rel_pos"))
        assert decays(name, parameter) == (parameter.ndim > 1 and not table), name


def test_optimiser_holds_every_parameter_once_in_two_groups():
    model, config = tiny_model(), LoopConfig(learning_rate=0.01, weight_decay=0.3)
    optimiser = build_optimiser(model, config)
    decayed, exempt = optimiser.param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.3, 0)
    held = [id(parameter) for group in (decayed, exempt) for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in exempt["params"])
    assert (decayed["betas"], decayed["eps"]) == ((0.9, 0.999), 1e-8)


def test_cosine_equals_the_recorded_rates():
    recorded = RECORDED["cosine_lr"]
    rate = LearningRate(LoopConfig(steps=recorded["T_max"], learning_rate=recorded["base"]))
    for step, value in recorded["values"].items():
        assert rate.at(int(step)) == pytest.approx(value, rel=0, abs=1e-12 * recorded["base"])


def make(kind: str, **settings) -> LearningRate:
    return LearningRate(LoopConfig(steps=100, learning_rate=2.0, schedule=ScheduleConfig(kind=kind, **settings)))


def test_closed_forms_of_the_other_schedules():
    poly, step, constant = make("poly", power=0.9), make("step", milestones=(0.6, 0.9), factor=0.1), make("constant")
    for now in range(101):
        assert poly.at(now) == pytest.approx(2 * (1 - now / 100) ** 0.9)
        assert step.at(now) == pytest.approx(2 * 0.1 ** ((now >= 60) + (now >= 90)))
        assert constant.at(now) == 2
    kept = make("cosine", final_share=0.25)
    assert kept.at(100) == pytest.approx(0.5)
    assert kept.at(50) == pytest.approx(2 * (0.25 + 0.75 * 0.5))


RATES = dict(np.load(Path(__file__).parents[1] / "fixtures" / "cromss" / "rates.npz"))
EPOCHS = {
    "lr_cos40_ep50": (5e-4, {"kind": "cosine", "final_share": 0.02, "decay_share": 0.8}),
    "lr_cos50_ep50": (5e-4, {"kind": "cosine", "final_share": 0.02}),
    "lr_cos20_f1e4_ep30": (1e-3, {"kind": "cosine", "final_share": 0.1, "decay_share": 20 / 30}),
    "lr_step_20_35_ep50": (5e-4, {"kind": "step", "milestones": (0.4, 0.7), "factor": 0.5}),
    "lr_exp_095_ep50": (5e-4, {"kind": "exp", "final_share": 0.95**50}),
}


@pytest.mark.parametrize("name", EPOCHS)
@pytest.mark.parametrize("epoch", [1, 7])
def test_schedules_of_transfer_are_the_recorded_ones(name, epoch):
    """One step an epoch; and seven, in which the rate stays as it was when the epoch began."""
    base, schedule = EPOCHS[name]
    wanted = RATES[name]
    rate = LearningRate(LoopConfig(steps=epoch * len(wanted), learning_rate=base, schedule=ScheduleConfig(**schedule, hold_steps=epoch)))
    for step in range(epoch * len(wanted)):
        assert rate.at(step) == pytest.approx(wanted[step // epoch], rel=0, abs=1e-12)


def test_plateau_falls_when_the_recorded_one_does():
    """Patience 4 of torch's schedule is the fifth validation of ours; better is what is better by 1e-4 of the best."""
    schedule = ScheduleConfig(kind="plateau", factor=0.5, patience=5, threshold=1e-4)
    rate = LearningRate(LoopConfig(steps=100, learning_rate=0.005, schedule=schedule))
    for loss, wanted in zip(RATES["rop_vloss"], RATES["rop_lr_after_epoch_patience4"], strict=True):
        rate.observe(-float(loss))
        assert rate.at(1) == pytest.approx(wanted, rel=0, abs=1e-12)


@pytest.mark.parametrize("higher", [True, False])
def test_threshold_of_plateau_is_that_of_torch(higher):
    values = np.random.default_rng(0).uniform(0.4, 0.6, 40)
    weight = nn.Parameter(torch.zeros(1))
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(
        torch.optim.SGD([weight], lr=2.0), mode="max" if higher else "min", factor=0.5, patience=2, threshold=0.05, threshold_mode="rel"
    )
    rate = make("plateau", patience=3, factor=0.5, threshold=0.05)
    for value in values:
        oracle.step(float(value))
        rate.observe(float(value if higher else -value))
        assert rate.at(1) == oracle.get_last_lr()[0]
    assert rate.at(1) < 1


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_optimisers_are_those_of_torch_with_decay_where_they_have_it(kind):
    config = LoopConfig(optimiser=kind, learning_rate=0.1, weight_decay=0.3, no_decay="nothing", momentum=0.7, fused=False)
    weights = [nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3)), nn.Parameter(torch.ones(3))]
    model = nn.ParameterDict({"first": weights[0], "second": weights[1]})
    twins = [nn.Parameter(weight.detach().clone()) for weight in weights]
    oracle = {
        "adamw": lambda: torch.optim.AdamW(twins, lr=0.1, weight_decay=0.3, eps=1e-8),
        "adam": lambda: torch.optim.Adam(twins, lr=0.1, weight_decay=0.3, eps=1e-8),
        "sgd": lambda: torch.optim.SGD(twins, lr=0.1, weight_decay=0.3, momentum=0.7),
    }[kind]()
    optimiser = build_optimiser(model, config)
    assert len(optimiser.param_groups) == 1
    for step in range(4):
        for weight in (*weights, *twins):
            weight.grad = weight.detach().cos() * (step + 1)
        optimiser.step()
        oracle.step()
    for weight, twin in zip(weights, twins, strict=True):
        torch.testing.assert_close(weight, twin, rtol=1e-6, atol=1e-7)


def test_l2_of_adam_is_part_of_the_gradient_and_that_of_adamw_is_not():
    """Without a gradient of its own, Adam moves a weight by its rate whatever the decay; AdamW by a share of the weight."""
    moved = {}
    for kind in ("adam", "adamw"):
        weight = nn.Parameter(torch.full((2, 2), 4.0))
        optimiser = build_optimiser(
            nn.ParameterDict({"only": weight}), LoopConfig(optimiser=kind, learning_rate=0.5, weight_decay=1e-3, fused=False)
        )
        weight.grad = torch.zeros_like(weight)
        optimiser.step()
        moved[kind] = 4 - float(weight.detach()[0, 0])
    assert moved == pytest.approx({"adam": 0.5, "adamw": 0.5 * 1e-3 * 4}, rel=1e-3)


@pytest.mark.parametrize("kind", ["cosine", "poly", "constant"])
def test_warm_up_rises_in_a_line_and_the_decay_follows(kind):
    rate = make(kind, warmup_steps=20)
    assert [rate.at(step) for step in range(20)] == pytest.approx([2 * (step + 1) / 20 for step in range(20)])
    assert rate.at(20) == pytest.approx(2)
    middle = {"cosine": 2 * (1 + math.cos(math.pi / 2)) / 2, "poly": 2 * 0.5**0.9, "constant": 2}[kind]
    assert rate.at(60) == pytest.approx(middle)


def test_warm_up_may_begin_above_zero_and_last_a_share_of_the_run():
    rate = make("constant", warmup_share=0.2, warmup_from=0.1)
    assert [rate.at(step) for step in range(20)] == pytest.approx([2 * (0.1 + 0.9 * (step + 1) / 20) for step in range(20)])
    assert rate.at(20) == rate.at(99) == 2
    assert make("constant", warmup_steps=10, warmup_share=0.2).at(10) == 2


def test_plateau_waits_patiently_and_survives_a_checkpoint():
    rate = make("plateau", patience=2, factor=0.5)
    assert rate.at(50) == 2
    for score in (0.4, 0.5, 0.45, 0.5):
        rate.observe(score)
    assert rate.at(50) == 1
    rate.observe(0.3)
    again = make("plateau", patience=2, factor=0.5)
    again.load_state_dict(json.loads(json.dumps(rate.state_dict())))
    for one in (rate, again):
        assert one.at(50) == 1
        one.observe(0.2)
        assert one.at(50) == 0.5
    fresh = make("plateau")
    fresh.load_state_dict(make("plateau").state_dict())
    fresh.observe(-5.0)
    assert fresh.state_dict()["waited"] == 0


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="make it a multiple of 6"):
        LoopConfig(batch_size=8, devices=3, accumulate=2)
    with pytest.raises(ValueError, match=r"give schedule\.final_share"):
        ScheduleConfig(kind="exp")
    with pytest.raises(ValueError, match="must be smaller than steps"):
        LoopConfig(steps=10, schedule=ScheduleConfig(warmup_steps=10))
