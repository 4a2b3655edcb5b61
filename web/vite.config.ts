import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

const api = process.env.KALEIDOSCOPE_API_URL ?? "http://127.0.0.1:8420";

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "../src/kaleidoscope/apps/page_files",
    emptyOutDir: true,
    // Everything is a file of ours: the Content-Security-Policy allows nothing else.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  // The API answers only for itself: it is called as by its own page.
  server: { proxy: { "/api": { target: api, changeOrigin: true, headers: { origin: api } } } },
});
