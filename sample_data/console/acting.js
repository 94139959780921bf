// Who the page acts for: the owner where a token is needed and nobody was chosen, else nobody; or a user, with a token.

import { $, make, say, show, when } from "./dom.js";
import { act } from "./speak.js";
import { endpoints, onChange, refresh, state } from "./state.js";

const NOBODY = { id: "nobody", label: "nobody" };
const OWNER = { id: "owner", label: "owner" };

let chosen = null;
let token = null;
let users = []; // of all authentication endpoints, who have a name
const changed = new Set();
export const onActing = (action) => changed.add(action);

export const chosenEndpoint = () => endpoints().find((endpoint) => endpoint.name === state.endpoint);

export function acting() {
  const endpoint = chosenEndpoint();
  const needsToken = endpoint?.secure || endpoint?.authentication;
  const id = chosen ?? (needsToken ? OWNER.id : NOBODY.id);
  return { id, isOwner: id === OWNER.id, token };
}

// The token of who is acted for, unless it is over.
export function liveToken() {
  const [endpoint, uniqueId] = splitId(acting().id);
  return state.status.users.some((one) => one.endpoint === endpoint && one.uniqueId === uniqueId) ? token : null;
}

const splitId = (id) => [id.slice(0, id.lastIndexOf("/")), id.slice(id.lastIndexOf("/") + 1)];

function showActing() {
  const choices = [NOBODY, OWNER, ...users.map((user) => ({ id: `${user.endpoint}/${user.uniqueId}`, label: `${user.name} · ${user.endpoint}` }))];
  show($("acting"), JSON.stringify(choices), () => choices.map(({ id, label }) => make("option", { value: id, text: label })));
  $("acting").value = acting().id;
}

export async function actFor(id) {
  const user = users.find((one) => `${one.endpoint}/${one.uniqueId}` === id);
  try {
    token = user ? (await act("sign-in", { endpoint: user.endpoint, username: user.name })).token : null;
    chosen = user || id === OWNER.id ? id : NOBODY.id;
    say(user ? `Logged in as ${user.name}; requests and sockets of this page carry the token.` : `Acting as ${id}.`, "good");
  } finally {
    showActing();
  }
  await refresh();
  for (const action of changed) action();
}

export function setUsers(found) {
  users = found;
  showActing();
}

when($("acting"), "change", () => actFor($("acting").value));
onChange(showActing);
