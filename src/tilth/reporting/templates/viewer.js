// The linked viewer: one view (centre and zoom) of several layers, drawn into every pane.
const LARGEST_PIXEL = 40;

// Longitude and latitude between the points that the page carries.
function degreesAt(ground, across, down) {
  if (!ground?.nodes) return null;
  const last = ground.nodes - 1;
  const [x, y] = [across * last, down * last].map((value) => Math.min(Math.max(value, 0), last));
  const [column, row] = [Math.min(Math.floor(x), last - 1), Math.min(Math.floor(y), last - 1)];
  const mix = (values) => {
    const corner = (i, k) => values[(row + k) * ground.nodes + column + i];
    const upper = corner(0, 0) + (corner(1, 0) - corner(0, 0)) * (x - column);
    const lower = corner(0, 1) + (corner(1, 1) - corner(0, 1)) * (x - column);
    return upper + (lower - upper) * (y - row);
  };
  return [((mix(ground.longitude) + 540) % 360) - 180, mix(ground.latitude)];
}

function placeText(data, across, down) {
  const [column, row] = [across * data.width, down * data.height];
  const ground = data.ground;
  if (!ground) return `column ${Math.floor(column)}, row ${Math.floor(row)}`;
  const [a, b, c, d, e, f] = ground.transform;
  const spaced = (value) => minus(value.toFixed(ground.decimals).replace(/\B(?=(\d{3})+(?!\d))(?<!\.\d*)/g, "\u202f"));
  const here = degreesAt(ground, across, down);
  const letters = (value, [positive, negative]) => `${Math.abs(value).toFixed(5)}\u00b0\u202f${value < 0 ? negative : positive}`;
  const degrees = here ? ` \u00b7 ${letters(here[1], "NS")}, ${letters(here[0], "EW")}` : "";
  return `${spaced(a * column + b * row + c)}, ${spaced(d * column + e * row + f)} (${ground.crs})${degrees}`;
}

class Pane {
  constructor(figure, layers) {
    [this.figure, this.layers] = [figure, layers];
    this.box = figure.querySelector(".view");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.ruler = document.createElement("span");
    this.ruler.className = "ruler";
    this.box.append(this.canvas, this.ruler);
    this.context = this.canvas.getContext("2d");
  }

  get shown() { return !this.figure.hidden; }
}

class View {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector("script").textContent);
    const figures = [...root.querySelectorAll(".pane:not(.stack)")];
    this.layers = this.data.layers.map((facts, k) => new Layer(facts, figures[k].querySelector("img"), this.data.classes));
    this.panes = this.layers.map((layer, k) => new Pane(figures[k], [k]));
    this.stack = new Pane(root.querySelector(".pane.stack"), []);
    this.mode = "side";
    this.on = { side: this.data.layers.map((item) => item.side), stack: this.data.layers.map((item) => item.stacked) };
    this.blend = "fade";
    this.share = 0.7;
    this.zoom = 1;
    [this.x, this.y] = [this.data.width / 2, this.data.height / 2];
    this.mark = null;
    this.waiting = false;
    this.listeners = [];
  }

  get all() { return [...this.panes, this.stack]; }
  get visible() { return this.all.filter((pane) => pane.shown); }
  get first() { return this.visible[0]; }
  get size() { return [this.first.box.clientWidth, this.first.box.clientHeight]; }
  get fit() { const [width, height] = this.size; return Math.min(width / this.data.width, height / this.data.height); }
  // CSS pixels a pixel of the map.
  get scale() { return this.fit * this.zoom; }
  get highest() {
    const shown = Math.max(...this.layers.map((layer) => layer.image.naturalWidth)) / this.data.width;
    return Math.max(8, LARGEST_PIXEL * shown / this.fit);
  }

  // Where a point of a pane, in CSS pixels from its corner, lies on the map, in pixels of the map; and back.
  toMap(x, y) {
    const [width, height] = this.size;
    return [this.x + (x - width / 2) / this.scale, this.y + (y - height / 2) / this.scale];
  }
  toPane(column, row) {
    const [width, height] = this.size;
    return [width / 2 + (column - this.x) * this.scale, height / 2 + (row - this.y) * this.scale];
  }

  keepInside() {
    const [width, height] = this.size;
    const within = (centre, whole, seen) => {
      const half = seen / 2 / this.scale;
      return whole <= 2 * half ? whole / 2 : Math.min(Math.max(centre, half), whole - half);
    };
    this.x = within(this.x, this.data.width, width);
    this.y = within(this.y, this.data.height, height);
    this.draw();
  }

  pan(across, down) {
    this.x -= across / this.scale;
    this.y -= down / this.scale;
    this.keepInside();
  }

  // Zoom by a factor so that a point of the pane stays where it is; says whether anything changed.
  zoomAt(factor, x, y) {
    const before = this.zoom;
    const [column, row] = this.toMap(x, y);
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), this.highest);
    if (this.zoom === before) return false;
    const [width, height] = this.size;
    this.x = column - (x - width / 2) / this.scale;
    this.y = row - (y - height / 2) / this.scale;
    this.keepInside();
    return true;
  }

  zoomMiddle(factor) {
    const [width, height] = this.size;
    return this.zoomAt(factor, width / 2, height / 2);
  }

  showAll() { this.zoom = 1; this.keepInside(); }

  // A pixel of a smaller picture stands for several of the map, so what is read there holds for about that place.
  get coarse() { return this.layers.some((layer) => layer.readable && layer.image.naturalWidth < this.data.width); }

  // Values of all layers at a point of the map.
  read(column, row) {
    const [across, down] = [column / this.data.width, row / this.data.height];
    const inside = across >= 0 && across < 1 && down >= 0 && down < 1;
    return { inside, place: inside ? `${this.coarse ? "about " : ""}${placeText(this.data, across, down)}` : "", values: this.layers.map((layer) => layer.at(across, down)) };
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (!this.first || !this.size[0]) return;
      for (const pane of this.visible) this.paint(pane);
      for (const listener of this.listeners) listener();
    });
  }

  paint(pane) {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [pane.box.clientWidth, pane.box.clientHeight];
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (pane.canvas.width !== wide || pane.canvas.height !== high) {
      [pane.canvas.width, pane.canvas.height] = [wide, high];
      // Whole CSS pixels: a canvas stretched by a fraction of one would blur.
      [pane.canvas.style.width, pane.canvas.style.height] = [`${width}px`, `${height}px`];
    }
    const context = pane.context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    pane.layers.forEach((index, place) => {
      const top = pane === this.stack && place > 0 && place === pane.layers.length - 1;
      context.save();
      if (top && this.blend === "swipe") { context.beginPath(); context.rect(this.share * width, 0, width, height); context.clip(); }
      if (top && this.blend === "fade") context.globalAlpha = this.share;
      this.place(context, this.layers[index]);
      context.restore();
    });
    this.rule(pane, width);
    if (this.mark) this.cross(context, ...this.toPane(...this.mark));
  }

  place(context, layer) {
    const [left, top] = this.toPane(0, 0);
    const pixel = this.scale * this.data.width / layer.image.naturalWidth;
    // Class pixels stay sharp; a photograph becomes squares only when they are large enough to count.
    context.imageSmoothingEnabled = pixel < (layer.kind === "picture" ? 4 : 1);
    context.imageSmoothingQuality = "high";
    context.drawImage(layer.drawn, left, top, this.data.width * this.scale, this.data.height * this.scale);
  }

  rule(pane, width) {
    const metres = this.data.ground?.metres;
    pane.ruler.hidden = !metres || pane !== this.first;
    if (pane.ruler.hidden) return;
    const most = Math.min(width * 0.35, 180) * metres / this.data.width / this.scale;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].find((factor) => factor * power <= most * 1.0000001) * power;
    pane.ruler.style.width = `${length * this.scale * this.data.width / metres}px`;
    const rounded = (value) => String(Number(value.toPrecision(3)));
    pane.ruler.textContent = length >= 2000 ? `${rounded(length / 1000)}\u202fkm` : length < 1 ? `${rounded(length * 100)}\u202fcm` : `${rounded(length)}\u202fm`;
  }

  cross(context, x, y) {
    for (const [colour, line] of [["#000b", 3], ["#fff", 1.25]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.beginPath();
      for (const [a, b] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { context.moveTo(x + 5 * a, y + 5 * b); context.lineTo(x + 12 * a, y + 12 * b); }
      context.stroke();
    }
  }
}

