"""The parts behind the page: numbers, reading runs, curves, maps and colours, against hand-worked cases and other libraries."""

import base64
import io
import json
import math
import re
import tracemalloc
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from support import report_sample as sample
from support.tiny_models import TinySegmenter
from tilth.imagery.write import write_raster
from tilth.prediction.scene import predict_scene
from tilth.reporting import MapInput, numbers
from tilth.reporting.collect import Curve, Run, count_parameters, flatten, named_folders, read_run
from tilth.reporting.figures import Chart, Series, draw_lines, mean_curve, thin, ticks
from tilth.reporting.ground import row_bands
from tilth.reporting.maps import _count, read_map
from tilth.reporting.pictures import embed, stretch
from tilth.reporting.runs import configurations, settings
from tilth.reporting.strips import Strip, draw_strips


def plain(text):
    return str(text).replace("\u202f", " ").replace("\u2212", "-")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.percent(0.54249), "54.2 %"),
        (numbers.points(-0.0312), "-3.1 points"),
        (numbers.points(-0.0001), "0.0 points"),
        (numbers.whole(1234567), "1 234 567"),
        (numbers.significant(0.00012), "1.20e-04"),
        (numbers.significant(0.0123), "0.0123"),
        (numbers.significant(1234.5), "1 234"),
        (numbers.significant(0.0), "0"),
        (numbers.duration(42.4), "42 s"),
        (numbers.duration(450), "7 min 30 s"),
        (numbers.duration(7500), "2 h 05 min"),
        (numbers.parameters(24_400_000), "24.4 million"),
        (numbers.area(210, among=62_500), "0.02 ha"),
        (numbers.area(9_999), "9 999 m²"),
        (numbers.length(0.1), "10 cm"),
        (numbers.cell(0.0001), "<0.1"),
        (numbers.plain([True, 0.5, None]), "yes, 0.5, none"),
    ],
)
def test_numbers_are_written_one_way(written, expected):
    assert plain(written) == expected


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "text", True])
def test_what_is_no_number_is_an_en_dash_called_absent(value):
    for write in (numbers.percent, numbers.whole, numbers.significant, numbers.duration, numbers.points, numbers.area, numbers.cell):
        assert write(value) == numbers.ABSENT
    assert 'title="absent"' in numbers.ABSENT
    assert "\u2013" in numbers.ABSENT


def test_a_torn_last_line_is_dropped_and_repeated_steps_keep_the_last_record(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    records = [{"step": 1, "kind": "train", "time_s": 1.0, "loss": 5.0}, {"step": 2, "kind": "train", "time_s": 2.0, "loss": 4.0}]
    again = {"step": 2, "kind": "train", "time_s": 2.5, "loss": 3.0, "note": "text", "bad": float("nan")}
    text = "".join(json.dumps(record) + "\n" for record in [*records, again]) + '{"step": 3, "ki'
    (folder / "metrics.jsonl").write_text(text)
    run = read_run(folder)
    assert run.curves == {("train", "loss"): Curve((1, 2), (5.0, 3.0))}
    assert run.seconds == 2.5


def test_parameters_are_counted_without_running_statistics(tmp_path):
    folder = sample.make_run(tmp_path / "run", steps=4, finished=False)
    assert read_run(folder).parameters == 64 * 3 * 7 * 7 + 3500 * 4000
    assert count_parameters(tmp_path / "none") is None
    (tmp_path / "short").write_bytes(b"abc")
    assert count_parameters(tmp_path / "short") is None


def test_equal_names_are_told_apart():
    assert list(named_folders(["a/run", "b/run", "c/x"])) == ["a", "b", "x"]
    assert list(named_folders(["a/s4p", "b/s4p"])) == ["s4p", "s4p (2)"]


def test_flattening_keeps_every_value():
    tree = {"a": {"b": 1, "c": {}}, "d": [1, 2], "e": [{"f": 3}]}
    assert flatten(tree) == {"a.b": 1, "a.c": None, "d": [1, 2], "e.0.f": 3}


def test_network_that_initial_weights_brought_is_shown_not_the_default(tmp_path):
    folder = sample.make_run(tmp_path / "run", "supervised", 0, steps=4)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe |= {"initial_weights": "runs/before", "network": {"name": None, "encoder": "resnet18", "decoder": "unet"}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(json.dumps({"network": {"name": None, "encoder": "resnet10t", "decoder": "fpn"}}))
    rows = dict(settings(configurations([read_run(folder)])))
    assert (rows["Encoder"], rows["Decoder"], rows["Initial weights"]) == (["resnet10t"], ["fpn"], ["runs/before"])


def test_runs_that_differ_in_seed_alone_are_one_configuration(tmp_path):
    runs = [
        read_run(sample.make_run(tmp_path / f"{method}_{seed}", method, seed, steps=4))
        for seed in (0, 1)
        for method in ("s4p", "supervised")
    ]
    groups = configurations(runs)
    assert [(group.name, group.seeds, group.method) for group in groups] == [
        ("s4p", ("0", "1"), "s4p"),
        ("supervised", ("0", "1"), "supervised"),
    ]
    rows = dict(settings(groups))
    assert rows["Confidence threshold"] == [0.95, None]
    assert "settings.unlabelled_weight" not in rows
    assert rows["Labelled tiles"] == [12, 12]
    assert not [key for key in rows if "seed" in key or "workers" in key]


@pytest.mark.parametrize(
    "change",
    [
        {"method": {"name": "fixmatch"}},
        {"unlabelled": {"folder": "other"}},
        {"catalog": {"output": "other"}},
        {"settings": {"teacher": {"run": "other"}}},
        {"loop": {"seed": 0, "steps": 100, "nodes": 2}},
    ],
)
def test_only_whole_keys_of_seed_and_place_make_repetitions(change):
    recipe = {"method": {"name": "supervised"}, "unlabelled": {"folder": "pool"}, "catalog": {"output": "c"}}
    recipe |= {"settings": {"teacher": {"run": "r"}}, "loop": {"seed": 0, "steps": 100, "nodes": 1}}
    again = recipe | {"out": "elsewhere", "resume": True, "loop": {"seed": 1, "steps": 100, "nodes": 1, "workers": 3, "devices": 2}}
    runs = [Run(f"run_{place}", Path(), given) for place, given in enumerate((recipe, again, recipe | change))]
    groups = configurations(runs)
    assert [[run.name for run in group.runs] for group in groups] == [["run_0", "run_1"], ["run_2"]]
    assert settings(groups) != settings(groups[:1] * 2)


def test_thinning_averages_neighbours():
    curve = Curve(tuple(range(1, 8)), (1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0))
    assert thin(curve, most=4) == (Curve((2, 4, 6, 7), (2.0, 6.0, 10.0, 13.0)), 2)
    assert thin(curve, most=7) == (curve, 1)


def test_mean_of_curves_uses_the_steps_all_share():
    assert mean_curve([Curve((1, 2), (1.0, 2.0)), Curve((2, 3), (4.0, 5.0))]) == Curve((2,), (3.0,))


def test_ticks_are_round_and_inside():
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, width = rng.normal(0, 100), 10 ** rng.uniform(-6, 6)
        marks = ticks(low, low + width)
        assert 2 <= len(marks) <= 7
        assert low - 1e-6 * width <= marks[0]
        assert marks[-1] <= low + width * (1 + 1e-6)


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.5), (0.0, 0.0), (-1.0, 2.0)])
def test_lines_are_drawn_inside_their_frame(values):
    steps = tuple(range(10, 10 * len(values) + 1, 10))
    chart = Chart("k", "Title", "", "percent", (Series("a", Curve(steps, values), "red"),), from_zero=True)
    points = [tuple(map(float, pair.split(","))) for found in re.findall(r'points="([^"]+)"', draw_lines(chart)) for pair in found.split()]
    assert len(points) == (len(values) if len(values) > 1 else 0)
    assert all(56 <= x <= 468 and 12 <= y <= 220 for x, y in points)
    assert json.loads(chart.payload)["series"][0]["x"] == list(steps)


def test_a_strip_plot_has_a_dot_for_every_seed():
    drawn = draw_strips([Strip("a", (0.5, 0.52), 0.51, 0.014, "red"), Strip("b", (0.4,), 0.4, None, "blue")])
    assert drawn.count("<circle") == 3
    assert drawn.count("<rect") == 1
    assert draw_strips([Strip("none", (), None, None, "red")]) == ""


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_class_pictures_keep_their_colours_exactly():
    pixels = sample.paint(sample.landscape(1, 700)[1])
    shown = embed(Image.fromarray(pixels), "classes", 300)
    found = np.asarray(decode(shown.uri).convert("RGB"))
    assert found.shape == (300, 300, 3)
    assert set(map(tuple, found.reshape(-1, 3))) <= set(map(tuple, pixels.reshape(-1, 3)))


def test_other_than_8_bit_scenes_are_stretched_and_missing_pixels_are_white():
    bands = np.linspace(0, 10_000, 64, dtype=np.float32).reshape(1, 8, 8)
    valid = np.ones((8, 8), bool)
    valid[0, 0] = False
    bands[0, 0, 0] = np.nan
    picture = np.asarray(stretch(bands, valid))
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 1, 0] == 0
    assert picture[-1, -1, 0] == 255
    assert np.all(np.diff(picture[..., 0].ravel()[1:].astype(int)) >= 0)


def test_map_shares_and_areas_count_every_pixel_with_data(tmp_path):
    path = sample.make_map(tmp_path / "map.tif")
    _, labels = sample.landscape(3, 200)
    view = read_map(MapInput(path))
    counts = np.bincount(labels.ravel(), minlength=256)
    assert [item.name for item in view.classes] == list(sample.CLASSES)
    assert [item.pixels for item in view.classes] == counts[:6].tolist()
    assert sum(item.share for item in view.classes) == pytest.approx(1)
    # Near the line where UTM is true to scale.
    assert view.classes[2].area_m2 == pytest.approx(counts[2] * 0.25, rel=2e-4)
    assert view.classes[2].colour == sample.COLOURS[2]
    assert view.nodata_share == pytest.approx(counts[255] / labels.size)
    assert (view.crs, plain(view.pixel), view.bar_metres, view.bar_share) == (
        "EPSG:32640",
        "0.5 \u00d7 0.5 m",
        20.0,
        pytest.approx(0.2, rel=1e-4),
    )


def test_counting_a_wide_map_takes_little_memory():
    for height, width in ((700, 40_000), (3, 9_000_000), (1000, 10), (1, 1)):
        bands = list(row_bands(height, width))
        assert [row for first, rows in bands for row in range(first, first + rows)] == list(range(height))
    source = SimpleNamespace(height=512, width=40_000, read=lambda _, window: np.full((window[0][1] - window[0][0], 40_000), 7, np.uint8))
    tracemalloc.start()
    pixels, _ = _count(source, SimpleNamespace(place=None))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels[7] == 512 * 40_000
    assert peak < 50e6, peak


def test_areas_in_degrees_agree_with_the_ellipsoid(tmp_path):
    import pyproj

    view = read_map(sample.make_map(tmp_path / "map.tif", crs="EPSG:4326"))
    whole = pyproj.Geod(ellps="WGS84").polygon_area_perimeter([55, 55.02, 55.02, 55], [25, 25, 24.98, 24.98])[0]
    found = sum(item.area_m2 for item in view.classes) / (1 - view.nodata_share)
    assert found == pytest.approx(abs(whole), rel=1e-4)


def test_areas_on_the_page_are_those_of_the_prediction_and_the_ground(tmp_path):
    # Web Mercator at 52 degrees north: a square metre of the map is 0.37 on the ground.
    side, north = 64, 6_800_000.0
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side)).astype(np.uint8)
    scene = write_raster(tmp_path / "scene.tif", pixels, crs="EPSG:3857", transform=(1.0, 0.0, 1e6, 0.0, -1.0, north))
    predicted = predict_scene(TinySegmenter(), scene, tmp_path / "map.tif", window=32, overlap=8)
    view = read_map(predicted.path)
    shown = {item.name: item.area_m2 for item in view.classes}
    assert shown == pytest.approx(predicted.class_area_m2, rel=1e-9)
    latitude = 2 * math.atan(math.exp((north - side / 2) / 6378137)) - math.pi / 2
    flat = 1 - 0.00669437999 * math.sin(latitude) ** 2
    ground = side**2 * math.cos(latitude) ** 2 * (1 - 0.00669437999) / flat**2
    assert sum(shown.values()) == pytest.approx(ground, rel=1e-6)
    assert ground < 0.4 * side**2
    assert view.bar_metres / view.bar_share == pytest.approx(side * math.cos(latitude) / math.sqrt(flat), rel=1e-6)


def test_a_map_without_crs_names_or_colours_is_still_shown(tmp_path):
    import rasterio

    path = tmp_path / "bare.tif"
    with rasterio.open(path, "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8") as target:
        target.write(np.full((4, 4), 7, np.uint8), 1)
    view = read_map(path)
    assert [(item.name, item.area_m2) for item in view.classes] == [("class 7", None)]
    assert view.crs is None
    assert view.bar_metres is None


def test_text_stands_out_from_its_ground_in_both_themes():
    style = (resources.files("tilth.reporting") / "templates" / "style.css").read_text()
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in style.split(":root")[1:4]]
    assert themes[1] == themes[2]
    for theme in themes[:2]:
        for text, grounds in {"ink": "ground raised sunk mark", "soft": "ground raised", "accent": "ground raised"}.items():
            for ground in grounds.split():
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        for heat in ("hit", "miss"):
            mixed = "#" + "".join(
                f"{round(0.7 * a + 0.3 * b):02x}" for a, b in zip(channels(theme[heat]), channels(theme["sunk"]), strict=True)
            )
            assert contrast(theme["ink"], mixed) >= 4.5, heat
        for line in range(1, 7):
            assert contrast(theme[f"line-{line}"], theme["raised"]) >= 3


def channels(colour):
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def contrast(one, other):
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour):
        linear = [value / 3294.6 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in channels(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
