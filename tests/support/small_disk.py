"""Commands run where nothing can be written: on a full disk, and on one that is mounted to be read only.

Run as a program inside a mount namespace of its own, it reads calls from its input and writes what became of them to its output: both JSON.
A call is {"words": [...], "room": bytes left, or null for a disk that is read only}; words name the disk as ``{disk}``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SIZE = 1 << 20
NAMESPACES = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])


def find_namespace(folder: Path) -> list[str] | None:
    """The command that may mount file systems of its own, if this machine lets us."""
    mount = f"mount -t tmpfs -o size=64k none '{folder}'"
    for command in NAMESPACES if shutil.which("unshare") else ():
        if subprocess.run([*command, "sh", "-c", mount], capture_output=True, check=False).returncode == 0:
            return command
    return None


def run_calls(namespace: list[str], calls: list[dict[str, Any]], disk: Path) -> list[dict[str, Any]]:
    """Run all calls in one process, each on a fresh disk.

    Returns:
        For each the exit ``code``, ``out``, ``err`` and the files ``left`` on the disk.
    """
    disk.mkdir()
    program = [*namespace, sys.executable, str(Path(__file__).resolve()), str(disk)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(program, input=json.dumps(calls), capture_output=True, text=True, check=True, env=environment)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def _run(words: list[str], room: int | None, disk: Path) -> dict[str, Any]:
    from tilth.cli.main import main

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(disk)], check=True)
    try:
        if room is None:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            _fill(disk, room)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([word.replace("{disk}", str(disk)) for word in words])
        left = sorted(path.relative_to(disk).as_posix() for path in disk.rglob("*"))
    finally:
        # Whoever keeps a file open there keeps the disk; it goes with the namespace.
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "left": [name for name in left if name != "ballast"]}


def _fill(disk: Path, room: int) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    size = (disk / "ballast").stat().st_size
    os.truncate(disk / "ballast", size - room // 4096 * 4096)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    # What libraries print must not spoil the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer.write(json.dumps([_run(call["words"], call["room"], place) for call in json.load(sys.stdin)]))
    answer.close()
