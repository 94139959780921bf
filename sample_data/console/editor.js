// The editor of one record: a dialog with one textbox, which loses nothing that somebody has written.

import { acting, chosenEndpoint } from "./acting.js";
import { $, ask, say } from "./dom.js";
import { mistakeIn } from "./json.js";
import { deleteRecord, showRecord } from "./records.js";
import { putRecord, request } from "./speak.js";
import { state } from "./state.js";

const LONG = 50000; // characters that are not wrapped, and not laid out member by member: lines take a browser long
const MOST_LINES = 2000;
const MOST_OF_THEIRS = 20000; // characters of another's text that are shown beside the own

let editing = null; // the item, null for a new record
let initial = "";
let base = null; // the record that the text began with, or that was looked at since
let endpoint = null; // which Back may leave meanwhile
let isSaving = false;

const dialog = $("editor");
const area = $("editor-data");
const kind = () => dialog.querySelector("[name=kind]:checked").value;
const textOf = (data) => (typeof data === "string" && kind() === "text" ? data : laidOut(data));

function laidOut(data) {
  const text = JSON.stringify(data);
  if (text.length < LONG) return JSON.stringify(data, null, 2);
  const [open, close] = [text[0], text.at(-1)];
  const parts = open === "{" ? Object.entries(data).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`) : open === "[" ? data.map((value) => JSON.stringify(value)) : [];
  return parts.length && parts.length < MOST_LINES ? `${open}\n  ${parts.join(",\n  ")}\n${close}` : text;
}

export function openEditor(item) {
  editing = item;
  base = item?.record ?? null;
  endpoint = chosenEndpoint();
  const sample = endpoint.authentication ? { username: "eve", password: "elder" } : { text: "hello" };
  const data = item ? base.data : sample;
  dialog.querySelector(`[value=${typeof data === "string" ? "text" : "json"}]`).checked = true;
  $("editor-title").textContent = item ? `Record ${base.uniqueId}` : `New record of ${state.endpoint}`;
  $("editor-delete").hidden = !item;
  $("theirs").hidden = true;
  dialog.showModal();
  setText(textOf(data));
  if (!item) area.select(); // the sample is there to be written over
}

function setText(text) {
  initial = text;
  area.wrap = text.length > LONG ? "off" : "soft";
  area.value = text;
  area.setSelectionRange(0, 0);
  area.scrollTop = 0;
  area.focus();
  fail("");
}

const fail = (text) => ($("editor-error").textContent = text);

async function leave() {
  const isLost = area.value !== initial;
  if (isLost && !(await ask("What you wrote is not saved.", "Discard", "Keep editing"))) return area.focus();
  dialog.close();
}

// Tell where the text stops being JSON, and put the cursor there.
function isRight() {
  if (kind() === "text") return true;
  const mistake = mistakeIn(area.value);
  if (!mistake) return true;
  fail(mistake.words);
  area.focus();
  area.setSelectionRange(mistake.at, mistake.at + 1);
  return false;
}

async function save() {
  if (isSaving || !isRight()) return;
  setSaving(true);
  try {
    const record = await send(area.value, kind() === "text");
    dialog.close();
    say(`${editing ? "Saved" : "Created"} ${record.uniqueId}.`, "good");
    if (!editing) showRecord(record.uniqueId);
  } catch (error) {
    fail(error.message);
  } finally {
    setSaving(false);
  }
}

function setSaving(isIt) {
  isSaving = isIt;
  dialog.classList.toggle("busy", isIt);
  dialog.ariaBusy = String(isIt);
}

function send(text, isText) {
  const { isOwner, token } = acting();
  if (isOwner) return putRecord(endpoint, isText ? JSON.stringify(text) : text, base?.uniqueId);
  const change = editing ? { method: "PUT", uniqueId: base.uniqueId } : { method: "POST" };
  return request(endpoint, { ...change, text, type: isText ? "text/plain" : "application/json", token });
}

// Show beside the own text what somebody else made of the record meanwhile.
export function watchEdited(items) {
  if (!dialog.open || !editing || isSaving || endpoint.name !== state.endpoint) return;
  const record = items.get(base.uniqueId)?.record ?? null;
  if (record && JSON.stringify(record.data) === JSON.stringify(base.data)) return ($("theirs").hidden = true);
  $("theirs").hidden = false;
  $("theirs-what").textContent = record ? "Somebody else has changed it to:" : "Somebody else has deleted it. Save makes a new record of what stands here.";
  $("editor-delete").hidden = !record;
  $("theirs-data").textContent = record ? textOf(record.data).slice(0, MOST_OF_THEIRS) : "";
  $("theirs-data").hidden = !record;
  $("take-theirs").hidden = $("keep-mine").hidden = !record;
  if (!record) return (editing = base = null);
  $("take-theirs").onclick = () => decide(record, true);
  $("keep-mine").onclick = () => decide(record, false);
}

function decide(record, isTheirs) {
  base = record;
  $("theirs").hidden = true;
  if (isTheirs) setText(textOf(record.data));
  else area.focus();
}

$("editor-form").addEventListener("submit", (event) => {
  event.preventDefault();
  save();
});
$("editor-cancel").addEventListener("click", leave);
$("editor-delete").addEventListener("click", async () => {
  if (area.value !== initial && !(await ask("What you wrote is not saved, and Undo brings back only the record.", "Delete", "Keep editing"))) return;
  dialog.close();
  deleteRecord(base);
});
addEventListener("beforeunload", (event) => dialog.open && area.value !== initial && event.preventDefault()); // then the browser asks
area.addEventListener("input", () => $("editor-error").textContent && fail(""));
dialog.addEventListener("cancel", (event) => event.preventDefault());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    event.preventDefault(); // the browser asks nobody at the second Escape
    leave();
  } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    save();
  }
});
