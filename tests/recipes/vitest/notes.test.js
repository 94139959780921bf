import { beforeEach, expect, inject, test } from "vitest";
import WebSocket from "ws";
import { openWorld } from "../world.js";

const notes = "examples/unsecure-endpoint";
const load = (url) => fetch(url).then((answer) => (answer.ok ? answer.json() : load(url))); // stands for your client
let world;
beforeEach(async () => {
  world = await openWorld(inject("host"), `vitest-${process.env.VITEST_POOL_ID}`);
});

test("a listener hears what is stored", async () => {
  const socket = new WebSocket(world.wsUrl(notes));
  const heard = new Promise((resolve) => socket.on("message", resolve));
  await world.control("wait", { messages: { type: "OPEN" } });
  await world.store(notes, { text: "milk" });
  expect(JSON.parse(await heard).record.data).toEqual({ text: "milk" });
});

test("the client tries again after a 503", async () => {
  await world.control("faults", { kind: "status", status: 503, times: 1 });
  await load(world.url(notes));
  const { requests } = await world.control("wait", { requests: { method: "GET" }, count: 2 });
  expect(requests.map((request) => request.status)).toEqual([503, 200]);
});
