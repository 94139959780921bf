// A shared list with login, as a team would write it for RESTED_DEV: fetch for requests, a WebSocket for what others do.
// Against the service itself only HOST and KEY are others.

const HOST = location.host; // "app.rested.dev"
const KEY = "3f1c9a7e52d84b06a1e7c4f8d20b6935";
const TLS = location.protocol === "https:" ? "s" : "";
const PEOPLE = `http${TLS}://${HOST}/api/1/ce/picnic/people?key=${KEY}`;
const ITEMS = `http${TLS}://${HOST}/api/1/ce/picnic/items?key=${KEY}`;
const LISTEN = `ws${TLS}://${HOST}/api/1/ce/picnic/items?key=${KEY}`;

// Two frames of one page are two people here, so the token is kept by the frame and not in a cookie.
const STORE = `picnic ${window.name}`;

const $ = (id) => document.getElementById(id);
const items = new Map(); // records by uniqueId, and what is not stored yet by its `ref`
const underWay = new Set(); // ids and refs that the server has not answered for
let me = JSON.parse(sessionStorage.getItem(STORE)); // { username, token }
let socket = null;
const LONGEST = 2; // seconds between two tries: people look on
let retry = 0;
let timer = null;

class Unauthorized extends Error {}

// A request; where no answer comes, browsers say so each in its own words.
const reach = (url, options) =>
  fetch(url, options).catch(() => {
    throw new Error("The server cannot be reached.");
  });

async function send(url, method = "GET", data = undefined) {
  const headers = { Authorization: `Bearer ${me?.token}` };
  if (data !== undefined) headers["Content-Type"] = "application/json";
  const answer = await reach(url, { method, headers, body: data === undefined ? undefined : JSON.stringify(data) });
  const value = await answer.json();
  if (answer.status === 401) throw new Unauthorized(value.message);
  if (!answer.ok) throw new Error(value.message ?? `The server answered ${answer.status}.`);
  return value;
}

// Log in and out

async function login(username, password) {
  const answer = await reach(`${PEOPLE}&login=true&noATCookie=true`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ username, password }),
  });
  if (!answer.ok) throw new Error((await answer.json()).message);
  me = { username, token: answer.headers.get("Authorization").replace("Bearer ", "") };
  sessionStorage.setItem(STORE, JSON.stringify(me));
}

function leave(reason) {
  me = null;
  sessionStorage.removeItem(STORE);
  hangUp();
  items.clear();
  $("login-reason").textContent = reason;
  $("password").value = "";
  showLine("Not logged in", "");
  draw();
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await login($("username").value, $("password").value);
    $("login-reason").textContent = "";
    begin();
  } catch (error) {
    $("login-reason").textContent = error.message;
  }
});

$("logout").addEventListener("click", () => {
  send(`${PEOPLE}&logout=true`, "POST").catch(() => {}); // whatever it says, the token is forgotten here
  leave("");
});

// Listen, and come back after a drop: read what was missed, wait a little longer every time

function hangUp() {
  clearTimeout(timer);
  if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
  socket?.close();
  socket = null;
}

function begin() {
  hangUp();
  showLine("Connecting …", "");
  draw();
  socket = new WebSocket(`${LISTEN}&accessToken=${me.token}`);
  socket.onopen = async () => {
    try {
      const records = await send(ITEMS);
      for (const id of items.keys()) if (!underWay.has(id)) items.delete(id);
      for (const record of records) take(record);
      retry = 0;
      showLine("Live", "good");
      draw();
    } catch (error) {
      if (error instanceof Unauthorized) leave("Your session has ended. Please log in again.");
      else socket?.close();
    }
  };
  socket.onmessage = (event) => {
    const { type, record } = JSON.parse(event.data);
    if (type === "DELETE") items.delete(record.uniqueId);
    else take(record);
    draw();
  };
  socket.onclose = (event) => {
    socket = null;
    if (event.code === 4000 || event.reason === "Access token expired.") {
      leave("Your session has ended. Please log in again.");
      return;
    }
    const seconds = event.code === 1000 ? 0 : Math.min(LONGEST, 0.5 * 2 ** retry++);
    showLine(seconds ? `Connection lost, again in ${seconds} s` : "Connecting again …", "bad");
    timer = setTimeout(begin, seconds * 1000);
  };
}

// A record of the server's. It may come before the answer to our own request, and then stands for what waits for it.
function take(record) {
  items.delete(record.data?.ref);
  items.set(record.uniqueId, record);
}

// Change the list: at once on the screen, and taken back where the server refuses

async function change(id, record, request) {
  const before = items.get(id);
  underWay.add(id);
  if (record) items.set(id, record);
  else items.delete(id);
  $("problem").textContent = "";
  draw();
  try {
    const saved = await request();
    // While we listen, the message was here first, and maybe later ones: the answer could be old news.
    if (record && socket?.readyState !== WebSocket.OPEN) take(saved);
  } catch (error) {
    if (before) items.set(id, before);
    else items.delete(id);
    if (error instanceof Unauthorized) return leave("Your session has ended. Please log in again.");
    $("problem").textContent = `“${(record ?? before).data.text}” was not saved: ${error.message}`;
  } finally {
    underWay.delete(id);
    draw();
  }
}

$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const ref = crypto.getRandomValues(new Uint32Array(3)).join("-");
  const data = { text: $("text").value, by: me.username, done: false, ref };
  $("text").value = "";
  change(ref, { data }, () => send(ITEMS, "POST", data));
});

function check(record) {
  const data = { ...record.data, done: !record.data.done };
  const url = `${ITEMS}&uniqueId=${record.uniqueId}&strategy=merge`;
  change(record.uniqueId, { ...record, data }, () => send(url, "PUT", { done: data.done }));
}

function remove(record) {
  change(record.uniqueId, null, () => send(`${ITEMS}&uniqueId=${record.uniqueId}`, "DELETE"));
}

// Show

function showLine(text, tone) {
  $("line").textContent = text;
  $("line").className = `line ${tone}`;
}

let drawing = false;

function draw() {
  $("login").hidden = me !== null;
  $("list").hidden = me === null;
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    $("me").textContent = me?.username ?? "";
    $("none").hidden = items.size > 0;
    const focused = document.activeElement?.dataset.of;
    $("items").replaceChildren(...[...items.values()].slice(-200).map(makeItem));
    if (focused) document.querySelector(`[data-of="${CSS.escape(focused)}"]`)?.focus();
  });
}

function makeItem(record) {
  const { text, by, done, ref } = Object(record.data);
  const isPending = underWay.has(record.uniqueId) || underWay.has(ref);
  const item = document.createElement("li");
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: Boolean(done), disabled: !record.uniqueId });
  const words = Object.assign(document.createElement("span"), { className: "words", textContent: String(text ?? JSON.stringify(record.data)) });
  const who = Object.assign(document.createElement("small"), { textContent: isPending ? "saving …" : String(by ?? "") });
  const button = Object.assign(document.createElement("button"), { textContent: "×", disabled: !record.uniqueId });
  button.setAttribute("aria-label", `Remove ${text}`);
  box.dataset.of = `box ${record.uniqueId}`;
  button.dataset.of = `button ${record.uniqueId}`;
  box.addEventListener("change", () => check(record));
  button.addEventListener("click", () => remove(record));
  item.classList.toggle("pending", isPending);
  item.classList.toggle("done", Boolean(done));
  label.append(box, words);
  item.append(label, who, button);
  return item;
}

$("stage").hidden = window.top !== window.self;
if (me) begin();
else draw();
