// What pointers and keys do in a viewer.
function middleOf(points) {
  return [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
}
const spanOf = (points) => points.length < 2 ? 0 : Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]);

// A wheel over a page scrolls it; only a viewer that the reader has entered, or the control key, takes it.
function wheeling(view, pane, point) {
  pane.box.addEventListener("wheel", (event) => {
    const entered = view.root.contains(document.activeElement) || document.fullscreenElement === view.root;
    if (!entered && !event.ctrlKey && !event.metaKey) {
      view.root.classList.add("hinting");
      clearTimeout(view.hint);
      view.hint = setTimeout(() => view.root.classList.remove("hinting"), 1400);
      return;
    }
    const lines = event.deltaMode === 1 ? 18 : event.deltaMode === 2 ? 300 : 1;
    const moved = view.zoomAt(Math.exp(Math.max(-1, Math.min(1, -event.deltaY * lines / 400))), ...point(event));
    if (moved || event.ctrlKey || event.metaKey) event.preventDefault();
  }, { passive: false });
}

function pointing(view, pane, handlers) {
  const box = pane.box;
  const down = new Map();
  const point = (event) => {
    const frame = pane.canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  const atDivider = (x) => pane === view.stack && view.blend === "swipe" && pane.layers.length > 1 && Math.abs(x - view.share * box.clientWidth) < 14;
  let swiping = false;
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const here = point(event);
    swiping = !down.size && atDivider(here[0]);
    down.set(event.pointerId, here);
    box.setPointerCapture(event.pointerId);
    box.focus({ preventScroll: true });
    // A dragged picture or selected text would get in the way; the focus above stands.
    if (event.pointerType === "mouse") event.preventDefault();
  });
  box.addEventListener("pointermove", (event) => {
    const here = point(event);
    if (!down.has(event.pointerId)) {
      box.classList.toggle("divided", atDivider(here[0]));
      handlers.point(view.toMap(...here));
      return;
    }
    const before = [...down.values()];
    down.set(event.pointerId, here);
    const after = [...down.values()];
    if (swiping) { handlers.share(here[0] / box.clientWidth); return; }
    const [from, to] = [middleOf(before), middleOf(after)];
    view.pan(to[0] - from[0], to[1] - from[1]);
    if (after.length > 1 && spanOf(before) > 0) view.zoomAt(spanOf(after) / spanOf(before), ...to);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    box.addEventListener(name, (event) => {
      down.delete(event.pointerId);
      if (name === "pointerup") handlers.point(view.toMap(...point(event)));
    });
  }
  box.addEventListener("pointerleave", () => { if (!down.size) handlers.leave(); });
  box.addEventListener("dblclick", (event) => { view.zoomAt(event.shiftKey ? 0.5 : 2, ...point(event)); });
  wheeling(view, pane, point);
}

// Keys in a focused pane. Modified keys stay with the browser; Tab always leaves, Escape gives the wheel back to the page.
function pressing(view, pane, handlers) {
  pane.box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [width, height] = view.size;
    const far = event.shiftKey ? 0.5 : 0.125;
    const actions = {
      ArrowLeft: () => view.pan(width * far, 0),
      ArrowRight: () => view.pan(-width * far, 0),
      ArrowUp: () => view.pan(0, height * far),
      ArrowDown: () => view.pan(0, -height * far),
      "+": () => view.zoomMiddle(1.5),
      "-": () => view.zoomMiddle(1 / 1.5),
      0: () => view.showAll(),
      s: () => handlers.mode(view.mode === "side" ? "stack" : "side"),
      f: () => handlers.full(),
    };
    const key = event.key === "=" ? "+" : event.key === "_" ? "-" : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key >= "1" && key <= "9" && key.length === 1) handlers.toggle(Number(key) - 1);
    else if (actions[key]) actions[key]();
    else {
      if (key === "Escape" && document.fullscreenElement !== view.root) pane.box.blur();
      return;
    }
    event.preventDefault();
    if (document.activeElement === pane.box) { view.mark = [view.x, view.y]; view.draw(); handlers.say(); }
  });
  pane.box.addEventListener("blur", () => { view.mark = null; view.draw(); });
}

