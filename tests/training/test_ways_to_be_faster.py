"""Less time or memory for the same training: accumulation, mixed precision, checkpointing, fused steps, compilation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from support.training_sample import catalog_of, make_rows, make_trainer, metrics, same, weights
from tilth.errors import ConfigError
from tilth.models.config import NetworkConfig
from tilth.training.config import LoopConfig
from tilth.training.optimiser import build_optimiser


def without_batch_norm() -> NetworkConfig:
    options = {"decoder_channels": [8, 8, 8, 8, 8], "decoder_use_norm": False}
    return NetworkConfig(encoder="test_convnext", decoder="unet", options=options)


def test_accumulated_parts_equal_one_batch(tmp_path, tmp_path_factory, recwarn):
    folder = tmp_path_factory.mktemp("full")
    rows = [make_rows(folder, name, 6, split="train", size=(64, 64), ignored=False) for name in ("lab", "pool")]
    full = catalog_of(rows[0]), catalog_of(rows[1])
    found, losses = [], []
    for name, parts in (("whole", 1), ("parts", 4)):
        trainer, recorder = make_trainer(
            tmp_path / name,
            {"steps": 3, "batch_size": 8, "accumulate": parts, "learning_rate": 1e-4},
            catalogs=full,
            network=without_batch_norm(),
            settings={"threshold": 0.34},
            # Crops without padding: then the parts have equal numbers of valid pixels, and a mean of means is the mean.
            weak={"scale_min": 1.0},
        )
        assert not any(isinstance(module, nn.BatchNorm2d) for module in trainer.model.modules())
        trainer.fit()
        found.append(weights(trainer))
        losses.append([line["loss"] for line in metrics(tmp_path / name)])
        assert recorder.warnings == []
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-6, rtol=0)
    assert [str(item.message) for item in recwarn if "gradient" in str(item.message)] == []


def test_bfloat16_is_finite_and_near_full_precision(tmp_path, catalogs):
    losses = {}
    for precision in ("32", "bf16-mixed"):
        trainer, _ = make_trainer(tmp_path / precision, {"precision": precision}, catalogs=catalogs)
        trainer.fit()
        losses[precision] = [line["loss"] for line in metrics(tmp_path / precision)]
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert losses["bf16-mixed"] != losses["32"]
    assert losses["bf16-mixed"] == pytest.approx(losses["32"], rel=0.1)


def test_channels_last_gives_the_same_losses(tmp_path, catalogs):
    losses = []
    for name, wanted in (("plain", False), ("last", True)):
        trainer, _ = make_trainer(tmp_path / name, {"channels_last": wanted, "learning_rate": 1e-4}, catalogs=catalogs)
        trainer.fit()
        losses.append([line["loss"] for line in metrics(tmp_path / name)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def run_losses(folder, catalogs, **loop):
    trainer, _ = make_trainer(folder, {"learning_rate": 1e-4, **loop}, catalogs=catalogs)
    trainer.fit()
    return [line["loss"] for line in metrics(folder)], weights(trainer)


@pytest.mark.parametrize("more", [{}, {"batch_size": 4, "accumulate": 2}, {"precision": "bf16-mixed"}])
def test_checkpointing_gives_the_same_bits_batch_statistics_too(tmp_path, catalogs, monkeypatch, more):
    passes = []
    batch_norm = torch.nn.functional.batch_norm
    monkeypatch.setattr(torch.nn.functional, "batch_norm", lambda *given, **named: passes.append(1) or batch_norm(*given, **named))
    (losses, plain), counted = run_losses(tmp_path / "plain", catalogs, **more), len(passes)
    passes.clear()
    again, found = run_losses(tmp_path / "again", catalogs, checkpointing=True, **more)
    assert len(passes) > counted  # something was computed twice
    assert again == losses
    assert same(plain, found)
    assert any(name.endswith("running_mean") for name in plain)


def test_checkpointing_of_a_network_that_cannot_is_refused_in_one_line(tmp_path, catalogs):
    cannot = NetworkConfig(name="cromss_unet_resnet50", options={"encoder": "resnet18"})
    with pytest.raises(ConfigError, match="checkpointing: no part of this network") as caught:
        make_trainer(tmp_path / "run", {"checkpointing": True}, catalogs=catalogs, network=cannot, start=False)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [{}, {"clip_norm": 0.01}, {"precision": "bf16-mixed"}])
def test_fused_optimiser_gives_the_same_weights_beyond_rounding(tmp_path, catalogs, more):
    (losses, plain), (again, found) = (run_losses(tmp_path / str(fused), catalogs, fused=fused, **more) for fused in (False, True))
    assert again == pytest.approx(losses, rel=1e-5)
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=1e-4)


def test_transformer_learns_the_same_with_all_ways_to_be_faster(tmp_path, catalogs):
    losses = []
    for attention, loop in (("explicit", {}), ("sdpa", {"checkpointing": True, "fused": True, "channels_last": True})):
        options = {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8, "attention": attention}
        network = NetworkConfig(name="upernet_vit_b", image_size=32, options=options)
        loop = {"learning_rate": 1e-4, "no_decay": "official", **loop}
        trainer, _ = make_trainer(tmp_path / attention, loop, catalogs=catalogs, network=network)
        trainer.fit()
        losses.append([line["loss"] for line in metrics(tmp_path / attention)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_fused_optimiser_is_chosen_unless_it_cannot_be_or_another_is_named():
    wanted = {"auto": {}, True: {}, False: {}, "scaled": {"fused": "auto", "precision": "16-mixed"}}
    found = [build_optimiser(nn.Linear(2, 2), LoopConfig(**{"fused": name, **more})).defaults["fused"] for name, more in wanted.items()]
    assert found == [True, True, False, False]
    assert [LoopConfig.parse({"fused": word}).fused for word in ("auto", "yes", "no")] == ["auto", True, False]
    with pytest.raises(ConfigError, match="fused=yes does not go with precision=16-mixed"):
        LoopConfig.parse({"fused": "yes", "precision": "16-mixed"})


@pytest.mark.slow
def test_compiled_network_trains(tmp_path, catalogs):
    losses = []
    for name, wanted in (("plain", False), ("compiled", True)):
        trainer, _ = make_trainer(tmp_path / name, {"steps": 2, "compile": wanted, "learning_rate": 1e-4}, catalogs=catalogs)
        trainer.fit()
        losses.append([line["loss"] for line in metrics(tmp_path / name)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_compiled_network_that_is_stopped_and_resumed_ends_with_the_same_bits(tmp_path, catalogs):
    loop = {"steps": 4, "compile": True, "fused": True, "checkpoint_every": 1, "learning_rate": 1e-3}
    whole, _ = make_trainer(tmp_path / "whole", loop, catalogs=catalogs)
    whole.fit()
    trainer, _ = make_trainer(tmp_path / "run", loop, catalogs=catalogs)
    batches = trainer._batches
    trainer._batches = lambda: (item for _, item in zip(range(2), batches(), strict=False))
    trainer._export = lambda: None
    trainer.fit()
    again, _ = make_trainer(tmp_path / "run", loop, catalogs=catalogs, start=False)
    again.resume()
    assert again.step == 2
    again.fit()
    assert same(weights(again), weights(whole))
