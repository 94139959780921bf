// The console of rested-emulator: shows the emulator at work. It speaks the emulated API and the control interface.

import "./route.js";
import "./records.js";
import "./activity.js";
import "./people.js";
import "./connect.js";
import "./switches.js";
import "./trouble.js";
import "./timeline.js";
import "./keys.js";
import { $, make, note, show } from "./dom.js";
import { addressOf } from "./route.js";
import { keepToken, look, WORLD } from "./speak.js";
import { choose, firstOf, follow, onChange, onFound, onLost, refresh, sayLost, state } from "./state.js";

onChange(() => {
  const { projects, listeners, refusedEdit } = state.status;
  $("listening").textContent = `${listeners} ${listeners === 1 ? "socket" : "sockets"}`;
  show($("refused-edit"), refusedEdit, () => (refusedEdit ? [`The edit of the data file is not taken over: ${refusedEdit}`] : []));
  $("project-choice").hidden = projects.length < 2;
  show($("project"), JSON.stringify(projects.map(({ key, name }) => [key, name])), () =>
    projects.map(({ key, name }) => make("option", { value: key, text: name })),
  );
  $("project").value = state.project?.key ?? "";
});

onLost(sayLost);
onFound(() => note("The emulator answers again.", "good"));

$("project").addEventListener("change", () => {
  const first = firstOf(state.status.projects.find(({ key }) => key === $("project").value));
  if (first) location.hash = addressOf(first);
  else choose(null);
});

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken($("token").value.trim());
  begin();
});

async function begin() {
  try {
    $("version").textContent = [(await look("health")).version, WORLD].filter(Boolean).join(" · ");
    if (WORLD) document.title = `${WORLD} · rested-emulator`;
    await refresh();
    $("token-form").hidden = true;
    document.querySelector("main").hidden = false;
    note("Everything that happens is shown here.");
    await follow();
  } catch (error) {
    if (error.status !== 403) {
      sayLost(error);
      return setTimeout(begin, 1000);
    }
    document.querySelector("main").hidden = true;
    $("token-form").hidden = false;
    note($("token").value ? "403 This is not the control token, which the banner prints." : error.message, "bad");
    $("token").select();
  }
}

begin();
