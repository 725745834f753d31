"""``tilth trust``: how sure one may be that the labels of a catalog are right, for people to look at and for trainings to weigh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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

_LISTED = 5
"""Tiles without trust that are named with their reason."""

_CONFUSED = 3
"""Pairs of classes that are named: those that the labels take for each other most often."""

_SHEET = "tiles.png"


class TrustOptions(Config):
    """Options of ``tilth trust``."""

    model: Path = pydantic.Field(description="model or run folder that judges; of one for several sensors all have their say")
    catalog: Path = pydantic.Field(description="catalog whose labels are judged; clean labels in a column reference tell how well")
    out: Path = pydantic.Field(description="folder for catalog.parquet, trust.json, rasters of trust and a sheet of pictures")
    split: tuple[str | None, ...] = pydantic.Field((), description="rows to judge; all if not given")
    part: str = pydantic.Field("1/1", description="judge only this part of the shards, such as 2/8; whoever ends last writes the catalog")
    shard_tiles: int = SHARD_TILES_FIELD
    max_bad_share: float = BAD_SHARE_FIELD
    workers: int = THREADS_FIELD
    pictures: int = pydantic.Field(24, ge=0, le=400, description="tiles on the sheet of pictures, from least to most trusted; 0 = none")
    noise: Literal["ignored", "estimated"] = pydantic.Field(
        "ignored", description="estimated: first find which classes the labels take for which others, and allow for it"
    )
    flips: Flips = FLIPS_FIELD
    inference: SideBySideConfig = pydantic.Field(default_factory=SideBySideConfig, description="how tiles are predicted")

    _part = pydantic.field_validator("part")(is_part)


@verb("trust", TrustOptions)
def trust(options: TrustOptions, console: Console) -> Result:
    """Map how sure one may be that each given label is right.

    The same command goes on after an interruption. Started several times, on one machine or many, the processes share the work.
    """
    from tilth.catalog.fingerprint import made_files
    from tilth.labelling.job import Request
    from tilth.labelling.outcome import CATALOG_FILE
    from tilth.labelling.sheet import draw_by
    from tilth.labelling.trust_job import MEAN_COLUMN, RECORD_FILE, trust_labels
    from tilth.models.segmenter import Segmenter
    from tilth.models.tiles import Running
    from tilth.models.weights.importing import warning_of_fresh_parts

    if (options.out / CATALOG_FILE).resolve() == options.catalog.resolve():
        raise UsageError(f"{options.out}: its catalog is the one to judge, and would be overwritten; choose another --out")
    if options.pictures:
        # Told now, and not after hours of work.
        with needs_extra("report", "pictures of judged tiles (pictures=0 leaves them out)"):
            import matplotlib  # noqa: F401 - only to see whether it is there
    if (warning := warning_of_fresh_parts(options.model)) is not None:
        console.warn(warning)
    found = trust_labels(
        open_pool((options.catalog,), options.split),
        Segmenter.load(options.model, "cpu"),
        options.out,
        Request(
            running=Running(**options.inference.arguments()),
            flips=options.flips,
            part=Part.parse(options.part),
            **options.model_dump(include={"shard_tiles", "max_bad_share", "workers"}),
        ),
        estimate_noise=options.noise == "estimated",
        model=options.model.name,
        say=console.status,
        progress=lambda done, total: console.status(f"judging tile {done}/{total}"),
    )
    counts = {"made": found.made, "missing": found.missing}
    if found.outcome is None:
        summary = (
            f"{found.made} tiles judged now; {found.missing} are left to other parts or processes",
            "the last of them writes the catalog; so does this command, without part, once nobody is at work",
        )
        return Result(summary=summary, outputs={"folder": options.out}, values=counts)
    catalog, record = found.outcome.catalog, found.outcome.record
    for what, tiles in (("was not judged", record["not_judged"]), ("has a reference that is of no use", record["unused_references"])):
        for tile in tiles[:_LISTED]:
            console.warn(f"tile {tile['tile_id']!r} {what}: {tile['problem']}")
    outputs = {"catalog": options.out / CATALOG_FILE, "record": options.out / RECORD_FILE}
    if options.pictures:
        console.status("drawing pictures")
        outputs["pictures"] = draw_by(catalog, MEAN_COLUMN, options.out / _SHEET, options.pictures)
    against = record["against_reference"]
    values: dict[str, Any] = counts | {name: record[name] for name in ("tiles", "judged", "mean_trust")}
    values |= {"auroc": against and against["auroc"], "wrong_share": against and against["wrong_share"]}
    values["class_trust"] = {item["name"]: item["mean_trust"] for item in record["classes"]}
    values["class_auroc"] = {item["name"]: item["auroc"] for item in against["classes"]} if against else {}
    return Result(summary=_summary(found.outcome, found.made), outputs=outputs, values=values, parts=made_files(catalog.table, options.out))


def _summary(outcome: Outcome, made: int) -> tuple[str, ...]:
    """Lines for people: how many, how much trust, in which classes, and how well it finds what is wrong."""
    record = outcome.record
    against, given_as = record["against_reference"], record["given_as"]
    lines = [f"{record['judged']} of {record['tiles']} tiles judged ({made} now), by {', '.join(record['model']['branches'])}"]
    if record["mean_trust"] is not None:
        lines.append(f"the labels are trusted by {100 * record['mean_trust']:.1f} % on average")
    if given_as is not None:
        names = [item["name"] for item in record["classes"]]
        pairs = [(share, true, given) for true, row in enumerate(given_as) for given, share in enumerate(row) if true != given]
        worst = [pair for pair in sorted(pairs, reverse=True)[:_CONFUSED] if pair[0] > 0]
        found = ", ".join(f"{share:.0%} of {names[true]} is labelled {names[given]}" for share, true, given in worst)
        lines.append(f"what is allowed for, most of all: {found or 'nothing'}")
    if against is not None:
        lines.append(
            f"clean labels of {against['tiles']} tiles: {_percent(against['wrong_share'])} of the labels are wrong; trust finds them with "
            f"an AUROC of {_plain(against['auroc'])} (0.5 = guessing, 1 = without fail)"
        )
    width = max(len(item["name"]) for item in record["classes"])
    judged = against["classes"] if against else [None] * len(record["classes"])
    for item, known in zip(record["classes"], judged, strict=True):
        if item["mean_trust"] is not None:
            more = "" if known is None else f", {_percent(known['wrong_share'])} wrong, AUROC {_plain(known['auroc'])}"
            lines.append(f"  {item['name']:<{width}}  trust {_percent(item['mean_trust'])}{more}")
    return tuple(lines)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _plain(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
