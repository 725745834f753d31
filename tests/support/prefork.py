"""Runs tilth commands, each in a process of its own, without importing everything anew for each.

The server imports once and forks a child for every command; tests may kill children as they like.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_LIMIT_S = 100.0


class Server:
    """Start with ``Server()``; stop with ``close``."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )

    def start(self, words: list[str], errors: Path, script: str = "", **environment: str) -> int:
        """Start a command (or a Python file); returns its process id. Its output and error streams go to the file ``errors``."""
        return self._ask({"words": words, "errors": str(errors), "script": script, "environment": environment})

    def wait(self, process: int) -> int:
        """Wait for a command; returns its exit code, negative for a signal. One that takes too long is killed."""
        return self._ask({"wait": process})

    def run(self, words: list[str], errors: Path, **environment: str) -> int:
        return self.wait(self.start(words, errors, **environment))

    def runs(self, process: int) -> bool:
        """Say whether a command still runs."""
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, request: dict[str, Any]) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        return int(self.process.stdout.readline())


def _serve() -> None:
    import segmentation_models_pytorch  # noqa: F401
    from torch.utils import tensorboard  # noqa: F401

    import tilth.evaluation.evaluate
    import tilth.methods.s4p.fixmatch
    import tilth.training.loop  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        print(_wait(request["wait"]) if "wait" in request else _fork(request), flush=True)


def _fork(request: dict[str, Any]) -> int:
    process = os.fork()
    if process:
        return process
    from tilth.cli.main import main

    code = 70
    try:
        os.environ.update(request["environment"])
        file = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if request["script"]:
            sys.argv[1:] = request["words"]
            sys.path.insert(0, str(Path(__file__).parents[1]))  # as tests import each other
            runpy.run_path(request["script"], run_name="__main__")
            code = 0
        else:
            code = main(request["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait(process: int) -> int:
    ends = time.monotonic() + _LIMIT_S
    while time.monotonic() < ends:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return -99


if __name__ == "__main__":
    _serve()
