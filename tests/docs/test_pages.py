"""Code in the documentation runs: Python blocks in one namespace a page, ``tilth`` lines through the command line's own entry.

A block that cannot run here says why, in a line of its own before it: ``<!-- not run: needs a GPU -->``. A page that uses the files of
another says so with ``<!-- goes on from: train.md -->`` and starts in a copy of the folder that page left behind. One that needs files
that readers have from elsewhere names who makes them, ``<!-- set up by: published_files -->``: ``set_up(folder)`` of that module of
tests/support.
"""

import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tilth.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)")
_OPT_OUT = re.compile(r"^\s*<!-- not run: \S.* -->\s*$")
_GOES_ON = re.compile(r"^<!-- goes on from: (\S+) -->$", re.MULTILINE)
_SET_UP = re.compile(r"^<!-- set up by: (\w+) -->$", re.MULTILINE)

# The session of the README, made small: what is typed there is meant for real imagery.
SMALL = "network.encoder=resnet10t network.options.decoder_channels=[32,16,16,8,8] weak.size=64 loop.steps=2 loop.batch_size=2"


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


def run_command(words: list[str], place: str) -> None:
    """Run ``tilth ...`` in this process, which has loaded the heavy libraries already."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        code = main(words[1:])
    assert code == 0, f"{place}: {shlex.join(words)}\n{out.getvalue()}{err.getvalue()}"


def run_page(page: Path, folder: Path) -> None:
    namespace = {"__name__": "__page__"}
    text = page.read_text(encoding="utf-8")
    with contextlib.chdir(folder), contextlib.ExitStack() as stack:
        for name in _SET_UP.findall(text):
            stack.enter_context(importlib.import_module(f"support.{name}").set_up(folder))
        for block in blocks_of(text):
            if not block.wanted:
                continue
            assert block.language not in ("sh", "shell", "console", "py"), f"{page.name}:{block.line}: write ```bash or ```python"
            if block.language == "python":
                # The empty lines make the traceback name the page's own line.
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
            elif block.language == "bash":
                for words in commands_of(block):
                    run_command(words, f"{page.name}:{block.line}")


@pytest.fixture(scope="session")
def finish(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Run a page once, after the page it goes on from; gives the folder it leaves behind."""
    done: dict[Path, Path | Exception] = {}

    def run(page: Path) -> Path:
        if page not in done:
            folder = tmp_path_factory.mktemp(page.stem)
            before = _GOES_ON.search(page.read_text(encoding="utf-8"))
            if before:
                try:
                    shutil.copytree(run(page.parent / before[1]), folder, dirs_exist_ok=True)
                except Exception as error:
                    pytest.fail(f"{page.name} goes on from {before[1]}, which failed: {type(error).__name__}")
            done[page] = folder
            try:
                run_page(page, folder)
            except Exception as error:
                done[page] = error
        found = done[page]
        if isinstance(found, Exception):
            raise found
        return found

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_the_page_runs(page, finish, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    finish(page)


def test_session_of_the_readme_runs(finish, tmp_path):
    """On small landscapes, with a small network: the words are the README's own."""
    shutil.copytree(finish(ROOT / "docs" / "data.md") / "scenes", tmp_path / "imagery")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    session = next(block for block in blocks_of(text) if block.text.startswith("tilth inspect imagery"))
    with contextlib.chdir(tmp_path):
        for words in commands_of(session):
            if words[1] == "pretrain":
                words = [word for word in words if not word.startswith(("loop.", "weak."))] + SMALL.split()
            elif words[1:3] == ["catalog", "split"]:
                words = [*words, "--block-m", "100"]
            run_command(words, "README.md")
        assert Path("report.html").stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_the_page_lead_somewhere(page):
    text = re.sub(r"```.*?```|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
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


def test_page_fails_with_what_the_command_said(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\ntilth catalog show nothing.parquet\n```\n")
    with pytest.raises(AssertionError, match="no such catalog file"):
        run_page(page, tmp_path)


def test_namespace_lasts_for_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n```python\nassert x == 1\n```\n```bash\ntilth --version\n```\n")
    run_page(page, tmp_path)


def test_page_is_set_up_by_whom_it_names(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def set_up(folder):
        (folder / "made").touch()
        yield
        (folder / "over").touch()

    monkeypatch.setitem(sys.modules, "support.maker", types.SimpleNamespace(set_up=set_up))
    page = tmp_path / "page.md"
    page.write_text("<!-- set up by: maker -->\n\n```python\nimport os\n\nassert os.listdir() and not os.path.exists('over')\n```\n")
    run_page(page, tmp_path)
    assert (tmp_path / "made").exists()
    assert (tmp_path / "over").exists()


def test_page_goes_on_in_a_copy_of_the_folder_before(tmp_path, finish):
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text("```python\nopen('made', 'w').close()\n```\n")
    second.write_text("<!-- goes on from: first.md -->\n\n```python\nimport os\n\nos.remove('made')\n```\n")
    assert not (finish(second) / "made").exists()
    assert (finish(first) / "made").exists()
