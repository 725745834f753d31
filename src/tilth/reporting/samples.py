"""Pictures that noise predictors made on their way: what they had learnt after so many steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilth.reporting import numbers
from tilth.reporting.collect import Run
from tilth.reporting.pictures import embed_file

_FOLDER = "previews"
_NAME = re.compile(r"step-(\d+)\.png")
_MOST = 4
_WIDTH = 1100


def samples_section(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Embed pictures of samples: of each run the last, the first and some between; None where no run made any.

    Raises:
        UnreadableFileError: a picture cannot be read.
    """
    shown = [{"name": run.name, "pictures": _pictures(run.folder / _FOLDER)} for run in runs]
    shown = [item for item in shown if item["pictures"]]
    return {"sampled": shown} if shown else None


def _pictures(folder: Path) -> list[tuple[Any, str, str]]:
    """Picture, what it shows in words, and its caption, by step."""
    steps = sorted((int(found[1]), file) for file in folder.glob("*.png") if (found := _NAME.fullmatch(file.name)))
    kept = steps if len(steps) <= _MOST else [steps[place * (len(steps) - 1) // (_MOST - 1)] for place in range(_MOST)]
    return [(embed_file(file, "photo", _WIDTH), f"Samples after step {step}", f"After step {numbers.whole(step)}") for step, file in kept]
