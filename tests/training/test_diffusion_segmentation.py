"""Training on diffusion features: frozen or not, linear stretch, and the method that puts it together."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from support.resuming import check_same, run_two, stop_after
from support.training_sample import make_trainer, metrics, same, tiny_model, weights
from tilth.augment.stretch import linear_stretch
from tilth.errors import ConfigError
from tilth.models.config import NetworkConfig
from tilth.models.export import export_model
from tilth.training.config import LoopConfig
from tilth.verbs.train_options import FinetuneOptions

SR3 = {"unet_options": {"width": 8, "norm_groups": 4, "res_blocks": 1, "multipliers": [1, 2, 2, 4, 4]}}
NETWORK = NetworkConfig(name="ddpm_segmentor", options=SR3)


def test_a_frozen_noise_predictor_gets_no_gradient_no_optimiser_state_and_keeps_every_bit(catalogs, tmp_path):
    loop = {"steps": 2, "learning_rate": 0.01, "transfer": {"frozen": "always"}}
    trainer, _ = make_trainer(tmp_path, loop, catalogs=catalogs, method="supervised", network=NETWORK)
    encoder = trainer.model.network.encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    buffers = {name: value.clone() for name, value in encoder.named_buffers()}
    passes = []
    encoder.register_forward_hook(lambda *called: passes.append(called[-1][0].requires_grad))
    trainer.fit()
    assert passes == [False] * 2  # no graph is kept, so no memory for one
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert same(before, encoder.state_dict())
    assert same(buffers, dict(encoder.named_buffers()))
    optimised = {id(parameter) for group in trainer.stepper.optimiser.param_groups for parameter in group["params"]}
    assert not optimised & {id(parameter) for parameter in encoder.parameters()}


def test_a_noise_predictor_that_learns_has_no_dropout_and_its_own_rate(catalogs, tmp_path):
    loop = {"steps": 1, "learning_rate": 0.01, "transfer": {"encoder_rate": 0.1}}
    trainer, _ = make_trainer(tmp_path, loop, catalogs=catalogs, method="supervised", network=NETWORK)
    encoder = trainer.model.network.encoder
    trainer.fit()
    assert not any(module.training for module in encoder.unet.modules())
    learns = {id(parameter) for parameter in encoder.parameters() if parameter.requires_grad}
    assert learns
    for group in trainer.stepper.optimiser.param_groups:
        slow = [id(parameter) in learns for parameter in group["params"]]
        assert group["rate_share"] == (0.1 if slow[0] else 1.0)
        assert len(set(slow)) == 1
    whole = tiny_model(network=NETWORK.model_copy(update={"options": SR3 | {"dropout": True}})).train()
    assert all(module.training for module in whole.network.encoder.unet.modules())


def wired(catalogs, folder, settings=None, loop=None):
    usual = {"steps": 1, "learning_rate": 0.01, "transfer": {"frozen": "always"}}
    settings = {"variant": "segment"} | (settings or {})
    return make_trainer(folder, usual | (loop or {}), catalogs=catalogs, method="ddpm", settings=settings, network=NETWORK)[0]


def test_the_method_learns_on_stretched_images_and_repeats_itself(catalogs, tmp_path, monkeypatch):
    seen = []

    def kept(image, *more, **options):
        found = linear_stretch(image, *more, **options)
        seen.append((image, found))
        return found

    monkeypatch.setattr("tilth.methods.ddpm.segment.linear_stretch", kept)
    found = []
    for run in ("one", "two"):
        trainer = wired(catalogs, tmp_path / run, {"stretch": {"probability": 1}}, {"steps": 2})
        before = weights(trainer)
        trainer.fit()
        found.append(weights(trainer))
        changed = {name for name, value in before.items() if not torch.equal(value, found[-1][name])}
        assert changed
        assert not [name for name in changed if name.startswith("network.encoder.")]
    assert same(found[0], found[1])
    assert len(seen) == 4
    assert not any(torch.equal(image, stretched) for image, stretched in seen)


def test_without_stretch_it_is_supervised_training(catalogs, tmp_path):
    trainer = wired(catalogs, tmp_path / "ddpm", {"stretch": {"probability": 0}})
    trainer.fit()
    plain, _ = make_trainer(
        tmp_path / "plain",
        {"steps": 1, "learning_rate": 0.01, "transfer": {"frozen": "always"}},
        catalogs=catalogs,
        method="supervised",
        network=NETWORK,
    )
    plain.fit()
    assert same(weights(trainer), weights(plain))


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(server, data, tmp_path):
    """Noise and stretch are functions of seed and step."""
    settings = {"steps": 8, "batch_size": 2, "log_every": 1, "checkpoint_every": 2, "accelerator": "cpu", "average_decay": 0.9}
    options = [f"loop.{name}={value}" for name, value in settings.items()] + ["weak.size=32", "inference.window=64"]
    network = "network.options={unet_options: {width: 8, norm_groups: 4, res_blocks: 1, multipliers: [1, 2, 2, 4, 4]}}"
    words = ["finetune", "segment", "--method", "ddpm", "--labelled", str(data[0]), *options, network, "--out"]
    runs = tmp_path / "whole", tmp_path / "killed"
    assert server.run([*words, str(runs[0])], tmp_path / "whole.log") == 0, (tmp_path / "whole.log").read_text()
    command = [*words, str(runs[1])]
    assert stop_after(server, command, runs[1], 3, signal.SIGKILL) == -signal.SIGKILL
    assert server.run([*command, "--resume"], runs[1].with_suffix(".log")) == 0, runs[1].with_suffix(".log").read_text()
    check_same(runs[1], runs[0])


@pytest.mark.slow
def test_two_processes_learn_alike_and_leave_one_run(server, data, tmp_path):
    """Fixed noise, since fresh noise is drawn in each process by itself; batch norm and means are over both processes."""
    network = json.dumps(SR3 | {"noise": "fixed"})
    settings = {"steps": 3, "batch_size": 4, "log_every": 1, "validate_every": 3, "accelerator": "cpu", "denominator": "global"}
    options = [f"loop.{name}={value}" for name, value in settings.items()]
    options += ["weak.size=32", "inference.window=64", f"network.options={network}", "loop.learning_rate=1e-4"]
    words = ["finetune", "segment", "--method", "ddpm", "--labelled", str(data[0]), *options, "--out"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert server.run([*words, str(one)], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    run_two(server, [*words, str(two), "loop.devices=2"], tmp_path / "log")
    for left, right in zip(metrics(one), metrics(two), strict=True):
        assert left["step"] == right["step"]
        for name in {"loss_labelled", "mIoU"} & left.keys():
            assert right[name] == pytest.approx(left[name], rel=1e-3), left["step"]
    taken = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    for name, value in taken[0].items():
        if name.startswith("network.encoder."):
            assert torch.equal(value, taken[1][name])  # frozen in both processes
        else:
            assert torch.allclose(value.float(), taken[1][name].float(), atol=1e-3), name


def test_a_batch_goes_in_two_passes_unless_it_was_chosen():
    given = {"task": "segment", "method": "ddpm", "labelled": ["a.parquet"], "out": "run"}
    assert (FinetuneOptions.parse(given, source="words").loop.batch_size, FinetuneOptions.parse(given, source="words").loop.accumulate) == (
        16,
        2,
    )
    for loop in ({"batch_size": 3}, LoopConfig(batch_size=3)):
        assert FinetuneOptions.parse(given | {"loop": loop}, source="words").loop.accumulate == 1
    assert FinetuneOptions.parse(given | {"loop": {"accumulate": 4}}, source="words").loop.accumulate == 4


def test_other_networks_and_stretches_are_refused_in_a_line(catalogs, tmp_path):
    with pytest.raises(ConfigError, match="trains on the maps of a noise predictor, and the network is test_byobnet"):
        make_trainer(tmp_path / "other", {}, catalogs=catalogs, method="ddpm", settings={"variant": "segment"})
    with pytest.raises(ConfigError, match=r"least \(0.2\) must not be more than greatest \(0.15\)"):
        wired(catalogs, tmp_path / "stretch", {"stretch": {"least": 0.2}})


def test_a_model_whose_noise_belongs_to_places_is_not_exported(tmp_path):
    with pytest.raises(ConfigError, match="adds noise that belongs to the place of a pixel"):
        export_model(tiny_model(network=NETWORK), tmp_path / "model.onnx", "torch", (32, 32))
    assert not list(tmp_path.iterdir())
