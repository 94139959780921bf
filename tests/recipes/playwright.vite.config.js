import { defineConfig } from "@playwright/test";

const host = (process.env.RESTED_HOST ??= `localhost:${process.env.RESTED_TEST_PORT ?? 7379}`);
const page = `http://localhost:${process.env.VITE_TEST_PORT ?? 5174}`;
const endpoints = "--endpoint my-app/notes --auth my-app/users --secure my-app/diary";
const api = { RESTED_URL: `http://${host}/api/1/ce`, RESTED_WS_URL: `ws://${host}/api/1/ce` };

export default defineConfig({
  testDir: "vite",
  use: { baseURL: page, launchOptions: { executablePath: process.env.CHROMIUM } },
  webServer: [
    {
      command: `python -m rested_emulator --memory ${endpoints} --port ${host.split(":")[1]}`,
      url: `http://${host}/__emulator__/health`,
    },
    { command: `npx vite vite --port ${new URL(page).port} --strictPort`, url: page, env: api },
  ],
});
