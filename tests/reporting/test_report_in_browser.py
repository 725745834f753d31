"""The page as a browser sees it: nothing asked from the network, no word in the console, usable by keyboard, no sideways scrolling."""

import re

import pytest

from browser import needs_browser, open_page
from support import report_layers as layers
from support import report_sample as sample
from tilth.reporting import MapInput, ReportInput, build_report

pytestmark = needs_browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    comparison = sample.make_comparison(root, rich=True)
    inputs = ReportInput(
        title="A report",
        runs=[sample.make_run(root / "runs" / f"s4p-seed{seed}", "s4p", seed, steps=200) for seed in range(2)],
        evaluations=[root / "s4p-seed0", root / "supervised-seed0"],
        comparisons=[comparison],
        maps=[layers.make_layers(root / "maps"), MapInput(sample.make_map(root / "map.tif"), sample.make_scene(root / "scene.png"))],
        assessments=[layers.make_assessment(root / "areas")],
        catalog=sample.CATALOG,
        commands=["tilth demo"],
    )
    return build_report(inputs, root / "report.html")


def test_a_page_that_loads_or_complains_is_noticed(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><link rel=icon href='data:,'><img src=missing.png><script>console.error('oh')</script>")
    with open_page(path) as page:
        assert any("oh" in line for line in page.console())
        assert any(address.endswith("missing.png") for address in page.requests())


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (420, True)])
def test_nothing_is_loaded_nothing_complains_and_nothing_overflows(report, width, dark):
    with open_page(report, width=width, dark=dark) as page:
        assert page.run("return document.images.length") > 10
        assert page.run("return [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        ground = page.run("return getComputedStyle(document.body).backgroundColor")
        page.run(
            "document.getElementById('theme').click(); dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))"
        )
        assert page.run("return getComputedStyle(document.body).backgroundColor") != ground
        assert page.overflow() == 0
        assert page.console() == []
        assert page.requests() == []


def test_curves_are_read_zoomed_and_hidden_by_keyboard(report):
    with open_page(report) as page:
        chart = "#chart-train-loss"
        status = f"return document.querySelector('{chart} [role=status]').textContent"
        ticks = f"return [...document.querySelectorAll('{chart} .axes text')].map((node) => node.textContent).join(' ')"
        before = page.run(ticks)
        page.press(f"{chart} .plot", "\ue011", "\ue014")  # Home, arrow right
        assert page.run(status).startswith("Step ")
        assert re.search(r"s4p, mean of 2 [\d.]+ \([\d.]+ to [\d.]+\)", page.run(status))
        page.press(f"{chart} .plot", "+")
        assert page.run(ticks) != before
        assert page.run(f"return document.querySelector('{chart} .reset').hidden") is False
        page.press(f"{chart} .plot", "0")
        assert page.run(ticks) == before
        page.press(f"{chart} .legend button", " ")
        assert page.run(f"return document.querySelector('{chart} .legend button').getAttribute('aria-pressed')") == "false"
        assert page.run(f"return document.querySelector('{chart} .curves').children[0].style.display") == "none"
        assert page.console() == []


def test_a_script_from_a_name_never_runs(tmp_path):
    names = ("<img src=x onerror=\"document.title='broken'\">", "</script><script>document.title='broken'</script>", "a", "b", "c", "d")
    folder = sample.make_evaluation(tmp_path / "evil", tiles=1, classes=names)
    path = build_report(ReportInput(title="whole", evaluations=[folder]), tmp_path / "report.html")
    with open_page(path) as page:
        assert page.run("return document.title") == "whole"
        assert page.console() == []
        assert page.requests() == []
