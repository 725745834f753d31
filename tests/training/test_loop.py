"""The loop in one process: gradients, steps that must not happen, logs and warnings."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn

from support.training_sample import NETWORK, SCHEME, catalog_of, make_rows, make_trainer, metrics, same, weights
from tilth.errors import ConfigError, RunError, TilthError
from tilth.methods.base import Losses
from tilth.methods.s4p.fixmatch import FixMatch
from tilth.models.config import NetworkConfig
from tilth.training.config import LoopConfig
from tilth.training.distributed import build_fabric
from tilth.training.optimiser import build_optimiser


def spoil_steps(trainer, steps: set[int]) -> None:
    """Let a part of the network give NaN in some steps, so that batch statistics, loss and gradient are not finite."""

    def spoil(_module, _inputs, output):
        return output * float("nan") if trainer.model.training and trainer.step in steps else output

    next(item for item in trainer.model.modules() if isinstance(item, nn.Conv2d)).register_forward_hook(spoil)


def test_training_learns(tmp_path, catalogs):
    trainer, _ = make_trainer(
        tmp_path / "run", {"steps": 30, "learning_rate": 0.01, "batch_size": 4}, catalogs=catalogs, method="supervised"
    )
    trainer.fit()
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_same_seed_same_weights_another_seed_others(tmp_path, catalogs):
    options = {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32, "decoder_dropout": 0.5}
    with_dropout = NetworkConfig(encoder=NETWORK.encoder, decoder="fpn", options=options)
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(17)  # whatever was drawn before must not matter
        trainer, _ = make_trainer(tmp_path / name, {"seed": seed}, catalogs=catalogs, network=with_dropout)
        trainer.fit()
        found.append(weights(trainer))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_step_that_is_not_finite_changes_nothing(tmp_path, catalogs):
    trainer, _ = make_trainer(tmp_path / "run", {"steps": 5, "average_decay": 0.9}, catalogs=catalogs)
    spoil_steps(trainer, {2})
    kept, update = [], trainer.stepper.update

    def watched(*given):
        # The statistics of the spoilt pass are in the buffers here; what counts is what is left afterwards.
        update(*given)
        optimiser = copy.deepcopy(trainer.stepper.optimiser.state_dict()["state"])
        kept.append((weights(trainer), copy.deepcopy(trainer.stepper.average.model.state_dict()), optimiser))

    trainer.stepper.update = watched
    result = trainer.fit()
    assert result.skipped == 1
    assert same(kept[1][0], kept[2][0])
    assert same(kept[1][1], kept[2][1])
    for index, state in kept[1][2].items():
        assert same(state, kept[2][2][index])
    assert not same(kept[2][0], kept[3][0])
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    assert [line["skipped"] for line in metrics(tmp_path / "run")] == [0, 0, 1, 1, 1]
    assert "loss" not in metrics(tmp_path / "run")[2]
    assert json.loads((tmp_path / "run" / "finished.json").read_text())["skipped_steps"] == 1


def test_log_line_over_a_skipped_step_holds_the_mean_of_the_others(tmp_path, catalogs):
    lines = {}
    for name, every in (("each", 1), ("all", 4)):
        trainer, _ = make_trainer(tmp_path / name, {"steps": 4, "log_every": every}, catalogs=catalogs)
        spoil_steps(trainer, {1, 3})
        trainer.fit()
        lines[name] = metrics(tmp_path / name)
    wanted = [line["loss"] for line in lines["each"] if "loss" in line]
    assert len(wanted) == 2
    assert lines["all"][0]["loss"] == pytest.approx(sum(wanted) / 2, rel=1e-5)
    assert lines["all"][0]["skipped"] == 2


def test_many_such_steps_in_a_row_stop_the_run(tmp_path, catalogs):
    trainer, _ = make_trainer(tmp_path / "run", {"steps": 9, "max_skipped_steps": 2}, catalogs=catalogs)
    spoil_steps(trainer, {0, 1, 3, 4, 5, 6})
    with pytest.raises(RunError, match=r"^step 5: loss or gradient not finite 3 times in a row \(loss nan\); lower loop") as caught:
        trainer.fit()
    assert len(str(caught.value).splitlines()) == 1


def test_gradient_is_clipped_to_the_norm(tmp_path, catalogs):
    norms = []
    for name, limit in (("free", None), ("clipped", 0.01)):
        trainer, _ = make_trainer(tmp_path / name, {"steps": 1, "clip_norm": limit}, catalogs=catalogs)
        trainer.stepper.optimiser.register_step_pre_hook(
            lambda optimiser, *_: norms.append(
                math.sqrt(sum(float(p.grad.square().sum()) for group in optimiser.param_groups for p in group["params"]))
            )
        )
        trainer.fit()
    assert norms[0] > 0.05
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_rate_of_every_step_is_that_of_the_schedule(tmp_path, catalogs):
    trainer, _ = make_trainer(tmp_path / "run", {"steps": 6, "schedule": {"warmup_steps": 2}, "learning_rate": 0.01}, catalogs=catalogs)
    used = []
    trainer.stepper.optimiser.register_step_pre_hook(lambda optimiser, *_: used.append({group["lr"] for group in optimiser.param_groups}))
    trainer.fit()
    wanted = [0.005, 0.01, *(0.01 * (1 + math.cos(math.pi * done / 4)) / 2 for done in range(4))]
    assert [rate for (rate,) in used] == pytest.approx(wanted)
    assert [line["learning_rate"] for line in metrics(tmp_path / "run")] == pytest.approx(wanted, rel=1e-6)


def test_plateau_listens_to_validation_across_a_resume(tmp_path, catalogs):
    scores = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
    loop = {"steps": 6, "validate_every": 1, "checkpoint_every": 1, "schedule": {"kind": "plateau", "patience": 2, "factor": 0.1}}
    trainer, _ = make_trainer(tmp_path / "run", loop, catalogs=catalogs, validate=lambda _: {"mIoU": next(scores)})
    batches = trainer._batches
    trainer._batches = lambda: (item for _, item in zip(range(2), batches(), strict=False))
    trainer._export = lambda: None
    trainer.fit()
    again, _ = make_trainer(tmp_path / "run", loop, catalogs=catalogs, validate=lambda _: {"mIoU": next(scores)}, start=False)
    again.resume()
    assert again.step == 2
    again.fit()
    rates = [line["learning_rate"] for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 2 + [1e-5])


def test_best_weights_are_exported_and_the_average_where_there_is_one(tmp_path, catalogs):
    seen = []

    def validate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mIoU": (0.3, 0.6, 0.6, 0.4)[len(seen) - 1]}

    trainer, _ = make_trainer(tmp_path / "run", {"validate_every": 1, "average_decay": 0.5}, catalogs=catalogs, validate=validate)
    result = trainer.fit()
    assert result.best_score == 0.6
    from tilth.models.segmenter import Segmenter

    assert same(Segmenter.load(tmp_path / "run").state_dict(), seen[1])
    assert not same(seen[1], weights(trainer))


def test_validation_without_a_score_does_no_harm(tmp_path, catalogs):
    trainer, _ = make_trainer(tmp_path / "run", {"validate_every": 2}, catalogs=catalogs, validate=lambda _: {})
    assert trainer.fit().best_score is None
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_collapse_is_warned_of_and_kept_with_the_metrics(tmp_path, catalogs, monkeypatch):
    trainer, recorder = make_trainer(tmp_path / "run", {"steps": 3}, catalogs=catalogs, settings={"collapse_grace": 2, "threshold": 0})
    bias = list(trainer.model.network.segmentation_head.parameters())[-1]
    with torch.no_grad():
        bias.copy_(torch.tensor([0.0, 60.0, 0.0]))
    trainer.fit()
    lines = metrics(tmp_path / "run")
    told = [line for line in lines if line["kind"] == "warning"]
    assert [line["step"] for line in told] == [2]  # once, though it holds at step 3 too
    assert "collapsed: over 98 % of the accepted pixels are 'trees'" in told[0]["message"]
    assert told[0]["message"] in recorder.warnings
    assert lines[0]["accepted_class/1"] == pytest.approx(1, abs=1e-3)
    assert "accepted_share_class/0" not in lines[0]  # nothing was taken for it: not 0, not NaN
    assert lines[0]["accepted_share"] == 1


def test_agreement_is_logged_where_the_pool_has_labels(tmp_path, tmp_path_factory, catalogs):
    pool = catalog_of(make_rows(tmp_path_factory.mktemp("known"), "known", 5, split="train"))
    trainer, _ = make_trainer(tmp_path / "run", {}, catalogs=(catalogs[0], pool), settings={"threshold": 0})
    trainer.fit()
    assert all(0 <= line["agreement"] <= 1 for line in metrics(tmp_path / "run"))
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_averaged_teacher_without_average_is_refused_before_anything_is_lost(tmp_path, catalogs):
    with pytest.raises(ConfigError, match=r"no average is kept; set loop\.average_decay"):
        make_trainer(tmp_path / "run", {}, catalogs=catalogs, settings={"teacher": "average"})
    trainer, _ = make_trainer(tmp_path / "run", {"average_decay": 0.9}, catalogs=catalogs, settings={"teacher": "average"})
    trainer.fit()


def test_one_class_and_all_ignored_labels_train_without_harm(tmp_path, tmp_path_factory, catalogs):
    from PIL import Image

    folder = tmp_path_factory.mktemp("ignored")
    rows = make_rows(folder, "lab", 3, split="train")
    for row in rows:
        Image.new("L", (40, 48), 255).save(row["label"])
    trainer, _ = make_trainer(tmp_path / "run", {}, catalogs=(catalog_of(rows), catalogs[1]))
    trainer.fit()
    assert all(line["loss_labelled"] == 0 for line in metrics(tmp_path / "run"))
    assert len(SCHEME) == 3


def test_method_may_keep_state_in_the_checkpoint(tmp_path, catalogs):
    class Remembering(FixMatch):
        seen = 0

        def step(self, batches, step) -> Losses:
            self.seen += 1
            return super().step(batches, step)

        def state_dict(self):
            return {"seen": self.seen, "mean": torch.tensor([self.seen / 2])}

        def load_state_dict(self, state):
            assert state["mean"].item() == state["seen"] / 2
            self.seen = state["seen"]

    trainer, _ = make_trainer(tmp_path / "run", {}, catalogs=catalogs)
    trainer.method.__class__ = Remembering
    trainer.fit()
    again, _ = make_trainer(tmp_path / "run", {}, catalogs=catalogs, start=False)
    again.method.__class__ = Remembering
    again.resume()
    assert again.method.seen == 4


def test_accelerator_that_is_not_there_is_told_in_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(TilthError, match=r"loop\.accelerator=cuda") as caught:
        build_fabric(LoopConfig(accelerator="cuda"))
    assert len(str(caught.value).splitlines()) == 1


def test_network_of_the_sample_has_both_kinds_of_batch_norm(tmp_path, catalogs):
    trainer, _ = make_trainer(tmp_path / "run", {}, catalogs=catalogs, network=NETWORK)
    kinds = {type(module).__name__ for module in trainer.model.modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {"BatchNorm2d", "BatchNormAct2d"}


def test_one_tile_a_pass_is_refused_where_the_decoder_pools(tmp_path, catalogs):
    options = {"decoder_channels": 16, "decoder_atrous_rates": [1, 2, 3]}
    pooled = NetworkConfig(encoder=NETWORK.encoder, decoder="deeplabv3plus", options=options)
    trainer, _ = make_trainer(tmp_path / "run", {"batch_size": 1}, catalogs=catalogs, network=pooled, method="supervised")
    with pytest.raises(ConfigError, match="one tile a pass is too few"):
        trainer.fit()


def test_processes_started_by_slurm_must_be_those_of_the_configuration(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=r"4 processes were started, but loop\.devices=1"):
        build_fabric(LoopConfig(accelerator="cpu"))


def test_gradients_under_a_scaler_are_unscaled_by_the_loop_not_by_the_optimiser(monkeypatch):
    # Where the weights are on a GPU, the fused step is chosen; Fabric refuses to clip when it also unscales.
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True), raising=False)
    fused = [build_optimiser(nn.Linear(2, 2), LoopConfig(precision=name)).defaults["fused"] for name in ("32", "bf16-mixed", "16-mixed")]
    assert fused == [True, True, False]


@pytest.mark.parametrize("watch", ["score", "loss"])
def test_plateau_listens_to_the_score_or_the_loss_of_validation(catalogs, tmp_path, watch):
    """The score gets better all the time, the loss never does."""
    scores = iter([{"mIoU": 0.1 * step, "validation_loss": 1.0} for step in range(1, 5)])
    loop = {"learning_rate": 0.1, "validate_every": 1, "schedule": {"kind": "plateau", "patience": 2, "factor": 0.5, "watch": watch}}
    trainer, _ = make_trainer(tmp_path / "run", loop, catalogs=catalogs, method="supervised", validate=lambda _model: next(scores))
    trainer.fit()
    assert trainer.stepper.rate.at(4) == (0.1 if watch == "score" else 0.05)
