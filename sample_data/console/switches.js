// The switches. Each says what it did: how many sockets closed, what is refused from now on.

import { $, ask, inShort, make, plural, say, show, when } from "./dom.js";
import { forget } from "./activity.js";
import { askToDeleteEndpoint, chosenEndpoint } from "./records.js";
import { act, clear, loadData, saveData } from "./speak.js";
import { choose, onChange, refresh, state } from "./state.js";

const OPTIONS = {
  secure: "secure",
  authentication: "authentication endpoint",
  othersCanRead: "others can read",
  othersCanUpdate: "others can update",
  othersCanDelete: "others can delete",
};
const EXAMPLE_ORIGIN = "https://app.example"; // which is no page of this machine

const closing = (closed) => (closed ? `; ${plural(closed, "socket")} closed with 1000` : "; no socket was open");

// Let an action be followed by a look at what it changed.
function doing(element, event, action) {
  when(element, event, async (happening) => {
    try {
      await action(happening);
    } finally {
      await refresh();
    }
  });
}

const project = (changes) => act("change-project", { project: state.project.key, ...changes });

for (const [option, words] of Object.entries(OPTIONS)) {
  doing($(option), "change", async () => {
    const on = $(option).checked;
    const { closed } = await act("change-endpoint", { name: state.endpoint, [option]: on });
    say(`${state.endpoint}: ${words} is ${on ? "on" : "off"}${closing(closed)}.`, "good");
  });
}

doing($("change-options"), "click", async () => {
  const { closed } = await act("change-endpoint", { name: state.endpoint });
  say(`Options of ${state.endpoint} are saved${closing(closed)}.`, "good");
});
doing($("delete-endpoint"), "click", askToDeleteEndpoint);
doing($("new-endpoint"), "submit", async () => {
  const name = $("new-endpoint-name").value.trim();
  await act("change-endpoint", { name });
  $("new-endpoint-name").value = "";
  say(`${name} is there, open to everyone.`, "good");
  await refresh();
  choose(name);
});

async function saveOrigins(origins) {
  const { closed } = await project({ allowedOrigins: origins });
  const allowed = origins.length ? `only ${origins.join(", ")} ${origins.length === 1 ? "is" : "are"} allowed` : "every origin is allowed";
  say(`Now ${allowed}${closing(closed)}.`, "good");
}

doing($("origins-form"), "submit", () => saveOrigins($("origins").value.split(/[\s,]+/).filter(Boolean)));
doing($("refuse-page"), "click", () => saveOrigins([EXAMPLE_ORIGIN]));
doing($("allow-all"), "click", () => saveOrigins([]));
doing($("disallowNoOrigin"), "change", async () => {
  const on = $("disallowNoOrigin").checked;
  const { closed } = await project({ disallowNoOrigin: on });
  say(`Requests without origin are ${on ? "refused" : "served"}${closing(closed)}.`, "good");
});

doing($("expire"), "click", async () => {
  const { expired, closed } = await act("expire-tokens");
  say(`${plural(expired, "token")} expired${closing(closed)}.`, "good");
});
for (const button of document.querySelectorAll("[data-advance]")) {
  doing(button, "click", async () => {
    const { now, tokensExpired, closed } = await act("advance", { seconds: Number(button.dataset.advance) });
    say(`It is ${now.replace("T", " ").slice(0, 19)}; ${plural(tokensExpired, "token")} expired${closing(closed)}.`, "good");
  });
}
doing($("frozen"), "change", async () => {
  await act($("frozen").checked ? "freeze" : "unfreeze");
  say($("frozen").checked ? "The clock stands; only Advance moves it." : "The clock goes on.", "good");
});

// Latency is a fault of kind delay that never ends; there is at most the one that was set here.
const latency = () => state.faults.find((fault) => fault.kind === "delay" && fault.active && fault.times === undefined && !fault.endpoint && !fault.method);

for (const radio of document.querySelectorAll("[name=latency]")) {
  doing(radio, "change", async () => {
    const before = latency();
    if (before) await clear("faults", { id: before.id });
    if (radio.value !== "0") await act("faults", { kind: "delay", seconds: Number(radio.value) });
    say(radio.value === "0" ? "Answers come at once." : `Every answer waits ${radio.value} s from now on.`, "good");
  });
}

async function addFault(fault) {
  const { id, sockets } = await act("faults", fault);
  say(`Fault ${id}, ${fault.kind}, is on; it hit ${plural(sockets, "open socket")}.`, "good");
}

for (const button of document.querySelectorAll("[data-fault]")) doing(button, "click", () => addFault(JSON.parse(button.dataset.fault)));
doing($("fault-form"), "submit", () => addFault(JSON.parse($("fault").value)));
doing($("clear-faults"), "click", async () => {
  const { cleared } = await clear("faults");
  say(`${plural(cleared, "fault")} cleared; nothing goes wrong any more.`, "good");
});

doing($("checkpoint-form"), "submit", async () => {
  const { name } = await act("checkpoint", { name: $("checkpoint").value });
  $("checkpoint").value = "";
  say(`This state is remembered as ${name}.`, "good");
});

async function restore(name) {
  const { messages, closed } = await act("restore", { name });
  say(`Back at ${name}: ${plural(messages, "message")} told listeners the difference${closing(closed)}.`, "good");
}

const BEFORE_LOAD = "before the load";

when($("save-seed"), "click", async () => {
  const url = URL.createObjectURL(new Blob([await saveData()], { type: "application/json" }));
  make("a", { href: url, download: "seed.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url)); // after the click has taken it
});

$("load").addEventListener("click", () => $("load-file").click());

doing($("load-file"), "change", async () => {
  const [file] = $("load-file").files;
  const text = await file.text();
  $("load-file").value = ""; // so that the same file can be chosen again
  if (!(await ask(`Make ${file.name} the state of this world? What is there now can be had back with Undo load.`, "Load"))) return;
  await act("checkpoint", { name: BEFORE_LOAD });
  const { messages, closed } = await loadData(text);
  $("undo-load").hidden = false;
  say(`${file.name} is the state: ${plural(messages, "message")} told listeners the difference${closing(closed)}.`, "good");
});

doing($("undo-load"), "click", async () => {
  await restore(BEFORE_LOAD);
  $("undo-load").hidden = true;
});

doing($("reset"), "click", async () => {
  const { messages, closed } = await act("reset");
  forget();
  say(`Back at the start: ${plural(messages, "message")} told listeners the difference${closing(closed)}.`, "good");
});

doing($("close-listeners"), "click", async () => {
  const { closed } = await act("close-listeners");
  say(`${plural(closed, "socket")} closed with 1000.`, "good");
});

function describe(fault) {
  const { id, kind, hits, active, times, ...own } = fault;
  const rest = Object.keys(own).length ? ` ${inShort(own, 120)}` : "";
  return `${kind}${rest} · ${active ? "on" : "over"}, ${plural(hits, "hit")}${times ? ` of ${times}` : ""}`;
}

onChange(() => {
  const endpoint = chosenEndpoint();
  $("switched").textContent = endpoint?.name ?? "–";
  for (const option of Object.keys(OPTIONS)) {
    $(option).checked = Boolean(endpoint?.[option]);
    $(option).disabled = !endpoint;
  }
  for (const id of ["change-options", "delete-endpoint"]) $(id).disabled = !endpoint;
  if (document.activeElement !== $("origins")) $("origins").value = state.project?.allowedOrigins.join(", ") ?? "";
  $("disallowNoOrigin").checked = Boolean(state.project?.disallowNoOrigin);
  $("frozen").checked = state.status.frozen;

  const seconds = String(latency()?.seconds ?? (latency() ? 1 : 0));
  for (const radio of document.querySelectorAll("[name=latency]")) radio.checked = radio.value === seconds;
  $("clear-faults").disabled = !state.faults.length;
  show($("faults"), JSON.stringify(state.faults), () =>
    state.faults.map((fault) => {
      const end = make("button", { text: "End", "aria-label": `End fault ${fault.id}` });
      doing(end, "click", () => clear("faults", { id: fault.id }));
      return make("li", {}, make("span", { class: "grow", text: `${fault.id}: ${describe(fault)}` }), end);
    }),
  );
  show($("checkpoints"), JSON.stringify(state.status.checkpoints), () =>
    state.status.checkpoints.map((name) => {
      const back = make("button", { text: "Restore", "aria-label": `Restore ${name}` });
      doing(back, "click", () => restore(name));
      return make("li", {}, make("span", { class: "grow", text: name }), back);
    }),
  );
});
