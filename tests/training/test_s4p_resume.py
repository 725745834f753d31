"""Every S4P variant that was killed ends with the same bytes as one that was left alone: thresholds, dropped channels, boxes and all."""

from __future__ import annotations

import signal

import pytest

from support.resuming import check_same, stop_after
from support.training_sample import words

VARIANTS = {
    "fixmatch": ["settings.partner=batch"],
    "unimatch": [],
    "corrmatch": ["settings.threshold_start=0.4", "settings.threshold_momentum=0.9", "settings.projection_width=16"],
    "wscl": [],
}


@pytest.mark.parametrize("variant", [name if name == "corrmatch" else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS])
def test_killed_run_ends_with_the_same_bytes(server, data, tmp_path, variant):
    """B8: the published program cannot resume, and overwrites its checkpoints."""
    more = [f"settings.variant={variant}", *VARIANTS[variant], "weak.size=64", "loop.steps=5", "loop.checkpoint_every=2"]
    runs = [tmp_path / name for name in ("whole", "stopped")]
    commands = [words(*data, run, *more, "loop.validate_every=5") for run in runs]
    assert server.run(commands[0], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert stop_after(server, commands[1], runs[1], 3, signal.SIGKILL) == -signal.SIGKILL
    assert server.run([*commands[1], "--resume", "loop.workers=1"], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    check_same(runs[1], runs[0])
