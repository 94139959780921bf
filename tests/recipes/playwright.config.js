import { defineConfig } from "@playwright/test";

const host = (process.env.RESTED_HOST ??= `localhost:${process.env.RESTED_EMULATOR_PORT ?? 7378}`);

export default defineConfig({
  testDir: "playwright",
  fullyParallel: true,
  use: { baseURL: `http://${host}`, launchOptions: { executablePath: process.env.CHROMIUM } },
  webServer: {
    command: "python rested_emulator.py --memory --static app",
    url: `http://${host}/__emulator__/health`,
    reuseExistingServer: true,
  },
});
