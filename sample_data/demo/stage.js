// Two panes with the app in them, logged in as different people, and what can happen to a connection.

import { $, plural } from "/__emulator__/dom.js";
import { openTimeline } from "/__emulator__/panel.js";
import { act, clear, keepToken, look } from "/__emulator__/speak.js";
import { sentence } from "/__emulator__/story.js";

const PEOPLE = [
  { username: "ada", password: "apricot" },
  { username: "ben", password: "bramble" },
];
const LAG = 2; // seconds
const DROP = 4;
const OUTAGE = 5;
const READING = 1500; // milliseconds until somebody who is back has read, if ever
const TOGETHER = 4000; // milliseconds within which one thing has made two people come back
const SHORT = 1; // seconds that nobody notices
const QUIET = 100; // between two looks at what happened

const ITEMS = "picnic/items";

function say(text) {
  $("said").textContent = text;
}

function on(button, action) {
  button.addEventListener("click", async () => {
    lately = [];
    try {
      await action();
    } catch (error) {
      say(error.message);
    }
  });
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Log in as a person does it: with the form, which the app shows once it knows that nobody is logged in.
function logIn({ username, password, frame }) {
  const page = frame.contentDocument;
  const form = page?.getElementById("login");
  if (!form || form.hidden) return;
  page.getElementById("username").value = username;
  page.getElementById("password").value = password;
  form.requestSubmit();
}

const logBothIn = () => PEOPLE.forEach(logIn);

// One person: the app in a frame, and above it whose it is and what can happen to this one alone.
function seat(person) {
  const { username, password } = person;
  person.frame = element("iframe", { title: `The app, for ${username}`, name: username, src: "./index.html" });
  person.frame.addEventListener("load", () => logIn(person));
  person.drop = element("button", { textContent: `Drop ${username}` });
  person.lag = element("button", { textContent: `Lag ${username}`, ariaPressed: "false" });
  on(person.drop, async () => {
    await act("faults", { kind: "outage", seconds: DROP, username });
    say(`${username} is away for ${DROP} s: the socket is lost without a word (1006), and tries to come back are refused.`);
  });
  on(person.lag, async () => {
    const lags = lagsOf(username, await look("faults"));
    for (const { id } of lags) await clear("faults", { id });
    if (!lags.length) await act("faults", { kind: "delay", seconds: LAG, username });
    person.lag.ariaPressed = String(!lags.length);
    say(lags.length ? `Answers to ${username} come at once.` : `Answers to ${username} take ${LAG} s: the list shows a change before it is saved.`);
  });
  const name = element("p", {}, element("b", { textContent: username }), `, password ${password}`);
  return element("section", { ariaLabel: username }, element("div", { className: "row" }, name, person.drop, person.lag), person.frame);
}

const lagsOf = (username, faults) => faults.filter((fault) => fault.kind === "delay" && fault.active && fault.username === username);

const showLags = (faults) => PEOPLE.forEach(({ username, lag }) => (lag.ariaPressed = String(lagsOf(username, faults).length > 0)));

const toldOf = new Set(); // numbers of recoveries
const seenBack = new Map(); // when they were first seen to be over

// Tell of everybody who has come back, once it can be told whether they have read what they missed.
function tellRecoveries(recoveries) {
  const back = recoveries.filter((recovery) => recovery.back !== null && !toldOf.has(recovery.number));
  for (const { number } of back) seenBack.has(number) || seenBack.set(number, performance.now());
  const over = back.filter((recovery) => recovery.read || performance.now() - seenBack.get(recovery.number) > READING);
  for (const { number } of over) toldOf.add(number);
  const worthIt = over.filter(({ missed, after }) => missed || after >= SHORT);
  if (!worthIt.length) return;
  const at = performance.now();
  lately = [...lately.filter((one) => at - one.at < TOGETHER), ...worthIt.map((recovery) => ({ at, text: sentence(recovery) }))];
  say(lately.map(({ text }) => text).join(" "));
}

let lately = []; // sentences that stand together: of an outage, people come back one after the other

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let isLively = false; // somebody is away, or a fault is at work, and may end without any event

async function lookAround(seen = {}) {
  const [recoveries, faults, status] = await Promise.all(["recoveries", "faults", "status"].map((verb) => look(verb)));
  showLags(faults);
  isLively = faults.some(({ active }) => active) || recoveries.some(({ back, read }) => back === null || !read);
  const reads = await Promise.all(story.unread(recoveries).map((endpoint) => look("requests", { endpoint, method: "GET", status: 200 })));
  hear({ ...seen, reads: reads.flat(), recoveries, faults, status });
  tellRecoveries(recoveries);
}

// Follow what happens for ever: it is waited for, not asked for in vain.
async function follow() {
  for (let isLost = false; ; ) {
    try {
      if (isLost) await lookAround(); // it may be another emulator, which counts from one again
      isLost = false;
      const { messages, requests } = story.since;
      const seen = await act("wait", { requests: { since: requests }, messages: { since: messages }, timeout: 600 });
      await lookAround(seen);
      await pause(QUIET);
    } catch (error) {
      if (error.status === 403) throw error;
      isLost = error.status !== 408;
      if (isLost) await pause(1000);
    }
  }
}

async function begin() {
  $("token-form").hidden = true;
  try {
    showLags(await look("faults"));
    for (const { number, back } of await look("recoveries")) if (back !== null) toldOf.add(number); // before our time
    await lookAround();
    setInterval(() => isLively && !document.hidden && lookAround().catch(() => {}), 1000);
    await follow();
  } catch (error) {
    $("token-form").hidden = error.status !== 403;
    say(error.message);
  }
}

let story = null;
let hear = null;

// A page of another site could lay this one under the visitor's clicks; in a frame it does nothing.
if (window.top !== window.self) say("The stage works in a window of its own only.");
else {
  $("panes").replaceChildren(...PEOPLE.map(seat));
  ({ story, hear } = openTimeline($("timeline"), { size: 14 }));

  on($("log-in"), async () => {
    logBothIn();
    say("Both are logged in.");
  });

  on($("outage"), async () => {
    const { sockets } = await act("faults", { kind: "outage", seconds: OUTAGE });
    say(`An outage of ${OUTAGE} s: ${plural(sockets, "socket")} ${sockets === 1 ? "is" : "are"} lost without a word (1006); the app comes back by itself.`);
  });

  on($("expire"), async () => {
    const { expired, closed } = await act("expire-tokens");
    say(`${plural(expired, "token")} expired, ${plural(closed, "socket")} closed with 1000 “Access token expired.”; both have to log in.`);
  });

  on($("change"), async () => {
    const { closed } = await act("change-endpoint", { name: ITEMS });
    say(`${plural(closed, "socket")} closed with 1000 “Options of the endpoint are changed.”; the app listens again.`);
  });

  on($("reset"), async () => {
    const { messages } = await act("reset");
    showLags([]);
    say(`Back at the start: ${messages === 1 ? "one message" : `${messages} messages`} told the panes the difference; both log in again.`);
    setTimeout(logBothIn, 300);
  });

  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken($("token").value.trim());
    begin();
  });

  begin();
}
