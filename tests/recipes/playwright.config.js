import { defineConfig } from "@playwright/test";

// A port of its own: what you develop with may run meanwhile.
const host = (process.env.RESTED_HOST ??= `localhost:${process.env.RESTED_TEST_PORT ?? 7379}`);

export default defineConfig({
  testDir: "playwright",
  fullyParallel: true,
  use: { baseURL: `http://${host}`, launchOptions: { executablePath: process.env.CHROMIUM } },
  webServer: {
    command: `python -m rested_emulator --memory --static app --port ${host.split(":")[1]}`,
    url: `http://${host}/__emulator__/health`,
    reuseExistingServer: Boolean(process.env.RESTED_PID), // it has started us: `-- npx playwright test`
  },
});
