"""Cards in words: one line each for a list, and everything there is to know of one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from tilth.datasets.config import Card, Layer
from tilth.datasets.download import how_to_get
from tilth.datasets.encoding import Labels
from tilth.datasets.patterns import fill
from tilth.datasets.store_config import Stores

_WIDTH = 100
_COLUMNS = ("name", "classes", "sensor", "GSD", "images", "licence", "commercial use", "download")
_UNKNOWN = "unknown"


def list_cards(cards: Sequence[Card]) -> list[str]:
    """Write a table of data sets: a heading and one line each."""
    rows = [_COLUMNS, *(_row(card) for card in cards)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def describe_card(card: Card) -> list[str]:
    """Write everything a card says, for people."""
    return list(_lines(card))


def count_images(card: Card) -> int | None:
    """Number of images as published, where the card says it."""
    listed = sum(len(stems) for stems in card.splits.stems.values())
    return card.images or listed or sum(card.splits.counts.values()) or None


def _row(card: Card) -> tuple[str, ...]:
    classes = [str(len(labels.classes)) if labels.classes else "own" for labels in card.labels]
    images = count_images(card)
    return (
        card.name,
        "".join(classes) or "none",
        card.stores.sensor().name if card.stores is not None else _sensor(card.layers[0]),
        _gsd(card.layers[0] if card.stores is None else card.stores),
        "-" if images is None else f"{images:,}",
        card.licence.name,
        _commercial(card),
        "yes" if card.download is not None and card.download.torchgeo is not None else "no",
    )


def _lines(card: Card) -> Iterator[str]:
    yield card.title
    yield from textwrap.wrap(card.description, _WIDTH)
    yield ""
    yield from _entry("homepage", card.homepage or "none")
    yield from _entry("cite", card.citation or "none")
    note = f"; {card.licence.note}" if card.licence.note else ""
    yield from _entry("licence", f"{card.licence.name} (commercial use: {_commercial(card)}){note}")
    yield from _entry("get it", how_to_get(card))
    for layer in card.layers:
        yield from _entry(f"layer {layer.name}", f"sensor {_sensor(layer)}, GSD {_gsd(layer)}")
    if card.stores is not None:
        yield from _entry("sensor", card.stores.sensor().name + (f", {card.stores.seasons} seasons" if card.stores.seasons > 1 else ""))
    windows = card.windows
    cut = (
        "whole images"
        if windows.window_px is None
        else f"windows of {windows.window_px} px, step {windows.stride_px or windows.window_px} px"
        + (f", within windows of {windows.within_px} px" if windows.within_px else "")
        + (", the rest at the border left out" if windows.edge in ("drop", "centre") else "")
    )
    yield from _entry("tiles", cut)
    for labels in card.labels:
        yield from _entry(
            "classes", ", ".join(f"{index} {name}" for index, name in enumerate(labels.classes)) or f"as {labels.scheme_file}"
        )
        yield from _entry("masks hold", _encoding(labels))
    for name, archive in card.archives.items():
        sums = [f"{kind} {value}" for kind, value in (("md5", archive.md5), ("sha256", archive.sha256)) if value]
        yield from _entry("archive", f"{name}, checksum {', '.join(sums) or _UNKNOWN}")
    yield from _entry("splits", _splits(card))
    if card.stores is not None:
        yield "LMDB stores that are expected in the folder, or below (pip install 'tilth[lmdb]'):"
        for name in dict.fromkeys(array.store or card.stores.names for array in card.stores.arrays):
            keys = [array.key for array in card.stores.arrays if (array.store or card.stores.names) == name]
            yield f"  {name}  with records {', '.join(keys)}"
        return
    yield "expected in the folder, below any folders of their own:"
    yield from (f"  {line}" for line in _tree(card))


def _entry(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{name + ':':<14}", subsequent_indent=" " * 14, break_on_hyphens=False)


def _sensor(layer: Layer) -> str:
    if layer.sensor is None:
        return "yours"
    return layer.sensor if isinstance(layer.sensor, str) else f"{layer.sensor.name} ({', '.join(layer.sensor.band_names)})"


def _gsd(images: Layer | Stores) -> str:
    return _UNKNOWN if images.gsd_m is None else f"{images.gsd_m:g} m"


def _commercial(card: Card) -> str:
    return {True: "yes", False: "no", None: _UNKNOWN}[card.licence.commercial]


def _encoding(labels: Labels) -> str:
    other = "other pixels become 255" if labels.unlisted == "ignore" else "others are refused"
    near = f", each of red, green and blue within {labels.tolerance}" if labels.tolerance else ""
    if labels.colours == "classes":
        shown = f" ({', '.join(f'{colour} {name}' for name, colour in labels.classes.items())})" if labels.classes else ""
        return f"the colours of the classes{shown}{near}; {other}"
    if labels.first_value is not None:
        last = labels.first_value + len(labels.classes) - 1
        less = "less, or 255, for no label" if labels.first_value else "255 for no label"
        return f"values {labels.first_value} to {last} in the order of the classes, {less}; {other}"
    table = dict(labels.values or labels.colours)
    if not table:
        return "class ids, 255 for no label"
    return f"{'values' if labels.values else 'colours'} {', '.join(f'{key} {name}' for key, name in table.items())}{near}; {other}"


def _splits(card: Card) -> str:
    rules = card.splits
    if card.stores is not None:
        named = ", ".join(f"{split} where the store's name has {text!r}" for text, split in card.stores.splits.items())
        rest = f"others {card.stores.rest}" if named and card.stores.rest else card.stores.rest
        return "; ".join(filter(None, (named, rest))) or "none published"
    if rules.folders:
        named = ", ".join(f"{name} (if there)" if rules.may_lack(name) else name for name in dict.fromkeys(rules.folders.values()))
    elif rules.files:
        lists = ", ".join(fill(rules.files, {"split": name}) for name in rules.listings)
        named = f"by {lists or rules.files}, one stem a line" + (", if there" if rules.optional else "")
        named += f"; others {rules.rest}" if rules.rest else ""
    else:
        named = ", ".join(f"{split} {len(stems)}" for split, stems in rules.stems.items()) or "none published"
    bare = f"; without masks: {', '.join(rules.unlabelled)}" if rules.unlabelled else ""
    return named + bare + (f"; {rules.protocol}" if rules.protocol else "")


def _tree(card: Card) -> Iterator[str]:
    """List the paths that are expected, a line for each split where folders tell it."""
    folders = list(card.splits.folders) or [""]
    for folder in folders:
        values = {"split": folder} if folder else {}
        for layer in card.layers:
            yield from (f"{fill(pattern, values)}  ({layer.name})" for pattern in dict.fromkeys((*layer.joined, *layer.pattern)))
        for labels in card.labels:
            if card.splits.folders.get(folder) not in card.splits.unlabelled:
                yield from (f"{fill(pattern, values)}  (mask)" for pattern in labels.pattern)
    yield from (f"{labels.scheme_file}  (class scheme)" for labels in card.labels if labels.scheme_file)
    if card.splits.files:
        yield f"{card.splits.files}  (split files)"
