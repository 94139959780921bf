// What the page knows of the emulator, kept up to date: what happens is waited for, not asked for in vain.

import { $, note } from "./dom.js";
import { look, Refused, wait } from "./speak.js";

const QUIET = 100; // milliseconds between two looks at what happened, however much it is
const FRESH = 400; // between two looks at the state, while things happen
const MOST_LISTENERS = 500; // beyond, they are counted and not listed
const ROUNDED = 0.05; // seconds, which a clock may be told too late
const SLOW = 2000; // and while nothing seems to: options may change without anybody hearing of it

export const state = { status: null, listeners: [], faults: [], mails: [], people: [], recoveries: new Map(), project: null, endpoint: null };
const changed = new Set();
const happened = new Set();
const gone = new Set();
const found = new Set();

export const onChange = (action) => changed.add(action);
export const onEvents = (action) => happened.add(action);
export const onLost = (action) => gone.add(action); // it answers no more
export const onFound = (action) => found.add(action); // the emulator answers again

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// All endpoints of the chosen project, each with the key it is used with.
export function endpoints() {
  return state.project ? state.project.endpoints.map((endpoint) => ({ ...endpoint, key: state.project.key })) : [];
}

export function choose(name) {
  state.endpoint = name;
  settle();
}

// The endpoint of a project that is shown where none was chosen.
export function firstOf(project) {
  const endpoints = project?.endpoints ?? [];
  return (endpoints.find(({ authentication }) => !authentication) ?? endpoints[0])?.name ?? null;
}

// Show the console's own traffic too, from the beginning, or no more.
export function showOwn(isShown) {
  own = isShown;
  since = 0;
  leaving?.abort();
}

// Let every part show what is known.
export function settle() {
  const projects = state.status.projects;
  const holder = projects.find(({ endpoints }) => endpoints.some(({ name }) => name === state.endpoint));
  state.project = holder ?? projects.find((project) => project.key === $("project").value) ?? projects[0];
  if (!holder) state.endpoint = firstOf(state.project);
  for (const action of changed) action(state);
}

let refreshing = null;
let wanted = false;

// Look at everything now, or once more as soon as the look that is under way is over.
export function refresh() {
  if (refreshing) {
    wanted = true;
    return refreshing;
  }
  refreshing = refreshNow().finally(() => {
    refreshing = null;
    if (wanted) {
      wanted = false;
      refreshSoon();
    }
  });
  return refreshing;
}

// Look at everything from now on: a look that is under way may have seen what was before.
export const refreshAnew = () => (refreshing ? refreshing.catch(() => {}).then(refresh) : refresh());

let soon = null;

function refreshSoon() {
  soon ??= setTimeout(() => {
    soon = null;
    refresh().catch(() => {}); // the one who follows tells
  }, FRESH);
}

async function refreshNow() {
  const began = performance.now();
  const many = state.status?.listeners > MOST_LISTENERS;
  const listening = many ? [[], []] : [look("listeners", { from: "console" }), look("listeners")];
  const looks = [...listening, look("status"), look("faults"), look("mails"), look("recoveries")];
  const [all, others, status, faults, mails, recoveries] = await Promise.all(looks);
  const numbers = new Set(others.map(({ number }) => number));
  const listeners = all.map((listener) => ({ ...listener, isConsole: !numbers.has(listener.number) }));
  // It was started anew so quickly that no call has failed: its events have other numbers, which nobody waits for.
  const isAnother = state.status && status.uptime < state.status.uptime + (began - looked) / 1000 - ROUNDED;
  Object.assign(state, { status, listeners, faults, mails });
  state.recoveries = new Map(recoveries.map((recovery) => [recovery.number, recovery])); // by the number of their CLOSE
  looked = performance.now();
  settle();
  if (!isAnother) return;
  lost = true;
  leaving?.abort();
}

// Resolve once the page is in sight: one that nobody looks at keeps no connection busy.
function inSight() {
  if (!document.hidden) return null;
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

let since = 0;
let lost = false;
let own = false;
let leaving = null;

// A broken edit of the data file is an alert until it is mended, and no longer.
const isDue = () => state.status?.refusedEdit || performance.now() - looked > SLOW;
let looked = 0;
setInterval(() => document.hidden || lost || !state.status || !isDue() || refresh().catch(() => {}), 500);

async function waitForEvents() {
  const messages = { since, from: own ? "console" : undefined };
  leaving = new AbortController();
  const leave = () => document.hidden && leaving.abort();
  document.addEventListener("visibilitychange", leave);
  try {
    return await wait({ requests: { since, from: "console" }, messages, timeout: 600 }, leaving.signal);
  } catch (error) {
    if (error.name === "AbortError" || error.status === 408) return { requests: [], messages: [] };
    throw error;
  } finally {
    document.removeEventListener("visibilitychange", leave);
  }
}

// Follow what happens for ever; without the control token, return.
export async function follow() {
  for (;;) {
    try {
      await inSight();
      if (lost) await refresh();
      if (lost) for (const action of found) action();
      if (lost) since = 0;
      lost = false;
      const { requests, messages } = await waitForEvents();
      const events = [...requests, ...messages].sort((one, other) => one.number - other.number);
      if (!events.length) continue;
      since = events.at(-1).number;
      const shown = own ? events : events.filter(({ url }) => !/[?&]from=console/.test(url));
      for (const action of happened) action(shown);
      refreshSoon();
      await pause(QUIET);
    } catch (error) {
      if (error instanceof Refused && error.status === 403) throw error;
      if (!lost) for (const action of gone) action(error);
      lost = true;
      await pause(1000);
    }
  }
}

export function sayLost(error) {
  const why = !(error instanceof Refused) ? "The emulator does not answer." : error.status === 503 ? "The emulator has stopped." : error.message;
  note(`${why} Trying again every second.`, "bad");
}
