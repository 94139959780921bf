// Requests, messages and ends of sockets as they happen, each refusal with its rule and what lifts it.

import { $, inShort, make, plural, say, when } from "./dom.js";
import { Lines } from "./lines.js";
import { clear } from "./speak.js";
import { onChange, onEvents, state } from "./state.js";

const MOST = 500;

const all = []; // the latest lines, those that the filters hide too
let held = null; // what came since it was paused
let chosen = null;

function makeLine() {
  const parts = Object.fromEntries(["time", "badge", "where", "what"].map((name) => [name, make("span", { class: `${name} cut` })]));
  return { element: make("li", {}, ...Object.values(parts)), parts };
}

function fillLine({ element, parts }, line) {
  element.dataset.tone = line.tone;
  element.classList.toggle("chosen", line.event === chosen);
  for (const name of ["time", "badge", "where", "what"]) {
    parts[name].textContent = line[name] ?? "";
    parts[name].hidden = line.tone === "why" && name !== "what";
  }
  const recovery = line.tone === "close" && state.recoveries.get(line.event.number);
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

function userOf(event) {
  const user = state.listeners.find((listener) => event.to.includes(listener.number))?.user;
  return user?.username ? ` ${user.username}` : "";
}

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
    return withReasons({ ...line, badge: "open", what: `${listenersOf(event)}${userOf(event)} listens`, tone: toneOf(event, "socket") });
  }
  if (event.type === "CLOSE") {
    const what = `${event.to.length ? `${listenersOf(event)} ` : ""}${event.code} ${event.reason}`;
    return withReasons({ ...line, badge: "close", what, tone: event.code === 4000 ? "refusal" : "close" });
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

function isWanted({ tone, event }) {
  if ($("only-refusals").checked) return ["refusal", "warning", "why"].includes(tone);
  if (event.method) return $("show-requests").checked;
  return $(event.type === "OPEN" || event.type === "CLOSE" ? "show-sockets" : "show-messages").checked;
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
  const text = JSON.stringify(event, null, 2);
  const whole = text.length > 20000 ? `${text.slice(0, 20000)} …` : text;
  box.replaceChildren(make("h3", { text: title }), ...reasons.map((text) => make("p", { text })), make("pre", { text: whole }));
  box.scrollTop = 0;
}

function choose(line) {
  chosen = line?.event ?? null;
  list.edition++;
  list.draw();
  if (line) showDetail(line.event);
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
}

let told = "";
onChange(() => {
  const now = JSON.stringify([...state.recoveries.values()]);
  if (now === told) return;
  told = now;
  list.edition++;
  list.draw();
});

for (const id of ["show-requests", "show-messages", "show-sockets", "only-refusals"]) $(id).addEventListener("change", filter);

$("log").addEventListener("click", (event) => {
  const slot = list.slots.find(({ element }) => element.contains(event.target));
  if (slot) choose(slot.item.event === chosen ? null : slot.item);
});

$("log").addEventListener("keydown", (event) => {
  const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (event.key === "Escape") choose(null);
  if (!step) return;
  event.preventDefault();
  const lines = list.items.filter(({ tone }) => tone !== "why");
  const at = lines.findIndex((line) => line.event === chosen);
  const next = lines[at < 0 ? lines.length - 1 : Math.min(lines.length - 1, Math.max(0, at + step))];
  if (!next) return;
  choose(next);
  list.reveal(next);
});

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
  list.set([]);
}

onEvents(take);
