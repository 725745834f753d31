"""Trained encoders under new decoders: frozen, frozen at first, or learning at rates of their own (cromss.md section 7.3)."""

from __future__ import annotations

import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from support.resuming import WEIGHTS, check_same, run_two, stop_after
from support.training_sample import NETWORK, make_trainer, tiny_model, words
from tilth.errors import ConfigError
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.sensors import get_sensor
from tilth.training.config import LoopConfig, TransferConfig
from tilth.training.freezing import Freezing, rate_share
from tilth.training.optimiser import build_optimiser

ENCODER = "network.encoder."


def train(folder, catalogs, transfer, steps=3, **more):
    """A supervised training; returns the weights before and after it."""
    trainer, _ = make_trainer(
        folder, {"steps": steps, "learning_rate": 0.01, "transfer": transfer, **more}, catalogs=catalogs, method="supervised"
    )
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit()
    return before, load_file(folder / WEIGHTS)


def changed(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def of_encoder(names):
    return {name for name in names if name.startswith(ENCODER)}


@pytest.mark.parametrize("more", [{}, {"optimiser": "adam", "weight_decay": 0.1, "no_decay": "nothing"}, {"average_decay": 0.5}])
def test_frozen_encoder_keeps_every_tensor_bit_for_bit(catalogs, tmp_path, more):
    """Finding 14: in the published program its batch norms follow the tiles all the same."""
    before, after = train(tmp_path / "run", catalogs, {"frozen": "always"}, **more)
    assert of_encoder(changed(before, after)) == set()
    assert changed(before, after) >= {"network.segmentation_head.0.weight", "network.segmentation_head.0.bias"}


def test_tracking_moves_statistics_of_the_encoder_and_nothing_else(catalogs, tmp_path):
    before, after = train(tmp_path / "run", catalogs, {"frozen": "always", "frozen_bn": "track"})
    moved = of_encoder(changed(before, after))
    assert moved == of_encoder(name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked")))


def test_encoder_that_is_never_frozen_learns(catalogs, tmp_path):
    before, after = train(tmp_path / "run", catalogs, {})
    assert f"{ENCODER}model.stem.conv.weight" in changed(before, after)


def test_encoder_frozen_at_first_learns_from_the_step_after(catalogs, tmp_path):
    transfer = {"frozen": "first", "frozen_steps": 2}
    trainer, _ = make_trainer(tmp_path / "run", {"steps": 3, "transfer": transfer}, catalogs=catalogs, method="supervised")
    assert [trainer.stepper.freezing.at(step) for step in range(3)] == [True, True, False]
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit()
    assert f"{ENCODER}model.stem.conv.weight" in changed(before, load_file(tmp_path / "run" / WEIGHTS))


def test_frozen_beginning_equals_a_frozen_training_of_that_length(catalogs, tmp_path):
    _, always = train(tmp_path / "always", catalogs, {"frozen": "always"}, steps=2, schedule={"kind": "constant"})
    trainer, _ = make_trainer(
        tmp_path / "first",
        {"steps": 3, "learning_rate": 0.01, "transfer": {"frozen": "first", "frozen_steps": 2}, "schedule": {"kind": "constant"}},
        catalogs=catalogs,
        method="supervised",
    )
    seen = {}
    update = trainer.stepper.update

    def watch(*given):
        update(*given)
        if trainer.step == 1:
            seen.update({name: value.clone() for name, value in trainer.model.state_dict().items()})

    trainer.stepper.update = watch
    trainer.fit()
    assert changed(seen, always) == set()


OWN = ["loop.transfer.frozen=first", "loop.transfer.frozen_steps=4", "loop.average_decay=null", "loop.steps=7", "loop.checkpoint_every=2"]


def command(data, out, *more):
    """Supervised training from the command line."""
    built = words(*data, out, *OWN, *more)
    place = built.index("--unlabelled")
    kept = [word for word in built[2:place] + built[place + 2 :] if not word.startswith("settings.threshold")]
    return ["finetune", "segment", *kept]


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 5])
def test_killed_before_or_after_the_encoder_joins_it_leaves_the_same_bytes(server, data, tmp_path, after):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert server.run(command(data, whole), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert stop_after(server, command(data, run), run, after, signal.SIGKILL) != 0
    assert server.run(command(data, run, "--resume"), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    check_same(run, whole)


@pytest.mark.slow
def test_two_processes_freeze_what_one_does(server, data, tmp_path):
    short = ["loop.steps=3", "loop.transfer.frozen_steps=2", "loop.learning_rate=0.0003", "loop.denominator=global"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert server.run(command(data, one, *short), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    run_two(server, command(data, two, *short, "loop.devices=2"), tmp_path / "log")
    left, right = (load_file(run / WEIGHTS) for run in (one, two))
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("sensor", ["rgb", "s1+s2_l2a"], ids=["alone", "two branches"])
def test_what_sits_behind_an_encoder_learns_on(sensor):
    """A pyramid behind a plain transformer never comes with weights: frozen, it would stay random."""
    network = NetworkConfig(
        name="upernet_vit_b",
        image_size=64,
        options={"width": 24, "depth": 4, "heads": 2, "patch": 16, "decoder_channels": 8},
        fusion=FusionConfig() if "+" in sensor else None,
    )
    model = tiny_model(get_sensor(sensor), network).train()
    branches = getattr(model.network, "branches", ())
    starts = [f"encoder.{branch}." for branch in branches] or ["encoder."]
    freezing = Freezing(model, TransferConfig(frozen="always"))
    freezing.before(0)
    learning = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad and name.startswith("encoder.")}
    for start in starts:
        own = {name.removeprefix(start) for name in learning if name.startswith(start)}
        assert own
        assert all(name.startswith(("pyramid.", "norms.")) for name in own)
        assert not model.network.get_submodule(f"{start}blocks.0").training
    norms = {name: part.training for name, part in model.network.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert all(norms.values())


def test_layers_that_nothing_uses_stay_still_when_the_encoder_joins():
    model = tiny_model(network=NetworkConfig(name="cromss_pspnet_resnet50", options={"encoder": "resnet18"}))
    idle = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    freezing = Freezing(model, TransferConfig(frozen="first", frozen_steps=1))
    for step in (0, 1):
        freezing.before(step)
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == idle
    assert idle


def test_rates_rise_or_fall_from_block_to_block_and_the_encoder_has_the_smallest():
    """Six groups of the published program: five decoder blocks and the head, factor 0.8."""
    model = tiny_model(network=NETWORK)
    places = {f"decoder.blocks.{place}.": place for place in range(5)} | {"segmentation_head.": 5}
    for rates, exponents in (("ascending", (5, 4, 3, 2, 1, 0)), ("descending", (0, 1, 2, 3, 4, 5))):
        optimiser = build_optimiser(model, LoopConfig(transfer=TransferConfig(rates=rates)))
        share = {id(parameter): group["rate_share"] for group in optimiser.param_groups for parameter in group["params"]}
        for name, parameter in model.network.named_parameters():
            exponent = next((exponents[place] for start, place in places.items() if name.startswith(start)), 5)
            assert share[id(parameter)] == pytest.approx(0.8**exponent), (rates, name)


def test_rates_of_blocks_are_refused_where_there_are_none():
    model = tiny_model(network=NetworkConfig(name="cromss_fpn_resnet50", options={"encoder": "resnet18"}))
    with pytest.raises(ConfigError, match="decoders made of blocks") as caught:
        rate_share(model, TransferConfig(rates="ascending"))
    assert "\n" not in str(caught.value)


def test_every_group_is_given_its_share_of_the_rate(catalogs, tmp_path):
    trainer, _ = make_trainer(
        tmp_path / "run",
        {"steps": 1, "learning_rate": 0.5, "transfer": {"rates": "ascending"}, "schedule": {"kind": "constant"}},
        catalogs=catalogs,
        method="supervised",
    )
    trainer.fit()
    rates = sorted({round(group["lr"], 12) for group in trainer.stepper.optimiser.param_groups})
    assert rates == pytest.approx([0.5 * 0.8**exponent for exponent in (5, 4, 3, 2, 1, 0)])


def test_settings_that_do_not_belong_together_are_refused():
    for given, said in (
        ({"frozen": "first"}, "belong together"),
        ({"frozen_steps": 5}, "belong together"),
        ({"frozen": "first", "frozen_steps": 1000}, "must be smaller than steps"),
    ):
        with pytest.raises(ValueError, match=said):
            LoopConfig(transfer=TransferConfig(**given))
