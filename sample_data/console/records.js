// The records of the chosen endpoint as a grid: lines of JSON or a table, of which a text can be found.

import { actFor, acting, chosenEndpoint, onActing } from "./acting.js";
import { $, inShort, make, plural, say, show, when } from "./dom.js";
import { openEditor, watchEdited } from "./editor.js";
import { Lines } from "./lines.js";
import { Live } from "./live.js";
import { look, onView, view } from "./route.js";
import { act, request } from "./speak.js";
import { onChange, onEvents, onFound, onLost, refreshAnew, state } from "./state.js";
import { undo } from "./undo.js";

const MOST_COLUMNS = 30; // they are scrolled sideways where there is no room for all
const LOOKED_AT = 200; // records that tell which columns there are

const live = new Live(() => draw());
let shownFor = ""; // endpoint, options and identity that the records are of
let columns = null; // of a table
let current = null; // uniqueId of the row that the keys are at
let dirty = false;
let shown = 0; // records in the list, the last time
let place = 0; // of the row that the keys are at
let made = null; // uniqueId of a record that was made here, to be shown as soon as it is known

// Rows

function makeRow() {
  const id = make("span", { class: "id", role: "gridcell" });
  const data = make("span", { class: "data", role: "gridcell" });
  const at = make("span", { class: "at", role: "gridcell" });
  const slot = { id, data, time: at };
  // The record that the button was pressed at: until it is let go, the line may show another one.
  const press = () => (slot.pressed = slot.item.record);
  const remove = make("button", { class: "remove danger", tabIndex: -1, text: "Delete", onpointerdown: press, onclick: () => deleteRecord(slot.pressed ?? slot.item.record) });
  slot.remove = remove;
  slot.element = make("div", { role: "row", id: `row-${rows++}` }, id, data, at, make("span", { role: "gridcell" }, remove));
  return slot;
}
let rows = 0;

function fillRow(slot, item, index) {
  const { record } = item;
  const text = inShort(record.data);
  slot.id.textContent = record.uniqueId.slice(0, 8);
  slot.data.classList.toggle("cells", columns !== null);
  if (columns) fillCells(slot.data, record.data);
  else slot.data.textContent = text;
  slot.time.textContent = record.updatedAt.slice(0, 19).replace("T", " ");
  slot.remove.setAttribute("aria-label", `Delete ${record.uniqueId}`);
  slot.element.setAttribute("aria-label", `${record.uniqueId} ${text.slice(0, 80)}`);
  slot.element.setAttribute("aria-rowindex", index + 1);
  slot.element.setAttribute("aria-selected", String(record.uniqueId === current));
  slot.element.classList.toggle("fresh", performance.now() - item.at < 1000);
}

const isObject = (data) => data !== null && typeof data === "object" && !Array.isArray(data) && !JSON.isRawJSON?.(data);

// In the same elements as before, since a click counts only where it began and ended on one that stays.
function fillCells(parent, data) {
  if (parent.children.length !== columns.length) parent.replaceChildren(...columns.map(() => make("span", { class: "cut" })));
  columns.forEach(({ name }, at) => (parent.children[at].textContent = isObject(data) ? cellOf(data, name) : at ? "" : inShort(data)));
  parent.children[0].classList.toggle("whole", !isObject(data));
}

function cellOf(data, name) {
  const value = Object.hasOwn(Object(data), name) ? data[name] : undefined;
  return value === undefined ? "" : typeof value === "string" ? value : inShort(value, 100);
}

const list = new Lines($("records"), { make: makeRow, fill: fillRow });

// The members that most objects share are columns; where there is none it stays lines. Each with its width in letters,
// in steps, so that a table does not stir at every new record.
const WIDTHS = [4, 8, 12, 16, 24, 32];

function widthOf(name, objects) {
  const lengths = objects.map((data) => (isObject(data[name]) || Array.isArray(data[name]) ? 16 : cellOf(data, name).length));
  const longest = Math.max(name.length, ...lengths);
  return WIDTHS.find((width) => width >= longest) ?? WIDTHS.at(-1);
}

function columnsOf(items) {
  const objects = items.slice(0, LOOKED_AT).map(({ record }) => record.data).filter(isObject);
  const count = new Map();
  for (const data of objects) for (const name of Object.keys(data)) count.set(name, (count.get(name) ?? 0) + 1);
  const names = [...count.keys()].filter((name) => count.get(name) * 2 >= objects.length);
  const most = names.slice(0, MOST_COLUMNS).map((name) => ({ name, width: widthOf(name, objects) }));
  return most.length ? most : null;
}

// At most so often, since it is asked in every frame while records pour in.
function columnsNow() {
  const [first] = live.items.values();
  if (performance.now() - looked > 300 || first !== lookedAt) [possible, looked, lookedAt] = [columnsOf([...live.items.values()]), performance.now(), first];
  return possible;
}
let [possible, looked, lookedAt] = [null, 0, null];

// Finding

const textOf = (item) => {
  if (item.textOf !== item.record) [item.textOf, item.text] = [item.record, `${item.record.uniqueId} ${JSON.stringify(item.record.data)}`.toLowerCase()];
  return item.text;
};

// Write the texts of many records before somebody looks for one, while nothing else is to be done.
let warmed = null;
function warm(deadline) {
  for (const item of live.items.values()) {
    textOf(item);
    if (deadline.timeRemaining() < 1) return requestIdleCallback(warm);
  }
}

function found() {
  if (warmed !== live.items && live.items.size > LOOKED_AT) globalThis.requestIdleCallback?.(warm);
  warmed = live.items;
  const all = [...live.items.values()];
  const wanted = view.find.toLowerCase();
  return wanted ? all.filter((item) => textOf(item).includes(wanted)) : all;
}

// Show what is known in the next frame, and not again before.
function draw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(drawNow);
}

function drawNow() {
  dirty = false;
  const items = found();
  const follows = list.isAtEnd && items.length > shown && shown > 0;
  list.items = items;
  shown = items.length;
  const possible = columnsNow();
  showColumns(view.isTable ? possible : null);
  $("view").disabled = !possible && !view.isTable;
  $("view").setAttribute("aria-pressed", String(view.isTable));
  list.drawNow();
  if (follows) list.reveal(items.at(-1));
  // Where the row is deleted that the keys are at, they go on from the next one.
  if (current && !live.items.has(current)) setCurrent(document.activeElement === $("records") ? items[Math.min(place, items.length - 1)] : null);
  if (made) showMade(items);
  tell(items.length);
  if (live.run?.isRead) watchEdited(live.items);
}

// Show a record that was made here, wherever in the list it is.
export function showRecord(uniqueId) {
  made = uniqueId;
  draw();
}

function showMade(items) {
  if (!live.items.has(made)) return;
  const item = items.find(({ record }) => record.uniqueId === made);
  if (item) setCurrent(item);
  else say(`Created ${made}, which has not the text that is looked for.`, "good");
  made = null;
}

function showColumns(wanted) {
  if (JSON.stringify(wanted) === JSON.stringify(columns)) return;
  columns = wanted;
  $("columns").hidden = !columns;
  const least = columns?.map(({ width }) => Math.min(width, 16)) ?? [];
  $("records").style.setProperty("--least", columns ? `${least.reduce((sum, one) => sum + one + 2, 42)}ch` : "0");
  $("records").style.setProperty("--columns", columns?.map(({ width }, at) => `minmax(${least[at]}ch, ${width}fr)`).join(" ") ?? "none");
  const cell = (text, name) => make("span", { class: name, role: "columnheader", text });
  $("columns").replaceChildren(...(columns ? [cell("uniqueId", "id"), make("span", { class: "data cells" }, ...columns.map(({ name }) => cell(name, "cut"))), cell("updatedAt", "at"), cell("", "last")] : []));
  list.measure();
}

function whyEmpty(isKnown) {
  if (!state.endpoint) return "No endpoint is chosen.";
  if (!isKnown) return "Reading …";
  return live.items.size ? "No record has this text." : "No records. “New record” makes one; “Use it …” shows how an app does.";
}

// How many there are, how the last socket ended, and why reading is refused, with what lifts it.
function tell(count) {
  const { items, ended, refusal, canRetry, pill } = live;
  [$("socket-state").textContent, $("socket-state").className] = [pill[0], `pill ${pill[1]}`];
  $("trouble").classList.toggle("refusal", refusal !== null);
  $("trouble").textContent = [ended, refusal?.title ?? refusal?.message].filter(Boolean).join(" · ");
  $("again").hidden = !(canRetry || refusal);
  $("empty").hidden = count > 0;
  $("empty").className = refusal ? "empty refusal" : "empty";
  const isKnown = live.run?.isRead || items.size > 0;
  $("empty").textContent = refusal ? `Nothing to see: ${refusal.title ?? "no answer"}` : whyEmpty(isKnown);
  if (refusal) $("empty").append(make("small", { text: refusal.hint ?? refusal.message }));
  const counted = view.find ? `${count} of ${plural(items.size, "record")}` : plural(items.size, "record");
  $("records-of").textContent = state.endpoint ?? "Records";
  $("records-count").textContent = state.endpoint && !refusal && isKnown ? ` · ${counted}` : "";
  $("records").setAttribute("aria-rowcount", count);
}

// Following

const begin = (isSame) => live.follow(chosenEndpoint(), acting(), isSame);

when($("again"), "click", () => (acting().token ? actFor(acting().id) : begin(true)));

// What a change of status means for the records on show.
function follow() {
  const endpoint = chosenEndpoint();
  const { records: _, listeners: __, description: ___, ...options } = endpoint ?? {};
  const { id, token } = acting();
  const subject = JSON.stringify([endpoint?.name, endpoint?.key, id, token]);
  const wanted = JSON.stringify([subject, options, state.project?.allowedOrigins, state.project?.disallowNoOrigin]);
  if (wanted === shownFor) return;
  const isSame = shownFor !== "" && JSON.parse(shownFor)[0] === subject;
  shownFor = wanted;
  if (!isSame) {
    setCurrent(null);
    [shown, made, $("records").scrollTop] = [0, null, 0];
  }
  begin(isSame);
}

function showChips() {
  const endpoint = chosenEndpoint();
  const kind = endpoint?.authentication ? "authentication" : endpoint?.secure ? "secure" : "open";
  const chips = endpoint ? [[kind === "open" ? "open to everyone" : kind, kind]] : [];
  const others = endpoint?.secure && !endpoint.authentication ? ["Read", "Update", "Delete"].filter((what) => endpoint[`othersCan${what}`]) : [];
  if (others.length) chips.push([`others ${others.join(", ").toLowerCase()}`, ""]);
  show($("chips"), JSON.stringify(chips), () => chips.map(([text, tone]) => make("span", { class: `chip ${tone}`, text })));
  $("new-record").disabled = !endpoint;
}

// Keys

const at = () => list.items.findIndex(({ record }) => record.uniqueId === current);

function setCurrent(item) {
  current = item?.record.uniqueId ?? null;
  place = at();
  if (item) list.reveal(item);
  list.edition++;
  list.drawNow();
  const element = item && list.elementOf(item);
  if (element) $("records").setAttribute("aria-activedescendant", element.id);
  else $("records").removeAttribute("aria-activedescendant");
}

const STEPS = {
  ArrowDown: (index) => index + 1,
  ArrowUp: (index) => index - 1,
  PageDown: (index) => index + Math.floor(list.height / list.row),
  PageUp: (index) => index - Math.floor(list.height / list.row),
  Home: () => 0,
  End: () => list.items.length - 1,
};

$("records").addEventListener("keydown", (event) => {
  if (event.target !== $("records") || event.ctrlKey || event.metaKey || event.altKey) return;
  const { items } = list;
  const index = at();
  if (STEPS[event.key]) setCurrent(items[Math.max(0, Math.min(items.length - 1, STEPS[event.key](index)))]);
  else if (event.key === "Enter" && items[index]) openEditor(items[index]);
  else if (event.key === "Delete" && items[index]) deleteRecord(items[index].record);
  else return;
  event.preventDefault();
});

$("records").addEventListener("focus", () => {
  if (current === null && list.items.length && $("records").matches(":focus-visible")) setCurrent(list.items[0]);
});

$("records").addEventListener("click", ({ target }) => {
  const slot = list.slots.find(({ element }) => element.contains(target));
  if (!slot || target.closest("button")) return;
  setCurrent(slot.item);
  openEditor(slot.item);
});

// Changing

export async function deleteRecord({ uniqueId }) {
  const endpoint = chosenEndpoint();
  const { isOwner, token } = acting();
  try {
    if (isOwner) await act("delete-record", { endpoint: endpoint.name, uniqueId });
    else await request(endpoint, { method: "DELETE", uniqueId, token });
    say(`Deleted ${uniqueId}.`, "good", undo(`delete ${uniqueId}`, `${uniqueId} is back.`));
  } catch (error) {
    say(error.message, "bad");
  }
  await refreshAnew();
}

$("new-record").addEventListener("click", () => openEditor(null));
$("find").addEventListener("input", () => look({ find: $("find").value }));
$("find").addEventListener("keydown", ({ key }) => key === "ArrowDown" && $("records").focus());
$("view").addEventListener("click", () => look({ isTable: !view.isTable }));
onView(() => {
  if ($("find").value !== view.find) $("find").value = view.find;
  draw();
});
$("find").value = view.find;

onEvents((events) => live.hear(events, state.faults.some(({ kind }) => kind === "messages")));
onLost(() => live.lose());
onFound(() => live.again());
onActing(follow);
onChange(() => {
  showChips();
  follow();
  draw();
});
