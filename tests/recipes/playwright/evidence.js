import { writeFile } from "node:fs/promises";
import { expect } from "@playwright/test";

const reports = ["requests", "messages", "recoveries"];

// Begins to watch a world; what it returns tells what was seen since, and fails the test where that was refused.
export async function watch(world) {
  const before = await Promise.all(reports.map((name) => world.report(name)));
  const since = String(Math.max(0, ...before.map((seen) => seen.at(-1)?.number ?? 0)));

  return async (testInfo, expected) => {
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
    }
    expect(refusals, "the service has refused what the test did not say that it may").toEqual([]);
  };
}
