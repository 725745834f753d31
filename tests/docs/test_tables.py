"""Tables of the documentation say what the code says.

A generated table stands between ``<!-- table: NAME -->`` and ``<!-- table ends -->``; ``UPDATE_TABLES=1`` writes it anew.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tilth.catalog.findings import KINDS
from tilth.catalog.schema import COLUMNS
from tilth.cli.fields import Field, fields_of
from tilth.config import Config
from tilth.curation.filters import REASONS
from tilth.datasets.describe import list_cards
from tilth.datasets.shelf import card_names, load_card
from tilth.evaluation.result import SUMMARY_NAMES, Evaluation
from tilth.insight.config import LookConfig
from tilth.methods import method_names
from tilth.methods.cromss.settings import CromssConfig
from tilth.methods.ddpm.denoise import DenoiseConfig
from tilth.methods.ddpm.segment import SegmentConfig
from tilth.methods.mae import MaeConfig
from tilth.methods.s4p.corrmatch import CorrMatchConfig
from tilth.methods.s4p.fixmatch import FixMatchConfig
from tilth.methods.s4p.unimatch import UniMatchConfig
from tilth.methods.s4p.wscl import WsclConfig
from tilth.methods.sep import SepConfig
from tilth.methods.supervised import SupervisedConfig
from tilth.models.config import Decoder
from tilth.models.named import NAMES
from tilth.recipes.run import recipe_names
from tilth.sensors import get_sensor, sensor_names
from tilth.verbs.curate import CurateOptions
from tilth.verbs.landscapes import LandscapesOptions
from tilth.verbs.predict import PredictOptions
from tilth.verbs.registry import targets
from tilth.verbs.train import PretrainOptions

DOCS = Path(__file__).parents[2] / "docs"
MARKED = re.compile(r"<!-- table: (?P<name>[^>]+) -->\n(?:(?!<!-- ).)*<!-- table ends -->", re.DOTALL)
# Sections of the papers' specifications are for those who read the source.
SECTION = re.compile(r"\s*\(\w+\.md [^)]*\)")


def sensors() -> str:
    rows = []
    for name in sensor_names():
        sensor = get_sensor(name)
        rows.append(f"| `{name}` | {', '.join(sensor.band_names)} | {sensor.dtype} | {sensor.unit} |")
    return "\n".join(["| name | bands | stored as | physical unit |", "|---|---|---|---|", *rows])


def data_sets() -> str:
    """What ``tilth datasets list`` says, as a table, with titles."""
    cards = [load_card(name) for name in card_names()]
    head, *rows = (re.split(r" {2,}", line) for line in list_cards(cards))
    lines = [f"| `{row[0]}` | {card.title} | {' | '.join(row[1:])} |" for row, card in zip(rows, cards, strict=True)]
    return "\n".join([f"| {head[0]} | title | {' | '.join(head[1:])} |", "|" + "---|" * (len(head) + 1), *lines])


def settings(options: type[Config], start: str = "", shown_start: str = "", beyond: type[Config] | None = None) -> Callable[[], str]:
    """Make the table of the settings whose key begins with ``start``; of ``beyond`` those alone that differ from its own."""
    known = {} if beyond is None else {field.key: (field.default, field.description) for field in fields_of(beyond)}

    def row(field: Field) -> str:
        text = SECTION.sub("", field.description).replace("|", "\\|")
        return f"| `{shown_start}{field.key}` | {'' if field.default is None else field.default} | {text} |"

    def make() -> str:
        rows = [
            row(field)
            for field in fields_of(options)
            if field.key.startswith(start) and known.get(field.key) != (field.default, field.description)
        ]
        return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])

    return make


def networks() -> str:
    """What ``tilth models list`` says, as a table, without the numbers of parameters, for which all would have to be built."""
    rows = []
    for name, named in NAMES.items():
        bands = (named.in_channels,) if isinstance(named.in_channels, int) else named.in_channels
        rows.append(f"| `{name}` | {named.kind} | {' + '.join(map(str, bands))} | {named.summary} |")
    return "\n".join(["| name | kind | bands | what it is |", "|---|---|---|---|", *rows])


TABLES = {
    "networks": networks,
    "sensors": sensors,
    "data sets": data_sets,
    "settings network": settings(PretrainOptions, "network."),
    "settings weak": settings(PretrainOptions, "weak."),
    "settings loop": settings(PretrainOptions, "loop."),
    "settings inference": settings(PredictOptions, "inference."),
    "settings fixmatch": settings(FixMatchConfig, shown_start="settings."),
    "settings unimatch": settings(UniMatchConfig, shown_start="settings.", beyond=FixMatchConfig),
    "settings corrmatch": settings(CorrMatchConfig, shown_start="settings.", beyond=FixMatchConfig),
    "settings wscl": settings(WsclConfig, shown_start="settings.", beyond=FixMatchConfig),
    "settings supervised": settings(SupervisedConfig, shown_start="settings."),
    "settings denoise": settings(DenoiseConfig, shown_start="settings."),
    "settings segment": settings(SegmentConfig, shown_start="settings.", beyond=SupervisedConfig),
    "settings mae": settings(MaeConfig, shown_start="settings."),
    "settings sep": settings(SepConfig, shown_start="settings."),
    "settings cromss": settings(CromssConfig, shown_start="settings."),
    "settings scoring": settings(CurateOptions, "scoring."),
    "settings filters": settings(CurateOptions, "filters."),
    "settings diversity": settings(CurateOptions, "diversity."),
    "settings look": settings(LookConfig),
    "settings noise": settings(LandscapesOptions, "noise."),
    "settings composition": settings(LandscapesOptions, "composition."),
}


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def first_column(page: str, head: str) -> list[str]:
    """Code words in the first column of the table whose first head cell is ``head``."""
    table = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-| ]+\|\n((?:\|.*\n?)+)", text_of(page), re.MULTILINE)
    assert table, f"{page}: no table that starts with {head!r}"
    return re.findall(r"^\| `([^`]+)`", table[1], re.MULTILINE)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_generated_tables_are_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    fresh = MARKED.sub(lambda found: f"<!-- table: {found['name']} -->\n\n{TABLES[found['name']]()}\n\n<!-- table ends -->", text)
    if os.environ.get("UPDATE_TABLES") and fresh != text:
        page.write_text(fresh, encoding="utf-8")
    assert fresh == page.read_text(encoding="utf-8"), f"{page.name}: write its tables anew with UPDATE_TABLES=1"


def test_every_table_is_on_some_page():
    shown = [found["name"] for page in DOCS.glob("*.md") for found in MARKED.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(TABLES)


def test_tests_that_pages_name_are_there():
    named = {
        (page.name, name)
        for page in DOCS.glob("*.md")
        for name in re.findall(r"`(?:tests/)?((?:\w+/)?test_\w+\.py)`", page.read_text("utf-8"))
    }
    assert len(named) > 10
    there = {found for path in (DOCS.parent / "tests").rglob("test_*.py") for found in (path.name, f"{path.parent.name}/{path.name}")}
    assert [row for row in sorted(named) if row[1] not in there] == []


def test_columns_of_a_catalog_are_listed():
    assert first_column("data.md", "column")[: len(COLUMNS)] == list(COLUMNS)


def test_findings_of_a_check_are_listed():
    assert first_column("check.md", "finding") == list(KINDS)


def test_reasons_of_curation_are_listed():
    listed = re.findall(r"^\| `([a-z ]+)` \|", text_of("curate.md"), re.MULTILINE)
    assert set(listed) >= set(REASONS)


def test_scores_are_listed():
    assert first_column("evaluate.md", "score") == list(SUMMARY_NAMES)


def test_keys_of_metrics_are_listed():
    aliases = [field.alias or name for name, field in Evaluation.model_fields.items()]
    assert first_column("evaluate.md", "key") == aliases


def test_methods_are_listed():
    assert sorted(first_column("train.md", "method")) == sorted(method_names())


def test_decoders_are_listed():
    assert sorted(first_column("models.md", "decoder")) == sorted(Decoder.__args__)


def test_shipped_recipes_are_listed():
    assert sorted(first_column("recipes.md", "recipe")) == sorted(recipe_names())


def test_every_verb_is_in_the_overview():
    text = text_of("index.md")
    missing = [name for name in targets() if f"tilth {name}" not in text]
    assert not missing, f"docs/index.md does not name {missing}"
