"""Snapshots: promises written down as JSON, compared on every run.

A change on purpose is written with ``UPDATE_SNAPSHOTS=1 .venv/bin/python -m pytest tests/test_public_surface.py`` and reviewed
like code.
"""

import difflib
import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "snapshots"


def check(name: str, found: Any) -> None:
    """Compare JSON-able data with ``snapshots/NAME.json``, or write it when ``UPDATE_SNAPSHOTS`` is set."""
    file = FOLDER / f"{name}.json"
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text, encoding="utf-8")
        return
    promised = file.read_text(encoding="utf-8") if file.exists() else ""
    if text != promised:
        lines = difflib.unified_diff(promised.splitlines(), text.splitlines(), "promised", "found", lineterm="", n=1)
        difference = "\n".join(lines)
        raise AssertionError(f"{file.name} differs; if that is meant, run the test with UPDATE_SNAPSHOTS=1\n{difference}")
