// Requests, messages and ends of sockets as they happen, each refusal with its rule and what lifts it.

import { liveToken } from "./acting.js";
import { $, copy, inShort, make, plural, say, when } from "./dom.js";
import { Lines } from "./lines.js";
import { clear } from "./speak.js";
import { onChange, onEvents, onFound, showOwn, state } from "./state.js";

const MOST = 500;
const FILTERS = ["show-requests", "show-messages", "show-sockets", "only-refusals", "show-own"];
const KEPT = "rested-emulator-activity"; // where the filters are kept over a reload
const PLAIN = [1001, 1005]; // codes of a close that is no trouble

const all = []; // the latest lines, those that the filters hide too
let held = null; // what came since it was paused
let chosen = null;

function makeLine() {
  const parts = Object.fromEntries(["time", "badge", "where", "what"].map((name) => [name, make("span", { class: `${name} cut` })]));
  return { element: make("li", {}, ...Object.values(parts)), parts };
}

function fillLine({ element, parts }, line) {
  const recovery = line.badge === "close" && state.recoveries.get(line.event.number);
  // Who closes with 1000 and no reason has said goodbye, unless the emulator was told to.
  element.dataset.tone = line.tone === "close" && line.event.code === 1000 && !line.event.reason && !recovery ? "socket" : line.tone;
  element.classList.toggle("chosen", line.event === chosen);
  for (const name of ["time", "badge", "where", "what"]) {
    parts[name].textContent = line[name] ?? "";
    parts[name].hidden = line.tone === "why" && name !== "what";
  }
  element.classList.toggle("away", Boolean(recovery) && recovery.back === null);
  if (recovery) parts.what.textContent += ` · ${recovered(recovery)}`;
}

// How the client of a closed socket came back, or that it did not.
function recovered({ back, after, attempts, more = 0, token, read, missed }) {
  const tried = plural(attempts.length + more, "try", "tries");
  const missing = missed ? `, missed ${plural(missed, "message")}` : "";
  if (back === null) return `not back, ${tried}${missing}`;
  const carried = token === "none" ? "no token" : `${token} token`;
  return `back after ${after.toFixed(1)} s, ${tried}, ${carried}${missing}, ${read ? "read again" : "not read again"}`;
}

const list = new Lines($("log"), { make: makeLine, fill: fillLine, latestFirst: true, most: MOST });

const listenersOf = (event) => (event.to.length > 6 ? `${event.to.length} listeners` : event.to.map((number) => `#${number}`).join(" ") || "nobody");

const names = new Map(); // of users, by the numbers of their sockets

// Whose socket it is, of an end too, which tells only its number.
function userOf({ type, to: [number], username }) {
  if (type === "OPEN") names.set(number, username);
  if (names.size > MOST) names.delete(names.keys().next().value);
  const name = username ?? names.get(number);
  return name ? `${isolated(name)} ` : "";
}

// Where a name is written from right to left, what follows it must not change places with it.
const isolated = (name) => (/[^\u0000-\u058f]/.test(name) ? `\u2068${name}\u2069` : name);

// The lines that tell of one event, in the order in which they come to stand below each other from the bottom up.
function linesOf(event) {
  const line = { event, time: event.at.slice(11, 19), where: event.endpoint };
  if (event.method) {
    const faults = event.faults.length ? ` · fault ${event.faults.join(", ")}` : "";
    const took = event.seconds < 1 ? `${Math.round(event.seconds * 1000)} ms` : `${event.seconds.toFixed(1)} s`;
    const what = `${event.status ?? "no answer"}${event.refusal ? ` ${event.refusal.message}` : ""} · ${took}${faults}`;
    const refused = event.refusal !== null || event.status === null;
    return withReasons({ ...line, badge: event.method, what, tone: refused ? "refusal" : toneOf(event, "request") });
  }
  if (event.type === "OPEN") {
    return withReasons({ ...line, badge: "open", what: `${listenersOf(event)} ${userOf(event)}listens`, tone: toneOf(event, "socket") });
  }
  if (event.type === "CLOSE") {
    const what = `${event.to.length ? `${listenersOf(event)} ` : ""}${userOf(event)}${event.code} ${event.reason}`;
    return withReasons({ ...line, badge: "close", what, tone: event.code === 4000 ? "refusal" : PLAIN.includes(event.code) ? "socket" : "close" });
  }
  const count = Array.isArray(event.record) ? event.record.map((record) => record.data) : event.record.data;
  return [{ ...line, badge: `→ ${event.type}`, what: `to ${listenersOf(event)}: ${inShort(count, 200)}`, tone: "message" }];
}

// What is served, but hardly as it was meant, stands out like a refusal does.
const toneOf = (event, usual) => (event.warnings?.length ? "warning" : usual);

const reasonsOf = (event) => [event.refusal?.hint ?? event.hint, ...(event.warnings ?? [])].filter(Boolean);

function withReasons(line) {
  return [...reasonsOf(line.event).map((what) => ({ event: line.event, what, tone: "why" })).reverse(), line];
}

function isWanted(line) {
  const { tone, event } = line;
  const wanted = $("find-activity").value.toLowerCase();
  if (wanted && !textOf(event).includes(wanted)) return false;
  if ($("only-refusals").checked) return ["refusal", "warning", "why"].includes(tone);
  if (event.method) return $("show-requests").checked;
  return $(event.type === "OPEN" || event.type === "CLOSE" ? "show-sockets" : "show-messages").checked;
}

const texts = new WeakMap(); // of events, to be found
function textOf(event) {
  if (!texts.has(event)) texts.set(event, JSON.stringify(event).toLowerCase());
  return texts.get(event);
}

function take(events) {
  if (held) {
    held = [...held, ...events].slice(-MOST);
    $("pause").textContent = `Go on (${held.length})`;
    return;
  }
  const lines = events.slice(-MOST).flatMap(linesOf);
  all.push(...lines);
  if (all.length > MOST) all.splice(0, all.length - MOST);
  list.add(lines.filter(isWanted));
  tellEmpty();
  const refusal = lines.findLast(({ tone }) => tone === "refusal" || tone === "warning");
  if (refusal && !chosen) showDetail(refusal.event);
}

function showDetail(event) {
  const box = $("detail");
  const reason = event.refusal?.message ?? event.reason;
  const reasons = reasonsOf(event);
  box.classList.toggle("refusal-detail", reasons.length > 0);
  const title = event.method
    ? `${event.method} ${event.endpoint} · ${event.status ?? "no answer"} ${reason ?? ""}`
    : `${event.type} ${event.endpoint} ${event.code ? `· ${event.code} ${reason}` : ""}`;
  const buttons = !event.method ? [] : event.method === "WEBSOCKET" ? [copier("WebSocket", asSocket(event))] : [copier("curl", asCurl(event)), copier("fetch", asFetch(event))];
  const parts = partsOf(event).flatMap(([name, value]) => [make("h4", { text: name }), make("pre", { text: pretty(value) })]);
  box.replaceChildren(make("h3", { text: title }), ...reasons.map((text) => make("p", { text })), make("div", { class: "buttons" }, ...buttons), ...parts);
  box.hidden = false;
  box.scrollTop = 0;
}

function pretty(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return text.length > 20000 ? `${text.slice(0, 20000)} …` : text;
}

// What there is to read of an event: the body of a request and its answer, the data of a message, and the rest.
function partsOf({ body, answer, record, ...rest }) {
  const parts = [["Body", body === "" ? undefined : body], ["Answer", answer === "" ? undefined : answer], ["Record", record], ["Seen", rest]];
  return parts.filter(([, value]) => value !== undefined && value !== null);
}

// A request as somebody could send it again; of tokens only the one that this page has now goes along.
const LEFT_OUT = /^(host|connection|content-length|origin|referer|user-agent|authorization|cookie|accept.*|sec-.*|cache-control|pragma|upgrade.*|from)$/i;

function again({ url, headers, body }) {
  const hadToken = /[?&]accessToken=/.test(url) || Object.keys(headers ?? {}).some((name) => /^authorization$/i.test(name));
  const token = hadToken ? liveToken() : null;
  const kept = Object.entries(headers ?? {}).filter(([name]) => !LEFT_OUT.test(name));
  if (token) kept.push(["Authorization", `Bearer ${token}`]);
  const path = url.replace(/([?&])accessToken=[^&]*&?/, "$1").replace(/[?&]$/, "");
  const data = body === null || body === undefined || body === "" ? undefined : typeof body === "string" ? body : JSON.stringify(body);
  return { url: new URL(path, location.origin).href, headers: kept, data, token };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function asCurl(event) {
  const { url, headers, data } = again(event);
  const parts = [`curl -X ${event.method} ${quoted(url)}`, ...headers.map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`)];
  return [...parts, ...(data === undefined ? [] : [`--data-raw ${quoted(data)}`])].join(" \\\n  ");
}

function asFetch(event) {
  const { url, headers, data } = again(event);
  return `await fetch(${JSON.stringify(url)}, ${JSON.stringify({ method: event.method, headers: Object.fromEntries(headers), body: data }, null, 2)})`;
}

// A handshake, which a browser can give no header: its token goes in the address.
function asSocket(event) {
  const { url, token } = again(event);
  const address = `${url.replace(/^http/, "ws")}${token ? `&accessToken=${token}` : ""}`;
  return `const socket = new WebSocket(${JSON.stringify(address)});\nsocket.onmessage = (message) => console.log(message.data);`;
}

const copier = (name, text) => make("button", { text: `Copy as ${name}`, onclick: () => copy(`This request as ${name}`, text) });

function choose(line) {
  chosen = line?.event ?? null;
  list.edition++;
  list.draw();
  if (line) showDetail(line.event);
  else $("detail").hidden = true;
  document.dispatchEvent(new CustomEvent("activity-choose", { detail: line?.event.number ?? null }));
}

document.addEventListener("timeline-choose", ({ detail }) => {
  const line = list.items.find(({ event, tone }) => event.number === detail && tone !== "why");
  if (!line) return;
  choose(line);
  list.reveal(line);
});

function filter() {
  list.set(all.filter(isWanted));
  tellEmpty();
}

function tellEmpty() {
  const why = all.length ? "Nothing of what happened passes the filters." : "Nothing has happened yet. Each request, message and socket is told here.";
  $("no-log").textContent = list.items.length ? "" : why;
}

let told = "";
onChange(() => {
  const now = JSON.stringify([...state.recoveries.values()]);
  if (now === told) return;
  told = now;
  list.edition++;
  list.draw();
});

function keep() {
  const checked = Object.fromEntries(FILTERS.map((id) => [id, $(id).checked]));
  sessionStorage.setItem(KEPT, JSON.stringify({ ...checked, find: $("find-activity").value }));
  filter();
}

const { find = "", ...checked } = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
for (const [id, isChecked] of Object.entries(checked)) $(id).checked = isChecked;
$("find-activity").value = find;
tellEmpty();
showOwn($("show-own").checked);
for (const id of FILTERS) $(id).addEventListener("change", keep);
$("find-activity").addEventListener("input", keep);
$("show-own").addEventListener("change", () => {
  forget();
  showOwn($("show-own").checked);
});

$("log").addEventListener("click", (event) => {
  const slot = list.slots.find(({ element }) => element.contains(event.target));
  if (slot) choose(slot.item.event === chosen ? null : slot.item);
});

$("log").addEventListener("keydown", (event) => {
  const step = { ArrowUp: 1, ArrowDown: -1, Home: Infinity, End: -Infinity }[event.key];
  if (event.key === "Escape") choose(null);
  if (event.key === "Enter" && chosen) $("detail").focus();
  if (!step) return;
  event.preventDefault();
  const lines = list.items.filter(({ tone }) => tone !== "why");
  const at = lines.findIndex((line) => line.event === chosen);
  const next = lines[Math.min(lines.length - 1, Math.max(0, (at < 0 ? lines.length : at) + step))];
  if (!next) return;
  choose(next);
  list.reveal(next);
});

$("detail").addEventListener("keydown", ({ key }) => key === "Escape" && $("log").focus());

$("pause").addEventListener("click", () => {
  const events = held;
  held = held ? null : [];
  $("pause").setAttribute("aria-pressed", String(held !== null));
  $("pause").textContent = held ? "Go on (0)" : "Pause";
  if (events) take(events);
});

when($("clear-log"), "click", async () => {
  await Promise.all([clear("requests"), clear("messages"), clear("recoveries")]);
  forget();
  say("The log is empty; the emulator has forgotten what it saw.");
});

export function forget() {
  all.length = 0;
  held &&= [];
  chosen = null;
  filter();
}

onFound(forget);
onEvents(take);
