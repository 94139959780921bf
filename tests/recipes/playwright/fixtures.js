import { test as base } from "@playwright/test";
import { openWorld } from "../world.js";
import { watch } from "./evidence.js";

export const notes = "examples/unsecure-endpoint";

export const test = base.extend({
  worldOfWorker: [
    async ({}, use, { parallelIndex }) => {
      const world = await openWorld(process.env.RESTED_HOST, `playwright-${parallelIndex}`);
      await world.store(notes, { text: "milk" });
      await world.control("checkpoint", { name: "milk" });
      await use(world);
    },
    { scope: "worker" },
  ],
  refusals: [[], { option: true }], // that a test expects: test.use({ refusals: ["No record was found."] })
  world: async ({ worldOfWorker: world, refusals, browser }, use, testInfo) => {
    await world.control("restore", { name: "milk" });
    const tell = await watch(world);
    await use(world);
    await tell(testInfo, refusals, browser);
  },
  // One clock for page and emulator: timers of the page and tokens of the emulator run out together.
  advance: async ({ page, world }, use) => {
    const { now } = await world.report("status");
    await page.clock.install({ time: now });
    await use(async (seconds) => {
      await page.clock.fastForward(seconds * 1000);
      await world.control("advance", { seconds });
    });
  },
  // Logged in without the form, with the service's own cookie.
  signIn: async ({ context, world }, use) => {
    await use(async (username) => {
      const { token } = await world.control("sign-in", { endpoint: "examples/auth", username });
      const cookie = { name: "__Secure-rested-access-token", value: token, domain: "localhost", path: "/" };
      await context.addCookies([{ ...cookie, secure: true, httpOnly: true, sameSite: "None" }]);
      return token;
    });
  },
});
