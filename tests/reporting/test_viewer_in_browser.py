"""The linked viewer as a reader uses it, in headless Chromium; what panes show is compared with the rasters themselves."""

import time

import numpy as np
import pytest

from browser import needs_browser, open_page
from support import report_layers as layers
from support import report_sample as sample
from support.viewer_window import MAP, Viewer, wake
from tilth.reporting import ReportInput, build_report

pytestmark = needs_browser

SIDE = 240


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("viewer")
    given = layers.make_layers(root / "maps", SIDE)
    folder = sample.make_evaluation(root / "scores", tiles=2, rich=True)
    return given, folder, build_report(ReportInput(maps=[given], evaluations=[folder]), root / "report.html")


@pytest.fixture(scope="module")
def window(report):
    with open_page(report[2], height=1100) as page:
        yield page


@pytest.fixture
def viewer(window):
    """The map's viewer, fresh; whatever a test does, nothing may be loaded and nothing may complain."""
    window.driver.get(window.address)
    wake(window, MAP)
    yield Viewer(window)
    assert window.console() == []
    assert window.requests() == []


def band(path):
    import rasterio

    with rasterio.open(path) as source:
        return source.read(1)


def test_panes_show_the_classes_of_the_rasters(viewer, report):
    given = report[0]
    reference = band(given.label)[40 : 40 + SIDE, 40 : 40 + SIDE]
    image, label, prediction, other, *_ = viewer.canvases()
    _, _, scale = viewer.view
    for canvas, classes in ((label, reference), (prediction, band(given.path)), (other, band(given.others["supervised"]))):
        for column in range(5, SIDE, 23):
            for row in range(5, SIDE, 19):
                shown = canvas[int((row + 0.5) * scale), int((column + 0.5) * scale)]
                value = classes[row, column]
                expected = (0, 0, 0, 0) if value == 255 else (*sample.COLOURS[value], 255)
                assert tuple(shown) == expected, (row, column)
    assert image[..., 3].min() == 255


def test_a_drag_moves_all_layers_by_the_same_amount(viewer):
    for _ in range(3):
        viewer.do("[data-act=in]")
    x, y, scale = viewer.view
    before = viewer.canvases()
    left, top, width, height = viewer.box(1)
    viewer.page.drag((left + width / 2, top + height / 2), (left + width / 2 - 34, top + height / 2 + 21))
    viewer.page.mouse("mouseMoved", left + width / 2, top - 60)
    after = viewer.canvases()
    moved_x, moved_y, _ = viewer.view
    assert ((moved_x - x) * scale, (moved_y - y) * scale) == pytest.approx((34, -21), abs=1e-3)
    assert len(before) == len(after) == 6
    for one, other in zip(before, after, strict=True):
        # Edges of pixels may fall either way.
        shifted = np.abs(other[21:, :-34] - one[:-21, 34:]).max(axis=-1) < 4
        still = np.abs(other[21:, :-34] - one[21:, :-34]).max(axis=-1) < 4
        assert shifted.mean() > 0.97
        assert still.mean() < shifted.mean() - 0.03


def test_the_wheel_zooms_at_the_pointer_once_the_reader_is_inside(viewer):
    # Wheel events carry whole pixels of the window.
    x, y = map(round, viewer.at(70, 150))
    scrolled = viewer.page.run("return scrollY")
    viewer.page.mouse("mouseMoved", x, y)
    before = viewer.readout()
    viewer.page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-60)
    time.sleep(0.3)
    assert viewer.view[2] == pytest.approx(viewer.box()[2] / SIDE)
    assert viewer.page.run("return scrollY") < scrolled
    viewer.page.run("scrollTo({top: arguments[0], behavior: 'instant'})", scrolled)
    time.sleep(0.2)
    viewer.page.click(*viewer.at(120, 120))
    for _ in range(3):
        viewer.page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-150)
    viewer.page.mouse("mouseMoved", x, y)
    assert viewer.view[2] > 2 * viewer.box()[2] / SIDE
    assert viewer.page.run("return scrollY") == scrolled
    assert viewer.readout() == before
    # Within a pixel of the window: what lies under the pointer is drawn there.
    assert viewer.at(70, 150) == pytest.approx((x, y), abs=3)


def test_a_broken_picture_leaves_plain_pictures_and_the_other_viewers(report, tmp_path):
    text = report[2].read_text()
    broken = tmp_path / "broken.html"
    # The first picture of the map's viewer: its head is right, what follows is not.
    start = text.index('src="data:image', text.index('<section id="map"')) + 5
    head, end = text.index(",", start) + 41, text.index('"', start)
    broken.write_text(text[:head] + "A" * 400 + text[end:])
    with open_page(broken, height=1100) as page:
        page.run("document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant', block: 'center'})", MAP)
        for _ in range(100):
            if page.run("return document.querySelector(arguments[0]).classList.contains('asleep')", MAP):
                break
            time.sleep(0.05)
        shown = "return [...document.querySelector(arguments[0]).querySelectorAll(arguments[1])].map((node) => node.offsetParent !== null)"
        assert not any(page.run(shown, MAP, "button, .readout"))
        assert all(page.run(shown, MAP, ".pane:not(.stack) img"))
        wake(page, "#evaluation .viewer")
        assert page.console() == []


def test_what_is_read_from_thinned_pictures_is_called_about(report, viewer, tmp_path):
    place = "return document.querySelector(arguments[0] + ' .readout .place').textContent"
    viewer.page.mouse("mouseMoved", *viewer.at(100, 100))
    viewer.settle()
    exact = viewer.page.run(place, MAP)
    assert exact.endswith("E")
    assert not exact.startswith("about")
    path = build_report(ReportInput(maps=[report[0]], viewer_pixels=SIDE // 4), tmp_path / "thinned.html")
    with open_page(path, height=1100) as page:
        wake(page, MAP)
        thinned = Viewer(page)
        page.mouse("mouseMoved", *thinned.at(100, 100))
        thinned.settle()
        assert page.run(place, MAP).startswith("about 3")


def test_keys_move_zoom_reset_and_leave(viewer):
    whole = viewer.view
    viewer.press("+", "+", "+")
    zoomed = viewer.view
    assert zoomed == pytest.approx((*whole[:2], whole[2] * 1.5**3))
    viewer.press("\ue014", "\ue014", "\ue015")  # arrows right, right, down
    width, height = viewer.box()[2:]
    assert viewer.view[:2] == pytest.approx((zoomed[0] + width / 4 / zoomed[2], zoomed[1] + height / 8 / zoomed[2]))
    said = viewer.page.run(f"return document.querySelector('{MAP} [role=status]').textContent")
    assert said.startswith("Zoom 3.4. Middle: ")
    assert "Reference" in said
    viewer.press("-")
    assert viewer.view[2] == pytest.approx(whole[2] * 1.5**2)
    viewer.press("0")
    assert viewer.view == pytest.approx(whole)
    viewer.press("2")
    assert len(viewer.canvases()) == 5
    assert viewer.page.run(f"return document.querySelector('{MAP} [data-layer=\"1\"]').getAttribute('aria-pressed')") == "false"
    viewer.press("2", "s")
    assert viewer.page.run(f"return document.querySelector('{MAP}').dataset.mode") == "stack"
    viewer.press("s")
    viewer.press("\ue00c")  # escape
    assert viewer.page.run("return document.activeElement === document.body")
    viewer.press("\ue004")  # tab
    assert viewer.page.run(f"return document.activeElement !== document.querySelector('{MAP} .pane.here .view')")


def test_the_last_layer_cannot_be_switched_off(viewer):
    for layer in "123456":
        viewer.press(layer)
    assert len(viewer.canvases()) == 1


def test_layers_on_each_other_fade_and_swipe(viewer, report):
    classes = band(report[0].path)
    row, column = next((r, c) for r in range(100, 200) for c in range(150, 230) if (classes[r - 1 : r + 2, c - 1 : c + 2] == 2).all())
    viewer.do("[data-mode=stack]")
    slider = f"{MAP} .share"
    scale = viewer.view[2]

    def shown():
        width, height = viewer.box()[2:]
        x, y, _ = viewer.view
        return viewer.pixel(int(width / 2 + (column + 0.5 - x) * scale), int(height / 2 + (row + 0.5 - y) * scale))

    def slide(value):
        viewer.page.run(
            "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))", slider, value
        )

    slide(100)
    assert tuple(shown()) == sample.COLOURS[2]
    slide(0)
    image = shown()
    assert tuple(image) != sample.COLOURS[2]
    slide(50)
    assert shown() == pytest.approx((image + np.array(sample.COLOURS[2])) / 2, abs=2)
    viewer.page.press(slider, "\ue014")  # arrow right
    assert viewer.page.run(f"return document.querySelector('{slider}').value") == "51"
    viewer.do("[data-blend=swipe]")
    slide(100)
    assert shown() == pytest.approx(image, abs=1)
    slide(0)
    assert tuple(shown()) == sample.COLOURS[2]
    # The divider itself can be dragged; the map stays.
    slide(50)
    left, top, width, height = viewer.box()
    before = viewer.view
    viewer.page.drag((left + width / 2, top + height / 2), (left + width * 0.8, top + height / 2))
    assert viewer.page.run(f"return document.querySelector('{slider}').value") == "80"
    assert viewer.view == before


def test_the_readout_names_what_the_rasters_hold(viewer, report):
    import rasterio
    from rasterio.warp import transform

    given = report[0]
    row, column = 131, 57
    reference, own, other = (
        band(given.label)[row + 40, column + 40],
        band(given.path)[row, column],
        band(given.others["supervised"])[row, column],
    )
    percent = band(given.path.with_name("map_confidence.tif"))[row, column]
    viewer.page.mouse("mouseMoved", *viewer.at(column, row, place=4))
    text = " ".join(viewer.readout())
    for name, value in (("Reference", reference), ("Prediction", own), ("supervised", other)):
        assert f"{name} {sample.CLASSES[value]}" in text
    assert f"Confidence {percent} %" in text
    east, north = layers.EAST + (column + 0.5) * layers.PIXEL, layers.NORTH - (row + 0.5) * layers.PIXEL
    with rasterio.open(given.path) as source:
        (longitude,), (latitude,) = transform(source.crs, "EPSG:4326", [east], [north])
    shown = text.replace(" ", "")
    assert "(EPSG:32640)" in text
    numbers = [float(part) for part in shown.split("%")[1].split("(")[0].split(",")]
    assert numbers == pytest.approx([east, north], abs=0.5)
    degrees = [float(part) for part in shown.split("·")[1].replace("°N", "").replace("°E", "").split(",")]
    assert degrees == pytest.approx([latitude, longitude], abs=1.5e-5)
    viewer.page.mouse("mouseMoved", *viewer.at(5, 5, place=2))
    assert "Prediction \u2013" in " ".join(viewer.readout())


def test_the_legend_hides_and_isolates_classes(viewer, report):
    classes = band(report[0].path)
    _, _, scale = viewer.view

    def visible():
        canvas = viewer.canvases()[2]
        places = (np.arange(SIDE) + 0.5) * scale
        alpha = canvas[np.ix_(places.astype(int), places.astype(int))][..., 3]
        return sorted({int(value) for value in np.unique(classes[alpha == 255])})

    everything = visible()
    assert everything == [0, 1, 2, 3, 4]
    button = "#map [data-class='3']"
    viewer.page.run(f'document.querySelector("{button}").click()')
    assert visible() == [0, 1, 2, 4]
    viewer.page.run(f"document.querySelector(\"{button}\").dispatchEvent(new MouseEvent('click', {{shiftKey: true, bubbles: true}}))")
    assert visible() == [3]
    viewer.page.run("document.querySelector('#map [data-classes=all]').click()")
    assert visible() == everything


def test_two_fingers_zoom_and_one_moves(viewer):
    left, top, width, height = viewer.box()
    middle = left + width / 2, top + height / 2
    viewer.page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    viewer.page.run(f"document.querySelector('{MAP} .view').focus()")
    scale = viewer.view[2]
    viewer.page.touch("touchStart", (middle[0] - 20, middle[1]), (middle[0] + 20, middle[1]))
    viewer.page.touch("touchMove", (middle[0] - 60, middle[1]), (middle[0] + 60, middle[1]))
    viewer.page.touch("touchEnd")
    x, y, zoomed = viewer.view
    assert zoomed == pytest.approx(3 * scale, rel=0.02)
    viewer.page.touch("touchStart", middle)
    viewer.page.touch("touchMove", (middle[0] + 30, middle[1] - 12))
    viewer.page.touch("touchEnd")
    assert ((x - viewer.view[0]) * zoomed, (y - viewer.view[1]) * zoomed) == pytest.approx((30, -12), abs=1)
    viewer.page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_the_scale_bar_follows_the_zoom(viewer):
    def bar():
        viewer.settle()
        return viewer.page.run(
            f"const bar = document.querySelector('{MAP} .ruler'); return [bar.textContent, bar.getBoundingClientRect().width]"
        )

    for _ in range(3):
        text, width = bar()
        metres = float(text.replace("\u202fm", ""))
        # Near the line where UTM is true to scale.
        assert width == pytest.approx(metres / layers.PIXEL * viewer.view[2], rel=2e-3)
        viewer.do("[data-act=in]")


def test_pictures_of_a_tile_move_together_and_name_their_classes(window, report):
    root = "#evaluation .viewer"
    window.driver.get(window.address)
    wake(window, root)
    viewer = Viewer(window, root)
    # The gallery comes worst first.
    _, labels = sample.landscape(1)
    row, column = 40, 70
    window.mouse("mouseMoved", *viewer.at(column, row, place=1))
    assert f"Reference {sample.CLASSES[labels[row, column]]}" in " ".join(viewer.readout())
    viewer.do("[data-act=in]")
    before = viewer.canvases()
    assert len(before) == 5
    viewer.press("\ue014")
    after = viewer.canvases()
    assert all((one != other).any() for one, other in zip(before, after, strict=True))
    assert window.console() == []


def test_a_tile_fills_the_screen_and_comes_back(window):
    root = "#evaluation .viewer"
    window.driver.get(window.address)
    wake(window, root)
    viewer = Viewer(window, root)
    small = viewer.view[2]
    left, top, width, height = window.box(f"{root} [data-act=full]")
    window.click(left + width / 2, top + height / 2)
    time.sleep(0.5)
    assert viewer.view[2] > 1.5 * small
    window.run("document.exitFullscreen()")
    time.sleep(0.5)
    assert viewer.view[2] == pytest.approx(small)
    assert window.console() == []


def test_paper_shows_every_layer_as_a_still_picture(window):
    window.driver.get(window.address)
    wake(window, MAP)
    window.run(f"document.querySelector('{MAP} [data-mode=stack]').click()")
    window.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = window.run(
        f"return [...document.querySelectorAll('{MAP} .pane:not(.stack) img')].map((image) => [image.getBoundingClientRect().width, "
        "getComputedStyle(image).visibility])"
    )
    assert len(shown) == 7
    assert all(width > 100 and visibility == "visible" for width, visibility in shown)
    for hidden in (f"{MAP} canvas", f"{MAP} .tools", f"{MAP} .pane.stack", f"{MAP} .readout"):
        assert window.box(hidden)[2:] == [0, 0] or window.box(hidden)[2:] == (0, 0)
    window.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert window.overflow() == 0


def test_without_its_script_the_page_shows_the_pictures_side_by_side(report, tmp_path):
    text = report[2].read_text()
    path = tmp_path / "still.html"
    path.write_text(text[: text.rindex("<script>")] + "</body></html>")
    with open_page(path) as page:
        widths = page.run(f"return [...document.querySelectorAll('{MAP} .pane:not(.stack) img')].map((image) => image.clientWidth)")
        assert len(widths) == 7
        assert min(widths) > 200
        assert page.box(f"{MAP} .tools")[2:] == (0, 0)
        assert page.overflow() == 0


def test_every_control_can_be_reached_and_left_by_tab(window):
    window.driver.get(window.address)
    wake(window, MAP)
    window.run(f"document.querySelector('{MAP} [data-mode=side]').focus()")
    seen = []
    for _ in range(30):
        window.driver.switch_to.active_element.send_keys("\ue004")
        seen.append(window.run("const item = document.activeElement; return item.getAttribute('aria-label') || item.textContent"))
        if not window.run("return Boolean(document.activeElement.closest('#map .viewer'))"):
            break
    else:
        pytest.fail("the viewer does not let go of the focus")
    assert any(text.startswith("Prediction, Layers of the map Al Ain: arrow keys move") for text in seen)
    assert {"Zoom in", "Zoom out", "Show everything", "Full screen"} <= set(seen)
