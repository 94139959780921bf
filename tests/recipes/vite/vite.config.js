import { execSync, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { defineConfig } from "vite";

// The emulator starts with the dev server and ends with it; each git branch has a data file of its own.
const emulator = {
  name: "rested-emulator",
  apply: "serve",
  async config() {
    if (process.env.RESTED_URL) return; // there is one: the dev server starts anew, or `-- npx vite` was the command
    const branch = execSync("git branch --show-current").toString().trim().replaceAll("/", "-") || "detached";
    const options = ["--port", "0", "--json", "--quiet", "--with-parent", "--endpoint", "my-app/notes"];
    const { stdout } = spawn("python", ["-m", "rested_emulator", `rested-db.${branch}.json`, ...options], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    for await (const line of createInterface(stdout)) {
      const { url, wsUrl, key, host } = JSON.parse(line);
      Object.assign(process.env, { RESTED_URL: url, RESTED_WS_URL: wsUrl, RESTED_KEY: key });
      return console.log(`  rested-emulator: http://${host}/ (${branch})`);
    }
    throw new Error("the emulator did not start");
  },
};

// Each variable by its name: RESTED_ alone would also give the master key to every visitor.
export default defineConfig({ plugins: [emulator], envPrefix: ["VITE_", "RESTED_URL", "RESTED_WS_URL", "RESTED_KEY"] });
