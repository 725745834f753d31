// Curves: read values, zoom, hide lines. The drawing itself was made with the page; it is drawn anew only after a zoom.
function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= raw * 0.999);
  const marks = [];
  for (let k = Math.ceil(low / step - 1e-9); k <= Math.floor(high / step + 1e-9); k += 1) marks.push(Number((k * step).toPrecision(12)));
  return marks;
}
const minus = (text) => text.replaceAll("-", "\u2212");
const grouped = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
function tickText(value, form) {
  if (form === "percent") return `${minus(String(Number((value * 100).toPrecision(4))))}\u202f%`;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return minus(Number(value.toPrecision(3)).toExponential());
  return minus(String(Number(value.toPrecision(4))));
}
function valueText(value, form) {
  if (form === "percent") return `${minus((value * 100).toFixed(1))}\u202f%`;
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e5)) return minus(value.toExponential(2));
  return size >= 1000 ? grouped(value) : minus(value === 0 ? "0" : value.toPrecision(3));
}
function make(name, attributes, text) {
  const node = document.createElementNS(document.querySelector("svg").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function enliven(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const plot = figure.querySelector(".plot");
  const svg = plot.querySelector("svg");
  const [axes, curves, cursor] = [svg.querySelector(".axes"), svg.querySelector(".curves"), svg.querySelector(".cursor")];
  const buttons = [...figure.querySelectorAll(".legend button")];
  const status = figure.querySelector("[role=status]");
  const reset = plot.querySelector(".reset");
  const [width, height, left, right, top, bottom] = plot.dataset.frame.split(",").map(Number);
  const steps = [...new Set(data.series.flatMap((line) => [...line.x, ...(line.seeds || []).flatMap((seed) => seed.x)]))].sort((a, b) => a - b);
  const full = [data.low, Math.max(steps.at(-1), data.low + 1)];
  let [low, high] = full;
  let at = -1;
  const shown = data.series.map(() => true);
  const across = (step) => left + (step - low) / (high - low) * (width - left - right);
  const stepAt = (x) => low + (x - left) / (width - left - right) * (high - low);

  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", `${figure.querySelector("h3").textContent}: arrow keys read values, plus and minus zoom, 0 shows all`);

  function draw() {
    const inside = (steps, values) => values.filter((_, i) => steps[i] >= low && steps[i] <= high);
    const values = data.series.flatMap((line, k) => !shown[k] ? [] : [
      ...inside(line.x, line.y), ...inside(line.x, line.low || []), ...inside(line.x, line.high || []),
      ...(line.seeds || []).flatMap((seed) => inside(seed.x, seed.y)),
    ]);
    if (!values.length) values.push(0, 1);
    let bottomValue = Math.min(...values, ...(data.zero ? [0] : []));
    let topValue = Math.max(...values);
    const margin = (topValue - bottomValue) * 0.06 || Math.abs(topValue) * 0.1 || 0.1;
    topValue += margin;
    if (bottomValue !== 0) bottomValue -= margin;
    const down = (value) => height - bottom - (value - bottomValue) / (topValue - bottomValue) * (height - top - bottom);
    axes.replaceChildren();
    for (const value of niceTicks(bottomValue, topValue, 5)) {
      axes.append(make("line", { x1: left, x2: width - right, y1: down(value), y2: down(value) }));
      axes.append(make("text", { x: left - 8, y: down(value), dy: "0.35em", "text-anchor": "end" }, tickText(value, data.form)));
    }
    for (const step of niceTicks(low, high, 4)) {
      axes.append(make("text", { x: across(step), y: height - bottom + 18, "text-anchor": "middle" }, Number.isInteger(step) ? grouped(step) : String(step)));
    }
    axes.append(make("text", { x: left - 8, y: height - bottom + 18, "text-anchor": "end" }, "step"));
    const path = (steps, values) => steps.map((x, i) => [x, values[i]]).filter(([x]) => x >= low && x <= high)
      .map(([x, y]) => `${across(x).toFixed(1)},${down(y).toFixed(1)}`);
    data.series.forEach((line, k) => {
      const group = curves.children[k];
      group.style.display = shown[k] ? "" : "none";
      const main = group.querySelector(".curve");
      if (main.tagName === "circle") {
        main.setAttribute("cx", across(line.x[0]));
        main.setAttribute("cy", down(line.y[0]));
        main.style.display = line.x[0] < low || line.x[0] > high ? "none" : "";
        return;
      }
      main.setAttribute("points", path(line.x, line.y).join(" "));
      if (!line.seeds) return;
      group.querySelector(".band").setAttribute("points", [...path(line.x, line.high), ...path(line.x, line.low).reverse()].join(" "));
      group.querySelectorAll(".seed").forEach((node, i) => node.setAttribute("points", path(line.seeds[i].x, line.seeds[i].y).join(" ")));
    });
    reset.hidden = low === full[0] && high === full[1];
  }

  function read(index, aloud) {
    at = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[at];
    cursor.setAttribute("x1", across(step));
    cursor.setAttribute("x2", across(step));
    cursor.setAttribute("visibility", step >= low && step <= high ? "visible" : "hidden");
    const said = [];
    data.series.forEach((line, k) => {
      const i = line.x.findLastIndex((x) => x <= step);
      const range = i >= 0 && line.low ? ` (${valueText(line.low[i], data.form)} to ${valueText(line.high[i], data.form)})` : "";
      const text = i < 0 || !shown[k] ? "" : valueText(line.y[i], data.form) + range;
      buttons[k].querySelector(".value").textContent = text;
      if (text) said.push(`${buttons[k].textContent.slice(0, -text.length)} ${text}`);
    });
    if (aloud) status.textContent = `Step ${step}: ${said.join(", ")}`;
  }
  function forget() {
    cursor.setAttribute("visibility", "hidden");
    for (const button of buttons) button.querySelector(".value").textContent = "";
  }
  function zoom(from, to) {
    const inside = steps.filter((step) => step >= from && step <= to);
    if (inside.length < 2) return;
    [low, high] = [Math.max(full[0], from), Math.min(full[1], to)];
    draw();
  }
  function showAll() { [low, high] = full; draw(); }
  function place(event) {
    const box = svg.getBoundingClientRect();
    return Math.max(left, Math.min(width - right, (event.clientX - box.left) / box.width * width));
  }
  const nearest = (step) => steps.reduce((best, value, i) => Math.abs(value - step) < Math.abs(steps[best] - step) ? i : best, 0);

  let start = null;
  let selection = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) { start = place(event); svg.setPointerCapture(event.pointerId); event.preventDefault(); plot.focus({ preventScroll: true }); }
  });
  svg.addEventListener("pointermove", (event) => {
    const x = place(event);
    read(nearest(stepAt(x)), false);
    if (start === null || Math.abs(x - start) < 4) return;
    if (!selection) { selection = make("rect", { class: "selection", y: top, height: height - top - bottom }); svg.append(selection); }
    selection.setAttribute("x", Math.min(x, start));
    selection.setAttribute("width", Math.abs(x - start));
  });
  svg.addEventListener("pointerup", (event) => {
    if (selection) {
      const [a, b] = [stepAt(start), stepAt(place(event))];
      zoom(Math.min(a, b), Math.max(a, b));
      selection.remove();
    }
    start = selection = null;
  });
  svg.addEventListener("pointerleave", () => { if (start === null) forget(); });
  svg.addEventListener("dblclick", showAll);
  reset.addEventListener("click", () => { showAll(); plot.focus(); });
  plot.addEventListener("keydown", (event) => {
    if (event.target !== plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const here = at < 0 ? Math.floor(steps.length / 2) : at;
    const middle = steps[here];
    const actions = {
      ArrowLeft: () => read(at < 0 ? steps.length - 1 : at - 1, true),
      ArrowRight: () => read(at + 1, true),
      Home: () => read(0, true),
      End: () => read(steps.length - 1, true),
      "+": () => { zoom(middle - (high - low) / 4, middle + (high - low) / 4); read(here, false); },
      "-": () => { zoom(middle - (high - low), middle + (high - low)); read(here, false); },
      0: () => { showAll(); read(here, false); },
      Escape: () => { showAll(); forget(); },
    };
    const action = actions[event.key === "=" ? "+" : event.key];
    if (action) { action(); event.preventDefault(); }
  });
  buttons.forEach((button, k) => button.addEventListener("click", () => {
    shown[k] = !shown[k];
    button.setAttribute("aria-pressed", String(shown[k]));
    if (!shown[k]) button.querySelector(".value").textContent = "";
    draw();
  }));
}
for (const figure of document.querySelectorAll(".charts .chart")) enliven(figure);

