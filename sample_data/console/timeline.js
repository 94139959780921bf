// The timeline of the console: what happened to each client, as the emulator tells it.

import { openTimeline } from "./panel.js";
import { look } from "./speak.js";
import { onChange, onEvents, state } from "./state.js";
import { Story } from "./story.js";
import { picture } from "./strip.js";

const QUIET = 400; // milliseconds between two looks, however much happens

const choose = (number) => document.dispatchEvent(new CustomEvent("timeline-choose", { detail: number }));
const { story, strip, hear } = openTimeline(document.getElementById("timeline"), { onChoose: choose, foldable: true });

// Without `from`, so that the console's own traffic is left out, which the activity may show.
async function lookAt(story, { messages, requests } = story.since) {
  // Later all of them are heard of. Before the messages, which so have the opening of every one that is still known.
  const listeners = messages ? [] : await look("listeners");
  // Before them too, so that every socket that recoveries name is known by its messages.
  const recoveries = await look("recoveries", {});
  const [seen, asked, faults] = await Promise.all([
    look("messages", { since: messages }),
    look("requests", { since: requests, method: "WEBSOCKET" }),
    look("faults"),
  ]);
  const reads = await Promise.all(story.unread(recoveries).map((endpoint) => look("requests", { endpoint, method: "GET", status: 200 })));
  return { listeners, messages: seen, requests: asked, reads: reads.flat(), recoveries, faults, status: await look("status") };
}

let looking = null;
let wanted = false;

// Look at what happened now, or once more as soon as the look that is under way is over.
function lookSoon() {
  wanted = true;
  looking ??= setTimeout(async () => {
    wanted = false;
    try {
      hear(await lookAt(story));
    } catch {
      // The one who follows tells that the emulator does not answer.
    }
    looking = null;
    if (wanted) lookSoon();
  }, QUIET);
}

onEvents(lookSoon);

let told = "";
onChange(() => {
  strip.setNow(state.status.uptime);
  // Faults begin, end and are cleared without any event.
  const now = JSON.stringify([state.faults, [...state.recoveries.values()], state.status.frozen, state.status.uptime < story.last]);
  if (now !== told) lookSoon();
  told = now;
});

document.addEventListener("activity-choose", ({ detail }) => strip.chooseEvent(detail));

// The app of the demo links to its stage, and so does the console then; it is at the root unless there are pages.
async function linkStage() {
  if (location.pathname === "/") return;
  const app = await (await fetch("/")).text();
  if (!app.includes('href="stage.html"')) return;
  const link = Object.assign(document.createElement("a"), { href: "/stage.html", textContent: "Stage" });
  document.getElementById("timeline-title").after(link);
}

linkStage();

// A picture of all that happened after a number, for the report of a test.
export async function takePicture(since = 0) {
  const whole = new Story();
  const seen = await lookAt(whole, { messages: since, requests: since });
  whole.hear({ ...seen, listeners: [], recoveries: seen.recoveries.filter(({ number }) => number > since) });
  return picture(whole, whole.extent());
}
