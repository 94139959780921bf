// The switches. Each says what it did: how many sockets closed, what is refused from now on.

import { chosenEndpoint } from "./acting.js";
import { doing, showChecked } from "./doing.js";
import { $, ask, make, plural, say, show, when } from "./dom.js";
import { mistakeIn } from "./json.js";
import { addressOf } from "./route.js";
import { act, loadData, look, saveData } from "./speak.js";
import { onChange, refresh, state } from "./state.js";
import { undo } from "./undo.js";

const OPTIONS = {
  secure: "secure",
  authentication: "authentication endpoint",
  othersCanRead: "others can read",
  othersCanUpdate: "others can update",
  othersCanDelete: "others can delete",
};
const EXAMPLE_ORIGIN = "https://app.example"; // which is no page of this machine

const closing = (closed) => (closed ? `; ${plural(closed, "socket")} closed with 1000` : "; no socket closed");

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
doing($("delete-endpoint"), "click", async () => {
  const endpoint = chosenEndpoint();
  if (!endpoint || !(await ask(`Delete ${endpoint.name} with ${plural(endpoint.records, "record")}?`))) return;
  const { deleted, closed } = await act("delete-endpoint", { name: endpoint.name });
  const bringBack = undo(`delete-endpoint ${endpoint.name}`, `${endpoint.name} is back.`);
  say(`${endpoint.name} is gone, with ${plural(deleted, "record")}${closing(closed)}.`, "good", async () => {
    await bringBack();
    location.hash = addressOf(endpoint.name);
  });
});
doing($("new-endpoint"), "submit", async () => {
  const name = $("new-endpoint-name").value.trim();
  const isThere = state.status.projects.some(({ endpoints }) => endpoints.some((endpoint) => endpoint.name === name));
  if (!isThere) await act("change-endpoint", { name }); // of one that is there it would save the options, which ends sockets
  $("new-endpoint-name").value = "";
  say(isThere ? `There is ${name} already.` : `${name} is there, open to everyone.`, "good");
  await refresh();
  location.hash = addressOf(name);
});

async function saveOrigins(origins, canUndo = true) {
  const before = state.project.allowedOrigins;
  const { closed } = await project({ allowedOrigins: origins });
  const allowed = origins.length ? `only ${origins.join(", ")} ${origins.length === 1 ? "is" : "are"} allowed` : "every origin is allowed";
  const back = async () => {
    await saveOrigins(before, false);
    await refresh();
  };
  say(`Now ${allowed}${closing(closed)}.`, "good", canUndo ? back : null);
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

doing($("now"), "click", async () => {
  await act("unfreeze");
  await act("set-time", { time: new Date().toISOString() });
  say("The clock shows the time it is.", "good");
});

// Checkpoints

doing($("checkpoint-form"), "submit", async () => {
  const wanted = $("checkpoint").value;
  if (state.status.checkpoints.includes(wanted) && !(await ask(`There is a checkpoint ${wanted} already. Let it be this state?`, "Replace"))) return;
  const { name } = await act("checkpoint", { name: wanted });
  $("checkpoint").value = "";
  say(`This state is remembered as ${name}.`, "good");
});

async function restore(name) {
  const { messages, closed } = await act("restore", { name });
  say(`Back at ${name}: ${plural(messages, "message")} told listeners the difference${closing(closed)}.`, "good", undo("restore", `As before going back to ${name}.`));
}

// What has changed since each checkpoint, for those that are in sight.
let counted = new Map();
let countedAt = 0;
const SHOWN = 10;
const SELDOM = 3000; // milliseconds between two counts, for nobody waits for them

async function countChanges() {
  const names = state.status.checkpoints.slice(-SHOWN);
  if (performance.now() - countedAt < SELDOM && names.every((name) => counted.has(name))) return;
  countedAt = performance.now();
  const counts = await Promise.all(names.map((checkpoint) => look("changes", { checkpoint })));
  counted = new Map(names.map((name, at) => [name, counts[at]]));
}

const inWords = (counts) => Object.entries(counts).filter(([, count]) => count).map(([done, count]) => `${count} ${done}`).join(", ");
const sinceThen = (changes) => (changes ? `${inWords(changes.records) || "nothing changed"} since` : "");

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
  const mistake = mistakeIn(text);
  if (mistake) throw new Error(`${file.name}: ${mistake.words}`);
  if (!(await ask(`Make ${file.name} the state of this world? Undo takes it back.`, "Load"))) return;
  const { messages, closed } = await loadData(text);
  say(`${file.name} is the state: ${plural(messages, "message")} told listeners the difference${closing(closed)}.`, "good", undo("load", "As before the load."));
});

const BEFORE_RESET = "before the reset";

// How much a reset takes, in words.
function whatResetTakes({ since, records, endpoints }) {
  const made = `${plural(records.made, "record")} and ${plural(endpoints.made, "endpoint")} made since ${since.slice(0, 19).replace("T", " ")} UTC`;
  const back = ["changed", "deleted"].filter((done) => records[done]).map((done) => plural(records[done], `${done} record`));
  return `Reset takes away ${made}${back.length ? `, and brings back ${back.join(" and ")}` : ""}. A checkpoint is kept, and Undo takes the reset back.`;
}

doing($("reset"), "click", async () => {
  if (!(await ask(whatResetTakes(await look("changes")), "Reset"))) return;
  await act("checkpoint", { name: BEFORE_RESET });
  const { messages, closed } = await act("reset");
  say(`Back at the start: ${plural(messages, "message")} told listeners the difference${closing(closed)}.`, "good", undo("reset", "As before the reset; faults stay cleared."));
});

doing($("close-listeners"), "click", async () => {
  const { closed } = await act("close-listeners");
  say(`${plural(closed, "socket")} closed with 1000.`, "good");
});

onChange(() => {
  const endpoint = chosenEndpoint();
  $("switched").textContent = endpoint?.name ?? "–";
  for (const option of Object.keys(OPTIONS)) {
    showChecked($(option), Boolean(endpoint?.[option]));
    $(option).disabled = !endpoint;
  }
  for (const id of ["change-options", "delete-endpoint"]) $(id).disabled = !endpoint;
  if (document.activeElement !== $("origins")) $("origins").value = state.project?.allowedOrigins.join(", ") ?? "";
  showChecked($("disallowNoOrigin"), Boolean(state.project?.disallowNoOrigin));
  showChecked($("frozen"), state.status.frozen);

  const { now, frozen } = state.status;
  $("clock").textContent = `${now.slice(0, 19).replace("T", " ")} UTC`;
  $("clock").dateTime = now;
  $("now").disabled = !frozen && Math.abs(Date.parse(now) - Date.now()) < 3000;
  $("description").textContent = endpoint?.description || "";
  if (state.status.checkpoints.length) countChanges().then(showCheckpoints, () => {});
  showCheckpoints();
});

function showCheckpoints() {
  show($("checkpoints"), JSON.stringify([state.status.checkpoints, [...counted]]), () =>
    state.status.checkpoints.map((name) => {
      const back = make("button", { text: "Restore", "aria-label": `Restore ${name}` });
      doing(back, "click", () => restore(name));
      return make("li", {}, make("span", { class: "grow checkpoint" }, make("span", { class: "cut", text: name, title: name }), make("small", { text: sinceThen(counted.get(name)) })), back);
    }),
  );
}
