import assert from "node:assert/strict";
import { once } from "node:events";
import { beforeEach, test } from "node:test";
import WebSocket from "ws";
import { openWorld } from "../world.js";

const notes = "examples/unsecure-endpoint";
let world;
beforeEach(async () => (world = await openWorld(process.env.RESTED_HOST, `node-${process.pid}`)));

test("a listener hears what is stored", async () => {
  const socket = new WebSocket(world.wsUrl(notes));
  await once(socket, "open");
  const [[message]] = await Promise.all([once(socket, "message"), world.store(notes, { text: "milk" })]);
  assert.deepEqual(JSON.parse(message).record.data, { text: "milk" });
});

test("changed options end a socket", async () => {
  const socket = new WebSocket(world.wsUrl(notes));
  await once(socket, "open");
  const [[code, reason]] = await Promise.all([once(socket, "close"), world.control("change-endpoint", { name: notes })]);
  assert.equal(`${code} ${reason}`, "1000 Options of the endpoint are changed.");
});
