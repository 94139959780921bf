// The address says what is on show: #/garden/plants?view=table&find=tomato

import { onChange, choose, state } from "./state.js";

export const view = { isTable: false, find: "" };
const changed = new Set();
export const onView = (action) => changed.add(action);

function read() {
  if (!location.hash.startsWith("#/")) return;
  const [name, query] = location.hash.slice(2).split("?");
  const parameters = new URLSearchParams(query);
  Object.assign(view, { isTable: parameters.get("view") === "table", find: parameters.get("find") ?? "" });
  state.endpoint = decodeURIComponent(name);
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
  if (state.endpoint && decodeURIComponent(location.hash.slice(2).split("?")[0]) !== state.endpoint)
    history.replaceState(null, "", addressOf(state.endpoint, view));
});
read();
