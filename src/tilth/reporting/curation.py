"""The page of a curation: what was kept and dropped and why, in numbers and pictures, and what that did to the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tilth.imagery.write import write_text
from tilth.reporting.pictures import embed_file
from tilth.reporting.render import STYLES, asset, make_environment

SHEET_PIXELS = 1400
"""Longest side of an embedded contact sheet; the files beside the page are larger."""

MEANINGS = {
    "passed": "passed the filters, and no selection was asked for",
    "within quota": "among the surest of its cluster, which had room",
    "fills up": "surest of those that were left when other clusters ran short",
    "lowest entropy": "among the surest of all",
    "unreadable": "file missing, damaged or of other bands",
    "labelled ground": "shows pixels of a labelled tile",
    "no data": "too few pixels with data",
    "blank": "nothing varies in it",
    "bright": "nearly all bright and colourless: cloud, haze, snow or salt",
    "no foreground": "the model sees background alone",
    "duplicate": "the same pixels as another tile",
    "near duplicate": "nearly the same picture as another tile",
    "cluster full": "surer tiles of its cluster took all places",
    "entropy too high": "surer tiles took all places",
}
"""What each reason means, for people."""


def build_curation_page(record: Mapping[str, Any], sheets: Mapping[str, Path], output: Path) -> Path:
    """Write the page: one HTML file that loads nothing from elsewhere. The same inputs give the same bytes.

    Args:
        record: content of ``curation.json``.
        sheets: contact sheet by reason.
        output: file to write.

    Returns:
        The path written.
    """
    reasons = [(True, name, count) for name, count in record["kept"].items()]
    reasons += [(False, name, count) for name, count in record["dropped"].items()]
    groups = [name for name in ("pool", "passed", "selected", "labelled") if record["classes"] and name in record["classes"][0]]
    page = (
        make_environment()
        .get_template("curation.html.jinja")
        .render(
            record=record,
            reasons=[
                {"kept": kept, "name": name, "count": count, "meaning": MEANINGS[name], "share": count / record["tiles"]}
                for kept, name, count in reasons
            ],
            groups=groups,
            pictures=[
                {"name": name, "kept": name in record["kept"], "picture": embed_file(path, "photo", SHEET_PIXELS), "file": path.name}
                for name, path in sheets.items()
            ],
            settings=_flat({name: record[name] for name in ("model", "background", "entropy", "filters", "diversity")}),
            style=Markup("".join(map(asset, STYLES))),  # noqa: S704 - our own style sheet
        )
    )
    return write_text(output, page + "\n")


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {name: value for key, item in node.items() for name, value in _flat(item, f"{path}.{key}" if path else str(key)).items()}
    return {path: "none" if node in ([], None) else node}
