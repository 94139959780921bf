import { expect, test } from "@playwright/test";
import { openWorld } from "../world.js";

const diary = "my-app/diary";
let world;
test.beforeEach(async ({}, { parallelIndex }) => {
  world = await openWorld(process.env.RESTED_HOST, `vite-${parallelIndex}`);
});

// One user in each page, for recoveries tell clients apart by their users: two tabs of one user look alike.
async function open(context, username, chance = 0) {
  const { token } = await world.control("sign-in", { endpoint: "my-app/users", username, password: "-" });
  const page = await context.newPage();
  await page.addInitScript(`Math.random = () => ${chance}`);
  await page.goto(`/diary.html?key=${world.key}&username=${username}&wait=100`);
  await expect(page.getByRole("status")).toHaveText("online");
  return { page, token };
}

test("one of two users loses the socket, and reads what she has missed", async ({ context }) => {
  const [ada] = [await open(context, "ada"), await open(context, "ben")];
  await world.control("faults", { kind: "refuse", username: "ada", for: 60 });
  await world.control("faults", { kind: "abort", username: "ada" });
  await world.store(diary, { text: "missed" }, ada.token);
  await world.control("advance", { seconds: 60 });
  await expect(ada.page.getByRole("listitem")).toHaveText(["missed"]);
  const recoveries = await world.report("recoveries");
  expect(recoveries).toMatchObject([{ username: "ada", token: "same", missed: 1, read: true }]);
});

test("gaps between tries grow, and differ from user to user", async ({ context }) => {
  await Promise.all([open(context, "ada", 0), open(context, "ben", 0.9)]);
  for (const username of ["ada", "ben"]) await world.control("faults", { kind: "refuse", username, times: 3 });
  await world.control("faults", { kind: "abort" });
  const { recoveries } = await world.control("wait", { recoveries: { endpoint: diary }, count: 2 });
  for (const { attempts } of recoveries) {
    expect(attempts[3].after - attempts[2].after).toBeGreaterThan(2 * attempts[0].after);
  }
  expect(Math.abs(recoveries[0].after - recoveries[1].after)).toBeGreaterThan(0.3);
});

test("a try after the token has expired shows a new one", async ({ context }) => {
  await open(context, "ada");
  await world.control("expire-tokens", { username: "ada" });
  const { recoveries } = await world.control("wait", { recoveries: { username: "ada" } });
  expect(recoveries[0]).toMatchObject({ rule: "expired token", token: "new", attempts: [{ refused: null }] });
});
