"""Layers of a map brought onto one grid, counted and embedded: against hand-worked cases, NumPy, GDAL's own reading and pyproj."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from support import report_layers as layers
from support import report_sample as sample
from tilth.errors import DataError, MissingFileError, UnreadableFileError
from tilth.reporting import MapInput, ReportInput, build_report
from tilth.reporting.ground import Grid, opened
from tilth.reporting.layers import agreement, differences, read_scene, read_values
from tilth.reporting.maps import read_map
from tilth.reporting.pictures import distinct, embed_values
from tilth.reporting.render import render
from tilth.reporting.viewer import confidence_colours
from tilth.verbs.report import report


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def grid_of(path, longest=2048):
    with opened(path, "map") as source:
        return Grid.of(source, path, longest)


def classes(seed, side=60):
    return np.random.default_rng(seed).integers(0, 5, (side, side)).astype(np.uint8)


@pytest.fixture
def plain(tmp_path):
    """A map of 60 x 60 pixels without anything beside it."""
    values = classes(0)
    return layers.write(tmp_path / "map.tif", values[None], nodata=255, names=sample.CLASSES, colours=True), values


def test_a_reference_that_starts_elsewhere_is_shifted_onto_the_map(plain, tmp_path):
    values = classes(1, 80)
    # 7 pixels west, 4 north: the map begins at column 7, row 4 of the reference.
    label = layers.write(tmp_path / "label.tif", values[None], layers.EAST - 7 * layers.PIXEL, layers.NORTH + 4 * layers.PIXEL)
    assert np.array_equal(read_values(label, grid_of(plain[0]), "reference"), values[4:64, 7:67])


def test_a_coarser_reference_takes_the_nearest_pixel(plain, tmp_path):
    values = classes(2, 20)
    label = layers.write(tmp_path / "label.tif", values[None], pixel=3 * layers.PIXEL)
    assert np.array_equal(read_values(label, grid_of(plain[0]), "reference"), np.kron(values, np.ones((3, 3), np.uint8)))


def test_where_a_reference_does_not_reach_there_is_nothing(plain, tmp_path):
    values = classes(3, 20)
    values[0, 0] = 9
    label = layers.write(tmp_path / "label.tif", values[None], layers.EAST + 20 * layers.PIXEL, nodata=9)
    found = read_values(label, grid_of(plain[0]), "reference")
    inside = np.full((60, 60), 255, np.uint8)
    inside[:20, 20:40] = np.where(values == 9, 255, values)
    assert np.array_equal(found, inside)


def test_a_reference_in_another_projection_lands_on_the_same_ground(plain, tmp_path):
    from pyproj import Transformer

    values = classes(4, 200)
    degrees = 4e-6
    to_degrees = Transformer.from_crs("EPSG:32640", "EPSG:4326", always_xy=True)
    west, north = to_degrees.transform(layers.EAST - 20, layers.NORTH + 20)
    label = layers.write(tmp_path / "label.tif", values[None], west, north, degrees, "EPSG:4326")
    found = read_values(label, grid_of(plain[0]), "reference")
    columns, rows = np.meshgrid(np.arange(60) + 0.5, np.arange(60) + 0.5)
    longitude, latitude = to_degrees.transform(layers.EAST + columns * layers.PIXEL, layers.NORTH - rows * layers.PIXEL)
    across, down = (longitude - west) / degrees, (north - latitude) / degrees
    expected = values[down.astype(int), across.astype(int)]
    # GDAL approximates the projection to an eighth of a pixel; away from edges the pixel is beyond doubt.
    clear = (np.abs(across % 1 - 0.5) < 0.35) & (np.abs(down % 1 - 0.5) < 0.35)
    assert clear.sum() > 1000
    assert np.array_equal(found[clear], expected[clear])


def test_finer_imagery_is_averaged_not_picked(plain, tmp_path):
    stripes = np.tile(np.array([0, 200], np.uint8), (3, 120, 60))
    scene = layers.write(tmp_path / "scene.tif", stripes, pixel=layers.PIXEL / 2)
    picture = np.asarray(read_scene(scene, grid_of(plain[0])))
    assert picture.shape == (60, 60, 3)
    assert np.abs(picture[5:-5, 5:-5].astype(int) - 100).max() <= 2


def test_imagery_that_covers_a_part_is_white_elsewhere_and_named_bands_are_chosen(plain, tmp_path):
    import rasterio

    bands = np.stack([np.full((30, 30), value, np.uint8) for value in (10, 30, 60, 90)])
    scene = layers.write(tmp_path / "scene.tif", bands)
    with rasterio.open(scene, "r+") as target:
        target.descriptions = ("nir", "blue", "green", "red")
    picture = np.asarray(read_scene(scene, grid_of(plain[0])))
    assert picture[10, 10].tolist() == [90, 60, 30]
    assert picture[45, 45].tolist() == [255, 255, 255]


def test_large_maps_are_thinned_and_the_page_says_so_while_agreement_counts_every_pixel(tmp_path):
    one, other = classes(5, 300), classes(6, 300)
    one[:40] = 255
    path = layers.write(tmp_path / "map.tif", one[None], nodata=255, names=sample.CLASSES)
    label = layers.write(tmp_path / "label.tif", other[None], names=sample.CLASSES)
    view = read_map(MapInput(path, label=label), longest=100)
    assert view.shown == (100, 100)
    assert {layer.picture.width for layer in view.viewer.layers} == {100}
    (found,) = view.agreements
    known = one != 255
    assert (found.pixels, found.same) == (int(known.sum()), int((known & (one == other)).sum()))
    text = render(ReportInput(maps=[MapInput(path, label=label)], viewer_pixels=100)).replace("\u202f", " ")
    assert "thinned to 100 \u00d7 100 pixels" in text
    assert f"{100 * found.same / found.pixels:.1f} %" in text
    assert "thinned" not in render(ReportInput(maps=[path]))


def test_agreement_is_counted_across_grids(plain, tmp_path):
    path, values = plain
    moved = np.full((80, 80), 3, np.uint8)
    moved[10:70, 10:70] = np.where(np.arange(60) < 12, values, (values + 1) % 5)
    label = layers.write(tmp_path / "l.tif", moved[None], layers.EAST - 10 * layers.PIXEL, layers.NORTH + 10 * layers.PIXEL)
    found = agreement(("Reference", label), ("Prediction", path), grid_of(path))
    assert (found.pixels, found.same) == (3600, 60 * 12)


def test_differences_know_same_different_and_nothing():
    one, other = np.array([[1, 2, 255, 4]], np.uint8), np.array([[1, 3, 3, 255]], np.uint8)
    assert differences(one, other).tolist() == [[0, 1, 255, 255]]


def test_the_layers_of_a_map_and_how_they_are_named(tmp_path):
    given = layers.make_layers(tmp_path)
    view = read_map(given)
    names = [(layer.name, layer.kind) for layer in view.viewer.layers]
    assert names == [
        ("Image", "picture"),
        ("Reference", "classes"),
        ("Prediction", "classes"),
        ("supervised", "classes"),
        ("Confidence", "confidence"),
        ("Errors", "difference"),
        ("Errors, supervised", "difference"),
    ]
    bare = read_map(MapInput(given.path, others=dict(given.others)))
    assert [layer.name for layer in bare.viewer.layers] == ["Prediction", "supervised", "Confidence", "Differences, supervised"]


def test_confidence_beside_a_map_is_found_by_its_name(plain):
    path, _ = plain
    assert [layer.kind for layer in read_map(path).viewer.layers] == ["classes"]
    percent = np.arange(3600).reshape(1, 60, 60) % 101
    layers.write(path.with_name("map_confidence.tif"), percent.astype(np.uint8), nodata=255)
    (_, shown) = read_map(path).viewer.layers
    table = {colour: value for value, colour in confidence_colours().items()}
    assert len(table) == 101
    found = np.asarray(decode(shown.picture.uri).convert("RGB")).reshape(-1, 3)
    assert [table[tuple(colour)] for colour in found.tolist()] == percent.ravel().tolist()


def test_a_value_can_be_read_back_from_its_colour_even_where_classes_share_one():
    colours = distinct({0: (10, 20, 30), 1: (10, 20, 30), 4: (255, 255, 255), 7: (255, 255, 255)})
    assert len(set(colours.values())) == 4
    assert max(abs(a - b) for a, b in zip(colours[7], (255, 255, 255), strict=True)) == 1
    values = np.array([[0, 1, 4, 7, 200]], np.uint8)
    picture = np.asarray(decode(embed_values(values, colours, values == 200).uri).convert("RGBA"))[0]
    assert [tuple(pixel) for pixel in picture[:4].tolist()] == [(*colours[value], 255) for value in (0, 1, 4, 7)]
    assert picture[4, 3] == 0


@pytest.mark.parametrize("colour", [(10, 20, 30), (255, 255, 255), (0, 0, 128), (0, 0, 127), (9, 9, 0)])
def test_256_equal_colours_become_256_that_exist(colour):
    colours = distinct(dict.fromkeys(range(256), colour))
    assert colours[0] == colour
    assert len(set(colours.values())) == 256
    assert {part[:2] for part in colours.values()} == {colour[:2]}
    assert {part[2] for part in colours.values()} == set(range(256))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"label": lambda root: root / "none.tif"}, MissingFileError, "no such reference"),
        ({"scene": lambda root: _text(root / "scene.tif")}, UnreadableFileError, "cannot be read as a scene"),
        (
            {"label": lambda root: layers.write(root / "x.tif", classes(1)[None], layers.EAST + 5e4)},
            DataError,
            "reference does not overlap map.tif",
        ),
        ({"scene": lambda root: layers.write(root / "x.tif", classes(1)[None], crs="EPSG:32610")}, DataError, "scene does not overlap"),
        (
            {"label": lambda root: layers.write(root / "x.tif", classes(1)[None].astype(np.float32))},
            DataError,
            "8-bit class ids in band 1, found float32",
        ),
        (
            {"label": lambda root: layers.write(root / "x.tif", classes(1)[None], names=["a", "b"])},
            DataError,
            "class 0 is 'a', but 'building'",
        ),
        (
            {"label": lambda root: layers.write(root / "x.tif", classes(1)[None] + 7)},
            DataError,
            "holds class 7, which map.tif does not name",
        ),
        ({"confidence": lambda root: layers.write(root / "x.tif", classes(1)[None] + 100)}, DataError, "percentages 0 to 100"),
        ({"label": lambda root: _picture(root / "x.png", 59, 60)}, DataError, "59 x 60 pixels does not fit map.tif of 60 x 60"),
        ({"scene": lambda root: _picture(root / "x.png", 120, 60)}, DataError, "120 x 60 pixels does not fit"),
        ({"others": lambda root: {"Reference": root / "map.tif"}}, DataError, "cannot be called 'Reference'"),
    ],
)
def test_layers_that_do_not_fit_stop_the_report_with_one_line(change, error, words, plain, tmp_path):
    given = MapInput(plain[0], **{key: make(tmp_path) for key, make in change.items()})
    with pytest.raises(error, match=re.escape(words)) as caught:
        build_report(ReportInput(maps=[given]), tmp_path / "report.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_pictures_without_a_place_are_taken_to_cover_the_map(plain, tmp_path):
    label = _picture(tmp_path / "label.png", 60, 60, classes(7))
    scene = _picture(tmp_path / "scene.jpg", 121, 120)
    view = read_map(MapInput(plain[0], scene, label=label))
    assert [layer.name for layer in view.viewer.layers] == ["Image", "Reference", "Prediction", "Errors"]
    assert view.viewer.layers[0].picture.width == 60
    assert np.array_equal(read_values(label, grid_of(plain[0]), "reference"), classes(7))


def test_coordinates_of_the_page_agree_with_pyproj(plain):
    from pyproj import Transformer

    ground = read_map(plain[0]).viewer.ground
    nodes = ground.nodes
    a, b, c, d, e, f = ground.transform
    columns, rows = np.meshgrid(np.linspace(0, 60, nodes), np.linspace(0, 60, nodes))
    longitude, latitude = Transformer.from_crs("EPSG:32640", "EPSG:4326", always_xy=True).transform(
        a * columns + b * rows + c, d * columns + e * rows + f
    )
    assert ground.degrees[0] == pytest.approx(longitude.ravel(), abs=2e-7)
    assert ground.degrees[1] == pytest.approx(latitude.ravel(), abs=2e-7)
    assert ground.metres == pytest.approx(60 * layers.PIXEL, rel=1e-3)


def test_hostile_names_stay_text_in_the_viewer(tmp_path):
    nasty = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", '"&<!--', "d", "e")
    path = layers.write(tmp_path / "map.tif", classes(0)[None], names=nasty)
    other = layers.write(tmp_path / "other.tif", classes(1)[None])
    text = render(ReportInput(maps=[MapInput(path, name=nasty[0], others={nasty[1]: other})]))
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    payload = re.search(r'<script type="application/json">(.*?)</script>', text)
    tree = json.loads(payload[1])
    assert [row[1] for row in tree["classes"]] == list(nasty)
    assert tree["layers"][1]["name"] == nasty[1]
    assert not set("<>&") & set(payload[1])


def test_the_same_layers_give_the_same_bytes(tmp_path):
    given = ReportInput(maps=[layers.make_layers(tmp_path / "maps", 120)], assessments=[layers.make_assessment(tmp_path / "areas")])
    first = build_report(given, tmp_path / "one.html").read_bytes()
    assert build_report(given, tmp_path / "two.html").read_bytes() == first


def test_the_command_takes_reference_confidence_further_maps_and_assessments(tmp_path):
    given = layers.make_layers(tmp_path, 80)
    done = report(
        out=tmp_path / "report.html",
        maps=[{"path": given.path, "scene": given.scene, "label": given.label, "compare": given.others}],
        assessments=[layers.make_assessment(tmp_path / "areas")],
        viewer_pixels=64,
    )
    text = done.outputs["report"].read_text()
    for words in ("Errors, supervised", "Confidence", "thinned to 64", "Areas on the ground"):
        assert words in text, words


def _text(path):
    path.write_text("not what it says")
    return path


def _picture(path, width, height, values=None):
    shown = np.zeros((height, width), np.uint8) if values is None else values
    Image.fromarray(shown).save(path)
    return path
