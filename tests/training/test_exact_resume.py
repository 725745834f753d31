"""A training that was killed, interrupted or given other workers ends with the same bytes as one that was left alone."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from support.resuming import WEIGHTS, check_same, stop_after, told
from support.training_sample import metrics, words


@pytest.fixture(scope="module")
def whole(server, data, tmp_path_factory) -> Path:
    """The run that nobody disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert server.run(words(*data, run), run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    return run


def test_run_leaves_what_it_promises(whole):
    assert {path.name for path in whole.iterdir()} == {
        "recipe.yaml",
        "environment.json",
        "data.json",
        "metrics.jsonl",
        "checkpoints",
        "tensorboard",
        "model",
        "finished.json",
    }
    lines = metrics(whole)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 13))
    assert [line["step"] for line in lines if line["kind"] == "val"] == [3, 6, 9, 12]
    assert list((whole / "tensorboard").glob("events.*"))
    assert {f"accepted_share_class/{index}" for index in range(3)} <= set(lines[0])


def test_same_command_twice_gives_the_same_bytes_with_other_workers(server, data, whole, tmp_path):
    run = tmp_path / "run"
    assert server.run(words(*data, run, "loop.workers=2"), run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    check_same(run, whole)


def test_killed_again_and_again_run_ends_with_the_same_bytes(server, data, whole, tmp_path):
    run, draw = tmp_path / "run", random.Random(5)
    command = words(*data, run)
    # Before the first checkpoint of the schedule, then at two moments drawn by chance.
    assert stop_after(server, command, run, 0, signal.SIGKILL) == -signal.SIGKILL
    for steps in (draw.randint(1, 4), draw.randint(5, 10)):
        assert stop_after(server, [*command, "--resume"], run, steps, signal.SIGKILL, draw.random() * 0.1) == -signal.SIGKILL
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 11, "ki')  # as if torn while it was written
    assert server.run([*command, "--resume", "loop.workers=1"], run.with_suffix(".log")) == 0, run.with_suffix(".log").read_text()
    check_same(run, whole)


def test_interrupted_run_says_how_to_go_on_and_ends_with_the_same_bytes(server, data, whole, tmp_path):
    run = tmp_path / "run"
    command = words(*data, run)
    assert stop_after(server, command, run, 5, signal.SIGINT) == 130
    said = [line for line in run.with_suffix(".log").read_text().splitlines() if line.startswith("tilth: stopped") or "--resume" in line]
    assert len(said) == 1
    assert "the same command with --resume goes on" in said[0]
    assert (run / "checkpoints" / "last.safetensors").is_file()
    assert not (run / "model").exists()
    assert server.run([*command, "--resume"], run.with_suffix(".log")) == 0
    check_same(run, whole)


def test_run_with_the_fused_optimiser_that_goes_on_with_checkpointing_ends_with_the_same_bytes(server, data, tmp_path):
    runs = [tmp_path / "whole", tmp_path / "stopped"]
    commands = [words(*data, run, "loop.fused=yes", "loop.steps=6", "loop.checkpoint_every=2") for run in runs]
    assert server.run(commands[0], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert stop_after(server, commands[1], runs[1], 3, signal.SIGKILL) == -signal.SIGKILL
    assert server.run([*commands[1], "--resume", "loop.checkpointing=yes"], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    check_same(runs[1], runs[0])


def test_resumed_run_in_channels_last_layout_ends_with_the_same_bytes(server, data, tmp_path):
    runs = [tmp_path / "whole", tmp_path / "stopped"]
    commands = [words(*data, run, "loop.channels_last=true", "loop.steps=6", "loop.checkpoint_every=2") for run in runs]
    assert server.run(commands[0], tmp_path / "log") == 0
    assert stop_after(server, commands[1], runs[1], 3, signal.SIGKILL) == -signal.SIGKILL
    assert server.run([*commands[1], "--resume"], tmp_path / "log") == 0
    check_same(runs[1], runs[0])


def test_log_lines_between_checkpoints_come_out_the_same(server, data, tmp_path):
    runs = [tmp_path / "whole", tmp_path / "stopped"]
    commands = [words(*data, run, "loop.log_every=4", "loop.checkpoint_every=3", "loop.steps=8") for run in runs]
    assert server.run(commands[0], tmp_path / "log") == 0
    assert stop_after(server, commands[1], runs[1], 1, signal.SIGTERM) == 130
    assert server.run([*commands[1], "--resume"], tmp_path / "log") == 0
    assert told(runs[0]) == told(runs[1])


def test_best_weights_from_before_the_kill_are_exported_and_stay(server, data, tmp_path):
    # Learning from all its own errors ruins the network: the best weights are those of an early validation.
    ruin = ["settings.threshold=0", "settings.unlabelled_weight=50", "loop.average_decay=null", "loop.learning_rate=0.01"]
    runs = [tmp_path / name for name in ("whole", "killed")]
    commands = [words(*data, run, *ruin) for run in runs]
    assert server.run(commands[0], tmp_path / "log") == 0
    scores = [line["mIoU"] for line in metrics(runs[0]) if line["kind"] == "val"]
    assert max(scores[:2]) > max(scores[2:])
    assert stop_after(server, commands[1], runs[1], 8, signal.SIGKILL) == -signal.SIGKILL
    for _ in range(2):  # the second time it is finished already
        assert server.run([*commands[1], "--resume"], tmp_path / "log") == 0
        assert (runs[1] / WEIGHTS).read_bytes() == (runs[0] / WEIGHTS).read_bytes()


def test_finished_run_that_is_resumed_stays_as_it_is(server, data, whole, tmp_path):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    assert server.run([*words(*data, whole), "--resume"], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert {path: path.read_bytes() for path in before} == before


def test_other_recipe_or_data_is_refused_in_one_line(server, data, whole, tmp_path):
    log = tmp_path / "log"
    assert server.run([*words(*data, whole, "loop.learning_rate=0.004", "weak.size=64"), "--resume"], log) == 1
    assert len(log.read_text().splitlines()) == 1
    assert "loop.learning_rate (0.003 -> 0.004)" in log.read_text()
    assert "weak.size (32 -> 64)" in log.read_text()
    assert server.run(words(*data, whole), log) == 1
    assert "already holds a finished run" in log.read_text()
    assert len(log.read_text().splitlines()) == 1


def test_wrong_requests_leave_no_folder_behind(server, data, tmp_path):
    log, run = tmp_path / "log", tmp_path / "run"
    for more, expected in (
        (["--unlabelled", str(tmp_path / "missing.parquet")], "no such catalog"),
        (["loop.batch_size=3", "loop.accumulate=2"], "make it a multiple of 2"),
        (["settings.treshold=0.9"], "did you mean 'threshold'"),
        (["network.encoder=test_byobnett"], "did you mean"),
        (["labelled_split=nowhere"], "no labelled tile in split"),
    ):
        flags = [item for item in more if "=" not in item]
        code = server.run([*words(*data, run, *[item for item in more if "=" in item]), *flags], log)
        assert code in (1, 2), log.read_text()
        assert expected in log.read_text()
        assert len(log.read_text().splitlines()) == 1
        assert not run.exists()


def test_run_killed_before_its_first_checkpoint_begins_anew(server, data, whole, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "environment.json").write_text("{}")
    assert server.run([*words(*data, run), "--resume"], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    check_same(run, whole)


def test_folder_with_other_files_is_never_taken_for_a_run(server, data, tmp_path):
    for names in (["recipe.yaml"], ["photo.jpg", "environment.json"]):
        run = tmp_path / names[0].partition(".")[0]
        run.mkdir()
        for name in names:
            (run / name).write_text("mine")
        assert server.run(words(*data, run), tmp_path / "log") == 1
        assert server.run([*words(*data, run), "--resume"], tmp_path / "log") == 1
        assert sorted(path.name for path in run.iterdir()) == sorted(names)
        assert all((run / name).read_text() == "mine" for name in names)
