// Faults: presets that somebody presses, one that somebody writes, and those that are on.

import { chosenEndpoint } from "./acting.js";
import { $, copy, inShort, make, plural, say, show, when } from "./dom.js";
import { doing, showChecked } from "./doing.js";
import { mistakeIn } from "./json.js";
import { ONCE, PRESETS } from "./presets.js";
import { act, asCurl, clear } from "./speak.js";
import { onChange, state } from "./state.js";
import { showTab } from "./tabs.js";

// Whom a call is to hit: all, the chosen endpoint, or one user.
function aimed({ verb = "faults", ...call }) {
  const [kind, name] = [$("target").value[0], $("target").value.slice(1)];
  if (kind === "@") call = { ...call, username: name };
  if (kind === "/" && verb === "faults") call = { ...call, endpoint: state.endpoint };
  return { ...(verb === "faults" ? {} : { verb }), ...call };
}

const written = (calls) => (calls.length === 1 ? JSON.stringify(calls[0]) : JSON.stringify(calls));

function read() {
  const mistake = mistakeIn($("fault").value);
  if (mistake) {
    $("fault").focus();
    $("fault").setSelectionRange(mistake.at, mistake.at + 1);
    throw new Error(mistake.words);
  }
  const calls = [JSON.parse($("fault").value)].flat();
  if (!calls.every((call) => call !== null && typeof call === "object")) throw new Error("A fault is an object, and several are a list of objects.");
  return calls;
}

const verbOf = ({ verb = "faults", ...args }) => [verb, args];

async function start(calls, name) {
  const told = [];
  for (const call of calls) {
    const [verb, args] = verbOf(call);
    told.push(whatItDid(args, await act(verb, args)));
  }
  const isForAll = $("target").value.startsWith("/") && calls.some(({ verb }) => verb);
  say(`${name ? `${name}: ` : ""}${told.join("; ")}${isForAll ? ", of everybody: a token belongs to no endpoint" : ""}.`, "good");
}

const strikes = (kind) => (kind === "messages" ? "strikes at the next message" : "strikes when somebody asks");

function whatItDid({ kind }, { id, sockets, expired, closed }) {
  if (expired !== undefined) return `${plural(expired, "token")} revoked, ${plural(closed, "socket")} closed with 1000`;
  if (sockets) return `Fault ${id}, ${kind}, hit ${plural(sockets, "open socket")}`;
  return ["abort", "close", "silence"].includes(kind) ? `Fault ${id}, ${kind}, found no open socket` : `Fault ${id}, ${kind}, ${strikes(kind)}`;
}

function buttonsFor(presets) {
  return Object.entries(presets).flatMap(([name, calls]) => {
    const button = make("button", { type: "button", text: name, title: written(calls) });
    doing(button, "click", () => {
      const those = calls.map(aimed);
      $("fault").value = written(those);
      return start(those, presets === PRESETS ? name : "");
    });
    if (presets === ONCE) return [button];
    const edit = make("button", { type: "button", class: "edit", text: "{}", "aria-label": `{} of ${name}, to see and edit` });
    edit.addEventListener("click", () => {
      $("fault").value = written(calls.map(aimed));
      $("fault").focus();
      $("fault").setSelectionRange(0, 0); // a long one is read from its beginning
    });
    return [make("span", { class: "pair" }, button, edit)];
  });
}

$("presets").append(...buttonsFor(PRESETS));
$("once").append(...buttonsFor(ONCE));
doing($("fault-form"), "submit", () => start(read()));
when($("copy-fault"), "click", () => copy("The call", read().map((call) => asCurl(...verbOf(call))).join("\n")));

// Latency is a fault of kind delay that never ends; there is at most the one that was set here.
const isLatency = (fault) => fault.kind === "delay" && fault.active && ["times", "endpoint", "method", "username", "for"].every((name) => fault[name] === undefined);
const latency = () => state.faults.find(isLatency);

for (const radio of document.querySelectorAll("[name=latency]")) {
  doing(radio, "change", async () => {
    const before = latency();
    if (before) await clear("faults", { id: before.id });
    if (radio.value !== "0") await act("faults", { kind: "delay", seconds: Number(radio.value) });
    say(radio.value === "0" ? "Answers come at once." : `Every answer waits ${radio.value} s from now on.`, "good");
  });
}

doing($("clear-faults"), "click", async () => {
  const { cleared } = await clear("faults");
  say(`${plural(cleared, "fault")} cleared; nothing goes wrong any more.`, "good");
});

$("active-faults").addEventListener("click", (event) => {
  event.preventDefault();
  showTab("trouble");
  $("trouble-title").focus();
});

function describe(fault) {
  const { id, kind, hits, active, times, began: _, ended: __, ...own } = fault;
  if (own.when === "before") delete own.when; // as it is unless it is said
  const struck = active && !hits ? strikes(kind) : `${active ? "on" : "over"}, ${plural(hits, "hit")}${times ? ` of ${times}` : ""}`;
  const rest = Object.keys(own).length ? [make("code", { class: "muted cut", text: inShort(own, 120), title: inShort(own) })] : [];
  return make("span", { class: "grow fault" }, make("span", { text: `${id}: ${kind} · ${struck}` }), ...rest);
}

function showTargets() {
  const names = [...new Set(state.people.map(({ name }) => name))];
  const endpoint = chosenEndpoint()?.name;
  show($("target"), JSON.stringify([names, endpoint]), () => {
    const before = $("target").value;
    const options = [["*", "all"], ...(endpoint ? [["/", `this endpoint, ${endpoint}`]] : []), ...names.map((name) => [`@${name}`, `the user ${name}`])];
    return options.map(([value, text]) => make("option", { value, text, selected: value === before }));
  });
}

onChange(() => {
  showTargets();
  const seconds = String(latency()?.seconds ?? (latency() ? 1 : 0));
  for (const radio of document.querySelectorAll("[name=latency]")) showChecked(radio, radio.value === seconds);
  const active = state.faults.filter((fault) => fault.active).length;
  $("active-faults").hidden = !active;
  $("active-faults").textContent = `${plural(active, "fault")} active`;
  $("clear-faults").disabled = !state.faults.length;
  show($("faults"), JSON.stringify(state.faults), () =>
    state.faults.map((fault) => {
      const word = fault.active ? "End" : "Forget";
      const end = make("button", { text: word, "aria-label": `${word} fault ${fault.id}` });
      doing(end, "click", () => clear("faults", { id: fault.id }));
      return make("li", {}, describe(fault), end);
    }),
  );
});
