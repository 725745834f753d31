// The controls of a viewer: arrangement, layers, zoom, blending, readout; and the legends that hide classes.
function setPressed(button, value) { button.setAttribute("aria-pressed", String(value)); }

function control(view) {
  const root = view.root;
  const [slider, readout, status] = [root.querySelector(".share"), root.querySelector(".readout"), root.querySelector("[role=status]")];
  const compact = root.classList.contains("compact");
  const narrow = matchMedia("(max-width: 40rem)");

  function usualColumns(number) {
    if (compact) return Math.min(number, narrow.matches ? 3 : 6);
    return Math.min(number < 4 ? number : number === 4 ? 2 : 3, narrow.matches ? 2 : 3);
  }
  // On a full screen, the number of columns that makes the map largest.
  function fillingColumns(number) {
    const side = (columns) => Math.min(innerWidth / columns / view.data.width, (innerHeight - 110) / Math.ceil(number / columns) / view.data.height);
    return Array.from({ length: number }, (_, k) => k + 1).reduce((best, columns) => side(columns) > side(best) ? columns : best, 1);
  }

  function arrange() {
    const stacked = view.mode === "stack";
    const on = view.on[view.mode];
    view.panes.forEach((pane, k) => { pane.figure.hidden = stacked || !on[k]; });
    view.stack.figure.hidden = !stacked;
    view.stack.layers = on.flatMap((value, k) => value ? [k] : []);
    const names = view.stack.layers.map((k) => view.layers[k].name);
    view.stack.figure.querySelector("figcaption").textContent = names.length > 1 ? `${names.at(-1)} over ${names.slice(0, -1).join(", ")}` : names.join("");
    const number = view.visible.length;
    root.style.setProperty("--columns", stacked ? 1 : document.fullscreenElement === root ? fillingColumns(number) : usualColumns(number));
    root.dataset.mode = view.mode;
    root.querySelectorAll("[data-layer]").forEach((button) => setPressed(button, on[button.dataset.layer]));
    root.querySelectorAll("[data-mode]").forEach((button) => setPressed(button, button.dataset.mode === view.mode));
    root.querySelectorAll("[data-blend]").forEach((button) => setPressed(button, button.dataset.blend === view.blend));
    root.querySelector(".blend").hidden = !stacked || view.stack.layers.length < 2;
    root.classList.toggle("swiping", stacked && view.blend === "swipe" && view.stack.layers.length > 1);
    blend(view.share);
    view.keepInside();
  }

  function blend(share) {
    view.share = Math.min(Math.max(share, 0), 1);
    slider.value = Math.round(view.share * 100);
    slider.setAttribute("aria-label", view.blend === "fade" ? "How strongly the top layer covers those below" : "Where the top layer begins");
    view.stack.box.style.setProperty("--share", view.share);
    view.draw();
  }

  function toggle(index) {
    const on = view.on[view.mode];
    if (!(index in on) || (on[index] && on.filter(Boolean).length === 1)) return;
    const focused = view.visible.find((pane) => pane.box === document.activeElement);
    on[index] = !on[index];
    arrange();
    if (focused && !focused.shown) view.first.box.focus({ preventScroll: true });
  }

  function mode(name) {
    const focused = view.all.some((pane) => pane.box === document.activeElement);
    view.mode = name;
    arrange();
    if (focused) view.first.box.focus({ preventScroll: true });
  }

  const full = () => document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen?.();

  function write(found) {
    readout.classList.toggle("idle", !found?.inside);
    readout.querySelector(".place").textContent = found?.inside ? found.place : "";
    for (const cell of readout.querySelectorAll("[data-read]")) {
      const [layer, value] = [view.layers[cell.dataset.read], found?.values[cell.dataset.read] ?? null];
      cell.querySelector(".value").textContent = found?.inside ? layer.say(value) : "";
      cell.querySelector(".swatch").style.background = value === null ? "transparent" : `rgb(${layer.colours[value].join(",")})`;
    }
  }
  function point(place) {
    const found = view.read(...place);
    view.mark = found.inside ? place : null;
    view.draw();
    write(found);
  }
  function leave() { view.mark = null; view.draw(); write(null); }
  function say() {
    const found = view.read(view.x, view.y);
    write(found);
    const said = view.layers.flatMap((layer, k) => !layer.readable ? [] : [`${layer.name} ${found.values[k] === null ? "nothing" : layer.say(found.values[k])}`]);
    status.textContent = `Zoom ${Number(view.zoom.toPrecision(2))}. Middle: ${found.place}. ${said.join(", ")}`;
  }

  const handlers = { point, leave, say, toggle, mode, full, share: blend };
  const keys = "arrow keys move, plus and minus zoom, 0 shows everything, digits switch layers, S changes the arrangement";
  for (const pane of view.all) {
    pane.box.tabIndex = 0;
    pane.box.setAttribute("role", "application");
    pane.box.setAttribute("aria-label", `${pane === view.stack ? "Layers on each other" : view.layers[pane.layers[0]].name}, ${root.getAttribute("aria-label")}: ${keys}`);
    pointing(view, pane, handlers);
    pressing(view, pane, handlers);
  }
  const actions = { in: () => view.zoomMiddle(1.5), out: () => view.zoomMiddle(1 / 1.5), all: () => view.showAll(), full };
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { layer, mode: name, blend: way, act } = button.dataset;
    if (layer !== undefined) toggle(Number(layer));
    if (name) mode(name);
    if (way) { view.blend = way; arrange(); }
    if (act) actions[act]();
  });
  slider.addEventListener("input", () => blend(slider.value / 100));
  narrow.addEventListener("change", arrange);
  root.addEventListener("fullscreenchange", arrange);
  new ResizeObserver(() => { if (view.first) view.keepInside(); }).observe(root);
  view.listeners.push(() => {
    const level = root.querySelector(".level");
    if (level) level.textContent = `${Number(view.zoom.toPrecision(2))}\u00d7`;
    root.dataset.view = [view.x, view.y, view.scale].map((value) => Number(value.toPrecision(9))).join(" ");
  });
  if (!document.fullscreenEnabled) root.querySelector('[data-act="full"]').hidden = true;
  arrange();
}

// A legend hides classes in all viewers of its group: a click one class, a double click or Shift all others.
function legend(group, views) {
  const hidden = new Set();
  const buttons = [...group.querySelectorAll("[data-class]")];
  const places = buttons.map((button) => Number(button.dataset.class));
  function show() {
    buttons.forEach((button, k) => setPressed(button, !hidden.has(places[k])));
    const reset = group.querySelector("[data-classes=all]");
    if (reset) reset.hidden = !hidden.size;
    for (const view of views) {
      for (const layer of view.layers) layer.hide(hidden);
      view.draw();
    }
  }
  function only(place) { hidden.clear(); for (const other of places) if (other !== place) hidden.add(other); }
  buttons.forEach((button, k) => {
    button.addEventListener("click", (event) => {
      if (event.shiftKey) only(places[k]);
      else if (!hidden.delete(places[k])) hidden.add(places[k]);
      show();
    });
    button.addEventListener("dblclick", () => { only(places[k]); show(); });
  });
  group.querySelector("[data-classes=all]")?.addEventListener("click", () => { hidden.clear(); show(); buttons[0]?.focus(); });
  return show;
}

// Viewers wake when they come near the window: a page may hold many. One with a picture that cannot be decoded stays plain pictures.
function wake(root, views, refresh) {
  const view = new View(root);
  const images = view.layers.map((layer) => layer.image.decode());
  Promise.all(images).then(() => {
    for (const layer of view.layers) layer.prepare();
    views.push(view);
    root.classList.add("awake");
    control(view);
    refresh();
  }, () => root.classList.add("asleep"));
}
for (const group of document.querySelectorAll(".viewers")) {
  const views = [];
  const refresh = legend(group, views);
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      wake(entry.target, views, refresh);
    }
  }, { rootMargin: "400px" });
  for (const root of group.querySelectorAll(".viewer")) near.observe(root);
}
