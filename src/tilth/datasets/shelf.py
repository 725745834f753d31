"""The cards that come with tilth, and a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from tilth.datasets.config import Card
from tilth.errors import ConfigError, suggest

_SUFFIXES = (".yaml", ".yml")


def card_names() -> tuple[str, ...]:
    """Names of the cards that come with tilth, in order."""
    return tuple(name for name, _ in _shipped())


def load_card(name: str) -> Card:
    """Read a card.

    Args:
        name: of a card that comes with tilth, or the path of a YAML file.

    Raises:
        ConfigError: unknown name, or a card that does not validate; every problem is named.
        MissingFileError: no such file.
    """
    if name.endswith(_SUFFIXES):
        return Card.read(name)
    shipped = dict(_shipped())
    if name not in shipped:
        raise ConfigError(f"unknown data set {name!r}; {suggest(name, shipped)}; or give the path of a card, .yaml")
    with resources.as_file(shipped[name]) as file:
        return Card.read(file)


def _shipped() -> Iterator[tuple[str, resources.abc.Traversable]]:
    found = {item.name.removesuffix(".yaml"): item for item in (resources.files("tilth.datasets") / "cards").iterdir()}
    yield from sorted((name, item) for name, item in found.items() if item.name.endswith(".yaml"))
