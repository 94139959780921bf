import { expect } from "@playwright/test";
import { notes, test } from "./fixtures.js";

test.beforeEach(async ({ page, world }) => {
  await page.goto(`/?key=${world.key}`);
  await expect(page.getByRole("status")).toHaveText("online");
});

test("a note appears when somebody else stores it", async ({ page, world }) => {
  await world.store(notes, { text: "bread" });
  await expect(page.getByRole("listitem")).toHaveText(["milk", "bread"]);
});

test("the page comes back after an hour without service", async ({ page, world }) => {
  await world.control("faults", { kind: "outage", mode: "reset", seconds: 3600 });
  await expect(page.getByRole("status")).toHaveText("offline");
  await world.control("advance", { seconds: 3600 });
  await expect(page.getByRole("status")).toHaveText("online");
  await expect(page.getByRole("listitem")).toHaveText(["milk"]);
});

test("the page asks again when a 429 says so, and not before", async ({ page, world, advance }) => {
  const headers = { "Retry-After": "3600" };
  await world.control("faults", { kind: "status", status: 429, headers, method: "GET", times: 1 });
  await world.store(notes, { text: "bread" });
  await expect(page.getByRole("status")).toHaveText("asked to wait");
  await advance(3500);
  const asked = await world.report("requests", { method: "GET" });
  expect(asked.at(-1).status).toBe(429);
  await advance(100);
  await expect(page.getByRole("listitem")).toHaveText(["milk", "bread"]);
});
