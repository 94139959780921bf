// Draws a Story: a lane for each client, its sockets as lines, and across all lanes what happened to everybody.

const SVG = "http://www.w3.org/2000/svg";
const MINUTE = 60; // seconds
const LEAST = 20; // are shown, until there is a minute of something to see
const REACH = 12; // pixels within which something is pointed at
const LETTER = 0.56; // of the size of the text, about
const IN_ORDER = 6; // lanes that stand in the order of their names; of more, those of clients that fell out stand first
const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];

// One style for the page and for a copied picture, which has to bring its own.
export const STYLE = `
.timeline { --ground: #fff; --ink: #18202b; --soft: #5a6675; --rule: #d5dbe3; --live: #1f8a4c; --left: #7b8797; --ended: #b26a00;
  --lost: #c4291f; --heard: #2257c4; --band: #b26a00; color-scheme: light dark; font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
@media (prefers-color-scheme: dark) { .timeline { --ground: #161b22; --ink: #e4e9f0; --soft: #a3b0c1; --rule: #38424f; --live: #4fc27f;
  --left: #8b98a9; --ended: #f0b755; --lost: #ff8077; --heard: #8fb4ff; --band: #f0b755; } }
.timeline text { fill: var(--ink); white-space: pre; }
.timeline .soft { fill: var(--soft); }
.timeline .ground { fill: var(--ground); }
.timeline path, .timeline line { fill: none; stroke-width: 1; }
.timeline .rule { stroke: var(--rule); }
.timeline .socket { stroke-width: 4; stroke: var(--live); }
.timeline .tail { stroke-width: 4; }
.timeline .left { stroke: var(--left); } .timeline .ended { stroke: var(--ended); } .timeline .lost { stroke: var(--lost); }
.timeline .open { stroke: var(--live); stroke-width: 3; }
.timeline .cross { stroke-width: 3; }
.timeline .away { stroke: var(--lost); stroke-width: 2; stroke-dasharray: 2 4; }
.timeline .refused { stroke: var(--lost); stroke-width: 3; }
.timeline .heard { stroke: var(--heard); stroke-linecap: round; stroke-width: 9; }
.timeline .halo { stroke: var(--ground); stroke-linecap: round; stroke-width: 12; }
.timeline .missed { stroke: var(--lost); stroke-linecap: round; stroke-width: 11; }
.timeline .hole { stroke: var(--ground); stroke-linecap: round; stroke-width: 6; }
.timeline .read { stroke: var(--heard); stroke-width: 3; }
.timeline text.lost-word { fill: var(--lost); stroke: none; } .timeline text.ended-word { fill: var(--ended); stroke: none; }
.timeline text.left-word { fill: var(--soft); } .timeline text.open-word { fill: var(--live); }
.timeline .band-outage { fill: var(--lost); opacity: 0.16; } .timeline .band-fault { fill: var(--band); opacity: 0.16; }
.timeline .edge { stroke: var(--band); stroke-dasharray: 5 3; } .timeline .edge-outage { stroke: var(--lost); }
.timeline .jump { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 1 3; }
.timeline .ring { stroke: var(--ink); stroke-width: 2; fill: none; }
`;

function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
}

function draw(tag, properties, ...children) {
  const element = document.createElementNS(SVG, tag);
  set(element, properties);
  element.append(...children);
  return element;
}

const round = (number) => Math.round(number * 10) / 10;

// Where everything is for so many lanes and so much room.
function layOut(story, { width, from, to, size }) {
  const lanes = [...story.lanes.values()].filter((lane) => isSeen(lane, from, to));
  lanes.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  const fellOut = ({ told }) => [...told.values()].some((away) => (away.to ?? to) >= from && away.from <= to);
  if (lanes.length > IN_ORDER) lanes.sort((one, other) => fellOut(other) - fellOut(one));
  const gutter = Math.min(width * 0.25, Math.max(5, ...lanes.map(({ name }) => name.length)) * size * LETTER + 16);
  const scale = (width - gutter) / (to - from);
  const places = new Map();
  let y = size * 2.9;
  for (const lane of lanes) {
    const rows = 1 + Math.max(0, ...lane.sockets.filter((socket) => (socket.to ?? to) >= from).map(({ row }) => row));
    const height = size * (1.9 + 0.85 * rows);
    places.set(lane, { top: y, height, at: (row = 0) => y0(row) });
    const start = y + size * 1.85;
    const y0 = (row) => round(start + Math.min(row, 5) * size * 0.85);
    y += height;
  }
  const x = (moment) => round(gutter + (moment - from) * scale);
  return { width, from, to, size, gutter, scale, lanes, places, bottom: y + size * 0.4, x };
}

const isSeen = ({ sockets, marks, told }, from, to) =>
  sockets.some((socket) => socket.from <= to && (socket.to ?? to) >= from) ||
  marks.some(({ at }) => at >= from && at <= to) ||
  [...told.values()].some((away) => away.to === null || (away.from <= to && away.to >= from));

// A text, unless one that was written before stands there.
class Writer {
  constructor(size) {
    this.size = size;
    this.taken = new Map(); // by line
  }

  write(x, y, text, name, { anchor = "start", left = 0, right = Infinity, small = 0.92 } = {}) {
    const length = text.length * this.size * small * LETTER;
    const begin = anchor === "middle" ? x - length / 2 : anchor === "end" ? x - length : x;
    if (begin < left || begin + length > right) return [];
    const spans = this.taken.get(y) ?? [];
    if (spans.some(([one, other]) => begin < other + 4 && begin + length + 4 > one)) return [];
    this.taken.set(y, [...spans, [begin, begin + length]]);
    return [draw("text", { x: round(x), y: round(y), class: name, "text-anchor": anchor, "font-size": round(this.size * small) }, text)];
  }

  // To the right of a line, or to the left of it where there is no room.
  writeBeside(x, y, text, name, { gutter, width }) {
    const written = this.write(x + 4, y, text, name, { right: width });
    return written.length ? written : this.write(x - 4, y, text, name, { anchor: "end", left: gutter });
  }
}

function drawAxis(story, plan, writer) {
  const { from, to, size, scale, bottom, x, gutter, width } = plan;
  const step = STEPS.find((each) => each * scale > size * LETTER * 14) ?? STEPS.at(-1);
  const parts = [];
  for (const { at, name } of story.jumps(from, to)) {
    parts.push(draw("path", { class: "jump", d: `M${x(at)} 0V${bottom}` }));
    parts.push(...writer.writeBeside(x(at), size, name, "", plan));
  }
  const { clock, at: since } = story.moments.at(-1) ?? { clock: 0, at: 0 };
  const first = (clock - since + from) % step; // so that they stand at whole minutes of the clock as it is now
  for (let at = from + step - first; at <= to; at += step) {
    parts.push(draw("path", { class: "rule", d: `M${x(at)} ${round(size * 1.25)}V${bottom}` }));
    parts.push(...writer.write(x(at), size, story.clockAt(at), "soft", { anchor: "middle", left: gutter, right: width }));
  }
  return parts;
}

function drawBands(story, plan, writer) {
  const { from, to, size, bottom, x, gutter, lanes, places } = plan;
  const parts = [];
  for (const band of story.bands(from, to)) {
    const lane = lanes.find(({ name }) => name === band.lane);
    const [top, height] = lane ? [places.get(lane).top, places.get(lane).height] : [size * 1.4, bottom - size * 1.4];
    const [left, right] = [x(Math.max(band.from, from)), x(Math.min(band.to, to + (to - from)))];
    const outage = band.tone === "outage" ? " edge-outage" : "";
    if (!band.atOnce) parts.push(draw("rect", { class: `band-${band.tone}`, x: left, y: round(top), width: round(Math.max(1, right - left)), height: round(height) }));
    parts.push(draw("path", { class: `edge${outage}`, d: `M${x(band.from)} ${round(top)}v${round(height)}${band.to > to ? "" : `M${right} ${round(top)}v${round(height)}`}` }));
    parts.push(...writer.writeBeside(Math.max(left, gutter), size * 2.4, band.name, outage ? "lost-word" : "ended-word", plan));
  }
  for (const { at, name, hit } of story.flags(from, to)) {
    // What ended the sockets of one alone stands beside their end already.
    if (hit.size < 2 && lanes.length > 1) continue;
    parts.push(draw("path", { class: "edge", d: `M${x(at)} ${round(size * 1.4)}V${bottom}` }));
    parts.push(...writer.writeBeside(x(at), size * 2.4, `⚑ ${name}`, "ended-word", plan));
  }
  return parts;
}

// What is the same in a lane is one path, so that a thousand messages are a few elements.
function drawLane(story, lane, plan, writer) {
  const { from, to, size, x, places, gutter } = plan;
  const { at: y } = places.get(lane);
  const half = size * 0.55;
  const parts = [];
  for (const away of lane.told.values()) {
    if ((away.to ?? to) < from || away.from > to) continue;
    const [left, right] = [x(Math.max(away.from, from)), x(away.to ?? to + (to - from))];
    parts.push(draw("path", { class: "away", d: `M${left} ${y(away.row)}H${right}` }));
  }
  const ends = [];
  for (const socket of lane.sockets) {
    if (socket.from > to || (socket.to ?? to) < from) continue;
    const [left, right, line] = [x(Math.max(socket.from, from - 1)), x(socket.to ?? to + (to - from)), y(socket.row)];
    parts.push(draw("path", { class: "socket", d: `M${left} ${line}H${right}` }));
    if (socket.from >= from) parts.push(draw("path", { class: "open", d: `M${left} ${line - half}v${round(2 * half)}` }));
    if (!socket.close) continue;
    const { word, tone } = story.endOf(socket);
    const tail = Math.max(left, right - size * 0.8);
    parts.push(draw("path", { class: `tail ${tone}`, d: `M${round(tail)} ${line}H${right}` }));
    ends.push(draw("path", { class: `cross ${tone}`, d: `M${right - half} ${line - half}l${2 * half} ${2 * half}m0 ${-2 * half}l${-2 * half} ${2 * half}` }));
    const middle = Math.min(right, plan.width - (word.length * size * 0.85 * LETTER) / 2);
    ends.push(...writer.write(middle, line - size * 0.9, word, `${tone}-word`, { anchor: "middle", left: gutter, small: 0.85 }));
  }
  const dots = { heard: "", missed: "", refused: "", read: "" };
  for (const { at, row, kind, label } of [lane.marks, ...[...lane.told.values()].map(({ marks }) => marks)].flat()) {
    if (at < from || at > to) continue;
    const [left, line] = [x(at), y(row)];
    if (kind === "refused") dots.refused += `M${left} ${round(line - half)}v${round(2 * half)}`;
    else if (kind === "read") dots.read += `M${left + size * 0.2} ${round(line + size * 0.75)}l${round(size * 0.25)} ${round(size * 0.3)}l${round(size * 0.5)} ${round(-size * 0.65)}`;
    else dots[kind] += `M${left} ${line}h0`;
    if (label && label !== "outage") ends.push(...writer.write(left, line - size * 0.9, label.split(" ")[0] === "missed" ? label : label.split(" ")[0], "lost-word", { anchor: "middle", left: gutter, small: 0.8 }));
  }
  if (dots.heard) parts.push(draw("path", { class: "halo", d: dots.heard }), draw("path", { class: "heard", d: dots.heard }));
  parts.push(...ends);
  if (dots.missed) parts.push(draw("path", { class: "missed", d: dots.missed }), draw("path", { class: "hole", d: dots.missed }));
  if (dots.refused) parts.push(draw("path", { class: "refused", d: dots.refused }));
  if (dots.read) parts.push(draw("path", { class: "read", d: dots.read }));
  // Last, where there is room: how long it took, and that somebody is back.
  for (const { from: since, to: until, row } of lane.told.values()) {
    if (until === null || until < from || until > to) continue;
    const text = `away ${until - since < 9.95 ? (until - since).toFixed(1) : Math.round(until - since)} s`;
    parts.push(...writer.write((x(since) + x(until)) / 2, y(row) - size * 0.9, text, "lost-word", { anchor: "middle", left: Math.max(gutter, x(since)), right: x(until) - size * 1.6, small: 0.85 }));
    parts.push(...writer.write(x(until), y(row) - size * 0.9, "back", "open-word", { anchor: "middle", small: 0.85 }));
  }
  return parts;
}

const LEGEND = [
  ["connected", (x, y) => [draw("path", { class: "socket", d: `M${x} ${y}h16` })]],
  ["ended", (x, y) => [draw("path", { class: "cross lost", d: `M${x + 3} ${y - 5}l10 10m0 -10l-10 10` })]],
  ["away", (x, y) => [draw("path", { class: "away", d: `M${x} ${y}h16` })]],
  ["try refused", (x, y) => [draw("path", { class: "refused", d: `M${x + 8} ${y - 6}v12` })]],
  ["change heard", (x, y) => [draw("path", { class: "heard", d: `M${x + 8} ${y}h0` })]],
  ["change missed", (x, y) => [draw("path", { class: "missed", d: `M${x + 8} ${y}h0` }), draw("path", { class: "hole", d: `M${x + 8} ${y}h0` })]],
  ["read again", (x, y) => [draw("path", { class: "read", d: `M${x + 2} ${y}l4 5l8 -10` })]],
];

function drawLegend(y, width, size) {
  const parts = [];
  let x = 4;
  let line = y + size;
  for (const [text, sign] of LEGEND) {
    const length = 22 + text.length * size * 0.92 * LETTER + 14;
    if (x + length > width && x > 4) [x, line] = [4, line + size * 1.6];
    parts.push(...sign(x, round(line - 4)), draw("text", { x: x + 22, y: round(line), class: "soft", "font-size": round(size * 0.92) }, text));
    x = round(x + length);
  }
  return { parts, bottom: line + size * 0.6 };
}

// Everything that is right of the names, between two moments.
function drawAll(story, plan) {
  const writer = new Writer(plan.size);
  const [axis, bands] = [drawAxis(story, plan, writer), drawBands(story, plan, writer)];
  return [...bands, ...axis, ...plan.lanes.flatMap((lane) => drawLane(story, lane, plan, writer))];
}

const nameTag = (lane, { places, size, gutter }) => {
  const most = Math.floor((gutter - 10) / (size * LETTER));
  const shown = lane.name.length > most ? `${lane.name.slice(0, most - 1)}…` : lane.name;
  return draw("text", { x: 6, y: round(places.get(lane).at(0) + size * 0.35), "font-size": size, "font-weight": 600 }, shown);
};

// A picture as a text of its own, with names and legend, in the colours of whoever looks at it.
export function picture(story, { from, to, width = 1000, size = 13 }) {
  const margin = Math.max(0.5, (to - from) * 0.03);
  const plan = layOut(story, { width, from: from - margin, to: to + margin, size });
  const legend = drawLegend(plan.bottom + size * 0.8, width, size);
  const height = Math.ceil(legend.bottom + size * 0.4);
  const inside = `inside-${Math.round(plan.gutter)}`;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "timeline", role: "img" },
    draw("title", {}, "Timeline: who was connected, who fell out, and what they missed"),
    draw("desc", {}, story.sentences().join(" ")),
    draw("style", {}, STYLE),
    draw("clipPath", { id: inside }, draw("rect", { x: plan.gutter, y: 0, width: width - plan.gutter, height })),
    draw("rect", { class: "ground", width, height }),
    draw("g", { "clip-path": `url(#${inside})` }, ...drawAll(story, plan)),
    ...plan.lanes.map((lane) => nameTag(lane, plan)),
    ...legend.parts,
  );
  return new XMLSerializer().serializeToString(svg);
}

let strips = 0;

// The picture of what is going on, which runs along. `onChoose` is told the number of the event that was clicked.
export class Strip {
  constructor(box, story, { size = 12, onWords = () => {}, onChoose = () => {} } = {}) {
    Object.assign(this, { box, story, size, onWords, onChoose, length: MINUTE, right: null, began: null, item: null, wanted: null });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    this.clip = draw("rect", { y: 0 });
    this.clipAxis = draw("rect", { x: 0, y: 0, height: size * 1.2 }); // whose times leave as whole words
    const id = `strip-${++strips}`;
    this.moving = draw("g", {});
    this.ring = draw("circle", { class: "ring", r: 9, visibility: "hidden" });
    this.names = draw("g", {});
    this.legend = draw("svg", { class: "timeline", "aria-hidden": "true" });
    this.svg = draw("svg", { class: "timeline", role: "group", "aria-label": "Timeline" },
      draw("clipPath", { id }, this.clip, this.clipAxis), draw("g", { "clip-path": `url(#${id})` }, this.moving), this.names);
    box.replaceChildren(this.svg);
    box.after(this.legend);
    this.listen();
    new ResizeObserver(() => this.redraw()).observe(box);
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    requestAnimationFrame(() => this.run());
  }

  // Now, in seconds of the emulator's uptime; it is told with the state, and late rather than early.
  setNow(uptime) {
    const began = uptime - performance.now() / 1000;
    this.began = this.began === null || Math.abs(began - this.began) > 1 ? began : Math.max(began, this.began);
  }

  get now() {
    return this.began === null ? this.story.last : this.began + performance.now() / 1000;
  }

  // What is seen, the moments at the left and at the right.
  get seen() {
    const to = this.right ?? this.now;
    const filled = Math.max(LEAST, (to - this.story.firstEvent) * 1.1);
    return { from: to - (this.length === MINUTE ? Math.min(MINUTE, filled || LEAST) : this.length), to };
  }

  pause(isPaused) {
    this.right = isPaused ? this.now : null;
    this.redraw();
  }

  zoom(length) {
    this.length = length;
    this.redraw();
  }

  // Draw anew in the next frame, however often it is asked for.
  redraw() {
    this.isStale = true;
    if (this.wanted) this.chooseEvent(this.wanted);
  }

  // Move on by whole pixels, so that an idle minute costs a few frames of a second; a hidden page has none.
  run() {
    requestAnimationFrame(() => this.run());
    const { from, to } = this.seen;
    const length = this.plan?.to - this.plan?.from;
    if (!this.plan || this.isStale || from - this.plan.from > length * 0.05 || to - from > length * 1.02) return this.drawNow();
    const step = this.calm.matches ? this.plan.scale : 1;
    const moved = Math.floor(((from - this.plan.from) * this.plan.scale) / step) * step;
    if (moved !== this.moved) this.moving.setAttribute("transform", `translate(${-(this.moved = moved)} 0)`);
  }

  drawNow() {
    const width = this.box.clientWidth;
    if (!width) return;
    this.isStale = false;
    const plan = layOut(this.story, { width, ...this.seen, size: this.size });
    Object.assign(this, { plan, moved: 0 });
    const height = Math.ceil(plan.bottom);
    set(this.svg, { width, height, viewBox: `0 0 ${width} ${height}` });
    set(this.clipAxis, { width });
    set(this.clip, { x: round(plan.gutter), width: round(width - plan.gutter), height });
    this.moving.replaceChildren(...drawAll(this.story, plan), this.ring);
    this.moving.removeAttribute("transform");
    this.drawNames();
    this.placeRing();
    if (width === this.width) return;
    this.width = width;
    const { parts, bottom } = drawLegend(0, width, this.size);
    set(this.legend, { width, height: Math.ceil(bottom), viewBox: `0 0 ${width} ${Math.ceil(bottom)}` });
    this.legend.replaceChildren(...parts);
  }

  // Names stay as long as they are the same, and so does the focus.
  drawNames() {
    const key = this.plan.lanes.map((lane) => `${lane.name} ${this.plan.places.get(lane).top}`).join("\n") + this.plan.gutter;
    if (key === this.named) return;
    this.named = key;
    const focused = this.tags?.find(({ tag }) => tag === document.activeElement)?.lane;
    this.tags = this.plan.lanes.map((lane) => {
      const { top, height } = this.plan.places.get(lane);
      const tag = draw("g", { tabindex: 0, role: "button", "aria-label": `${lane.name}: walk along with the arrow keys, choose with Enter` },
        draw("rect", { class: "ground", x: 0, y: round(top), width: round(this.plan.gutter - 4), height: round(height), opacity: 0 }), nameTag(lane, this.plan));
      tag.addEventListener("keydown", (event) => this.walk(lane, event));
      return { tag, lane };
    });
    this.names.replaceChildren(...this.tags.map(({ tag }) => tag));
    if (focused) this.tags.find(({ lane }) => lane === focused)?.tag.focus();
  }

  walk(lane, event) {
    if (event.key === "Escape") return this.choose(null);
    if ((event.key === "Enter" || event.key === " ") && this.item) {
      event.preventDefault();
      return this.onChoose(this.item.event);
    }
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    const items = this.story.itemsOf(lane, this.seen.from, this.seen.to);
    const isChosen = ({ at, kind, event }) => at === this.item.at && kind === this.item.kind && event === this.item.event;
    const at = this.item?.lane === lane ? items.findIndex(isChosen) : step > 0 ? -1 : items.length;
    const next = Math.min(items.length - 1, Math.max(0, at + step));
    this.choose(items[next] ? { ...items[next], lane } : null);
  }

  // Point at something, and say it in words.
  choose(item) {
    this.item = item;
    this.onWords(item ? `${this.story.clockAt(item.at)} ${item.words}.`.replace("..", ".") : "");
    this.placeRing();
  }

  // Point at what the activity tells of, if it is seen here.
  chooseEvent(number) {
    this.wanted = null;
    for (const lane of this.story.lanes.values()) {
      const item = this.story.itemsOf(lane, -Infinity, Infinity).find(({ event }) => event === number);
      if (item) return this.choose({ ...item, lane });
    }
    this.wanted = number; // the activity may know of it earlier
    return this.choose(null);
  }

  placeRing() {
    const place = this.item && this.plan?.places.get(this.item.lane);
    this.ring.setAttribute("visibility", place ? "visible" : "hidden");
    if (!place) return;
    this.ring.setAttribute("cx", this.plan.x(this.item.at));
    this.ring.setAttribute("cy", place.at(this.item.row));
  }

  // What is under the pointer: the nearest of its lane, or else the band.
  find(event) {
    const bounds = this.svg.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    if (!this.plan || x < this.plan.gutter) return null;
    const moment = this.plan.from + (x + (this.moved ?? 0) - this.plan.gutter) / this.plan.scale;
    const lane = this.plan.lanes.find((one) => {
      const { top, height } = this.plan.places.get(one);
      return y >= top && y < top + height;
    });
    if (!lane) return null;
    const reach = REACH / this.plan.scale;
    const near = this.story.itemsOf(lane, moment - reach, moment + reach);
    near.sort((one, other) => Math.abs(one.at - moment) - Math.abs(other.at - moment));
    if (near.length) return { ...near[0], lane };
    const state = this.story.stateOf(lane, moment);
    const band = this.story.bands(moment, moment).find((one) => !one.atOnce && (one.lane === null || one.lane === lane.name));
    if (!state && !band) return null;
    const words = [state?.words, band?.words].filter(Boolean).join(". ");
    return { row: 0, event: null, kind: "band", ...state, at: moment, words, lane };
  }

  listen() {
    let drag = null;
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button === 0) drag = { x: event.clientX, right: this.right ?? this.now, moved: false };
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (!drag) return this.choose(this.find(event));
      const moved = event.clientX - drag.x;
      if (!drag.moved && Math.abs(moved) < 5) return;
      if (!drag.moved) this.svg.setPointerCapture(event.pointerId);
      drag.moved = true;
      this.right = Math.min(this.now, drag.right - moved / this.plan.scale);
      this.onDrag?.();
      this.redraw();
    });
    this.svg.addEventListener("pointerup", (event) => {
      const isClick = drag && !drag.moved;
      drag = null;
      const item = isClick && this.find(event);
      if (!item) return;
      this.choose(item);
      if (item.event !== null) this.onChoose(item.event);
    });
    this.svg.addEventListener("pointercancel", () => (drag = null));
    this.svg.addEventListener("pointerleave", () => drag || this.svg.contains(document.activeElement) || this.choose(null));
  }
}
