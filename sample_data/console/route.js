// The address says what is on show: #/garden/plants?view=table&find=tomato

import { onChange, choose, state } from "./state.js";

export const view = { isTable: false, find: "" };
const changed = new Set();
export const onView = (action) => changed.add(action);

// The endpoint that the address names; somebody may have typed it.
function named() {
  const [name] = location.hash.slice(2).split("?");
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function read() {
  if (!location.hash.startsWith("#/")) return;
  const parameters = new URLSearchParams(location.hash.split("?")[1]);
  Object.assign(view, { isTable: parameters.get("view") === "table", find: parameters.get("find") ?? "" });
  state.endpoint = named();
}

export function addressOf(endpoint, { isTable, find } = {}) {
  const parameters = new URLSearchParams();
  if (isTable) parameters.set("view", "table");
  if (find) parameters.set("find", find);
  return `#/${endpoint}${parameters.size ? `?${parameters}` : ""}`;
}

// Show it otherwise; that is no step to go back by.
export function look(changes) {
  Object.assign(view, changes);
  history.replaceState(null, "", addressOf(state.endpoint, view));
  for (const action of changed) action();
}

addEventListener("hashchange", () => {
  read();
  if (state.status) choose(state.endpoint);
  for (const action of changed) action();
});
onChange(() => {
  if (state.endpoint && named() !== state.endpoint) history.replaceState(null, "", addressOf(state.endpoint, view));
});
read();
