"""``tilth datasets list|info|prepare``: public data sets, from their original layout to a catalog."""

from __future__ import annotations

from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.datasets.options import PrepareConfig
from tilth.verbs.console import Console
from tilth.verbs.options import require_suffix
from tilth.verbs.registry import Result, verb


class DatasetsListOptions(Config):
    """Options of ``tilth datasets list``."""


class DatasetsInfoOptions(Config):
    """Options of ``tilth datasets info``."""

    name: str = pydantic.Field(json_schema_extra={"positional": True}, description="name of a data set, or path of a card, .yaml")
    scheme_out: Path | None = pydantic.Field(
        None, description="class scheme file to write, .json, as tilth catalog build and import take it"
    )

    @pydantic.field_validator("scheme_out")
    @classmethod
    def _is_json(cls, value: Path | None) -> Path | None:
        return require_suffix(value, ".json", "a class scheme is a JSON file")


class DatasetsPrepareOptions(PrepareConfig):
    """Options of ``tilth datasets prepare``."""

    name: str = pydantic.Field(
        min_length=1, json_schema_extra={"positional": True}, description="name of a data set, or path of a card of your own, .yaml"
    )
    folder: Path = pydantic.Field(
        json_schema_extra={"positional": True}, description="folder of the data set, unpacked or with its archives; not written to"
    )
    out: Path = pydantic.Field(description="folder for the catalog, decoded masks and unpacked archives")


@verb("datasets list", DatasetsListOptions)
def datasets_list(_options: DatasetsListOptions, _console: Console) -> Result:
    """List the public data sets that tilth knows."""
    from tilth.datasets.describe import list_cards
    from tilth.datasets.shelf import card_names, load_card

    cards = [load_card(name) for name in card_names()]
    return Result(summary=tuple(list_cards(cards)), values={"datasets": [card.name for card in cards]})


@verb("datasets info", DatasetsInfoOptions)
def datasets_info(options: DatasetsInfoOptions, _console: Console) -> Result:
    """Describe a data set: classes, licence, citation, how to get it, folders."""
    from tilth.datasets.describe import describe_card
    from tilth.datasets.shelf import load_card
    from tilth.errors import UsageError
    from tilth.imagery.write import write_json

    card = load_card(options.name)
    outputs = {}
    if options.scheme_out is not None:
        if not card.labels or not card.labels[0].classes:
            raise UsageError(f"data set {card.name!r} has no classes of its own, so there is no scheme to write")
        scheme = card.labels[0].scheme(card.name)
        outputs["class scheme"] = write_json(options.scheme_out, scheme.model_dump(mode="json", exclude_defaults=True))
    return Result(summary=tuple(describe_card(card)), outputs=outputs, values=card.model_dump(mode="json"))


@verb("datasets prepare", DatasetsPrepareOptions)
def datasets_prepare(options: DatasetsPrepareOptions, console: Console) -> Result:
    """Verify a data set in its original layout, decode its masks and make its catalog."""
    from tilth.catalog.fingerprint import made_files
    from tilth.datasets.prepare import prepare_dataset

    done = prepare_dataset(
        options, options.out, warn=console.warn, progress=lambda what, done, total: console.status(f"{what} {done}/{total}")
    )
    catalog = done.catalog
    splits = ", ".join(f"{name or 'no split'} {count}" for name, count in catalog.counts("split").items())
    masks = f"{done.decoded} masks decoded" if done.decoded else "masks used where they lie" if len(catalog.labelled()) else "no masks"
    cite = (f"cite: {done.card.citation}",) if done.card.citation else ()
    return Result(
        summary=(f"{len(catalog)} tiles of {done.images} images, {len(catalog.labelled())} with labels ({splits}); {masks}", *cite),
        outputs={"catalog": done.path},
        values={"tiles": len(catalog), "labelled": len(catalog.labelled()), "images": done.images, "decoded": done.decoded},
        parts=made_files(catalog.table, options.out),
    )
