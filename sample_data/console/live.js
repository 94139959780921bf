// The records of one endpoint as somebody sees them, kept equal to what a GET answers.
//
// The socket opens first, then the records are read, and what it brings meanwhile is applied afterwards. Whatever the
// socket may have kept from the page (a fault, silence, an outage) is noticed by what the emulator saw, and read again.

import { address, lookAtRecords, parse, request } from "./speak.js";

const FIRST_WAIT = 500; // milliseconds between two tries, twice as long each time
const LONGEST_WAIT = 5000;
const PATIENCE = 500; // so long may a message take that the emulator has seen leave
const BETWEEN = 100; // two readings that nobody asked for
const NOT_KEPT = /^\d+ bytes, which are not kept here$/; // stands for the data of a long record in the evidence

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const recordsOf = ({ record }) => (Array.isArray(record) ? record : [record]);
const keyOf = (type, record) => `${type} ${JSON.stringify(record)}`;

export class Live {
  // `onChange` is called when anything that is here to be seen may look different.
  constructor(onChange) {
    this.onChange = onChange;
    this.items = new Map(); // by uniqueId, in the order of GET
    this.deleted = new Set(); // ids that may come back to their old place
    this.run = null; // what is followed; another one makes the callbacks of the one before void
    this.pill = ["–", ""];
    this.ended = ""; // how the last socket came to its end
    this.refusal = null; // why the records cannot be read
    this.canRetry = false;
  }

  // Follow an endpoint as somebody (`{ isOwner, token }`). Where only options changed, the end of the socket is told on.
  follow(endpoint, who, isSame) {
    this.leave(isSame);
    if (!isSame) Object.assign(this, { ended: "", refusal: null, items: new Map(), deleted: new Set() });
    this.canRetry = false;
    const run = (this.run = { endpoint, who, socket: null, wait: FIRST_WAIT, queue: null, heard: new Set(), isRead: false });
    if (!endpoint) this.show("–");
    else if (who.isOwner) this.read(run);
    else this.open(run);
  }

  leave(isSame) {
    const old = this.run?.socket;
    this.run = null;
    if (!old) return;
    old.onmessage = old.onopen = null;
    old.onclose = ({ code, reason }) => isSame && code !== 1005 && this.noteEnd(code, reason);
    if (isSame) setTimeout(() => old.close(), 1000); // the emulator is about to say why
    else old.close();
  }

  // Read again, as after the emulator was away.
  again() {
    if (this.run?.endpoint) this.read(this.run);
  }

  // The owner has no socket whose end would tell that the emulator is away.
  lose() {
    const { run } = this;
    if (!run?.endpoint || !run.who.isOwner) return;
    run.isRead = false;
    this.show("not read", "bad");
  }

  show(text, tone = "") {
    this.pill = [text, tone];
    this.onChange();
  }

  noteEnd(code, reason) {
    const text = `closed with ${code}${reason ? ` ${reason}` : ""}`;
    this.ended = code === 4000 && this.ended ? `${this.ended.replace(/, a new one .*/, "")}, a new one ${text}` : `Socket ${text}`;
    this.onChange();
  }

  // The socket

  open(run) {
    this.show("connecting …");
    const { endpoint, who } = run;
    const socket = (run.socket = new WebSocket(address(endpoint, { socket: true, accessToken: who.token, from: "console" })));
    socket.onopen = () => this.read(run);
    socket.onmessage = ({ data }) => {
      const change = parse(data);
      for (const record of recordsOf(change)) run.heard.add(keyOf(change.type, record));
      if (run.heard.size > 5000) run.heard = new Set([...run.heard].slice(2500));
      this.take(run, change);
    };
    socket.onclose = (event) => this.reopen(run, socket, event);
  }

  async reopen(run, socket, { code, reason }) {
    if (this.run !== run) return;
    run.isRead = false;
    this.noteEnd(code, reason);
    this.show(`closed ${code}`, code === 1000 ? "warn" : "bad");
    await this.read(run);
    if (this.run !== run || socket !== run.socket) return;
    if (code === 4000 || reason === "Access token expired.") {
      this.canRetry = true;
      return this.onChange();
    }
    await pause(run.wait);
    run.wait = Math.min(LONGEST_WAIT, run.wait * 2);
    if (this.run === run && socket === run.socket) this.open(run);
  }

  // Reading

  async read(run) {
    run.isWanted = true;
    if (run.queue) return run.reading; // which looks once more
    run.queue = [];
    run.reading = this.readUntilDone(run);
    await run.reading;
  }

  async readUntilDone(run) {
    let found, failure;
    while (run.isWanted) {
      run.isWanted = false;
      run.queue = [];
      [found, failure] = await ask(run).then((records) => [records, null], (error) => [[], error]);
      if (this.run !== run) return;
    }
    this.become(found);
    this.refusal = failure;
    const lost = run.queue.filter((change) => this.apply(change));
    run.queue = null;
    if (lost.length) this.readSoon(run);
    run.isRead = !failure;
    this.settle(run);
  }

  settle(run) {
    const { isRead, who } = run;
    const isOpen = run.socket?.readyState === WebSocket.OPEN;
    if (isOpen && isRead) run.wait = FIRST_WAIT;
    if (isRead && (isOpen || who.isOwner)) this.pill = ["listening", "good"];
    else if (!isRead && (isOpen || who.isOwner)) {
      this.pill = ["not read", "bad"];
      pause(run.wait).then(() => this.run === run && !run.isRead && this.read(run));
      run.wait = Math.min(LONGEST_WAIT, run.wait * 2);
    }
    this.onChange();
  }

  // Read again soon, once for all that asks for it meanwhile.
  readSoon(run) {
    run.soon ??= setTimeout(() => {
      run.soon = null;
      if (this.run === run) this.read(run);
    }, BETWEEN);
  }

  // Take what was read in place of what is known; what stayed the same is not drawn anew.
  become(records) {
    const before = this.items;
    this.items = new Map();
    for (const record of records) {
      const item = before.get(record.uniqueId) ?? { version: 0, at: -Infinity };
      if (item.record && keyOf("", item.record) !== keyOf("", record)) item.version++;
      item.record = record;
      this.items.set(record.uniqueId, item);
      before.delete(record.uniqueId);
    }
    for (const uniqueId of before.keys()) this.deleted.add(uniqueId);
  }

  // Changes

  take(run, change) {
    if (this.run !== run) return;
    if (run.queue) return run.queue.push(change);
    if (!run.isRead) return;
    if (this.apply(change) || run.mistrusts) this.readSoon(run);
    this.onChange();
  }

  // Make a change; tells whether its place among the others is not known, so that it waits for the next reading.
  apply({ type, ...change }) {
    let isLost = false;
    for (const record of recordsOf(change)) {
      const { uniqueId } = record;
      const item = this.items.get(uniqueId);
      if (type === "DELETE") {
        if (this.items.delete(uniqueId)) this.deleted.add(uniqueId);
        continue;
      }
      if (item) Object.assign(item, { record, at: performance.now(), version: item.version + 1 });
      else if (this.deleted.delete(uniqueId) || record.createdAt < (this.latest ?? "")) isLost = true;
      else this.items.set(uniqueId, { record, at: performance.now(), version: 0 });
      if (type === "POST") this.latest = record.createdAt;
    }
    return isLost;
  }

  // Hear what the emulator saw: `mistrusts` tells that messages may be hit by a fault.
  hear(events, mistrusts) {
    const { run } = this;
    if (!run?.endpoint) return;
    run.mistrusts = mistrusts;
    const changes = events.filter(({ type, record, endpoint }) => record && type && endpoint === run.endpoint.name);
    for (const change of changes) {
      const isWhole = recordsOf(change).every(({ data }) => typeof data !== "string" || !NOT_KEPT.test(data));
      if (run.who.isOwner && isWhole) this.take(run, change);
      else if (run.who.isOwner || change.faults?.length) this.readSoon(run);
    }
    if (!run.who.isOwner && run.isRead) this.missAny(run, changes);
  }

  // Read again where a message did not come that has left; what this page may not see costs no more than a look.
  async missAny(run, changes) {
    const keys = changes.flatMap((change) => recordsOf(change).map((record) => keyOf(change.type, record)));
    if (keys.every((key) => run.heard.has(key))) return;
    await pause(PATIENCE);
    if (this.run === run && !keys.every((key) => run.heard.has(key))) this.readSoon(run);
  }
}

async function ask({ endpoint, who }) {
  if (who.isOwner) return lookAtRecords(endpoint.name);
  const found = await request(endpoint, { token: who.token });
  return Array.isArray(found) ? found : [found];
}
