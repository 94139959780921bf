// Two panes with the app in them, logged in as different people, and what can happen to a connection.

const PEOPLE = [
  { username: "ada", password: "apricot" },
  { username: "ben", password: "bramble" },
];
const LAG = 2; // seconds
const OUTAGE = 5;
const TOKEN = "rested-emulator-control-token"; // the console keeps it in the same place

const $ = (id) => document.getElementById(id);
const ITEMS = "picnic/items";

const brought = new URLSearchParams(location.hash.slice(1)).get("token");
if (brought) {
  sessionStorage.setItem(TOKEN, brought);
  history.replaceState(null, "", location.pathname + location.search);
}

async function control(method, verb, args) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(`/__emulator__/${verb}`, { method, headers, body: args && JSON.stringify(args), credentials: "omit" });
  const value = await answer.json();
  $("token-form").hidden = answer.status !== 403;
  if (!answer.ok) throw new Error(value.hint ?? value.message);
  return value;
}

const act = (verb, args = {}) => control("POST", verb, args);

function say(text) {
  $("said").textContent = text;
}

function on(id, action) {
  $(id).addEventListener("click", async () => {
    try {
      await action();
    } catch (error) {
      say(error.message);
    }
  });
}

// A page of another site could lay this one under the visitor's clicks; in a frame it does nothing.
if (window.top !== window.self) say("The stage works in a window of its own only.");
else begin();

function begin() {
  const frames = PEOPLE.map(({ username }) => {
    const frame = document.createElement("iframe");
    frame.title = `The app, for ${username}`;
    frame.name = username;
    frame.src = "./index.html";
    return frame;
  });
  $("panes").replaceChildren(...frames);

  // Log in as a person does it: with the form.
  function logIn(frame, { username, password }) {
    const page = frame.contentDocument;
    const form = page?.getElementById("login");
    if (!form || form.hidden) return;
    page.getElementById("username").value = username;
    page.getElementById("password").value = password;
    form.requestSubmit();
  }

  const logBothIn = () => frames.forEach((frame, at) => logIn(frame, PEOPLE[at]));
  // The app shows its form once it knows that nobody is logged in.
  frames.forEach((frame, at) => frame.addEventListener("load", () => setTimeout(() => logIn(frame, PEOPLE[at]), 100)));

  on("log-in", async () => {
    logBothIn();
    say("Both are logged in.");
  });

  on("lag", async () => {
    const lags = (await control("GET", "faults")).filter((fault) => fault.kind === "delay" && fault.active);
    for (const { id } of lags) await control("DELETE", `faults?id=${id}`);
    if (!lags.length) await act("faults", { kind: "delay", seconds: LAG });
    $("lag").setAttribute("aria-pressed", String(!lags.length));
    say(lags.length ? "Answers come at once." : `Every answer waits ${LAG} s: the list shows a change before it is saved.`);
  });

  on("drop", async () => {
    const { sockets } = await act("faults", { kind: "outage", seconds: OUTAGE });
    say(`An outage of ${OUTAGE} s: ${sockets} sockets are lost without a word (1006); the app comes back by itself.`);
  });

  on("expire", async () => {
    const { expired, closed } = await act("expire-tokens");
    say(`${expired} tokens have expired, ${closed} sockets closed with 1000 “Access token expired.”; both have to log in.`);
  });

  on("change", async () => {
    const { closed } = await act("change-endpoint", { name: ITEMS });
    say(`${closed} sockets closed with 1000 “Options of the endpoint are changed.”; the app listens again.`);
  });

  on("reset", async () => {
    const { messages } = await act("reset");
    $("lag").setAttribute("aria-pressed", "false");
    say(`Back at the start: ${messages === 1 ? "one message" : `${messages} messages`} told the panes the difference; both log in again.`);
    setTimeout(logBothIn, 300);
  });

  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, $("token").value.trim());
    showLag();
  });

  const showLag = () =>
    control("GET", "faults").then(
      (faults) => $("lag").setAttribute("aria-pressed", String(faults.some((fault) => fault.kind === "delay" && fault.active))),
      (error) => say(error.message),
    );
  showLag();
}
