// Layers of a viewer: pictures whose colours stand for values (a class, a percentage), read back pixel by pixel.
const NONE = 255;
const confidenceColours = JSON.parse(document.getElementById("confidence-colours").textContent);
const colourKey = (red, green, blue) => (red << 16) | (green << 8) | blue;

function readPixels(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// One byte a pixel; NONE where the layer says nothing.
function readValues(image, colours) {
  const pixels = readPixels(image).data;
  const known = new Map(colours.map((colour, value) => [colourKey(...colour), value]));
  const values = new Uint8Array(pixels.length / 4).fill(NONE);
  let [lastKey, lastValue] = [-1, NONE];
  for (let i = 0, at = 0; at < values.length; i += 4, at += 1) {
    if (pixels[i + 3] === 0) continue;
    const key = colourKey(pixels[i], pixels[i + 1], pixels[i + 2]);
    if (key !== lastKey) [lastKey, lastValue] = [key, known.get(key) ?? NONE];
    values[at] = lastValue;
  }
  return values;
}

class Layer {
  constructor(facts, image, classes) {
    [this.name, this.kind, this.image, this.classes] = [facts.name, facts.kind, image, classes];
    this.drawn = image;
    this.values = null;
  }

  get readable() { return this.kind === "classes" || this.kind === "confidence"; }

  prepare() {
    if (!this.readable || this.values) return;
    // Values are places in the list of classes, or percentages.
    this.colours = this.kind === "classes" ? this.classes.map((item) => item.slice(2)) : confidenceColours;
    this.values = readValues(this.image, this.colours);
  }

  // Leave out classes; what is left out is transparent.
  hide(hidden) {
    if (this.kind !== "classes") return;
    if (!hidden.size) { this.drawn = this.image; return; }
    this.prepare();
    const [width, height] = [this.image.naturalWidth, this.image.naturalHeight];
    const painted = new ImageData(width, height);
    const words = new Uint32Array(painted.data.buffer);
    const table = new Uint32Array(256);
    this.colours.forEach(([red, green, blue], value) => {
      // Little-endian RGBA, as every browser of today stores it.
      if (!hidden.has(value)) table[value] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    });
    this.values.forEach((value, at) => { words[at] = table[value]; });
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").putImageData(painted, 0, 0);
    this.drawn = canvas;
  }

  // The value at a place given as shares of width and height; null outside and where the layer says nothing.
  at(across, down) {
    if (!this.values || across < 0 || down < 0 || across >= 1 || down >= 1) return null;
    const [width, height] = [this.image.naturalWidth, this.image.naturalHeight];
    const value = this.values[Math.floor(down * height) * width + Math.floor(across * width)];
    return value === NONE ? null : value;
  }

  say(value) {
    if (value === null) return "\u2013";
    return this.kind === "classes" ? this.classes[value][1] : `${value}\u202f%`;
  }
}

