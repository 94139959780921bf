import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

export default async function ({ provide }) {
  const options = ["--memory", "--port", "0", "--json", "--quiet", "--with-parent"];
  const emulator = spawn("python", ["-m", "rested_emulator", ...options], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(emulator, "exit");
  for await (const line of createInterface(emulator.stdout)) {
    provide("host", JSON.parse(line).host);
    return async () => {
      emulator.kill();
      await ended;
    };
  }
  throw new Error("the emulator did not start");
}
