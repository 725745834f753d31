"""What ``--help`` says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

from tilth.cli.fields import Field
from tilth.verbs.registry import Verb

WIDTH = 110
"""Columns that help uses at most."""

_PYTHON_SECTIONS = re.compile(r"^(Args|Returns|Raises|Yields|Examples?|Notes?):\s*$", re.MULTILINE)

COMMON_ROWS = (
    ("--config FILE.yaml", "Read options and settings from a YAML file; what is typed goes before what the file says."),
    ("--debug", "Show the traceback of an error."),
    ("--help", "Show this help."),
)


def write_overview(page: click.HelpFormatter, command: str, groups: Iterable[tuple[str, list[tuple[str, str]]]]) -> None:
    """Write the page of ``tilth --help``, or of a group such as ``tilth catalog --help``.

    Args:
        page: what to write to.
        command: the words so far.
        groups: heading and rows of (verb, summary), in the order of the way through.
    """
    page.write_usage(command, "VERB [ARGUMENTS] [OPTIONS] [key.sub=value ...]")
    page.write_paragraph()
    page.write_text("Turns a lot of imagery and few, noisy or no labels into a land-cover model and a map.")
    for heading, rows in groups:
        with page.section(heading):
            page.write_dl(rows)
    with page.section("Options"):
        version = [("--version", "Show the version.")] if command == "tilth" else []
        page.write_dl([*version, *COMMON_ROWS[1:]])
    page.write_paragraph()
    page.write_text(f"Help on one verb: {command} VERB --help")


def write_verb(page: click.HelpFormatter, command: str, verb: Verb[Any], fields: list[Field]) -> None:
    """Write the page of ``tilth VERB --help``."""
    arguments = [field for field in fields if field.role == "argument"]
    options = [field for field in fields if field.role == "option"]
    settings = [field for field in fields if field.role == "setting"]
    words = [_argument_word(field) for field in arguments]
    words += [f"{field.shown} {field.metavar}" for field in options if field.required]
    page.write_usage(command, " ".join([*words, "[OPTIONS]", *(["[key.sub=value ...]"] if settings else [])]))
    for paragraph in _PYTHON_SECTIONS.split(verb.__doc__ or "")[0].strip().split("\n\n"):
        page.write_paragraph()
        page.write_text(" ".join(paragraph.split()))
    if arguments:
        with page.section("Arguments"):
            page.write_dl([(field.shown, _note(field)) for field in arguments])
    with page.section("Options"):
        page.write_dl([(_option_word(field), _note(field)) for field in options] + list(COMMON_ROWS))
    if settings:
        with page.section("Settings (key=value)"):
            page.write_dl([(_setting_word(field), _note(field)) for field in settings])


def _argument_word(field: Field) -> str:
    word = f"{field.shown}..." if field.repeated else field.shown
    return word if field.required else f"[{word}]"


def _option_word(field: Field) -> str:
    if field.flag:
        return f"{field.shown} / --no-{field.shown.removeprefix('--')}"
    return f"{field.shown} {field.metavar}"


def _setting_word(field: Field) -> str:
    """A setting as it is typed: values of a mapping have names of their own, lists are written as YAML writes them."""
    if field.metavar == "MAPPING":
        return f"{field.shown}.NAME=VALUE"
    if field.length > 1:
        return f"{field.shown}=[{field.metavar.replace(' ', ', ')}]"
    return f"{field.shown}=[{field.metavar}, ...]" if field.repeated else f"{field.shown}={field.metavar}"


def _note(field: Field) -> str:
    marks = []
    if field.required:
        marks.append("required")
    if field.default is not None:
        marks.append(f"default: {field.default}")
    if field.repeated and field.role == "option":
        marks.append("may be given more than once")
    return " ".join([field.description, *([f"[{'; '.join(marks)}]"] if marks else [])]).strip()
