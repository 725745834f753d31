"""Getting the data, through torchgeo where it knows the set."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tilth.datasets.config import Card
from tilth.errors import TilthError, UsageError, needs_extra


def how_to_get(card: Card) -> str:
    """Say in one line how to get a data set."""
    if card.download is None:
        return f"from {card.homepage}" if card.homepage else "your own data"
    if card.download.torchgeo is not None:
        return f"tilth datasets prepare {card.name} FOLDER --download (through torchgeo), or by hand from {card.homepage}"
    return f"{card.download.instructions} ({card.homepage})" if card.homepage else str(card.download.instructions)


def download(card: Card, folder: Path) -> None:
    """Fetch a data set into a folder; what lies there whole is not fetched again.

    Raises:
        UsageError: torchgeo does not fetch this set; the message says how to get it.
        MissingExtraError: torchgeo is not installed.
        TilthError: no network, no room, or a damaged transfer.
    """
    if card.download is None or card.download.torchgeo is None:
        raise UsageError(f"data set {card.name!r} cannot be downloaded from here: {how_to_get(card)}")
    fetch = _torchgeo(card.download.torchgeo, card)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for arguments in card.download.arguments:
            # torchgeo talks on the output stream, which carries results here.
            with redirect_stdout(io.StringIO()):
                fetch(root=str(folder), download=True, checksum=True, **arguments)
    # torchgeo, torchvision and urllib raise about anything when the network fails.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TilthError(
            f"{card.title} could not be downloaded into {folder}: {reason}; try again, or put {', '.join(card.archives) or 'the files'} "
            f"from {card.homepage} there by hand"
        ) from error


def _torchgeo(name: str, card: Card) -> Any:
    with needs_extra("datasets", f"download of {card.title}"):
        from torchgeo import datasets
    return getattr(datasets, name)
