// Charts: every figure.chart[data-chart] gets its JSON and becomes a chart that zooms, smooths, has a
// logarithmic axis, shows values and numbers. The server draws the same without a script.
import { fetchJson } from "./live.js";

const SVG = "http://www.w3.org/2000/svg";
const COLORS = 8;
const MARGIN = { left: 60, right: 14, top: 12, bottom: 34 };
const DRAW_EVERY_MS = 250; // live points come some at a time: see live_job.py
const PARTIAL_AGAIN_MS = 1000;
const MAX_LIVE_POINTS = 2500; // with more, the server thins the curve again
const MAX_ROWS = 1000;
const KEY_ZOOM = 0.5;
const charts = new WeakMap();
const formats = new Map(); // digits -> Intl.NumberFormat: making one costs 30 times its use

/** Return an element with attributes, classes among them, and text or children. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Return a number as a person reads it, with at most `digits` digits that count. */
export function formatNumber(value, digits = 5) {
  if (value === null || value === undefined || Number.isNaN(value)) return "not finite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) {
    return value.toExponential(Math.min(3, digits - 1)).replace(/\.?0+e/, "e");
  }
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat("en-US", { maximumSignificantDigits: digits }));
  }
  return formats.get(digits).format(value);
}

/** Return round numbers within a range: 1, 2 or 5 times a power of ten apart (Heckbert, 1990). */
function linearTicks(low, high, count, whole) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((n) => n * power)
    .reduce((best, one) => (Math.abs(one - rough) < Math.abs(best - rough) ? one : best));
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n += 1) {
    ticks.push(Number((n * step).toPrecision(12)));
  }
  return ticks;
}

function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  const parts = decades < 1.5 ? [1, 2, 3, 5, 7] : decades < 4 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const part of parts) {
      const value = part * 10 ** power;
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) ticks.push(value);
    }
  }
  if (ticks.length < 2) return linearTicks(low, high, count, false).filter((one) => one > 0);
  const every = Math.ceil(ticks.length / (2 * count));
  return ticks.filter((_, index) => index % every === 0);
}

/**
 * Return the exponential moving average of points, corrected for its start (as Adam's moments are).
 * A value that is not finite breaks the curve and is left out of the average.
 */
export function smooth(points, weight) {
  if (weight <= 0) return points;
  let sum = 0;
  let total = 0;
  return points.map(([x, y]) => {
    if (y === null) return [x, null];
    sum = weight * sum + (1 - weight) * y;
    total = weight * total + (1 - weight);
    return [x, sum / total];
  });
}

/** Return the position of the point of a curve that is nearest to x. */
function nearest(points, x) {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle; else high = middle;
  }
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? low : high;
}

/** Return the number of a curve's color: its own, where several curves share one. */
const colorOf = (series, index) => (series.color ?? index) % COLORS;

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.path = figure.dataset.chart;
    this.data = null;
    this.range = null; // [first, last] while zoomed
    this.log = false;
    this.weight = 0;
    this.hidden = new Set();
    this.at = null; // x of the cursor
    this.drawn = 0;
    this.isVisible = true; // one that is scrolled away is not drawn
    this.isStale = false;
    this.svg = null;
    this.size = null; // [width, height] of the drawing; to read them costs a layout of the page
  }

  async load() {
    const [path, query = ""] = this.path.split("?");
    const fields = new URLSearchParams(query);
    if (this.range) { fields.set("from", this.range[0]); fields.set("to", this.range[1]); }
    const asked = (this.asked = (this.asked ?? 0) + 1);
    this.meanwhile = []; // live points that come before the answer, which may lack them
    try {
      const data = await fetchJson(`${path}?${fields}`);
      if (asked !== this.asked) return; // a newer zoom was faster
      this.data = data;
      const late = this.meanwhile;
      this.meanwhile = null;
      for (const bySeries of late) this.addPoints(bySeries);
    } catch (error) {
      if (asked === this.asked) this.meanwhile = null;
      if (this.note) this.note.textContent = error.message;
      return;
    }
    if (!this.plot) this.build();
    this.showLegend();
    this.draw();
    if (this.data.partial) setTimeout(() => this.load(), PARTIAL_AGAIN_MS);
  }

  /** Add live points: { name of the series: [[x, y], ...] }. */
  append(bySeries) {
    this.meanwhile?.push(bySeries);
    if (!this.data) return;
    const most = this.addPoints(bySeries);
    if (most > MAX_LIVE_POINTS) this.load(); else this.drawSoon();
  }

  /** Add points behind the last one of each curve; return how many the longest one has. */
  addPoints(bySeries) {
    let most = 0;
    for (const [name, points] of Object.entries(bySeries)) {
      const series = this.data.series.find((one) => one.name === name);
      if (!series) { this.load(); return 0; }
      if (this.range && points[0][0] > this.range[1]) continue;
      const last = series.points.at(-1)?.[0] ?? -Infinity;
      series.points.push(...points.filter(([x]) => x > last));
      most = Math.max(most, series.points.length);
    }
    return most;
  }

  drawSoon() {
    if (this.waiting) return;
    if (!this.isVisible) { this.isStale = true; return; }
    const wait = Math.max(0, this.drawn + DRAW_EVERY_MS - performance.now());
    // All charts of a page in one frame; none while the page is hidden.
    this.waiting = setTimeout(() => requestAnimationFrame(() => { this.waiting = null; this.draw(); }), wait);
  }

  build() {
    const caption = this.figure.querySelector("figcaption") ?? element("figcaption");
    caption.textContent ||= this.data.title;
    const title = caption.textContent;
    this.tools = element("div", { class: "tools", role: "group", "aria-label": `View of ${title}` });
    this.logButton = this.button("log", "Logarithmic axis", () => this.setLog(!this.log));
    this.logButton.setAttribute("aria-pressed", "false");
    const slider = element("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: 0 });
    const shown = element("output", {}, "off");
    slider.addEventListener("input", () => {
      this.weight = Number(slider.value);
      shown.textContent = this.weight ? this.weight.toFixed(2) : "off";
      this.drawSoon();
    });
    this.tools.append(element("label", {}, "smooth ", slider, shown));
    this.button("−", "Zoom out", () => this.zoomBy(1 / KEY_ZOOM));
    this.button("+", "Zoom in", () => this.zoomBy(KEY_ZOOM));
    this.resetButton = this.button("reset", "Show all steps", () => this.zoom(null));
    this.tableButton = this.button("numbers", "Show the numbers as a table", () => this.toggleTable());
    this.tableButton.setAttribute("aria-expanded", "false");
    this.legend = element("ul", { class: "legend", "aria-label": `Curves of ${title}` });
    this.plot = element("div", { class: "plot", tabindex: "0", role: "group",
      "aria-label": `${title}: arrow keys read values, plus and minus zoom, 0 shows all` });
    this.values = element("div", { class: "values", hidden: "" });
    this.note = element("p", { class: "note", "aria-live": "polite" });
    this.numbers = element("div", { class: "numbers", tabindex: "0", role: "group",
      "aria-label": `Numbers of ${title}`, hidden: "" });
    this.figure.replaceChildren(element("div", { class: "head" }, caption, this.tools), this.legend,
      this.plot, this.note, this.numbers);
    this.listen();
    new ResizeObserver(() => { this.size = null; this.drawSoon(); }).observe(this.plot);
    new IntersectionObserver(([entry]) => {
      this.isVisible = entry.isIntersecting;
      if (this.isVisible && this.isStale) this.draw();
    }, { rootMargin: "100px" }).observe(this.plot);
  }

  button(text, label, act) {
    const made = element("button", { type: "button", title: label, "aria-label": label }, text);
    made.addEventListener("click", act);
    this.tools.append(made);
    return made;
  }

  showLegend() {
    this.legend.replaceChildren(...this.data.series.map((series, index) => {
      const name = element("span", { title: series.name.slice(0, 300) }, series.name.slice(0, 300));
      const made = element("button", { type: "button", class: `c${colorOf(series, index)} ${series.kind}`,
        "aria-pressed": String(!this.hidden.has(series.name)) }, name);
      made.addEventListener("click", () => {
        if (!this.hidden.delete(series.name)) this.hidden.add(series.name);
        made.setAttribute("aria-pressed", String(!this.hidden.has(series.name)));
        this.draw();
      });
      return element("li", {}, made);
    }));
  }

  listen() {
    let begin = null;
    const place = (event) => {
      const box = this.plot.getBoundingClientRect();
      return this.toX(Math.min(Math.max(event.clientX - box.left, MARGIN.left),
        box.width - MARGIN.right));
    };
    this.plot.addEventListener("pointerdown", (event) => {
      if (event.button || !this.scale) return;
      begin = place(event);
      this.plot.setPointerCapture(event.pointerId);
    });
    this.plot.addEventListener("pointermove", (event) => {
      if (!this.scale) return;
      this.at = place(event);
      this.selection = begin === null ? null : [begin, this.at];
      this.drawCursor();
    });
    this.plot.addEventListener("pointerup", (event) => {
      const range = begin === null ? null : [begin, place(event)].sort((a, b) => a - b);
      begin = null;
      this.selection = null;
      if (range && (range[1] - range[0]) > 0.015 * (this.scale.last - this.scale.first)) this.zoom(range);
      else this.drawCursor();
    });
    this.plot.addEventListener("pointerleave", () => { this.at = null; this.drawCursor(); });
    this.plot.addEventListener("pointercancel", () => { begin = null; this.selection = null; this.drawCursor(); });
    this.plot.addEventListener("dblclick", () => this.zoom(null));
    this.plot.addEventListener("blur", () => { this.at = null; this.drawCursor(); });
    this.plot.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.scale) return;
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) this.step(move);
    else if (event.key === "+" || event.key === "=") this.zoomBy(KEY_ZOOM);
    else if (event.key === "-") this.zoomBy(1 / KEY_ZOOM);
    else if (event.key === "0" || event.key === "Escape") this.zoom(null);
    else return;
    event.preventDefault();
  }

  /** Move the cursor to the next point of the longest curve. */
  step(by) {
    const visible = this.visible();
    if (!visible.length) return;
    const longest = visible.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
    const now = this.at === null ? (by > 0 ? -1 : longest.length) : nearest(longest, this.at);
    this.at = longest[Math.min(Math.max(now + by, 0), longest.length - 1)][0];
    this.drawCursor();
    this.note.textContent = this.values.innerText.replaceAll("\n", " ");
  }

  setLog(log) {
    this.log = log;
    this.logButton.setAttribute("aria-pressed", String(log));
    this.draw();
  }

  zoomBy(factor) {
    if (!this.scale) return;
    const { first, last } = this.scale;
    const middle = this.at ?? (first + last) / 2;
    const half = Math.max((last - first) * factor, 2) / 2;
    if (factor > 1 && (!this.range || half * 2 >= this.all[1] - this.all[0])) this.zoom(null);
    else this.zoom([Math.max(this.all[0], middle - half), Math.min(this.all[1], middle + half)]);
  }

  zoom(range) {
    this.range = range;
    this.at = null;
    this.draw();
    this.load();
  }

  visible() {
    return this.data.series.filter((one) => one.points.length && !this.hidden.has(one.name));
  }

  draw() {
    this.drawn = performance.now();
    this.isStale = false;
    if (!this.plot || !this.data) return;
    const visible = this.visible();
    this.resetButton.disabled = !this.range;
    const note = (this.data.notes ?? []).join(" · ");
    if (this.note.textContent !== note) this.note.textContent = note;
    if (!(this.size?.[0] ?? this.plot.clientWidth)) return;
    if (!visible.length) {
      this.scale = this.svg = null;
      this.plot.replaceChildren(element("p", { class: "soft" },
        this.data.series.some((one) => one.points.length) ? "All curves are hidden." : "No points yet."));
      return;
    }
    if (!this.svg) {
      this.svg = shape("svg", { role: "img" });
      this.plot.replaceChildren(this.svg, this.values);
      this.size = null;
    }
    const svg = this.svg;
    this.size ??= [this.plot.clientWidth, svg.clientHeight || 240];
    const [width, height] = this.size;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren(shape("title", {}, `${this.data.title} by ${this.data.x}`),
      shape("desc", {}, this.describe(visible)));
    const lines = visible.map((series) => ({ series, index: this.data.series.indexOf(series),
      points: smooth(series.points, series.kind === "validation" ? 0 : this.weight) }));
    this.setScale(lines, width, height);
    if (!this.scale) {
      svg.append(shape("text", { x: MARGIN.left, y: 40 }, "No value is above 0."));
      return;
    }
    this.drawAxes(svg);
    for (const line of lines) this.drawLine(svg, line);
    this.lines = lines;
    this.overlay = svg.appendChild(shape("g", {}));
    this.drawCursor();
    if (!this.numbers.hidden) this.fillTable();
  }

  describe(visible) {
    return visible.map(({ name, points }) => {
      const finite = points.filter(([, y]) => y !== null);
      if (!finite.length) return `${name.slice(0, 100)}: no finite value`;
      const [first, last] = [finite[0], finite.at(-1)];
      return `${name.slice(0, 100)}: from ${formatNumber(first[1])} at ${first[0]} to `
        + `${formatNumber(last[1])} at ${last[0]}`;
    }).join(". ");
  }

  setScale(lines, width, height) {
    const xs = lines.flatMap(({ points }) => [points[0][0], points.at(-1)[0]]);
    const bounds = [Math.min(...xs), Math.max(...xs)];
    if (!this.range) this.all = bounds;
    const [first, last] = this.range ?? bounds;
    let low = Infinity;
    let high = -Infinity;
    for (const { series, points } of lines) {
      for (const list of points === series.points ? [points] : [points, series.points]) {
        for (const [x, y] of list) {
          if (y === null || x < first || x > last || (this.log && y <= 0)) continue;
          if (y < low) low = y;
          if (y > high) high = y;
        }
      }
    }
    if (low > high) { if (this.log) { this.scale = null; return; } low = 0; high = 1; }
    if (low === high) {
      const room = Math.abs(low) * 0.1 || 1;
      if (this.log) { low /= 1.1; high *= 1.1; } else { low -= room; high += room; }
    }
    if (!this.log) { const room = (high - low) * 0.04; if (low < 0 || low - room > 0) low -= room; high += room; }
    this.scale = { first, last: last > first ? last : first + 1, low, high, width, height };
  }

  toX(pixel) {
    const { first, last, width } = this.scale;
    return first + (pixel - MARGIN.left) / (width - MARGIN.left - MARGIN.right) * (last - first);
  }

  placeX(x) {
    const { first, last, width } = this.scale;
    return MARGIN.left + (x - first) / (last - first) * (width - MARGIN.left - MARGIN.right);
  }

  placeY(y) {
    const { low, high, height } = this.scale;
    const share = this.log ? Math.log(y / low) / Math.log(high / low) : (y - low) / (high - low);
    return height - MARGIN.bottom - share * (height - MARGIN.top - MARGIN.bottom);
  }

  drawAxes(svg) {
    const { first, last, low, high, width, height } = this.scale;
    const count = height < 220 ? 4 : 5;
    const ys = this.log ? logTicks(low, high, count) : linearTicks(low, high, count, false);
    for (const y of ys) {
      const at = this.placeY(y);
      svg.append(shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }),
        shape("text", { x: MARGIN.left - 7, y: at, dy: ".35em", "text-anchor": "end" }, formatNumber(y, 4)));
    }
    for (const x of linearTicks(first, last, Math.max(2, Math.floor(width / 90)), true)) {
      const at = this.placeX(x);
      const anchor = at > width - 40 ? "end" : "middle";
      svg.append(shape("text", { x: at, y: height - MARGIN.bottom + 15, "text-anchor": anchor }, formatNumber(x, 9)));
    }
    svg.append(shape("text", { x: width - MARGIN.right, y: height - 3, "text-anchor": "end" }, this.data.x),
      shape("text", { x: 0, y: height - 3 }, this.data.y));
  }

  drawLine(svg, { series, index, points }) {
    const own = `series c${colorOf(series, index)} ${series.kind}`;
    if (points !== series.points) this.drawPath(svg, series.points, `${own} raw`);
    this.drawPath(svg, points, own);
    const inside = points.filter(([x]) => x >= this.scale.first && x <= this.scale.last);
    if (inside.length === 1 || (series.kind === "validation" && inside.length <= 60)) {
      for (const [x, y] of inside) {
        if (this.isDrawn(y)) svg.append(shape("circle", { class: `c${colorOf(series, index)}`, cx: this.placeX(x), cy: this.placeY(y), r: 2.5 }));
      }
    }
    for (const [x, y] of inside) {
      if (y !== null) continue;
      const at = this.placeX(x);
      svg.append(shape("path", { class: `gap c${colorOf(series, index)}`, d: `M${at - 3},${MARGIN.top - 8}l6,6m0,-6l-6,6` }));
    }
  }

  isDrawn(y) { return y !== null && (!this.log || y > 0); }

  drawPath(svg, points, classes) {
    let path = "";
    let pen = "M";
    for (const [x, y] of this.clip(points)) {
      if (!this.isDrawn(y)) { pen = "M"; continue; }
      path += `${pen}${this.placeX(x).toFixed(1)},${this.placeY(y).toFixed(1)}`;
      pen = "L";
    }
    if (path) svg.append(shape("path", { class: classes, d: path }));
  }

  /** Return the points within the scale, with interpolated ones at its ends. */
  clip(points) {
    const { first, last } = this.scale;
    const between = (a, b, x) => [x, a[1] === null || b[1] === null ? null : a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0])];
    const kept = [];
    points.forEach((point, n) => {
      const next = points[n + 1];
      if (point[0] >= first && point[0] <= last) kept.push(point);
      if (!next) return;
      if (point[0] < first && next[0] > first) kept.push(between(point, next, first));
      if (point[0] < last && next[0] > last) kept.push(between(point, next, last));
    });
    return kept;
  }

  drawCursor() {
    if (!this.overlay || !this.scale) return;
    this.overlay.replaceChildren();
    const { height, width } = this.scale;
    if (this.selection) {
      const [a, b] = this.selection.map((x) => this.placeX(x)).sort((x, y) => x - y);
      this.overlay.append(shape("rect", { class: "selection", x: a, y: MARGIN.top, width: b - a, height: height - MARGIN.top - MARGIN.bottom }));
    }
    this.values.hidden = this.at === null;
    if (this.at === null) return;
    const longest = this.lines.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
    const x = longest[nearest(longest, this.at)][0];
    const at = this.placeX(x);
    this.overlay.append(shape("line", { class: "cursor", x1: at, x2: at, y1: MARGIN.top, y2: height - MARGIN.bottom }));
    const rows = [element("div", {}, element("span", { class: "name" }, this.data.x), element("b", {}, formatNumber(x, 9)))];
    for (const { series, index, points } of this.lines) {
      const [px, y] = points[nearest(points, x)];
      if (this.isDrawn(y)) this.overlay.append(shape("circle", { class: `c${colorOf(series, index)}`, cx: this.placeX(px), cy: this.placeY(y), r: 3.5 }));
      const where = px === x ? "" : ` (at ${formatNumber(px, 9)})`;
      rows.push(element("div", { class: `c${colorOf(series, index)}` },
        element("span", { class: "name" }, series.name.slice(0, 100) + where), element("b", {}, formatNumber(y))));
    }
    this.values.replaceChildren(...rows);
    this.values.classList.toggle("right", at < width / 2);
    this.values.classList.toggle("left", at >= width / 2);
  }

  toggleTable() {
    this.numbers.hidden = !this.numbers.hidden;
    this.tableButton.setAttribute("aria-expanded", String(!this.numbers.hidden));
    if (!this.numbers.hidden) this.fillTable();
  }

  fillTable() {
    const rows = new Map();
    const visible = this.visible();
    const [first, last] = this.range ?? [-Infinity, Infinity];
    visible.forEach(({ points }, n) => {
      for (const [x, y] of points) {
        if (x < first || x > last) continue;
        if (!rows.has(x)) rows.set(x, Array(visible.length).fill(undefined));
        rows.get(x)[n] = y;
      }
    });
    const xs = [...rows.keys()].sort((a, b) => a - b);
    const every = Math.ceil(xs.length / MAX_ROWS);
    const head = element("tr", {}, ...[this.data.x, ...visible.map((one) => one.name.slice(0, 100))]
      .map((text) => element("th", { scope: "col", class: "n" }, text)));
    const body = xs.filter((_, n) => n % every === 0).map((x) => element("tr", {},
      element("td", { class: "n" }, formatNumber(x, 9)),
      ...rows.get(x).map((y) => element("td", { class: "n" }, y === undefined ? "" : formatNumber(y, 6)))));
    this.numbers.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
  }
}

/** Return the chart of a figure; it is made, and loads, when it is first needed. */
export function chartOf(figure) {
  if (!charts.has(figure)) {
    const chart = new Chart(figure);
    charts.set(figure, chart);
    chart.load();
  }
  return charts.get(figure);
}

/** Make a chart of each figure.chart[data-chart] within an element. */
export function buildCharts(within = document) {
  for (const figure of within.querySelectorAll("figure.chart[data-chart]")) chartOf(figure);
}

buildCharts();
