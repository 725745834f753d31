"""Putting the page together: records to sections, sections through the templates, one file on disk."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tilth.errors import UsageError
from tilth.evaluation.area_result import AreaAssessment
from tilth.evaluation.compare import Comparison
from tilth.imagery.write import atomic_path
from tilth.reporting import figures, numbers
from tilth.reporting.collect import read_evaluations, read_runs
from tilth.reporting.data import classes_of, data_section, read_catalog
from tilth.reporting.inputs import ReportInput
from tilth.reporting.looks import feature_section, read_looks
from tilth.reporting.maps import read_map
from tilth.reporting.runs import charts, configurations, costs, settings, total_seconds
from tilth.reporting.samples import samples_section
from tilth.reporting.scores import comparison_section, evaluation_section
from tilth.reporting.sections import area_section, map_section, reproduce_section
from tilth.reporting.selection import selection_charts, selection_section
from tilth.reporting.story import headline, key_numbers, nice, score_interval, score_text, steps_done
from tilth.reporting.viewer import confidence_payload, ramp_css

_TITLES = {
    "answer": "The answer",
    "done": "What was done",
    "data": "Data",
    "comparison": "Comparison",
    "curves": "Training curves",
    "samples": "Samples",
    "selection": "Selection among noisy labels",
    "evaluation": "Evaluation",
    "features": "Features",
    "map": "Map",
    "areas": "Areas on the ground",
    "cost": "Cost",
    "reproduce": "How to reproduce it",
}

STYLES = ("style.css", "parts.css", "viewer.css", "print.css")
SCRIPTS = ("page.js", "curves.js", "layers.js", "viewer.js", "gestures.js", "controls.js")
"""Files of the one style sheet and the one script of the page, in order; split by purpose."""


def build_report(inputs: ReportInput, output: str | Path) -> Path:
    """Write a report: one HTML file that loads nothing from elsewhere.

    The same inputs give the same bytes. Parts that are not there are left out; parts that are there and wrong stop the report.

    Args:
        inputs: what to report on; at least one part.
        output: file to write, ``.html``; an earlier report is replaced, its folder is made where it does not exist.

    Returns:
        The path written.

    Raises:
        UsageError: there is nothing to report, or ``output`` is not an HTML file.
        MissingFileError: a named folder or file does not exist or is not what it must be.
        DataError: a file does not hold what it must, or was written by a newer version.
        ConfigError: a recipe is not YAML, or the catalog summary's scheme is none.

    Example:
        >>> build_report(ReportInput(runs=["runs/s4p"], commands=["tilth demo"]), "report.html")  # doctest: +SKIP
        PosixPath('report.html')
    """
    path = Path(output)
    if path.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"{path}: a report is an HTML file; give a name that ends in .html")
    text = render(inputs)
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def render(inputs: ReportInput) -> str:
    """Return the text of the page; see :func:`build_report`."""
    if inputs.empty:
        raise UsageError(
            "nothing to report; give at least one of runs, evaluations, comparisons, maps, assessments, features, catalog, commands"
        )
    context = _gather(inputs)
    environment = make_environment()
    style, script = "".join(map(asset, STYLES)).replace("--ramp-stops", ramp_css()), '"use strict";\n' + "".join(map(asset, SCRIPTS))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    # Line ends are normalised by browsers before hashing; the assets hold none but \n.
    page = environment.get_template("report.html.jinja").render(
        title=inputs.title,
        note=inputs.note,
        confidence_colours=confidence_payload(),
        style=Markup(style),  # noqa: S704 - our own style sheet
        script=Markup(script),  # noqa: S704 - our own script
        script_hash=f"sha256-{digest}",
        sections=[{"key": key, "title": _TITLES[key]} for key in _TITLES if context.get(key)],
        **{name: value for part in context.values() if part for name, value in part.items()},
    )
    return re.sub(r"[ \t]+\n", "\n", page) + "\n"


def _gather(inputs: ReportInput) -> dict[str, dict[str, Any] | None]:
    """Read everything and prepare every section; None for one without content."""
    runs = read_runs(inputs.runs)
    evaluations = read_evaluations(inputs.evaluations)
    comparisons = [item if isinstance(item, Comparison) else Comparison.read(item) for item in inputs.comparisons]
    views = [read_map(item, inputs.viewer_pixels) for item in inputs.maps]
    assessments = [item if isinstance(item, AreaAssessment) else AreaAssessment.read(item) for item in inputs.assessments]
    catalog = read_catalog(inputs.catalog)
    groups = configurations(runs)
    expenses = costs(runs)
    seconds = total_seconds(expenses)
    lines = headline(comparisons, evaluations, groups, views, assessments)
    keys = key_numbers(comparisons, evaluations, views, seconds, catalog)
    steps = steps_done(catalog, groups, evaluations, comparisons, views, assessments)
    rows = settings(groups)
    warnings = [(run.name, step, message) for run in runs for step, message in run.warnings]
    classes = classes_of(catalog, evaluations)[0]
    drawn = charts(groups, classes) + selection_charts(groups, classes)
    frame = ",".join(map(str, (figures.WIDTH, figures.HEIGHT, figures.LEFT, figures.RIGHT, figures.TOP, figures.BOTTOM)))
    data = data_section(catalog, evaluations, groups)
    return {
        "answer": {"headline": lines, "figures": keys} if lines or keys else None,
        "done": {"steps": steps, "settings": rows, "groups": groups} if steps or rows else None,
        "data": {"data": data} if data else None,
        "comparison": comparison_section(comparisons, groups),
        "curves": {"charts": drawn, "frame": frame, "warnings": warnings} if drawn or warnings else None,
        "samples": samples_section(runs),
        "selection": selection_section(groups, inputs.selection_tiles),
        "evaluation": evaluation_section(evaluations, inputs.galleries, inputs.gallery_tiles),
        "features": feature_section(read_looks(inputs.features)),
        "map": map_section(views),
        "areas": area_section(assessments),
        "cost": {"costs": expenses, "total": seconds} if expenses else None,
        "reproduce": reproduce_section(inputs.commands, groups, evaluations, catalog),
    }


@cache
def asset(name: str) -> str:
    """Return the text of a style sheet or script of the page."""
    return (resources.files("tilth.reporting") / "templates" / name).read_text(encoding="utf-8")


@cache
def make_environment() -> jinja2.Environment:
    """Return what renders templates: values escaped, missing ones refused, numbers written by our filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tilth.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": numbers.percent,
        "bare_points": numbers.bare_points,
        "whole": numbers.whole,
        "significant": numbers.significant,
        "quantity": numbers.quantity,
        "duration": numbers.duration,
        "parameters": numbers.parameters,
        "area": numbers.area,
        "length_text": numbers.length,
        "plain": numbers.plain,
        "cell": numbers.cell,
        "score": lambda value, metric: score_text(metric, value),
        "interval": numbers.interval,
        "score_interval": lambda ends, metric: score_interval(metric, ends),
        "nice": nice,
        "dash": figures.dash,
        "slug": lambda text: re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-"),
    }
    return environment
