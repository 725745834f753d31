"""Pre-training by denoising through the command line: it learns, is resumed exactly, runs in two processes, and turns to a target."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tilth
from support.prefork import Server
from support.resuming import check_same, run_two, stop_after
from support.tiny_diffusion import tiny_diffusion
from support.training_sample import catalog_of, make_rows, make_trainer, metrics
from tilth.errors import ConfigError
from tilth.methods.base import Stream
from tilth.models.encoder_folder import load_encoder
from tilth.reporting import ReportInput, build_report
from tilth.reporting.collect import Run
from tilth.reporting.samples import samples_section
from tilth.training.order import Order, Phase
from tilth.verbs.train_options import FinetuneOptions, PretrainOptions


def words(pool: Path, target: Path | None, out: Path, *more: str) -> list[str]:
    """Return the command line of a short denoising with validation, on crops of 16 pixels."""
    settings = {
        "network.options": json.dumps(tiny_diffusion().options),
        "weak.size": "16",
        "loop.steps": "8",
        "loop.batch_size": "4",
        "loop.log_every": "1",
        "loop.checkpoint_every": "3",
        "loop.validate_every": "4",
        "loop.learning_rate": "0.003",
        "loop.average_decay": "0.9",
        "loop.accelerator": "cpu",
        "settings.held_out_levels": "2",
        "settings.preview_every": "4",
        "settings.preview_samples": "2",
        "settings.preview_steps": "2",
        "settings.target_share": "0.5",
    }
    settings |= dict(item.split("=", 1) for item in more if not item.startswith("--"))
    flags = [item for item in more if item.startswith("--")]
    catalogs = ["--unlabelled", str(pool), "--out", str(out), *(["--target", str(target)] if target else [])]
    return ["pretrain", "ddpm", *catalogs, *flags, *(f"{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> tuple[Path, Path]:
    """A pool, and a target with tiles to validate on."""
    folder = tmp_path_factory.mktemp("tiles")
    pool = catalog_of(make_rows(folder, "pool", 7, split=None, labelled=False)).save(folder / "pool.parquet")
    rows = [row for split in ("train", "val", "test") for row in make_rows(folder, f"aim-{split}", 3, split=split, labelled=False)]
    return pool, catalog_of(rows).save(folder / "target.parquet")


@pytest.fixture(scope="module")
def whole(server: Server, tiles, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert server.run(words(*tiles, run), run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    return run


def test_run_learns_and_tells_its_loss_on_tiles_of_the_target(whole):
    lines = metrics(whole)
    trained = [line["loss_noise"] for line in lines if line["kind"] == "train"]
    validated = [line for line in lines if line["kind"] == "val"]
    assert [line["step"] for line in validated] == [4, 8]
    assert set(validated[0]) == {"step", "kind", "time_s", "validation_loss", "validation_loss_last"}
    assert validated[-1]["validation_loss"] < validated[0]["validation_loss"] < 1.5
    assert sum(trained[-3:]) < sum(trained[:3])
    streams = json.loads((whole / "data.json").read_text())["streams"]
    assert {name: found["tiles"] for name, found in streams.items()} == {"unlabelled": 10, "target": 3, "validation": 3}


def test_average_is_exported_as_an_encoder_and_pictures_are_there(whole):
    found = load_encoder(whole)
    state = load_file(whole / "checkpoints" / "last.safetensors")
    averaged = {name for name in state if "/average/network.encoder.unet.output.convolution.weight" in name}
    assert len(averaged) == 1
    assert torch.equal(found.tensors["encoder.unet.output.convolution.weight"], state[averaged.pop()])
    assert all(name.startswith("encoder.unet.") for name in found.tensors)
    assert sorted(file.name for file in (whole / "previews").iterdir()) == ["step-00000004.png", "step-00000008.png"]


def test_report_shows_the_pictures(whole, tmp_path):
    for step in range(1, 10):
        shutil.copy(whole / "previews" / "step-00000004.png", tmp_path / f"step-0000000{step}.png")
    found = samples_section([Run("one", tmp_path.parent / "nothing"), Run("two", whole)])
    assert [(item["name"], [words for _, _, words in item["pictures"]]) for item in found["sampled"]] == [
        ("two", ["After step 4", "After step 8"])
    ]
    assert samples_section([Run("one", tmp_path / "nothing")]) is None
    (tmp_path / "previews").mkdir()
    for file in tmp_path.glob("step-*.png"):
        file.rename(tmp_path / "previews" / file.name)
    chosen = samples_section([Run("many", tmp_path)])["sampled"][0]["pictures"]
    assert [caption for _, _, caption in chosen] == ["After step 1", "After step 3", "After step 6", "After step 9"]
    page = build_report(ReportInput(runs=[whole]), tmp_path / "report.html").read_text()
    assert page.count("Samples after step") == 2


@pytest.mark.slow
def test_dry_run_counts_passes_over_pool_and_target(tiles, tmp_path):
    pool, target = tiles
    found = tilth.pretrain(
        method="ddpm",
        unlabelled=[pool],
        target=[target],
        out=tmp_path / "run",
        network={"options": tiny_diffusion().options},
        loop={"steps": 100, "batch_size": 7, "accelerator": "cpu"},
        settings={"target_share": 0.3},
        weak={"size": 16},
        dry_run=True,
        speed={"tflops": 1.0},
    )
    assert found.values["tiles"] == {"unlabelled": 7, "target": 3}
    assert found.values["passes"] == pytest.approx({"unlabelled": 70, "target": 70})


def test_recipe_holds_what_is_usual_with_the_method(whole):
    recipe = yaml.safe_load((whole / "recipe.yaml").read_text())
    assert recipe["network"]["name"] == "ddpm_segmentor"
    assert recipe["weak"] | {"size": 0} == recipe["weak"] | {"size": 0, "rot90": True, "scale_min": 1.0, "scale_max": 1.0}
    assert recipe["settings"]["variant"] == "denoise"
    assert (recipe["loop"]["clip_norm"], recipe["loop"]["export"]) == (1.0, "last")
    assert recipe["loop"]["learning_rate"] == 0.003


def test_killed_again_and_again_run_ends_with_the_same_bytes(server, tiles, whole, tmp_path):
    run, draw = tmp_path / "run", random.Random(7)
    command = words(*tiles, run)
    assert stop_after(server, command, run, draw.randint(1, 3), signal.SIGKILL) == -signal.SIGKILL
    assert stop_after(server, [*command, "--resume"], run, draw.randint(4, 6), signal.SIGKILL) in (-signal.SIGKILL, 0)
    assert server.run([*command, "--resume", "loop.workers=1"], run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    check_same(run, whole)
    for name in ("step-00000004.png", "step-00000008.png"):
        assert (run / "previews" / name).read_bytes() == (whole / "previews" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(server, tiles, tmp_path):
    # Dropout draws in each process by itself.
    quiet = tiny_diffusion(unet_options={"dropout": 0.0}).options
    common = ["loop.denominator=global", "loop.steps=4", "loop.learning_rate=0.0003", f"network.options={json.dumps(quiet)}"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert server.run(words(*tiles, one, *common), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    run_two(server, words(*tiles, two, *common, "loop.devices=2"), tmp_path / "log")
    for left, right in zip(metrics(one), metrics(two), strict=True):
        assert left["step"] == right["step"]
        for name in {"loss_noise", "validation_loss", "validation_loss_last"} & left.keys():
            assert right[name] == pytest.approx(left[name], rel=1e-4), left["step"]
    assert len(list((two / "previews").iterdir())) == 1


@pytest.mark.slow
def test_mixed_precision_accumulation_and_checkpointing_train(server, tiles, tmp_path):
    guided = json.dumps(tiny_diffusion("guided").options)
    more = ["loop.precision=bf16-mixed", "loop.accumulate=2", "loop.checkpointing=yes", "loop.channels_last=yes", "loop.steps=2"]
    run = tmp_path / "run"
    assert server.run(words(tiles[0], None, run, *more, f"network.options={guided}"), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert 0.8 < metrics(run)[0]["loss_noise"] < 1.2


@pytest.mark.slow
def test_a_second_run_goes_on_from_the_first(server, tiles, whole, tmp_path):
    run = tmp_path / "second"
    command = words(tiles[1], None, run, "loop.steps=2")
    command[command.index("--out") : command.index("--out")] = ["--initial-weights", str(whole)]
    assert server.run(command, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert metrics(run)[0]["loss_noise"] < metrics(whole)[0]["loss_noise"]


@pytest.mark.slow
def test_a_tiny_network_learns_sixty_four_tiles(tmp_path):
    """The specification's check: the loss, over all noise levels, falls below 0.2; guessing nothing has 1."""
    rows = make_rows(tmp_path, "tile", 64, split="train", size=(32, 32), labelled=False)
    loop = {"steps": 300, "batch_size": 8, "learning_rate": 2e-3, "log_every": 50, "clip_norm": 1.0}
    catalog = catalog_of(rows)
    network = tiny_diffusion(unet_options={"width": 16, "norm_groups": 8})
    made = {"catalogs": (catalog, catalog), "method": "ddpm", "settings": {"preview_every": 0}, "network": network}
    trainer, _ = make_trainer(tmp_path / "run", loop, weak={"scale_min": 1.0, "scale_max": 1.0, "rot90": True}, **made)
    trainer.fit()
    assert metrics(tmp_path / "run")[-1]["loss_noise"] < 0.2


# --- phases


def test_the_target_is_learnt_from_at_the_end_and_never_before():
    order = Order(3, {"pool": Stream("unlabelled")}, {"pool": 9}, 4, {"pool": (Phase(0, range(5)), Phase(5, range(5, 9)))})
    shown = [[order.index("pool", step, slot) for slot in range(4)] for step in range(8)]
    assert {row for step in shown[:5] for row in step} == set(range(5))
    assert all(sorted(step) == [5, 6, 7, 8] for step in shown[5:])  # one pass a step
    assert shown[5] != shown[6]
    alone = Order(3, {"pool": Stream("unlabelled")}, {"pool": 5}, 4)
    assert shown[:5] == [[alone.index("pool", step, slot) for slot in range(4)] for step in range(5)]


def test_partners_differ_within_a_phase():
    streams = {"pool": Stream("unlabelled"), "partner": Stream("unlabelled", differs_from="pool")}
    phases = (Phase(0, range(3)), Phase(2, range(3, 5)))
    order = Order(0, streams, {"pool": 5, "partner": 5}, 3, dict.fromkeys(streams, phases))
    for step in range(4):
        for slot in range(3):
            one, other = (order.index(name, step, slot) for name in streams)
            assert one != other
            assert one in order.rows("pool", step)
            assert other in order.rows("partner", step)


# --- what is usual with a method


def test_what_is_usual_gives_way_to_what_is_given_and_does_not_count_as_given():
    options = PretrainOptions(method="ddpm", unlabelled=["x"], out="y", loop={"steps": 30, "schedule": {"kind": "cosine"}})
    assert options.model_fields_set == {"method", "unlabelled", "out", "loop"}
    assert (options.loop.steps, options.loop.learning_rate, options.loop.average_decay) == (30, 1e-5, 0.9999)
    schedule = options.loop.schedule
    assert (schedule.kind, schedule.warmup_from, schedule.warmup(200_000)) == ("cosine", 0.1, 10_000)
    assert options.settings == {"variant": "denoise"}
    again = PretrainOptions.parse(options.model_dump(mode="json"))
    assert again.model_dump() == options.model_dump()
    head = FinetuneOptions(task="segment", method="ddpm", labelled=["x"], out="y")
    assert head.settings == {"variant": "segment"}
    assert (head.network.name, head.loop.learning_rate, head.loop.transfer.frozen) == ("ddpm_segmentor", 2e-4, "always")


def test_other_methods_keep_the_common_defaults():
    options = PretrainOptions(method="mae", unlabelled=["x"], out="y")
    assert (options.loop.learning_rate, options.network.name, options.settings) == (1e-3, None, {})


def test_settings_given_as_objects_are_filled_up_as_well():
    given = PretrainOptions(method="mae", unlabelled=["x"], out="y", loop={"steps": 7})
    options = PretrainOptions(method="ddpm", unlabelled=["x"], out="y", loop=given.loop)
    assert (options.loop.steps, options.loop.learning_rate) == (7, 1e-5)


def test_variants_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'denoise'"):
        PretrainOptions.parse({"method": "ddpm", "unlabelled": ["x"], "out": "y", "settings": {"variant": "denose"}})
