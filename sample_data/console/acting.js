// Who the page acts for: the owner where a token is needed and nobody was chosen, else nobody; or a user, with a token.

import { $, make, note, say, show, when } from "./dom.js";
import { act } from "./speak.js";
import { endpoints, onChange, onFound, refresh, state } from "./state.js";

const NOBODY = { id: "nobody", label: "nobody" };
const OWNER = { id: "owner", label: "owner" };

let chosen = null;
let token = null;
let name = null; // of the user who was chosen
let users = []; // of all authentication endpoints, who have a name
const changed = new Set();
export const onActing = (action) => changed.add(action);

export const chosenEndpoint = () => endpoints().find((endpoint) => endpoint.name === state.endpoint);

export function acting() {
  const endpoint = chosenEndpoint();
  const needsToken = endpoint?.secure || endpoint?.authentication;
  const id = chosen ?? (needsToken ? OWNER.id : NOBODY.id);
  return { id, isOwner: id === OWNER.id, token, name };
}

// The token of who is acted for, unless it is over.
export function liveToken() {
  const [endpoint, uniqueId] = splitId(acting().id);
  return state.status.users.some((one) => one.endpoint === endpoint && one.uniqueId === uniqueId) ? token : null;
}

const idOf = ({ endpoint, uniqueId }) => `${endpoint}/${uniqueId}`;
const splitId = (id) => [id.slice(0, id.lastIndexOf("/")), id.slice(id.lastIndexOf("/") + 1)];

function showActing() {
  const isOneEndpoint = new Set(users.map(({ endpoint }) => endpoint)).size < 2;
  const choices = [NOBODY, OWNER, ...users.map((user) => ({ id: idOf(user), label: isOneEndpoint ? user.name : `${user.name} · ${user.endpoint}` }))];
  show($("acting"), JSON.stringify(choices), () => choices.map(({ id, label }) => make("option", { value: id, text: label })));
  $("acting").value = acting().id;
}

export async function actFor(id) {
  const user = users.find((one) => idOf(one) === id);
  try {
    token = user ? (await act("sign-in", { endpoint: user.endpoint, username: user.name })).token : null;
    chosen = user || id === OWNER.id ? id : NOBODY.id;
    name = user?.name ?? null;
    say(user ? `Logged in as ${user.name}; requests and sockets of this page carry the token.` : `Acting as ${id}.`, "good");
  } finally {
    showActing();
  }
  await refresh();
  for (const action of changed) action();
}

// A new emulator does not know the token that the one before gave out; any other end of a token is for people to see.
onFound(async () => {
  if (name === null || liveToken()) return;
  token = await act("sign-in", { endpoint: splitId(chosen)[0], username: name }).then((found) => found.token, () => token);
  for (const action of changed) action();
});

// These are the users; `places` are the endpoints of which all are known.
export function setUsers(found, places) {
  users = found;
  const isGone = name !== null && places.includes(splitId(chosen)[0]) && !users.some((user) => idOf(user) === chosen);
  if (isGone) leaveUser();
  showActing();
}

function leaveUser() {
  note(`${name} is gone: where a token is needed, this page acts for the owner again.`);
  [chosen, token, name] = [null, null, null];
  for (const action of changed) action();
}

when($("acting"), "change", () => actFor($("acting").value));
onChange(showActing);
