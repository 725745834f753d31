"""The entry of the command line: runs a verb, prints its result, turns every failure into one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence

import click

from tilth.cli.commands import VerbGroup
from tilth.errors import TilthError
from tilth.verbs.console import Console, TextConsole
from tilth.verbs.registry import Result

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it: 128 + SIGINT."""
CLOSED_PIPE = 141
"""Exit code when the reader of the output has gone: 128 + SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tilth`` with the given words.

    Args:
        argv: words after the program's name; by default those it was started with.

    Returns:
        The exit code: 0 done, 1 data or run failed, 2 wrong request, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    console = TextConsole()
    with _warnings_as_lines(console):
        try:
            code = _run(words, console)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            _complain(console, f"interrupted{_after_colon(error)}", debug)
            return INTERRUPTED
        except BrokenPipeError:
            # Python flushes the output stream again at exit and would complain then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        except TilthError as error:
            _complain(console, f"error: {error}", debug)
            return error.exit_code
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _complain(console, f"error: {place}{error.strerror or error}", debug)
            return 1
        except Exception as error:
            hint = "" if debug else "; run with --debug for the traceback"
            _complain(console, f"internal error: {type(error).__name__}{_after_colon(error)}{hint}", debug)
            return 1
    return code


def _run(words: list[str], console: Console) -> int:
    root = VerbGroup("tilth")
    root.params.append(click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version))
    try:
        context = root.make_context("tilth", words, obj=console)
        with context:
            result = root.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    finally:
        console.close()
    if not isinstance(result, Result):
        return 0
    for line in result.summary:
        click.echo(line)
    for label, path in result.outputs.items():
        click.echo(f"{label}: {path}")
    return result.exit_code


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"tilth {version('tilth')}")
        context.exit()


def _complain(console: Console, text: str, debug: bool) -> None:
    """Write one line to the error stream, after the traceback if that is wanted."""
    console.close()
    if debug:
        traceback.print_exc()
    click.echo(f"tilth: {' '.join(text.split())}", err=True)


def _after_colon(error: BaseException) -> str:
    return f": {error}" if str(error) else ""


@contextlib.contextmanager
def _warnings_as_lines(console: Console) -> Iterator[None]:
    """Show warnings as one line each, without the source line Python adds."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: console.warn(" ".join(str(message).split()))
        yield
