import { test as base } from "@playwright/test";
import { openWorld } from "../world.js";

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
  world: async ({ worldOfWorker }, use) => {
    await worldOfWorker.control("restore", { name: "milk" });
    await use(worldOfWorker);
  },
});
