"""A linked viewer of a report on an open page: what its panes show, where its pixels lie, how it is worked."""

import base64
import time

import numpy as np

MAP = "#map .viewer"

# The pixels of every visible canvas of a viewer: list of [width, height, base64].
CANVASES = """
return [...document.querySelector(arguments[0]).querySelectorAll('.pane')].filter((pane) => !pane.hidden).map((pane) => {
  const shown = pane.querySelector('canvas');
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [shown.width, shown.height];
  canvas.getContext('2d', {willReadFrequently: true}).drawImage(shown, 0, 0);
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let text = '';
  for (let k = 0; k < data.length; k += 8192) text += String.fromCharCode(...data.subarray(k, k + 8192));
  return [canvas.width, canvas.height, btoa(text)];
})"""


class Viewer:
    """A viewer on an open page."""

    def __init__(self, page, root=MAP):
        self.page, self.root = page, root

    def settle(self):
        """Wait until what was asked for is drawn."""
        self.page.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 20)))"
        )

    @property
    def view(self):
        """Column and row of the middle, and CSS pixels a pixel of the map."""
        self.settle()
        return tuple(map(float, self.page.run("return document.querySelector(arguments[0]).dataset.view", self.root).split()))

    def canvases(self):
        """The pixels of every visible pane, integer (h, w, 4)."""
        self.settle()
        found = self.page.run(CANVASES, self.root)
        return [np.frombuffer(base64.b64decode(text), np.uint8).reshape(high, wide, 4).astype(int) for wide, high, text in found]

    def pixel(self, x, y):
        """One pixel of the first visible pane, integer (3,)."""
        script = """
            const panes = [...document.querySelector(arguments[0]).querySelectorAll('.pane')];
            const shown = panes.find((pane) => !pane.hidden).querySelector('canvas');
            const canvas = document.createElement('canvas');
            const context = canvas.getContext('2d', {willReadFrequently: true});
            context.drawImage(shown, -arguments[1], -arguments[2]);
            return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
        """
        self.settle()
        return np.array(self.page.run(script, self.root, x, y))

    def box(self, place=0):
        """Left, top, width and height of a visible pane; it is marked as ``here`` for selectors."""
        return self.page.run(
            """
            document.querySelectorAll('.here').forEach((pane) => pane.classList.remove('here'));
            const panes = [...document.querySelector(arguments[0]).querySelectorAll('.pane')].filter((pane) => !pane.hidden);
            panes[arguments[1]].classList.add('here');
            const view = panes[arguments[1]].querySelector('.view');
            return [view.getBoundingClientRect().left, view.getBoundingClientRect().top, view.clientWidth, view.clientHeight]
            """,
            self.root,
            place,
        )

    def at(self, column, row, place=0):
        """Where the middle of a pixel of the map lies in the window."""
        x, y, scale = self.view
        left, top, width, height = self.box(place)
        return left + width / 2 + (column + 0.5 - x) * scale, top + height / 2 + (row + 0.5 - y) * scale

    def readout(self):
        self.settle()
        return self.page.run(f"return document.querySelector('{self.root} .readout').innerText").replace("\u202f", " ").split("\n")

    def press(self, *keys, place=0):
        self.box(place)
        self.page.press(f"{self.root} .pane.here .view", *keys)

    def do(self, name):
        self.page.run(f"document.querySelector('{self.root} {name}').click()")


def wake(page, root):
    page.run("document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant', block: 'center'})", root)
    for _ in range(100):
        if page.run("return document.querySelector(arguments[0]).dataset.view", root):
            return
        time.sleep(0.05)
    raise AssertionError(f"{root} did not wake")
