import { defineConfig } from "vite";

const target = `http://${process.env.RESTED_HOST ?? "localhost:7378"}`;

export default defineConfig({
  server: { proxy: { "/api/1/ce": { target, ws: true } } },
  define: {
    "import.meta.env.RESTED_URL": JSON.stringify("/api/1/ce"),
    "import.meta.env.RESTED_WS_URL": JSON.stringify("/api/1/ce"),
    "import.meta.env.RESTED_KEY": JSON.stringify(process.env.RESTED_KEY ?? "d59eb2859c284168ac48aef65046d5dd"),
  },
});
