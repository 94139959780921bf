// The records of the chosen endpoint, live over a WebSocket, as whoever the page acts for sees them.

import { $, ask, inShort, make, plural, say, show, when } from "./dom.js";
import { Lines } from "./lines.js";
import { Live } from "./live.js";
import { act, request } from "./speak.js";
import { endpoints, onChange, onEvents, onFound, state } from "./state.js";

const NOBODY = { id: "nobody", label: "nobody, without token" };
const OWNER = { id: "owner", label: "owner: sees all, only reads" };

export const acting = { who: NOBODY, token: null };
export let users = []; // of all authentication endpoints

const live = new Live(() => draw());
let shownFor = ""; // endpoint, options and identity that the records are of
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
  slot.element.setAttribute("aria-label", `${record.uniqueId} ${data.textContent.slice(0, 80)}`);
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
    list.items = [...live.items.values()];
    list.draw();
    tell();
  });
}

export const chosenEndpoint = () => endpoints().find((endpoint) => endpoint.name === state.endpoint);

// How many there are, how the last socket ended, and why reading is refused, with what lifts it.
function tell() {
  const { items, ended, refusal, canRetry, pill } = live;
  [$("socket-state").textContent, $("socket-state").className] = [pill[0], `pill ${pill[1]}`];
  $("trouble").classList.toggle("refusal", refusal !== null);
  $("trouble").textContent = [ended, refusal?.message].filter(Boolean).join(" · ");
  $("again").hidden = !(canRetry || refusal);
  $("empty").hidden = items.size > 0;
  $("empty").className = refusal ? "empty refusal" : "empty";
  $("empty").textContent = refusal ? `Nothing to see: ${refusal.title ?? "no answer"}` : "No records.";
  $("records-title").textContent = state.endpoint ? `${state.endpoint}${refusal ? "" : ` · ${plural(items.size, "record")}`}` : "Records";
}

const begin = (isSame) => live.follow(chosenEndpoint(), { isOwner: acting.who === OWNER, token: acting.token }, isSame);

when($("again"), "click", () => (acting.token ? actFor(acting.who.id) : begin(true)));

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

onEvents((events) => live.hear(events, state.faults.some(({ kind }) => kind === "messages")));
onFound(() => live.again());

onChange(() => {
  showActing();
  showChips();
  follow();
  draw();
});
