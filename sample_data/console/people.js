// Endpoints, users, listeners, and the outbox.

import { acting, actFor, setUsers } from "./acting.js";
import { $, make, plural, say, show, when } from "./dom.js";
import { addressOf, onView, view } from "./route.js";
import { act, look } from "./speak.js";
import { endpoints, onChange, onEvents, refresh, state } from "./state.js";

const MOST_READ = 500; // of an endpoint with more users nobody is offered: it would have to be read at every change

function showEndpoints() {
  const key = JSON.stringify([state.endpoint, endpoints(), view.isTable]);
  show($("endpoints"), key, () =>
    endpoints().map((endpoint) => {
      const kind = endpoint.authentication ? "authentication" : endpoint.secure ? "secure" : "open";
      const count = plural(endpoint.records, endpoint.authentication ? "user" : "record");
      const text = [kind, count, endpoint.listeners ? plural(endpoint.listeners, "socket") : ""].filter(Boolean).join(" · ");
      const current = endpoint.name === state.endpoint;
      const title = [endpoint.name, endpoint.description].filter(Boolean).join(": ");
      const link = make("a", { href: addressOf(endpoint.name, { isTable: view.isTable }), text: endpoint.name, title });
      if (current) link.setAttribute("aria-current", "true");
      return make("li", {}, link, make("small", { text }));
    }),
  );
  if (revealed !== state.endpoint) document.querySelector("#endpoints [aria-current]")?.parentElement.scrollIntoView({ block: "nearest" });
  revealed = state.endpoint;
}
let revealed = null; // the endpoint that was scrolled to when it was chosen

onView(() => state.status && showEndpoints()); // who likes a table gets the next endpoint as one

// Users

let users = [];
let stale = true;

async function readUsers() {
  stale = false;
  const places = endpoints().filter((endpoint) => endpoint.authentication && endpoint.records <= MOST_READ);
  const found = await Promise.all(places.map(({ name }) => look("records", { endpoint: name })));
  users = found.flatMap((records, at) =>
    records.map(({ uniqueId, data }) => ({ endpoint: places[at].name, uniqueId, name: data?.username ?? data?.email })),
  );
  users = users.filter(({ name }) => typeof name === "string");
  state.people = users;
  setUsers(users, places.map(({ name }) => name));
}

function showPeople() {
  const sessions = users.map((user) => state.status.users.filter((one) => one.endpoint === user.endpoint && one.uniqueId === user.uniqueId).length);
  const many = endpoints().filter((endpoint) => endpoint.authentication && endpoint.records > MOST_READ);
  $("no-people").hidden = users.length > 0 && !many.length;
  $("no-people").textContent = many.map(({ name, records }) => `The ${records} users of ${name} are too many to be listed.`).join(" ") || "No users yet. POST one to an authentication endpoint.";
  const places = new Set(users.map((user) => user.endpoint)).size;
  show($("people"), JSON.stringify([users, sessions, acting().id]), () =>
    users.map((user, at) => {
      const id = `${user.endpoint}/${user.uniqueId}`;
      const logged = sessions[at] ? plural(sessions[at], "token") : "no token";
      const who = make("span", { class: "who" }, make("strong", { text: user.name }), make("small", { text: places > 1 ? `${user.endpoint} · ${logged}` : logged }));
      const enter = make("button", { text: "Log in as", "aria-label": `Log in as ${user.name}`, "aria-pressed": String(acting().id === id) });
      when(enter, "click", () => actFor(id).then(refresh));
      const expire = make("button", { text: "Expire", "aria-label": `Expire tokens of ${user.name}`, disabled: !sessions[at] });
      when(expire, "click", async () => {
        const { expired, closed } = await act("expire-tokens", { username: user.name });
        say(`${plural(expired, "token")} of ${user.name} expired; ${plural(closed, "socket")} closed with 1000.`, "good");
        await refresh();
      });
      return make("li", {}, who, enter, expire);
    }),
  );
}

// Listeners and mails

function showListeners() {
  const shown = state.listeners.slice(0, 50);
  $("close-listeners").disabled = !state.status.listeners;
  show($("listeners"), JSON.stringify([shown, state.status.listeners]), () => {
    const items = shown.map(({ number, endpoint, user, waiting, isConsole }) => {
      const name = user ? user.username ?? user.uniqueId : isConsole ? "" : "nobody logged in";
      const who = [name, isConsole ? "a console" : ""].filter(Boolean).join(", ");
      return make("li", { text: `#${number} ${endpoint} · ${who}${waiting > 1e5 ? ` · ${Math.round(waiting / 1000)} kB wait` : ""}` });
    });
    const more = state.status.listeners - shown.length;
    if (!state.status.listeners) items.push(make("li", { class: "muted", text: "Nobody." }));
    return more > 0 ? [...items, make("li", { class: "muted", text: `and ${more} more` })] : items;
  });
}

function showOutbox() {
  const mails = state.mails.slice(-20).reverse();
  $("no-mails").hidden = mails.length > 0;
  show($("outbox"), JSON.stringify(mails), () =>
    mails.map((mail) => {
      const summary = make("summary", { text: `${mail.email} · ${mail.templateName} · ${mail.used ? "used" : "not used"}` });
      const text = make("pre", { text: mail.html, tabIndex: 0, role: "region", "aria-label": `Mail to ${mail.email}, as text` });
      const token = make("p", {}, "Verification token ", make("code", { text: mail.verificationToken }));
      return make("li", {}, make("details", {}, summary, token, text));
    }),
  );
}

onEvents((events) => {
  const places = endpoints().filter((endpoint) => endpoint.authentication).map(({ name }) => name);
  if (events.some((event) => event.type && places.includes(event.endpoint))) stale = true;
});

let knownPlaces = "";

onChange(() => {
  const places = JSON.stringify(endpoints().filter((endpoint) => endpoint.authentication).map(({ name, records }) => [name, records]));
  if (places !== knownPlaces) stale = true;
  knownPlaces = places;
  if (stale) readUsers().then(showPeople, () => (stale = true));
  showEndpoints();
  showPeople();
  showListeners();
  showOutbox();
});
