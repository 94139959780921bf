// The records of the chosen endpoint, live over a WebSocket, as whoever the page acts for sees them.

import { $, ask, inShort, make, plural, say, show, when } from "./dom.js";
import { Lines } from "./lines.js";
import { act, address, look, request } from "./speak.js";
import { endpoints, onChange, onEvents, pause, state } from "./state.js";

const NOBODY = { id: "nobody", label: "nobody, without token" };
const OWNER = { id: "owner", label: "owner: sees all, only reads" };

export const acting = { who: NOBODY, token: null };
export let users = []; // of all authentication endpoints

const known = new Map(); // records by uniqueId, in the order of creation
let socket = null;
let shownFor = ""; // endpoint, options and identity that the records are of
let ended = "";
let refusal = "";
let title = ""; // of the refusal
let editing = null;

function makeLine() {
  const id = make("small");
  const data = make("span", { class: "cut grow" });
  const at = make("small");
  const slot = { parts: { id, data, at } };
  const edit = make("button", { class: "edit", onclick: () => openEditor(slot.item) }, id, data, at);
  const remove = make("button", { class: "remove danger", text: "Delete", onclick: () => deleteRecord(slot.item) });
  return Object.assign(slot, { edit, remove, element: make("li", {}, edit, remove) });
}

function fillLine(slot, { record, at }) {
  const name = record.uniqueId.slice(0, 8);
  const { id, data, at: time } = slot.parts;
  id.textContent = name;
  data.textContent = inShort(record.data);
  time.textContent = record.updatedAt.slice(0, 19).replace("T", " ");
  slot.edit.setAttribute("aria-label", `Edit record ${name}: ${data.textContent.slice(0, 80)}`);
  slot.remove.setAttribute("aria-label", `Delete record ${name}`);
  slot.element.classList.toggle("fresh", performance.now() - at < 1000);
}

const list = new Lines($("records"), { make: makeLine, fill: fillLine });
let dirty = false;

// Show what is known in the next frame, and not again before.
function draw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(() => {
    dirty = false;
    list.items = [...known.values()];
    list.draw();
    tell();
    $("empty").hidden = known.size > 0;
    $("empty").className = refusal ? "empty refusal" : "empty";
    $("empty").textContent = refusal ? `Nothing to see: ${title}` : "No records.";
    $("records-title").textContent = state.endpoint ? `${state.endpoint}${refusal ? "" : ` · ${plural(known.size, "record")}`}` : "Records";
  });
}

function put(record, isNew = true) {
  const item = known.get(record.uniqueId);
  if (item) Object.assign(item, { record, at: performance.now(), version: item.version + 1 });
  else known.set(record.uniqueId, { record, at: isNew ? performance.now() : -1e9, version: 0 });
}

export const chosenEndpoint = () => endpoints().find((endpoint) => endpoint.name === state.endpoint);

// How the last socket ended, and why reading is refused, with what lifts it.
function tell() {
  $("trouble").classList.toggle("refusal", refusal !== "");
  $("trouble").textContent = [ended, refusal].filter(Boolean).join(" · ");
}

function setPill(text, tone) {
  $("socket-state").textContent = text;
  $("socket-state").className = `pill ${tone}`;
}

async function read(endpoint) {
  if (acting.who === OWNER) return look("records", { endpoint: endpoint.name });
  const found = await request(endpoint, { token: acting.token });
  return Array.isArray(found) ? found : [found];
}

// Begin anew. Where only options changed, how the socket before came to its end goes on being told.
async function begin(isSame = false) {
  const endpoint = chosenEndpoint();
  const old = socket;
  socket = null;
  if (old) {
    old.onmessage = old.onopen = null;
    old.onclose = ({ code, reason }) => isSame && code !== 1005 && noteEnd(code, reason);
    if (isSame) setTimeout(() => old.close(), 1000);
    else old.close();
  }
  if (!isSame) ended = "";
  $("again").hidden = true;
  if (!endpoint) {
    known.clear();
    setPill("–", "");
    return draw();
  }
  if (acting.who !== OWNER) listen(endpoint);
  await reload(endpoint);
}

async function reload(endpoint) {
  const mine = shownFor;
  try {
    const records = await read(endpoint);
    if (mine !== shownFor) return;
    known.clear();
    for (const record of records) put(record, false);
    refusal = "";
    if (acting.who === OWNER) setPill("by the control interface", "");
  } catch (error) {
    if (mine !== shownFor) return;
    known.clear();
    refusal = error.message;
    title = error.title ?? "no answer";
    $("again").hidden = false;
  }
  list.edition++;
  draw();
}

function noteEnd(code, reason) {
  const text = `closed with ${code}${reason ? ` ${reason}` : ""}`;
  ended = code === 4000 && ended ? `${ended.replace(/, a new one .*/, "")}, a new one ${text}` : `Socket ${text}`;
  tell();
}

function listen(endpoint, wait = 500) {
  const mine = shownFor;
  setPill("connecting …", "");
  const own = (socket = new WebSocket(address(endpoint, { socket: true, accessToken: acting.token, from: "console" })));
  own.onopen = () => {
    wait = 500;
    setPill("listening", "good");
  };
  own.onmessage = (message) => {
    const { type, record } = JSON.parse(message.data);
    for (const one of Array.isArray(record) ? record : [record]) {
      if (type === "DELETE") known.delete(one.uniqueId);
      else put(one);
    }
    draw();
  };
  own.onclose = async ({ code, reason }) => {
    setPill(`closed ${code}`, code === 1000 ? "warn" : "bad");
    noteEnd(code, reason);
    await reload(endpoint);
    if (mine !== shownFor || own !== socket) return;
    if (code === 4000 || reason === "Access token expired.") {
      $("again").hidden = false;
      return;
    }
    await pause(wait);
    if (mine === shownFor && own === socket) listen(endpoint, Math.min(5000, wait * 2));
  };
}

when($("again"), "click", () => (acting.token ? actFor(acting.who.id) : begin()));

// What a change of status means for the records on show.
function follow() {
  const endpoint = chosenEndpoint();
  const { records: _, listeners: __, description: ___, ...options } = endpoint ?? {};
  const subject = JSON.stringify([endpoint?.name, endpoint?.key, acting.who.id, acting.token]);
  const wanted = JSON.stringify([subject, options, state.project?.allowedOrigins, state.project?.disallowNoOrigin]);
  if (wanted === shownFor) return;
  const isSame = shownFor !== "" && JSON.parse(shownFor)[0] === subject;
  shownFor = wanted;
  begin(isSame);
}

function showChips() {
  const endpoint = chosenEndpoint();
  const kind = endpoint?.authentication ? "authentication" : endpoint?.secure ? "secure" : "open";
  const chips = endpoint ? [[kind, kind]] : [];
  if (endpoint?.secure && !endpoint.authentication)
    for (const what of ["Read", "Update", "Delete"]) if (endpoint[`othersCan${what}`]) chips.push([`others ${what.toLowerCase()}`, ""]);
  show($("chips"), JSON.stringify(chips), () => chips.map(([text, tone]) => make("span", { class: `chip ${tone}`, text })));
  $("description").textContent = endpoint?.description || (endpoint ? "No description." : "Add an endpoint to begin.");
  $("new-record").disabled = !endpoint || acting.who === OWNER;
  $("new-record").textContent = endpoint?.authentication ? "New user" : "New record";
}

// Who the page acts for

function showActing() {
  const choices = [NOBODY, OWNER, ...users.map((user) => ({ id: `${user.endpoint}/${user.uniqueId}`, label: `${user.name} · ${user.endpoint}` }))];
  show($("acting"), JSON.stringify(choices), () => choices.map(({ id, label }) => make("option", { value: id, text: label })));
  $("acting").value = acting.who.id;
}

export async function actFor(id) {
  const user = users.find((one) => `${one.endpoint}/${one.uniqueId}` === id);
  const who = id === OWNER.id ? OWNER : user ? { id, label: user.name } : NOBODY;
  try {
    acting.token = user ? (await act("sign-in", { endpoint: user.endpoint, username: user.name })).token : null;
    acting.who = who;
    say(user ? `Logged in as ${user.name}; requests and sockets of this page carry the token.` : `Acting as ${who.label}.`, "good");
  } finally {
    showActing();
  }
  showChips();
  follow();
}

when($("acting"), "change", () => actFor($("acting").value));

// A user without a name that could log in is not offered.
export function setUsers(found) {
  users = found;
  showActing();
}

// Create, edit, delete

function openEditor(item) {
  editing = item?.record ?? null;
  $("editor-title").textContent = editing ? `Record ${editing.uniqueId}` : `New record of ${state.endpoint}`;
  const sample = chosenEndpoint()?.authentication ? { username: "eve", password: "elder" } : { text: "hello" };
  $("editor-data").value = JSON.stringify(editing ? editing.data : sample, null, 2);
  $("editor-error").textContent = "";
  $("editor-delete").hidden = !editing;
  $("editor-save").textContent = editing ? "Save" : "Create";
  $("editor").showModal();
}

async function deleteRecord({ record }) {
  try {
    await request(chosenEndpoint(), { method: "DELETE", uniqueId: record.uniqueId, token: acting.token });
    say(`Deleted ${record.uniqueId}.`, "good");
    if (socket?.readyState !== WebSocket.OPEN) await reload(chosenEndpoint());
  } catch (error) {
    say(error.message, "bad");
  }
}

$("new-record").addEventListener("click", () => openEditor(null));
$("editor-cancel").addEventListener("click", () => $("editor").close());
$("editor-delete").addEventListener("click", () => {
  $("editor").close();
  deleteRecord({ record: editing });
});

$("editor-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const change = editing ? { method: "PUT", uniqueId: editing.uniqueId } : { method: "POST" };
  try {
    const record = await request(chosenEndpoint(), { ...change, text: $("editor-data").value, token: acting.token });
    $("editor").close();
    say(`${editing ? "Saved" : "Created"} ${record.uniqueId}.`, "good");
    if (socket?.readyState !== WebSocket.OPEN) await reload(chosenEndpoint());
  } catch (error) {
    $("editor-error").textContent = error.message;
  }
});

export async function askToDeleteEndpoint() {
  const endpoint = chosenEndpoint();
  if (!endpoint || !(await ask(`Delete ${endpoint.name} with ${plural(endpoint.records, "record")}, for good?`))) return;
  const { deleted, closed } = await act("delete-endpoint", { name: endpoint.name });
  say(`${endpoint.name} is gone, with ${plural(deleted, "record")}; ${plural(closed, "socket")} closed with 1000.`, "good");
}

// The owner has no socket: what was pushed says when to look.
onEvents((events) => {
  const endpoint = chosenEndpoint();
  if (acting.who === OWNER && endpoint && events.some((event) => event.type && event.endpoint === endpoint.name)) reload(endpoint);
});

onChange(() => {
  showActing();
  showChips();
  follow();
  draw();
});
