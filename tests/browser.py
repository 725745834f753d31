"""Opening a page in headless Chromium and telling what it did: console messages, network requests, pictures.

Used by every test that looks at a page. ``chromium`` and ``chromedriver`` (Debian: ``apt-get install chromium chromium-driver``) and
the Python package selenium must be there; without them the tests that need a browser are skipped.
"""

import base64
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None or importlib.util.find_spec("selenium") is None, reason="needs chromium, chromedriver and selenium"
)


class Page:
    """One open page."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address

    def console(self) -> list[str]:
        """Everything the console said, warnings included, since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, other than the page itself and what lies inside it (``data:``, ``blob:``)."""
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                # Before the page, a new tab loads pages of the browser itself.
                if not address.startswith(("data:", "blob:", "chrome:", "about:")) and address != self.address:
                    asked.append(address)
        return asked

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def overflow(self) -> int:
        """By how many CSS pixels the page is wider than the window; 0 is right."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def press(self, selector: str, *keys: str) -> None:
        """Focus an element and press keys in it."""
        element = self.driver.find_element("css selector", selector)
        self.run("arguments[0].focus()", element)
        for key in keys:
            element.send_keys(key)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, in CSS pixels of the window."""
        script = (
            "const box = document.querySelector(arguments[0]).getBoundingClientRect(); return [box.left, box.top, box.width, box.height]"
        )
        return tuple(self.run(script, selector))

    def mouse(self, kind: str, x: float, y: float, **details: Any) -> None:
        """Send what a mouse does: ``mouseMoved``, ``mousePressed``, ``mouseReleased`` or ``mouseWheel`` at a point of the window."""
        if kind in {"mousePressed", "mouseReleased"}:
            details = {"button": "left", "clickCount": 1} | details
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y} | details)

    def click(self, x: float, y: float) -> None:
        """Click at a point of the window."""
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 4) -> None:
        """Drag from one point of the window to another."""
        self.mouse("mousePressed", *start)
        for step in range(1, steps + 1):
            across, down = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", across, down, button="left", buttons=1)
        self.mouse("mouseReleased", *end)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """Send what fingers do: ``touchStart``, ``touchMove`` or ``touchEnd``, with one point of the window a finger."""
        places = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    def picture(self, path: Path) -> Path:
        """Write a PNG of the whole page, whatever its height."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def print(self, path: Path) -> Path:
        """Write the page as PDF, as a reader would print it."""
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]))
        return path


@contextmanager
def open_page(path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """Open a local file in a window of the given size in CSS pixels, with the reader's preference for light or dark."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    address = path.resolve().as_uri()
    profile = tempfile.mkdtemp(prefix="browser-")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get(address)
        yield Page(driver, address)
    finally:
        with suppress(Exception):
            driver.quit()
        shutil.rmtree(profile, ignore_errors=True)
