"""Looking at the features of some encoders: maps of a few tiles as pictures, and what simple classifiers make of pixels.

Tiles are read and computed one by one, once for each encoder and time; what is kept of them are single pixels, and small maps of the few
tiles that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilth.errors import DataError, OutputExistsError, UsageError, needs_extra
from tilth.evaluation.feature_result import FEATURES_FILE, FeatureEncoder, FeatureFigure, FeatureRecord, MapScores
from tilth.evaluation.record import ratio, withdraw
from tilth.imagery.files import new_folder
from tilth.imagery.picture import colourise, to_rgb
from tilth.imagery.write import write_text
from tilth.insight.config import LookConfig
from tilth.insight.encoders import BandSource, Level, MapSource, NamedEncoder
from tilth.insight.figures import Panel, Sheet, draw_probes, draw_sheet, draw_tsne, level_name, time_name
from tilth.insight.gather import Gathered, gather
from tilth.insight.pool import Pool, Scan, choose_pool, scan, views_of
from tilth.insight.probes import probe
from tilth.insight.projection import embed_pixels
from tilth.insight.tables import POINTS_FILE, PROBES_FILE, Points, PointsFrom, write_points, write_probes
from tilth.insight.views import View
from tilth.models.identity import model_hash

if TYPE_CHECKING:
    from tilth.catalog.table import Catalog

BANDS = "bands"
"""What the image itself is called among the encoders."""

Say = Callable[[str], None]
Pictures = dict[tuple[str, str, str], dict[tuple[int | None, Level], NDArray[np.uint8]]]
"""Pictures of maps, by kind, encoder and tile, then by time and level."""


def look_at_features(
    encoders: Sequence[NamedEncoder],
    learn: Catalog,
    test: Catalog,
    out: Path,
    config: LookConfig,
    *,
    catalog: str,
    fingerprint: str,
    device: str = "cpu",
    say: Say = lambda _: None,
    warn: Say = lambda _: None,
) -> FeatureRecord:
    """Look at the maps of some encoders on tiles of a catalog, and write what is seen.

    Args:
        encoders: at least one; names differ.
        learn: tiles that probes learn from.
        test: tiles that they are tested on; tiles to learn from that show pixels of these are left out. The first are drawn.
        out: folder for ``features.json``, ``probes.csv``, ``tsne.parquet`` and figures; those of an earlier look are replaced.
        config: how.
        catalog: what the tiles are called.
        fingerprint: of their catalog.
        device: where to compute.
        say: told what goes on.
        warn: told of tiles that cannot be read.

    Returns:
        The content of ``features.json``, which is written last.

    Raises:
        SensorMismatchError: an encoder of other bands or scaling than the tiles.
        CatalogError: no tile, none that can be read, or, where there are labels, no labelled pixel to learn from or to test on.
        UsageError: levels, sides or times that an encoder does not have.
        OutputExistsError: the folder holds a ``features.json`` of something else.
        DataError: maps that are not finite.
        MissingExtraError: scikit-learn or matplotlib is not installed.
    """
    _check_libraries()
    earlier = _earlier(out)
    names = [one.name for one in encoders]
    if len({*names, BANDS}) <= len(names):
        raise UsageError(f"encoders to look at are called {', '.join(names)}; give each a name of its own, and none {BANDS!r}")
    pool = choose_pool(learn, test, config)
    place = torch.device(device)
    sources: list[tuple[str, MapSource]] = [(one.name, one.seeing(pool.sensor).source(config.maps, place)) for one in encoders]
    if pool.probing:
        sources.append((BANDS, BandSource(encoders[0].model)))
    count = len(pool.learn) + len(pool.test)
    scanned = scan(pool, config, _Progress(say, "reading", count))
    for problem in scanned.problems:
        warn(problem)
    with new_folder(out):
        _withdraw(out, earlier)
        maps, pictures, points = _all_maps(sources, pool, scanned, config, say, count)
        figures = _draw_pictures(pictures, pool, scanned, config, out)
        say("drawing figures")
        if points:
            figures.append(_draw_points(points, pool, scanned, config, out))
        if pool.probing:
            write_probes(maps, pool.scheme.names if pool.scheme else (), out / PROBES_FILE)
            draw_probes(maps, out / "probes.png")
            figures.append(FeatureFigure(file="probes.png", kind="probes", encoder=None, title="Probes by level"))
        record = FeatureRecord(
            catalog=catalog,
            fingerprint=fingerprint,
            classes=pool.scheme.names if pool.scheme else (),
            colours=pool.scheme.colours if pool.scheme else (),
            encoders=tuple(
                FeatureEncoder(name=one.name, network=one.model.config.network.title, model_hash=model_hash(one.model)) for one in encoders
            ),
            learn_tiles=scanned.learn_tiles,
            test_tiles=scanned.test_tiles,
            learn_pixels=scanned.learn_pixels if pool.probing else 0,
            test_pixels=scanned.test_pixels if pool.probing else 0,
            shared_tiles=pool.shared,
            unreadable=len(scanned.problems),
            maps=tuple(maps),
            figures=tuple(figures),
            settings=config.model_dump(mode="json"),
        )
        write_text(out / FEATURES_FILE, record.to_json())
    return record


class _Progress:
    """Counts tiles aloud."""

    def __init__(self, say: Say, what: str, count: int) -> None:
        self._say, self._what, self._count, self._done = say, what, count, 0

    def __call__(self) -> None:
        self._done += 1
        self._say(f"{self._what}: tile {self._done}/{self._count}")


def _check_libraries() -> None:
    """Tell now, and not after an hour of work, what is not installed."""
    with needs_extra("insight", "looking at features"):
        import sklearn  # noqa: F401 - only to see whether it is there
    with needs_extra("report", "figures of features"):
        import matplotlib  # noqa: F401 - only to see whether it is there


def _earlier(out: Path) -> FeatureRecord | None:
    """Read what an earlier look left. Kept features have a file of the same name, which would be lost, and they with it."""
    if not (out / FEATURES_FILE).exists():
        return None
    try:
        return FeatureRecord.read(out)
    except DataError:
        raise OutputExistsError(f"{out}: holds a {FEATURES_FILE} that is no look at features; choose another --out") from None


def _withdraw(out: Path, earlier: FeatureRecord | None) -> None:
    """Remove what an earlier look left."""
    for figure in () if earlier is None else earlier.figures:
        for name in (figure.file, Path(figure.file).with_suffix(".svg").name):
            (out / name).unlink(missing_ok=True)
    withdraw(out / FEATURES_FILE)
    for name in (PROBES_FILE, POINTS_FILE):
        withdraw(out / name)


def _all_maps(
    sources: Sequence[tuple[str, MapSource]], pool: Pool, scanned: Scan, config: LookConfig, say: Say, count: int
) -> tuple[list[MapScores], Pictures, list[tuple[Points, NDArray[np.float32]]]]:
    """Go over all tiles for each encoder and time; returns numbers, pictures, and for t-SNE panels without places and their features."""
    scores: list[MapScores] = []
    pictures: Pictures = {}
    points: list[tuple[Points, NDArray[np.float32]]] = []
    for name, source in sources:
        chosen = min(source.times, key=lambda time: abs((time or 0) - config.tsne.time))
        for time in source.times:
            what = f"{name}, {time_name(time)}".rstrip(", ")
            laid_out = len(scanned.picks) > 0 and name != BANDS and time == chosen
            found = gather(
                source,
                time,
                pool,
                scanned,
                config,
                name=name,
                pictured=name != BANDS,
                near=config.tsne.stride if laid_out else None,
                progress=_Progress(say, what, count),
            )
            for level, kept in found.items():
                say(f"{what}: probing {level_name(level)}")
                scores.append(_scores(name, time, level, kept, pool, config))
                if kept.points:
                    points.append((Points(name, level, time, np.empty((0, 2), np.float32)), np.concatenate(kept.points)))
                for kind, drawn in (("clusters", kept.clusters), ("colours", kept.colours())):
                    for tile, picture in drawn.items():
                        pictures.setdefault((kind, name, tile), {})[time, level] = picture
    return scores, pictures, points


def _scores(name: str, time: int | None, level: Level, kept: Gathered, pool: Pool, config: LookConfig) -> MapScores:
    """Numbers of one map."""
    probed: dict[str, Any] = {}
    if pool.probing and pool.scheme is not None:
        found = probe(kept.sampled("learn"), kept.sampled("test"), len(pool.scheme), config.probes)
        probed["linear_converged"] = found.converged
        for what, one in (("linear", found.linear), ("neighbour", found.neighbours)):
            probed |= {
                f"{what}_accuracy": one.summary.overall_accuracy,
                f"{what}_mean_iou": one.summary.mean_iou,
                f"{what}_class_iou": tuple(item.iou for item in one.per_class),
            }
    return MapScores(
        encoder=name,
        side=level.side,
        stride=level.stride,
        time=time,
        width=kept.width,
        cluster_agreement=ratio(kept.right, kept.counted),
        **probed,
    )


def _draw_pictures(pictures: Pictures, pool: Pool, scanned: Scan, config: LookConfig, out: Path) -> list[FeatureFigure]:
    """Draw a sheet for each kind, encoder and tile."""
    if not pictures:
        return []
    views = {view.tile_id: view for _, view in views_of(pool, config) if isinstance(view, View) and view.tile_id in scanned.shown}
    encoders = list(dict.fromkeys(encoder for _, encoder, _ in pictures))
    figures = []
    for (kind, encoder, tile), maps in pictures.items():
        view = views[tile]
        title = {"clusters": f"{encoder}: k-means of each map", "colours": f"{encoder}: three strongest components of each map"}[kind]
        label = None if pool.scheme is None else colourise(view.mask, pool.scheme)
        sheet = Sheet(f"{title}, tile {tile}", to_rgb(view.pixels.data, view.pixels.valid, pool.sensor), label, maps)
        file = f"{kind}-{encoders.index(encoder) + 1}-{scanned.shown.index(tile) + 1}.png"
        draw_sheet(sheet, out / file)
        figures.append(FeatureFigure(file=file, kind="clusters" if kind == "clusters" else "colours", encoder=encoder, title=sheet.title))
    return figures


def _draw_points(
    points: Sequence[tuple[Points, NDArray[np.float32]]], pool: Pool, scanned: Scan, config: LookConfig, out: Path
) -> FeatureFigure:
    """Lay pixels out by t-SNE, write where they came to lie, and draw them."""
    tiles, rows, columns, classes = list[str](), list[int](), list[int](), list[NDArray[np.uint8]]()
    for _, view in views_of(pool, config):
        if isinstance(view, View):
            picks = scanned.picks.of(view)
            top, left = view.pixels.origin
            tiles += [view.tile_id] * len(picks.rows)
            rows += (picks.rows + top).tolist()
            columns += (picks.columns + left).tolist()
            classes.append(picks.classes)
    origin = PointsFrom(tiles, rows, columns, np.concatenate(classes))
    laid = [Points(one.encoder, one.level, one.time, embed_pixels(features, config.tsne, config.seed)) for one, features in points]
    write_points(laid, origin, pool.scheme.names if pool.scheme else (), out / POINTS_FILE)
    panels = [Panel(_title(one), one.places, origin.classes) for one in laid]
    draw_tsne(panels, pool.scheme, out / "tsne.png")
    return FeatureFigure(file="tsne.png", kind="tsne", encoder=None, title=f"t-SNE of {len(origin.classes)} pixels")


def _title(points: Points) -> str:
    return ", ".join(filter(None, (points.encoder, level_name(points.level), time_name(points.time))))
