"""What stands on the page, for whole and for partial inputs; parsed with the standard library's HTML parser."""

import json
import re
from html.parser import HTMLParser

import pytest

from support import report_sample as sample
from tilth.errors import DataError, MissingFileError, UnreadableFileError, UsageError
from tilth.reporting import MapInput, ReportInput, build_report
from tilth.reporting.render import render
from tilth.reporting.story import nice
from tilth.sensors import get_sensor

NASTY = ('<script>alert("x")</script>', "a & b", "\"quoted' name", "</script><img src=http://example.org/x.png>", "{{ 7 * 7 }}", "unused")
VOID = {"meta", "link", "img", "input"}


class Checker(HTMLParser):
    """Collects tags, ids and text; notes tags that are closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words).replace("\u202f", " "))


def check(text: str) -> Checker:
    """Assert what must hold for every report, and return the parsed page."""
    page = Checker(text)
    assert not page.wrong
    assert not page.open
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for attributes in page.all("a")}
    assert targets <= {f"#{name}" for name in ids}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), attributes
    assert "@import" not in text
    assert not re.search(r"url\(|xmlns|https?://(?!example)", text)
    assert all(attributes.get("alt") or attributes.get("aria-hidden") == "true" for attributes in page.all("img"))
    assert all("scope" in attributes for attributes in page.all("th"))
    return page


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    names = [(method, seed) for method in ("supervised", "s4p") for seed in range(3)]
    runs = [sample.make_run(root / "runs" / f"{method}-seed{seed}", method, seed, steps=300) for method, seed in names]
    comparison = sample.make_comparison(root / "evaluations")
    return {
        "runs": runs,
        "comparison": comparison,
        "evaluations": [root / "evaluations" / f"{method}-seed{seed}" for method, seed in reversed(names)],
        "map": sample.make_map(root / "brazil.tif"),
        "scene": sample.make_scene(root / "scene.png"),
    }


@pytest.fixture(scope="module")
def whole(folders):
    return ReportInput(
        title="Twelve labelled tiles",
        runs=folders["runs"],
        evaluations=folders["evaluations"],
        comparisons=[folders["comparison"]],
        maps=[MapInput(folders["map"], folders["scene"], "Brazil")],
        catalog=sample.CATALOG,
        commands=["tilth run recipes/demo.yaml"],
        note="made for a test",
    )


def test_every_section_is_there_and_the_page_is_well_formed(whole):
    text = render(whole)
    page = check(text)
    assert [item["id"] for item in page.all("section")] == [
        "answer",
        "done",
        "data",
        "comparison",
        "curves",
        "evaluation",
        "map",
        "cost",
        "reproduce",
    ]
    assert "Twelve labelled tiles" in page.text
    assert "made for a test" in page.text
    assert "tilth run recipes/demo.yaml" in page.text
    assert len(text) < 700_000


def test_same_inputs_give_same_bytes_and_replace_an_earlier_report(whole, tmp_path):
    first = build_report(whole, tmp_path / "deep" / "report.html")
    before = first.read_bytes()
    assert build_report(whole, first).read_bytes() == before
    assert [path.name for path in first.parent.iterdir()] == ["report.html"]


def test_the_answer_is_the_verdict_with_its_spread(whole, folders):
    page = check(render(whole))
    pair = folders["comparison"].pairs[0]
    assert pair.verdict.replace("+-", "±") in page.text
    assert nice("no clear winner: 2 to -0.5") == "No clear winner: 2 to \u22120.5."
    group = folders["comparison"].groups[1]
    assert f"{group.mean * 100:.1f} ± {group.deviation * 100:.1f} %" in page.text


def test_a_single_evaluation_says_that_its_spread_is_unknown(folders):
    page = check(render(ReportInput(evaluations=folders["evaluations"][:1])))
    assert "how much the score would vary with another seed is not known" in page.text


def test_runs_alone_warn_that_validation_is_no_test(folders):
    page = check(render(ReportInput(runs=folders["runs"][:1])))
    assert "evaluate on held-back tiles" in page.text
    assert [item["id"] for item in page.all("section")] == ["answer", "done", "data", "curves", "cost", "reproduce"]


@pytest.mark.parametrize(
    ("part", "sections"),
    [
        ({"commands": ["tilth demo"]}, ["reproduce"]),
        ({"catalog": {"tiles": 3}}, ["answer", "done", "data"]),
        ({"catalog": {"splits": {"train": {"tiles": 4}}, "fingerprint": "ab"}}, ["data", "reproduce"]),
        ({"maps": "map"}, ["answer", "done", "map"]),
        ({"comparisons": "comparison"}, ["answer", "done", "comparison"]),
        ({"evaluations": "evaluations"}, ["answer", "done", "data", "evaluation", "reproduce"]),
    ],
)
def test_missing_parts_are_left_out(part, sections, folders):
    given = {
        key: (folders[value] if key == "evaluations" else [folders[value]]) if isinstance(value, str) else value
        for key, value in part.items()
    }
    page = check(render(ReportInput(**given)))
    assert [item["id"] for item in page.all("section")] == sections
    assert [item["href"] for item in page.all("a")[1 : len(sections) + 1]] == [f"#{name}" for name in sections]


def test_absent_classes_are_shown_as_absent(folders):
    text = render(ReportInput(evaluations=folders["evaluations"][:1]))
    row = re.search(r"<tr class=\"dim\">.*?</tr>", text, re.DOTALL)
    assert row
    assert "unused" in row[0]
    assert row[0].count('title="absent"') == 4
    assert "0.0\u202f%" not in row[0]


def test_an_evaluation_without_any_labelled_pixel_is_reported_honestly(tmp_path):
    folder = sample.make_evaluation(tmp_path / "empty", tiles=1, empty=True)
    page = check(render(ReportInput(evaluations=[folder])))
    assert "there is no score to report" in page.text
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text


def test_the_confusion_matrix_is_normalised_by_row_and_keeps_the_counts(folders):
    folder = folders["evaluations"][0]
    tree = json.loads((folder / "metrics.json").read_text())
    text = render(ReportInput(evaluations=[folder])).replace("\u202f", " ")
    for k, row in enumerate(tree["confusion"]):
        if sum(row):
            cell = re.search(rf'class="hit"[^>]*title="{row[k]:,} pixels">([0-9.]+)<'.replace(",", " "), text)
            assert cell
            assert float(cell[1]) == pytest.approx(100 * row[k] / sum(row), abs=0.05)


def test_nasty_names_stay_text(tmp_path):
    folder = sample.make_evaluation(tmp_path / "<b>evil</b>", tiles=2, classes=NASTY)
    run = sample.make_run(tmp_path / "run", steps=20, classes=tuple(name.replace("/", "") for name in NASTY))
    inputs = ReportInput(
        title="<script>alert(1)</script>",
        runs={"<i>run</i>": run},
        evaluations=[folder],
        maps=[sample.make_map(tmp_path / "map.tif", names=NASTY)],
        commands=["echo '</pre><script>alert(2)</script>'"],
        catalog={"<u>key</u>": "<u>value</u>", "tiles": 2},
    )
    text = render(inputs)
    page = check(text)
    assert len(page.all("script")) == 1 + text.count('type="application/json"')
    for name in NASTY:
        assert name in page.text
    assert not [tag for tag, _ in page.tags if tag in {"b", "i", "u"}]
    assert "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", page.text)


def test_seeds_of_a_configuration_are_one_line_with_their_spread(folders):
    text = render(ReportInput(runs=folders["runs"]))
    chart = text[text.index('id="chart-val-miou"') :].split("</figure>")[0]
    # The drawing of each line and its sample in the legend.
    assert chart.count("stroke:var(--line-1)") == chart.count("stroke:var(--line-2)") == 2
    assert chart.count('class="band"') == 2
    assert chart.count('class="seed"') == 6
    assert "supervised, mean of 3" in chart
    assert "3 runs with seeds 0, 1, 2" in check(text).text


def test_what_each_training_saw_is_listed(folders):
    page = check(render(ReportInput(runs=folders["runs"])))
    assert re.search(r"s4p ?unlabelled ?188 ?12 ?rgb", page.text)


def test_warnings_of_training_are_shown(folders):
    page = check(render(ReportInput(runs=folders["runs"])))
    assert "s4p-seed1, step 100: few pseudo-labels of <water> are accepted" in page.text


def test_pseudo_label_curves_name_the_classes_that_the_log_numbers(folders):
    text = render(ReportInput(runs=folders["runs"][3:]))
    chart = text[text.index('id="chart-accepted-share-class-0"') :].split("</figure>")[0]
    names = re.findall(r'</svg>([^<]+)<span class="value">', chart)
    assert names == list(sample.CLASSES)
    assert "rgb(200, 60, 50)" in chart


def test_a_hand_written_catalog_summary_is_understood_too():
    scheme = {"name": "wet", "classes": [{"name": "land", "colour": [9, 9, 9]}, {"name": "water", "colour": [0, 0, 255]}]}
    short = {"tiles": 3, "sensor": get_sensor("s2_l1c").model_dump(mode="json"), "scheme": scheme, "class_shares": {"water": 0.25}}
    page = check(render(ReportInput(catalog=short | {"source": "us", "soil": "clay"})))
    for words in ("Sensors2_l1c", "10 m to 60 m", "water25.0 %", "Soilclay", "Sourceus", "scheme wet"):
        assert words in page.text, words


def test_a_catalog_is_summarised_with_facts_and_shares():
    page = check(render(ReportInput(catalog=sample.CATALOG)))
    for words in (
        "LicenceCC-BY-4.0",
        "Sourceunknown",
        "Ground covered1.23 km²",
        "red, green, blue",
        "2023-05-01 to 2024-01-12",
        "bare ground40.0 %",
    ):
        assert words.replace(" ", "") in page.text.replace(" ", "")


def test_galleries_show_worst_and_best_and_are_limited(folders):
    text = render(ReportInput(evaluations=folders["evaluations"], gallery_tiles=3, galleries=1))
    page = check(text)
    assert len(page.all("img")) == 12
    assert re.findall(r'class="badge">(worst|best)<', text) == ["worst", "best"]
    assert "Pictures of 4 tiles lie in the gallery folder of this evaluation." in page.text


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda root: {}, UsageError, "nothing to report"),
        (lambda root: {"runs": [root / "none"]}, MissingFileError, "no such run folder"),
        (lambda root: {"runs": [root]}, MissingFileError, "not a run folder"),
        (lambda root: {"evaluations": [root]}, MissingFileError, "metrics.json"),
        (lambda root: {"comparisons": [root]}, MissingFileError, "comparison.json"),
        (lambda root: {"maps": [root / "none.tif"]}, MissingFileError, "no such map"),
        (lambda root: {"maps": [_text(root / "text.tif")]}, UnreadableFileError, "cannot be read as a map"),
        (lambda root: {"catalog": _text(root / "catalog.json")}, UnreadableFileError, "not JSON"),
        (lambda root: {"catalog": {"classes": {"x": [{"nam": "y"}]}}}, DataError, "catalog summary"),
        (lambda root: {"evaluations": [_newer(root)]}, DataError, "schema_version"),
        (lambda root: {"runs": [_torn(root)]}, DataError, "metrics.jsonl:2"),
    ],
)
def test_wrong_parts_stop_the_report_with_one_line(change, error, words, tmp_path):
    output = tmp_path / "report.html"
    with pytest.raises(error, match=re.escape(words)) as caught:
        build_report(ReportInput(**change(tmp_path)), output)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_a_report_must_be_called_html(tmp_path):
    with pytest.raises(UsageError, match=re.escape("ends in .html")):
        build_report(ReportInput(commands=["x"]), tmp_path / "report.pdf")


def _text(path):
    path.write_text("not what it says")
    return path


def _newer(root):
    folder = sample.make_evaluation(root / "newer", tiles=1)
    file = folder / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 2}))
    return folder


def _torn(root):
    folder = sample.make_run(root / "torn", steps=6)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[1] = lines[1][:20]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder
