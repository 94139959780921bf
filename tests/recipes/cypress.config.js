import { defineConfig } from "cypress";
import { openWorld } from "./world.js";

const worlds = new Map();

export default defineConfig({
  e2e: {
    baseUrl: `http://${process.env.RESTED_HOST}`,
    specPattern: "cypress/*.cy.js",
    supportFile: false,
    setupNodeEvents(on) {
      on("task", {
        async open(key) {
          worlds.set(key, await openWorld(process.env.RESTED_HOST, key));
          return null;
        },
        store: ({ key, endpoint, data }) => worlds.get(key).store(endpoint, data),
        control: ({ key, verb, args }) => worlds.get(key).control(verb, args),
      });
    },
  },
});
