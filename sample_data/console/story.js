// What happened to each client, put together from what the emulator tells: when its sockets were open, what it heard
// and missed, and how it came back. Moments are seconds of the emulator's uptime, which no verb sets.

import { plural } from "./dom.js";

const MOST_LANES = 100;
const MOST_MARKS = 1000; // of one lane
const MOST_CHANGES = 2000; // that are remembered, to tell which of them were missed
const MOST_TOLD = 500; // of the listeners of one message
const SAME = 0.1; // seconds between a handshake and what the emulator tells of it
const JUMP = 1.5; // a clock that is told in whole seconds may differ by one

const seconds = (number) => (number < 0.05 ? "a moment" : `${number < 9.95 ? number.toFixed(1) : Math.round(number)} s`);

// Who somebody without a user is, as far as the headers tell: where the page comes from, and the browser.
function nameOf({ username, origin, agent }) {
  if (username) return username;
  const browser = /(Firefox|Edg|HeadlessChrome|Chrome|Safari)\//.exec(agent ?? "")?.[1] ?? (agent ?? "").split(/[\s/]/)[0];
  return [origin?.replace(/^https?:\/\//, ""), browser.replace("HeadlessChrome", "Chrome")].filter(Boolean).join(" ") || "somebody";
}

// A recovery in a sentence.
export function sentence({ username, listener, attempts, more = 0, back, after, missed, read }) {
  const who = username ?? `Listener ${listener}`;
  const changes = plural(missed, "change");
  if (back === null) {
    const tries = attempts.length + more;
    const tried = tries ? `has tried ${plural(tries, "time")}` : "has not tried";
    return `${who} is not back, ${missed ? `${tried}, and has missed ${changes}` : `and ${tried}`}.`;
  }
  if (!missed) return `${who} was away for ${seconds(after)}, and missed nothing.`;
  return `${who} was away for ${seconds(after)}, missed ${changes}, and ${read ? "read" : "did not read"} ${missed === 1 ? "it" : "them"}.`;
}

// By which rule a socket ended, as people say it: a word beside its end, and how grave it is.
function endOf({ code, reason }, rule) {
  if (rule?.startsWith("fault")) return { word: code === 1006 ? "lost" : `closed ${code}`, tone: "lost", why: rule };
  if (rule === "lost by the client" || rule === "stopped reading") return { word: "lost", tone: "lost", why: rule };
  if (reason === "Access token expired.") return { word: "expired", tone: "ended", why: "the access token has expired" };
  if (reason.startsWith("Options")) return { word: "options changed", tone: "ended", why: "options of the endpoint were changed" };
  if (rule) return { word: `closed ${code}`, tone: "ended", why: rule };
  return { word: "left", tone: "left", why: "closed by the client" };
}

const FLAGS = { "expired token": "tokens expired", "changed options": "options changed", "call delete-endpoint": "endpoint deleted" };

// There may be thousands of messages, so that they are put into words only where somebody asks.
function changeWords({ name }, { kind, change }) {
  if (!change) return "";
  const what = `a ${change.type} message of ${change.endpoint}`;
  return kind === "heard" ? `${name} heard ${what}` : `${name} never got ${what}: it was lost on purpose`;
}

// A fault, as people call it.
function faultName({ kind, seconds, status, code, what, username, endpoint }) {
  const names = { delay: `Lag of ${seconds} s`, outage: "Outage", abort: "Sockets dropped", silence: "Silence", cut: "Answers cut" };
  const more = { status: `Answers ${status}`, refuse: "Sockets refused", close: `Sockets closed ${code}`, messages: `Messages: ${what}` };
  return [names[kind] ?? more[kind] ?? kind, username && `for ${username}`, endpoint && `at ${endpoint}`].filter(Boolean).join(" ");
}

// Forget what came first of more than anybody looks back for.
function shorten(map) {
  if (map.size > MOST_CHANGES) map.delete(map.keys().next().value);
}

export class Story {
  constructor() {
    this.clear();
  }

  clear() {
    this.lanes = new Map(); // by who it is
    this.sockets = new Map(); // by the listener's number
    this.closes = new Map(); // ends of sockets, by their own number
    this.changes = [];
    this.reads = []; // answered GETs of an endpoint
    this.strangers = []; // refused handshakes of those who may have a recovery, or none
    this.recoveries = new Map();
    this.faults = new Map();
    this.moments = []; // where the emulator's clock began, jumped, or stood: { at, clock, stands, by }
    this.seen = null; // when the clock first said what it says
    this.last = 0; // the latest moment that was told of, and the first and latest at which something happened
    this.firstEvent = Infinity;
    this.lastEvent = 0;
    this.since = { messages: 0, requests: 0 }; // the numbers of the latest that were heard of
  }

  // Take in what the verbs of the same names tell; all of it may be left out.
  hear({ messages = [], requests = [], reads = [], recoveries = null, faults = null, listeners = [], status = null }) {
    if (status && status.uptime < this.last - 1) this.clear(); // another emulator, or another world
    const isNew = ({ number, method }) => number > this.since[method ? "requests" : "messages"];
    const events = [...messages, ...requests].filter(isNew).sort((one, other) => one.number - other.number);
    for (const event of events) {
      this.since[event.method ? "requests" : "messages"] = event.number;
      this.firstEvent = Math.min(this.firstEvent, event.uptime);
      this.lastEvent = Math.max(this.lastEvent, event.uptime);
      this.seeClock(event.uptime, Date.parse(event.at) / 1000);
      if (event.method) this.hearRequest(event);
      else if (event.type === "OPEN") this.hearOpen(event);
      else if (event.type === "CLOSE") this.hearClose(event);
      else this.hearChange(event);
    }
    if (status) this.seeClock(status.uptime, Date.parse(status.now) / 1000);
    for (const listener of listeners) this.hearListener(listener);
    if (faults) this.hearFaults(faults);
    this.reads.push(...reads);
    if (recoveries) this.hearRecoveries(recoveries);
    return events.length > 0;
  }

  // Keep the places where the emulator's clock did something else than run. It is told in whole seconds.
  seeClock(at, clock) {
    this.last = Math.max(this.last, at);
    const seen = this.seen ?? { at, clock };
    if (!this.moments.length) this.moments.push({ at, clock, stands: false, by: 0 });
    const moment = this.moments.at(-1);
    const by = clock - moment.clock - (moment.stands ? 0 : at - moment.at);
    if (moment.stands) {
      if (by && Math.abs(clock - seen.clock - (at - seen.at)) <= JUMP) this.moments.push({ ...seen, stands: false, by: 0 });
      else if (by) this.moments.push({ at, clock, stands: true, by });
    } else if (Math.abs(by) <= JUMP) moment.clock += Math.max(0, by);
    else if (clock === seen.clock) this.moments.push({ ...seen, stands: true, by: 0 });
    else this.moments.push({ at, clock, stands: false, by });
    if (this.moments.length > MOST_MARKS) this.moments.shift();
    if (clock !== seen.clock || !this.seen) this.seen = { at, clock }; // the first moment at which it said so
  }

  // What the emulator's clock said at a moment.
  clockAt(at) {
    const moment = this.moments.findLast((one) => one.at <= at) ?? this.moments[0];
    if (!moment) return "";
    const clock = moment.clock + (moment.stands ? 0 : at - moment.at);
    return new Date(Math.round(clock * 100) * 10).toISOString().slice(11, 19);
  }

  laneOf(client) {
    const key = client.username ? `user ${client.username}` : `${client.origin} ${client.agent}`;
    let lane = this.lanes.get(key);
    if (!lane && this.lanes.size >= MOST_LANES) this.dropLane();
    if (!lane && this.lanes.size < MOST_LANES) {
      const name = nameOf(client);
      const twins = [...this.lanes.values()].filter((one) => one.name === name || one.name.startsWith(`${name} (`)).length;
      lane = { name: twins ? `${name} (${twins + 1})` : name, sockets: [], marks: [], told: new Map() };
      this.lanes.set(key, lane);
    }
    return lane;
  }

  // Give up the lane of whom nothing was heard for longest and who does not listen now: a day has many clients.
  dropLane() {
    const idle = [...this.lanes].filter(([, { sockets }]) => sockets.every(({ to }) => to !== null));
    const lastOf = ([, { sockets, marks }]) => Math.max(sockets.at(-1)?.to ?? 0, marks.at(-1)?.at ?? 0);
    const [key] = idle.sort((one, other) => lastOf(one) - lastOf(other))[0] ?? [];
    this.lanes.delete(key);
  }

  mark(lane, mark) {
    lane?.marks.push(mark);
    if (lane?.marks.length > MOST_MARKS * 1.2) lane.marks.splice(0, lane.marks.length - MOST_MARKS);
  }

  open(number, endpoint, lane, from, event) {
    if (!lane) return;
    const taken = new Set(lane.sockets.filter(({ to }) => to === null || to > from).map(({ row }) => row));
    let row = 0;
    while (taken.has(row)) row++;
    const socket = { number, endpoint, lane, from, to: null, row, event, close: null };
    this.sockets.set(number, socket);
    lane.sockets.push(socket);
    if (lane.sockets.length > MOST_MARKS) lane.sockets.shift();
  }

  hearOpen({ to: [number], endpoint, uptime, number: event, ...client }) {
    if (!this.sockets.has(number)) this.open(number, endpoint, this.laneOf(client), uptime, event);
  }

  // Somebody who listens, and of whose opening nothing is known any more.
  hearListener({ number, endpoint, user }) {
    const isKnown = this.sockets.has(number) || [...this.closes.values()].some(({ to }) => to[0] === number);
    if (!isKnown) this.open(number, endpoint, this.laneOf({ username: user?.username ?? null, agent: `#${number}` }), 0, null);
  }

  hearClose(event) {
    if (!event.to.length) return this.strangers.push({ ...event, refused: `${event.code} ${event.reason}` });
    const socket = this.sockets.get(event.to[0]);
    this.closes.set(event.number, event);
    shorten(this.closes);
    if (!socket) return;
    event.lane = socket.lane;
    Object.assign(socket, { to: event.uptime, close: event });
    this.sockets.delete(event.to[0]);
  }

  hearRequest(event) {
    if (event.method === "GET" && event.status === 200) this.reads.push(event);
    if (event.method !== "WEBSOCKET" || !event.refusal) return;
    const [origin, agent] = [event.headers.Origin ?? null, event.headers["User-Agent"] ?? ""];
    const { number, endpoint, uptime } = event;
    this.strangers.push({ number, endpoint, uptime: uptime - event.seconds, username: null, origin, agent, refused: `${event.status} ${event.refusal.message}` });
  }

  hearChange(event) {
    const { number, uptime: at } = event;
    this.changes.push(event);
    if (this.changes.length > MOST_CHANGES) this.changes.splice(0, MOST_CHANGES / 2);
    const loser = event.faults.map((id) => this.faults.get(id)).find((fault) => fault?.what === "drop");
    for (const listener of event.to.slice(0, MOST_TOLD)) {
      const socket = this.sockets.get(listener);
      if (!socket) continue;
      const { lane, row } = socket;
      const isLost = loser && [undefined, listener].includes(loser.listener) && [undefined, lane.name].includes(loser.username);
      this.mark(lane, { at, row, kind: isLost ? "missed" : "heard", event: number, change: event });
    }
  }

  hearFaults(faults) {
    const there = new Set(faults.map(({ id }) => id));
    for (const fault of faults) this.faults.set(fault.id, { ...fault, name: faultName(fault) });
    shorten(this.faults);
    for (const fault of this.faults.values()) if (!there.has(fault.id)) fault.ended ??= this.last; // it was cleared
  }

  // What is known of those who fell out changes until they are back and have read.
  hearRecoveries(recoveries) {
    for (const recovery of recoveries) {
      const { number, attempts, more, back, read, missed } = recovery;
      const ended = this.closes.get(number)?.uptime;
      const before = this.recoveries.get(number);
      const readAt = read ? (before?.readAt ?? this.firstRead(recovery)) : null;
      const edition = [ended, attempts.length, more, back, readAt, missed].join();
      if (before?.edition === edition) continue;
      this.recoveries.set(number, { ...recovery, edition, ended, readAt });
      shorten(this.recoveries);
      this.tellRecovery(this.recoveries.get(number));
    }
    // Of those that were forgotten, nobody will tell any more whether they are back.
    const there = new Set(recoveries.map(({ number }) => number));
    for (const [number, { back }] of this.recoveries) if (back === null && !there.has(number)) this.forget(number);
    for (const stranger of this.strangers) this.hearStranger(stranger);
    this.strangers = [];
    this.reads = [];
  }

  // The endpoints that somebody has read after coming back, of which it is not known yet when.
  unread(recoveries) {
    const news = recoveries.filter(({ number, read }) => read && (this.recoveries.get(number)?.readAt ?? null) === null);
    return [...new Set(news.map(({ endpoint }) => endpoint))];
  }

  // The first answered GET of an endpoint since a client is back, where it is known to have read. Of two who are back at
  // once it may be the other one's, a moment earlier; of one that is not known any more, it was before now.
  firstRead({ endpoint, back }) {
    const sockets = [...this.lanes.values()].flatMap((lane) => lane.sockets);
    const opened = sockets.findLast(({ number }) => number === back);
    if (!opened) return null; // not heard of yet
    const reads = this.reads.filter((read) => read.endpoint === endpoint && read.number > opened.event);
    return reads.length ? Math.min(...reads.map(({ uptime }) => uptime)) : this.last;
  }

  forget(number) {
    this.recoveries.delete(number);
    for (const lane of this.lanes.values()) lane.told.delete(number);
  }

  tellRecovery(recovery) {
    const { number, listener, endpoint, username, ended, attempts, back, after, missed, readAt, rule } = recovery;
    const lane = [...this.lanes.values()].find((one) => one.sockets.some((socket) => socket.close?.number === number || socket.number === listener));
    if (!lane || ended === undefined) return;
    const { name } = lane;
    const row = lane.sockets.find((socket) => socket.close?.number === number)?.row ?? 0;
    const to = back === null ? null : ended + after;
    const marks = attempts
      .filter(({ refused }) => refused !== null)
      .map(({ after, refused }) => ({ at: ended + after, row, kind: "refused", label: refused, event: number, words: `${name} tried to come back to ${endpoint} after ${seconds(after)}, and was refused: ${refused}` }));
    const heard = this.changes.filter((change) => change.endpoint === endpoint && change.uptime > ended && (to === null || change.uptime < to));
    if (heard.length === missed) {
      for (const change of heard) marks.push({ at: change.uptime, row, kind: "missed", event: change.number, words: `${name} missed a ${change.type} message of ${endpoint}` });
    } else if (missed) {
      // Which of them it could have read only the emulator knows, so that they are counted and not shown one by one.
      marks.push({ at: to ?? this.last, row, kind: "missed", label: `missed ${missed}`, event: number, words: `${name} missed ${plural(missed, "message")} of ${endpoint}` });
    }
    if (readAt !== null) marks.push({ at: readAt, row, kind: "read", event: number, words: `${name} read ${endpoint} after coming back` });
    marks.sort((one, other) => one.at - other.at);
    const words = `${sentence({ ...recovery, username: username ?? name })} Its socket of ${endpoint} had ended by: ${rule}.`;
    lane.told.set(number, { from: ended, to, row, marks, words, event: number });
    if (lane.told.size > MOST_MARKS) lane.told.delete(lane.told.keys().next().value);
  }

  // A refused handshake that is none of those that recoveries tell of.
  hearStranger({ number, endpoint, uptime: at, refused, ...client }) {
    const isTold = [...this.recoveries.values()].some(
      (one) => one.endpoint === endpoint && one.attempts.some((attempt) => Math.abs(one.ended + attempt.after - at) < SAME),
    );
    if (isTold) return;
    const lane = this.laneOf(client);
    this.mark(lane, { at, row: 0, kind: "refused", label: refused.split(" ")[0], event: number, words: `${lane?.name} was refused at ${endpoint}: ${refused}` });
  }

  // How a socket ended.
  endOf(socket) {
    return endOf(socket.close, this.recoveries.get(socket.close.number)?.rule);
  }

  // All that can be told of a lane between two moments, in order: what a person walks along, or points at.
  itemsOf(lane, from, to) {
    const items = lane.marks.filter(({ at }) => at >= from && at <= to).map((mark) => ({ words: changeWords(lane, mark), ...mark }));
    for (const socket of lane.sockets) {
      const { endpoint, row, event, close } = socket;
      if (event !== null && socket.from >= from && socket.from <= to) {
        items.push({ at: socket.from, row, kind: "open", event, words: `${lane.name} opened a socket of ${endpoint}` });
      }
      if (close && socket.to >= from && socket.to <= to) {
        const { word, why } = this.endOf(socket);
        const code = `${close.code}${close.reason ? ` ${close.reason}` : ""}`;
        items.push({ at: socket.to, row, kind: "end", event: close.number, words: `${lane.name}: the socket of ${endpoint} ended, ${word}: ${code} (${why})` });
      }
    }
    items.sort((one, other) => one.at - other.at || one.event - other.event); // two may have one moment
    for (const { marks, ...away } of lane.told.values()) {
      items.push(...marks.filter(({ at }) => at >= from && at <= to));
      if (away.to !== null && away.to >= from && away.to <= to) items.push({ ...away, at: away.to, kind: "back" });
    }
    return items.sort((one, other) => one.at - other.at);
  }

  // What a lane was in the midst of at a moment.
  stateOf({ name, sockets, told }, at) {
    const away = [...told.values()].find(({ from, to }) => from <= at && (to ?? Infinity) >= at);
    if (away) return { ...away, at, kind: "away" };
    const socket = sockets.find(({ from, to }) => from <= at && (to ?? Infinity) >= at);
    if (!socket) return null;
    const { from, to, row, event, endpoint } = socket;
    const until = to === null ? "" : ` until ${this.clockAt(to)}`;
    return { at, kind: "socket", row, event, words: `${name} listened to ${endpoint} from ${this.clockAt(from)} on${until}` };
  }

  // Faults that last, and those that strike at once; whom they are for, or everybody.
  bands(from, to) {
    const shown = [];
    for (const { id, began, ended, name, kind, username, listener } of this.faults.values()) {
      const until = ended ?? Infinity;
      if (began > to || until < from) continue;
      const lane = username ?? this.sockets.get(listener)?.lane.name ?? null;
      shown.push({ from: began, to: until, name, lane, tone: kind === "outage" ? "outage" : "fault", words: `Fault ${id}: ${name}`, atOnce: until - began < 0.05 });
    }
    return shown.sort((one, other) => (one.lane !== null) - (other.lane !== null)); // those for everybody first
  }

  // What ended sockets otherwise than by a fault, once for all that ended by it together.
  flags(from, to) {
    const flags = [];
    for (const [number, close] of this.closes) {
      if (close.uptime < from || close.uptime > to) continue;
      const rule = this.recoveries.get(number)?.rule;
      if (!rule || rule.startsWith("fault") || rule.endsWith("client") || rule === "stopped reading") continue;
      const name = FLAGS[rule] ?? rule.replace("call ", "");
      if (flags.at(-1)?.name !== name || close.uptime - flags.at(-1).at > 0.5) flags.push({ at: close.uptime, name, hit: new Set() });
      flags.at(-1).hit.add(close.lane);
    }
    return flags;
  }

  // Where the clock did not run on, said as it stands on the axis.
  jumps(from, to) {
    const shown = [];
    for (const { at, by, stands } of this.moments.slice(1)) {
      if (at < from || at > to) continue;
      if (Math.abs(by) > JUMP) shown.push({ at, name: `clock ${by > 0 ? "+" : "−"}${span(Math.abs(by))}` });
      else shown.push({ at, name: stands ? "clock stands" : "clock runs" });
    }
    return shown;
  }

  // The recoveries as sentences, the latest first.
  sentences(most = 50) {
    return [...this.recoveries.values()].slice(-most).reverse().map((recovery) => {
      const lane = [...this.lanes.values()].find(({ told }) => told.has(recovery.number));
      return sentence({ ...recovery, username: recovery.username ?? lane?.name ?? null });
    });
  }

  // From the first to the last of what was heard.
  extent() {
    const first = Math.min(...[...this.lanes.values()].flatMap(({ sockets, marks }) => [...sockets, ...marks].map((one) => one.at ?? one.from)));
    return { from: Number.isFinite(first) ? first : 0, to: this.lastEvent };
  }
}

// A time as people say it.
function span(seconds) {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => seconds >= size * 0.99) ?? [1, "s"];
  const count = seconds / size;
  return `${Math.abs(count - Math.round(count)) < 0.1 ? Math.round(count) : count.toFixed(1)} ${unit}`;
}
