"""The files of the project speak of the project only: no path of somebody's machine gets in."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Put together here, so that this file does not contain them.
PERSONAL = (*tuple("/" + word + "/" for word in ("home", "root", "Users")), str(ROOT.parent) + "/")


def tracked() -> list[Path]:
    """Files of the project that are tracked or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_place_on_somebodys_machine():
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
            found += [f"{path.relative_to(ROOT)}:{number}: {place}" for place in PERSONAL if place in line and place != "//"]
    assert not found, "\n".join(found)


def test_no_large_file_is_tracked():
    large = [f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes" for path in tracked() if path.stat().st_size > 2_000_000]
    assert not large, "\n".join(large)


def test_pages_hold_no_marks_of_what_is_still_to_be_written():
    marks = tuple("<!-- " + word for word in ("results", "picture", "todo"))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    assert not [f"{page.name}: {mark}" for page in pages for mark in marks if mark in page.read_text(encoding="utf-8").lower()]
