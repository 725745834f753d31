"""What every wrong call of a command has in common: one line, an exit code, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.tiny_farm import tree

Case = tuple[list[str], int, tuple[str, ...]]
"""Words, exit code, fragments of the line. {farm} is the folder of data, {out} an empty one to write into."""


def fill(words: list[str], farm: Path, out: Path) -> list[str]:
    return [word.replace("{farm}", str(farm)).replace("{out}", str(out)) for word in words]


def check_line(err: str, fragments: tuple[str, ...], farm: Path) -> None:
    lines = [line for line in err.splitlines() if line.startswith("tilth: ") and "warning" not in line]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    assert "internal error" not in err
    for fragment in fragments:
        assert fragment.replace("{farm}", str(farm)) in lines[0]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below a folder: any writing shows."""
    found = {name: (folder / name).lstat() for name in tree(folder)}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in found.items()}


def refuse(case: Case, farm: Path, out: Path, run: Callable[[list[str]], int], read: Callable[[], tuple[str, str]]) -> None:
    """Run a wrong call and check all that is asked of it."""
    words, code, fragments = case
    before = state(farm)
    found = run(fill(words, farm, out))
    printed, err = read()
    assert found == code, err
    assert printed == ""
    check_line(err, fragments, farm)
    assert tree(out) == []
    assert state(farm) == before
