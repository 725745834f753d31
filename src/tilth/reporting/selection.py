"""Whether a selection among noisy labels goes well: curves of what a training by CromSS logs, and pictures of what it makes of tiles.

The pictures are made when the report is: from the model that the run left and the catalog that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.errors import TilthError
from tilth.reporting.collect import Run
from tilth.reporting.figures import Chart, Series, mean_curve, thin
from tilth.reporting.galleries import PICTURE_SIDE, GalleryTile
from tilth.reporting.inputs import Rgb
from tilth.reporting.pictures import embed, embed_values
from tilth.reporting.runs import LINE_COLOURS, Configuration, class_chart
from tilth.reporting.viewer import DIFFERENCE_COLOURS, DIFFERENT, SAME, Layer, Viewer, class_rows, confidence_colours

if TYPE_CHECKING:
    import numpy as np

    from tilth.classes import ClassScheme

METHOD = "cromss"
MOST_CONFIGURATIONS = 2
"""Configurations whose tiles are drawn."""

_PERCENT = 100
_SPARE = 8
"""Tiles looked at in place of some that cannot be read."""

# Scalar, of which the name of a branch follows; scalar of all branches together, and what to call it; title; what to look for.
_CHARTS: tuple[tuple[str | None, tuple[str, str] | None, str, str], ...] = (
    (
        "weight",
        None,
        "Mean weight of a label",
        "How much a label counts. It falls while the selection sets in; a branch far below the others doubts its labels.",
    ),
    ("agrees", None, "Labels that a branch predicts itself", "Near 100 % it repeats its labels, wrong ones too."),
    ("trust", None, "Mean weight as a teacher", "How sure of itself a branch is where the others learn from it."),
    ("right_selected", ("right", "all labels"), "Labels that are right", "Selected labels should be right more often than all are."),
    (None, ("agreement", "all modalities"), "Pixels on which the modalities agree", ""),
)
_CLASS_CHARTS = (
    (
        "selected",
        "Selected labels by class",
        "Of the labels of a class, the share that counts in full. A class at zero is being forgotten.",
    ),
    ("predicted", "Predictions by class", "One class that takes over from all others is a sign of collapse."),
)


def selection_charts(groups: Sequence[Configuration], classes: Sequence[tuple[str, Rgb]]) -> list[Chart]:
    """Make the charts of every configuration that was trained by CromSS.

    Args:
        groups: the configurations.
        classes: name and colour in id order, for runs that do not tell theirs.
    """
    made = []
    for group in groups:
        if group.method != METHOD:
            continue
        branches = _branches(group.runs)
        whose = f", {group.name}" if len(groups) > 1 else ""
        made += [_branch_chart(group, branches, *kind, whose) for kind in _CHARTS]
        for scalar, title, text in _CLASS_CHARTS:
            made += [class_chart(group, len(groups), classes, (f"{scalar}_{name}",), f"{title}, branch {name}", text) for name in branches]
    return [chart for chart in made if chart is not None]


def selection_section(groups: Sequence[Configuration], most: int) -> dict[str, Any] | None:
    """Draw tiles of the runs that were trained by CromSS: labels, how sure of them the branches are, what is selected and predicted.

    Args:
        groups: the configurations; of each the first run is shown, of two at most.
        most: tiles of each; 0 for none.

    Returns:
        ``selections``: name, tiles and, where none can be drawn, why; None without such a run.
    """
    chosen = [group for group in groups if group.method == METHOD][:MOST_CONFIGURATIONS] if most else []
    shown = []
    for group in chosen:
        tiles: list[GalleryTile] = []
        problem = ""
        try:
            tiles = draw_tiles(group.runs[0], most)
        except (TilthError, OSError) as error:
            # What the run was trained on need not be where the report is made.
            problem = " ".join(str(error).split())
        shown.append({"name": group.name, "tiles": tiles, "problem": problem})
    return {"selections": shown} if shown else None


def draw_tiles(run: Run, most: int) -> list[GalleryTile]:
    """Draw labelled tiles that a run learnt from, always the same ones.

    Args:
        run: of CromSS, with its model.
        most: tiles at most.

    Raises:
        TilthError: model or catalog is not there or does not fit, or no tile can be read.
    """
    from tilth import seeds
    from tilth.catalog.table import Catalog
    from tilth.evaluation.samples import labelled_tiles
    from tilth.models.segmenter import Segmenter

    model = Segmenter.load(run.folder)
    catalog = Catalog.concat([Catalog.open(Path(path)) for path in run.recipe.get("labelled", ())])
    split = run.recipe.get("labelled_split")
    labelled = labelled_tiles(model, catalog.filter(split=split) if split else catalog)
    order = sorted(range(len(labelled)), key=lambda row: seeds.derive(0, "tiles of a report", labelled.tile(row).tile_id))
    drawn: list[GalleryTile] = []
    problem: TilthError | OSError | None = None
    for row in order[: most + _SPARE]:
        if len(drawn) < most:
            try:
                drawn.append(_draw(run, model, labelled, row))
            except (TilthError, OSError) as error:
                problem = error
    if problem is not None and not drawn:
        raise problem
    return drawn


def _draw(run: Run, model: Any, labelled: Any, row: int) -> GalleryTile:
    import numpy as np
    import torch
    from PIL import Image

    from tilth.catalog import schema
    from tilth.evaluation.samples import read_sample
    from tilth.imagery.picture import to_rgb
    from tilth.imagery.read import read_label
    from tilth.methods.cromss.confidence import enhance, label_confidence
    from tilth.methods.cromss.method import Branches
    from tilth.methods.cromss.objective import judge
    from tilth.methods.cromss.settings import CromssConfig
    from tilth.models.fused import JOINT
    from tilth.models.inference import evaluating

    tile = labelled.tile(row)
    sample = read_sample(tile, model.sensor)
    part = np.s_[:PICTURE_SIDE, :PICTURE_SIDE]
    given, valid, data = sample.mask[part], sample.pixels.valid[part], sample.pixels.data[:, *part]
    branches, label = Branches(model), torch.from_numpy(given.astype(np.int64))[None]
    modalities = len(branches.names) - (JOINT in branches.names)
    with evaluating(model):
        seen = torch.from_numpy(valid)[None]
        stored = torch.where(seen, torch.from_numpy(data.astype(np.float32))[None], 0.0)
        said = [logits.float().log_softmax(1) for logits in branches(model.normalise(stored, seen))]
        config = CromssConfig.parse(run.recipe.get("settings") or {}, source=f"settings of run {run.folder.name!r}")
        selected = judge(said, modalities, label, 1.0, config).chosen.selected[:, 0].numpy()
        known = torch.stack([label_confidence(one, label) for one in said])
        sure = enhance(known[:modalities], known[-1] if len(known) > modalities else None)[:, 0]
        predicted = [one[0].argmax(0).to(torch.uint8).numpy() for one in said]
    picture = Image.fromarray(to_rgb(data, valid, model.sensor))
    layers = [
        Layer("Image", "picture", embed(picture, "photo", PICTURE_SIDE), f"Image of tile {tile.tile_id}", stacked=True),
        _classes("Given label", given, model.scheme, f"Labels of tile {tile.tile_id}", stacked=True),
    ]
    reference = labelled.column(schema.REFERENCE_COLUMN)[row] if schema.REFERENCE_COLUMN in labelled.table.column_names else None
    if reference is not None:
        # As in training, clean labels that cannot be read count as none.
        with suppress(TilthError, OSError):
            clean = read_label(reference, tile.window)[part]
            layers.append(_classes("Reference", clean, model.scheme, f"Clean labels of tile {tile.tile_id}"))
    hidden = given >= len(model.scheme)
    for place, name in enumerate(branches.names):
        percents = (sure[place] * _PERCENT).round().to(torch.uint8).numpy()
        left = np.where(selected[place], SAME, DIFFERENT).astype(np.uint8)
        of = f"of tile {tile.tile_id}, branch {name}"
        layers += [
            Layer(
                f"Confidence, {name}", "confidence", embed_values(percents, confidence_colours(), hidden), f"Confidence in the labels {of}"
            ),
            Layer(
                f"Not selected, {name}", "difference", embed_values(left, DIFFERENCE_COLOURS, hidden), f"Labels that are not selected {of}"
            ),
            _classes(f"Predicted, {name}", np.where(valid, predicted[place], np.uint8(255)), model.scheme, f"Predicted classes {of}"),
        ]
    viewer = Viewer(f"Tile {tile.tile_id}", picture.width, picture.height, tuple(layers), _rows(model.scheme), compact=True)
    return GalleryTile(tile.tile_id, "", (), viewer)


def _rows(scheme: ClassScheme) -> tuple[tuple[int, str, Rgb], ...]:
    return class_rows(dict(enumerate(scheme.names)), dict(enumerate(scheme.colours)))


def _classes(name: str, ids: np.ndarray, scheme: ClassScheme, alt: str, *, stacked: bool = False) -> Layer:
    colours = {value: colour for value, _, colour in _rows(scheme)}
    return Layer(name, "classes", embed_values(ids, colours, ids >= len(scheme)), alt, stacked=stacked)


def _branches(runs: Sequence[Run]) -> list[str]:
    """Names of the branches, from those of what is logged."""
    names = {name for run in runs for kind, name in run.curves if kind == "train" and name.startswith("weight_")}
    return sorted(name.removeprefix("weight_") for name in names)


def _branch_chart(
    group: Configuration, branches: Sequence[str], scalar: str | None, together: tuple[str, str] | None, title: str, text: str, whose: str
) -> Chart | None:
    """One line for each branch, and one for all of them; several runs are averaged."""
    wanted = [] if scalar is None else [(f"{scalar}_{name}", name) for name in branches]
    wanted += [] if together is None else [together]
    lines: list[Series] = []
    for name, label in wanted:
        known = [curve for run in group.runs if (curve := run.curve(name, "train"))]
        mean = mean_curve(known) if known else None
        if mean is not None and mean.steps:
            lines.append(Series(label, thin(mean)[0], f"var(--line-{len(lines) % LINE_COLOURS + 1})", len(lines)))
    if not lines:
        return None
    note = f" Mean of {len(group.runs)} runs." if len(group.runs) > 1 else ""
    key = scalar or wanted[0][0]
    return Chart(f"{key}-{group.number}", f"{title}{whose}", f"{text}{note}".strip(), "percent", tuple(lines), from_zero=True)
