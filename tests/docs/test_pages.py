"""Code in the documentation runs: Python blocks in one namespace a page, ``tilth`` lines through the installed command.

A block that cannot run here says why, in a line of its own before it: ``<!-- not run: needs a GPU -->``.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMAND = Path(sys.executable).with_name("tilth")

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)")
_OPT_OUT = re.compile(r"^\s*<!-- not run: \S.* -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, line of its first line of code, and whether it is to be run."""

    language: str
    text: str
    line: int
    wanted: bool


def blocks_of(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        number += 1
        if not fence:
            continue
        before = next((line for line in reversed(lines[: number - 1]) if line.strip()), "")
        start, indent = number, len(fence["indent"])
        while number < len(lines) and not lines[number].strip().startswith("```"):
            number += 1
        body = "\n".join(line[indent:] for line in lines[start:number])
        yield Block(fence["language"], body, start + 1, not _OPT_OUT.match(before))
        number += 1


def commands_of(block: Block) -> list[list[str]]:
    """Return the commands of a shell block; where some lines start with ``$``, the others are output."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    prompted = [line.removeprefix("$").strip() for line in lines if line.startswith("$")]
    commands = [shlex.split(line, comments=True) for line in prompted or lines]
    strangers = [words[0] for words in commands if words[0] != "tilth"]
    assert not strangers, (
        f"line {block.line}: {strangers[0]!r} is not run here; say why in a line <!-- not run: reason --> before the block"
    )
    return commands


def run_page(page: Path, folder: Path) -> None:
    namespace = {"__name__": "__page__"}
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if not block.wanted:
            continue
        assert block.language not in ("sh", "shell", "console", "py"), f"{page.name}:{block.line}: write ```bash or ```python"
        if block.language == "python":
            # The empty lines make the traceback name the page's own line.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif block.language == "bash":
            for words in commands_of(block):
                done = subprocess.run([str(COMMAND), *words[1:]], cwd=folder, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{page.name}:{block.line}: {shlex.join(words)}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_the_page_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        assert target.startswith(("https://", "mailto:")) or (page.parent / target).exists(), f"{page.name}: {target} does not exist"


# The reader of pages reads what it should.


def test_prompted_lines_are_commands_and_the_rest_is_output():
    (block,) = blocks_of("x\n```bash\n$ tilth catalog show \\\n    a.parquet\n3 tiles\n$ tilth --version\n```\n")
    assert commands_of(block) == [["tilth", "catalog", "show", "a.parquet"], ["tilth", "--version"]]


def test_other_commands_need_a_reason():
    plain, excused = blocks_of("```bash\nrm -r x\n```\n\n<!-- not run: dangerous -->\n\n```bash\nrm -r x\n```\n")
    assert plain.wanted
    assert not excused.wanted
    with pytest.raises(AssertionError, match="'rm' is not run here"):
        commands_of(plain)


def test_reason_is_needed_to_opt_out():
    assert [block.wanted for block in blocks_of("<!-- not run: -->\n```bash\ntilth\n```\n")] == [True]


def test_page_fails_with_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_page(page, tmp_path)
    assert caught.traceback[-1].lineno + 1 == 5


def test_namespace_lasts_for_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n```python\nassert x == 1\n```\n```bash\ntilth --version\n```\n")
    run_page(page, tmp_path)
