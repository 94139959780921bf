import { expect } from "@playwright/test";
import { test } from "./fixtures.js";

test("a page shows what is the user's own, until the token has expired", async ({ page, world, advance, signIn }) => {
  const token = await signIn("ada");
  await world.store("secure-endpoint", { text: "diary" }, token);
  const { token: another } = await world.control("sign-in", { endpoint: "examples/auth", username: "ben" });
  await world.store("secure-endpoint", { text: "not hers" }, another);

  await page.goto(`/private.html?key=${world.key}`);
  await expect(page.getByRole("listitem")).toHaveText(["diary"]);
  await advance(3500);
  await expect(page.getByRole("status")).toHaveText("soon to be logged out");
  await advance(100);
  await expect(page.getByRole("status")).toHaveText("logged out: Access token expired.");
});
