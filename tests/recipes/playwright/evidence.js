import { writeFile } from "node:fs/promises";
import { expect } from "@playwright/test";

const reports = ["requests", "messages", "recoveries"];

// The console's own picture of the test: who was connected, who fell out, and what they missed. A copied module is
// without console; an installed one brings it along.
async function drawTimeline(world, since, testInfo, browser) {
  const page = await browser.newPage(); // with a clock of its own
  await page.goto(`http://${process.env.RESTED_HOST}/__emulator__/?key=${world.key}`);
  const draw = async (since) => (await import("/__emulator__/timeline.js")).takePicture(Number(since));
  const path = testInfo.outputPath("timeline.svg");
  if (await page.locator("#timeline").count()) {
    await writeFile(path, await page.evaluate(draw, since));
    await testInfo.attach("timeline", { path, contentType: "image/svg+xml" });
  }
  await page.close();
}

// Begins to watch a world; what it returns tells what was seen since, and fails the test where that was refused.
export async function watch(world) {
  const before = await Promise.all(reports.map((name) => world.report(name)));
  const since = String(Math.max(0, ...before.map((seen) => seen.at(-1)?.number ?? 0)));

  return async (testInfo, expected, browser) => {
    const seen = await Promise.all(reports.map((name) => world.report(name, { since })));
    const [requests, messages, recoveries] = seen;
    // What a fault of the test's own has refused, it does expect.
    const answers = requests.filter(({ refusal, faults }) => refusal && !faults.length).map(({ refusal }) => refusal);
    const sockets = messages.filter(({ code }) => code === 4000).map(({ reason, hint }) => ({ message: reason, hint }));
    const refusals = [...answers, ...sockets].filter(({ message }) => !expected.includes(message));
    if (refusals.length || testInfo.status !== testInfo.expectedStatus) {
      const path = testInfo.outputPath("evidence.json"); // in test-results
      await writeFile(path, JSON.stringify({ requests, messages, recoveries }, null, 1));
      await testInfo.attach("evidence", { path });
      await drawTimeline(world, since, testInfo, browser);
    }
    expect(refusals, "the service has refused what the test did not say that it may").toEqual([]);
  };
}
