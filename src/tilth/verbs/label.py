"""``tilth label``: a model labels the tiles of catalogs, and the next training reads its labels as it reads any others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from tilth.config import Config
from tilth.errors import UsageError, needs_extra
from tilth.labelling.config import Part, is_part
from tilth.verbs.console import Console
from tilth.verbs.options import BAD_SHARE_FIELD, FLIPS_FIELD, SHARD_TILES_FIELD, THREADS_FIELD, Flips, SideBySideConfig
from tilth.verbs.pool import open_pool
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from tilth.labelling.outcome import Outcome
    from tilth.labelling.work import Labelling

_LISTED = 5
"""Tiles without a label that are named with their reason."""

_SPLIT = "train"
"""Split of tiles of catalogs that have none: labels of a model are made to learn from."""

_SHEET = "tiles.png"


class LabelOptions(Config):
    """Options of ``tilth label``."""

    model: Path = pydantic.Field(json_schema_extra={"positional": True}, description="model or run folder that labels")
    catalogs: tuple[Path, ...] = pydantic.Field(
        min_length=1,
        json_schema_extra={"positional": True},
        description="catalogs of the tiles; their own labels are not looked at",
    )
    out: Path = pydantic.Field(description="folder for catalog.parquet, label.json, masks and a sheet of pictures")
    split: tuple[str | None, ...] = pydantic.Field(
        (_SPLIT,), description="rows to label; split=[] takes all. A catalog without any split is used whole, and its tiles get split train"
    )
    ignore_below: float = pydantic.Field(
        0.0, ge=0, le=1, description="pixels whose highest class probability is less get 255, no label; 0 = off (S5)"
    )
    confidence: bool = pydantic.Field(False, description="also write how sure the model is of each pixel: percents, 255 without data")
    part: str = pydantic.Field("1/1", description="label only this part of the shards, such as 2/8; whoever ends last writes the catalog")
    shard_tiles: int = SHARD_TILES_FIELD
    max_bad_share: float = BAD_SHARE_FIELD
    workers: int = THREADS_FIELD
    pictures: int = pydantic.Field(24, ge=0, le=400, description="tiles on the sheet of pictures, from least to most sure; 0 = none")
    flips: Flips = FLIPS_FIELD
    inference: SideBySideConfig = pydantic.Field(default_factory=SideBySideConfig, description="how tiles are predicted")

    @pydantic.field_validator("catalogs", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    _part = pydantic.field_validator("part")(is_part)


@verb("label", LabelOptions)
def label(options: LabelOptions, console: Console) -> Result:
    """Let a model label the tiles of catalogs, for other trainings to learn from.

    The same command goes on after an interruption. Started several times, on one machine or many, the processes share the work.
    """
    from tilth.catalog.fingerprint import made_files
    from tilth.labelling.job import Request, label_pool
    from tilth.labelling.outcome import CATALOG_FILE, RECORD_FILE
    from tilth.labelling.sheet import draw_by
    from tilth.models.segmenter import Segmenter
    from tilth.models.tiles import Running
    from tilth.models.weights.importing import warning_of_fresh_parts

    if (options.out / CATALOG_FILE).resolve() in {path.resolve() for path in options.catalogs}:
        raise UsageError(f"{options.out}: its catalog is one of those to label, and would be overwritten; choose another --out")
    if options.pictures:
        # Told now, and not after hours of work.
        with needs_extra("report", "pictures of labelled tiles (pictures=0 leaves them out)"):
            import matplotlib  # noqa: F401 - only to see whether it is there
    if (warning := warning_of_fresh_parts(options.model)) is not None:
        console.warn(warning)
    request = Request(
        running=Running(**options.inference.arguments()),
        flips=options.flips,
        part=Part.parse(options.part),
        **options.model_dump(include={"ignore_below", "confidence", "shard_tiles", "max_bad_share", "workers"}),
    )
    found = label_pool(
        open_pool(options.catalogs, options.split, fill_split=_SPLIT, labels=False),
        Segmenter.load(options.model, "cpu"),
        options.out,
        request,
        model=options.model.name,
        say=console.status,
        progress=lambda done, total: console.status(f"labelling tile {done}/{total}"),
    )
    if found.outcome is None:
        return Result(summary=_unfinished(found, options.part), outputs={"folder": options.out}, values=_counts(found))
    catalog, record = found.outcome.catalog, found.outcome.record
    for tile in record["without_label"][:_LISTED]:
        console.warn(f"tile {tile['tile_id']!r} has no label: {tile['problem']}")
    outputs = {"catalog": options.out / CATALOG_FILE, "record": options.out / RECORD_FILE}
    if options.pictures:
        console.status("drawing pictures")
        outputs["pictures"] = draw_by(catalog, "mean_confidence", options.out / _SHEET, options.pictures)
    values = _counts(found) | {name: record[name] for name in ("tiles", "labelled", "ignored_share", "mean_confidence", "mean_entropy")}
    values["class_shares"] = {item["name"]: item["share"] for item in record["classes"]}
    return Result(summary=_summary(found.outcome, found.made), outputs=outputs, values=values, parts=made_files(catalog.table, options.out))


def _counts(found: Labelling) -> dict[str, Any]:
    return {"made": found.made, "missing": found.missing}


def _unfinished(found: Labelling, part: str) -> tuple[str, ...]:
    whose = "this process" if part == "1/1" else f"part {part}"
    return (
        f"{whose} has labelled {found.made} tiles; {found.missing} are left to other parts or processes",
        "the last of them writes the catalog; so does this command, without part, once nobody is at work",
    )


def _summary(outcome: Outcome, made: int) -> tuple[str, ...]:
    """Lines for people: how many, how sure, and which classes."""
    record = outcome.record
    ignored = f"{100 * record['ignored_share']:.1f} % of the pixels ignored"
    lines = [f"{record['labelled']} of {record['tiles']} tiles labelled ({made} now), {ignored}"]
    if record["mean_confidence"] is not None:
        lines.append(f"the model is {100 * record['mean_confidence']:.1f} % sure on average (entropy {record['mean_entropy']:.3f})")
    width = max(len(item["name"]) for item in record["classes"])
    lines += [f"  {item['name']:<{width}}  {100 * item['share']:5.1f} %" for item in record["classes"] if item["share"] is not None]
    return tuple(lines)
