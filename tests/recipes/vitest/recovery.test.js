import { afterEach, beforeEach, expect, inject, test, vi } from "vitest";
import WebSocket from "ws";
import { keepCurrent } from "../vite/live.js"; // stands for your client
import { openWorld } from "../world.js";

const [endpoint, diary] = ["examples/auth", "secure-endpoint"];
const sockets = [];
let world;
beforeEach(async () => (world = await openWorld(inject("host"), `vitest-${process.env.VITEST_POOL_ID}`)));
afterEach(() => sockets.splice(0).forEach((socket) => socket.close()));

// One client for each user, for recoveries tell clients apart by their users.
async function open(username, chance = 0) {
  const [show, url, wsUrl] = [vi.fn(), world.url(diary), world.wsUrl(diary)];
  const logIn = async () => (await world.control("sign-in", { endpoint, username })).token;
  vi.spyOn(Math, "random").mockReturnValueOnce(chance);
  sockets.push(keepCurrent({ url, wsUrl, logIn, show, wait: 100, WebSocket }));
  await vi.waitUntil(() => show.mock.lastCall);
  return { logIn, show };
}

test("one of two users loses the socket, and reads what she has missed", async () => {
  const [ada] = [await open("ada"), await open("ben")];
  await world.control("faults", { kind: "refuse", username: "ada", for: 60 });
  await world.control("faults", { kind: "abort", username: "ada" });
  await world.store(diary, "missed", await ada.logIn());
  await world.control("advance", { seconds: 60 });
  await vi.waitUntil(() => ada.show.mock.lastCall[0].length);
  const recoveries = await world.report("recoveries");
  expect(recoveries).toMatchObject([{ username: "ada", token: "same", missed: 1, read: true }]);
});

test("gaps between tries grow, and differ from user to user", async () => {
  await Promise.all([open("ada", 0), open("ben", 0.9)]);
  for (const username of ["ada", "ben"]) await world.control("faults", { kind: "refuse", username, times: 3 });
  await world.control("faults", { kind: "abort" });
  const { recoveries } = await world.control("wait", { recoveries: { endpoint: diary }, count: 2 });
  for (const { attempts } of recoveries)
    expect(attempts[3].after - attempts[2].after).toBeGreaterThan(2 * attempts[0].after);
  expect(Math.abs(recoveries[0].after - recoveries[1].after)).toBeGreaterThan(0.3);
});

test("a try after the token has expired shows a new one", async () => {
  await open("ada");
  await world.control("expire-tokens", { username: "ada" });
  const { recoveries } = await world.control("wait", { recoveries: { username: "ada" } });
  expect(recoveries[0]).toMatchObject({ rule: "expired token", token: "new", attempts: [{ refused: null }] });
});
