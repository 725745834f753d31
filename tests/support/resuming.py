"""Trainings that are stopped, gone on with, or run in two processes, and what they must have in common with one that was not."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from support.prefork import Server
from support.training_sample import metrics

WEIGHTS = Path("model") / "model.safetensors"
CLOCKS = {"time_s", "tiles_per_s", "memory_gb", "time_left_s"}


def steps_done(run: Path) -> int:
    file = run / "metrics.jsonl"
    lines = [line for line in file.read_text().splitlines() if '"train"' in line] if file.is_file() else []
    return len(lines)


def stop_after(server: Server, command: list[str], run: Path, steps: int, number: int, delay_s: float = 0.0) -> int:
    """Start a command, send it a signal once ``steps`` steps are logged, and wait for its end."""
    process = server.start(command, run.with_suffix(".log"))
    ends = time.monotonic() + 60
    while steps_done(run) < steps or not (run / "checkpoints" / "last.safetensors").is_file():
        assert server.runs(process), run.with_suffix(".log").read_text()
        assert time.monotonic() < ends, run.with_suffix(".log").read_text()
        time.sleep(0.002)
    time.sleep(delay_s)
    os.kill(process, number)
    return server.wait(process)


def told(run: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in metrics(run)]


def check_same(run: Path, whole: Path) -> None:
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert told(run) == told(whole)
    assert not (run / "checkpoints" / "best").exists()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def run_two(server: Server, command: list[str], log: Path, script: str = "") -> None:
    """Run a command (or a Python file) in two processes with the environment that torchrun gives them."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    logs = [log.with_suffix(f".{rank}") for rank in range(2)]
    started = [server.start(command, logs[rank], script, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(2)]
    assert [server.wait(process) for process in started] == [0, 0], [file.read_text() for file in logs]
