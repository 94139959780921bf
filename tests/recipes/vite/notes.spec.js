import { expect, test } from "@playwright/test";
import { openWorld } from "../world.js";

test("the app learns the key of its world, and comes back after an outage", async ({ page }, { parallelIndex }) => {
  const world = await openWorld(process.env.RESTED_HOST, `vite-${parallelIndex}`);
  await page.goto(`/?key=${world.key}`);
  await expect(page.getByRole("status")).toHaveText("online");
  await world.control("faults", { kind: "outage", method: "WEBSOCKET", seconds: 60 });
  await expect(page.getByRole("status")).toHaveText("offline");
  await world.store("my-app/notes", { text: "bread" });
  await world.control("advance", { seconds: 60 });
  await expect(page.getByRole("status")).toHaveText("online");
  await expect(page.getByRole("listitem")).toHaveText(["bread"]);
  const { recoveries } = await world.control("wait", { recoveries: { endpoint: "my-app/notes" } });
  expect(recoveries[0]).toMatchObject({ missed: 1, read: true });
});
