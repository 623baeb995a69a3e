// Writes the page's files into the directory of the argument. `cargo xtask web` runs it and compresses them.
import { build } from "esbuild";
import { copyFile, readFile, writeFile } from "node:fs/promises";

const out = process.argv[2];
if (!out) throw new Error("usage: node build.mjs DIR");

await build({
  entryPoints: { app: "src/main.tsx" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox115", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  charset: "utf8",
});
await build({ entryPoints: { app: "style.css" }, outdir: out, minify: true, target: ["chrome111", "firefox115", "safari16.4"] });
const html = await readFile("index.html", "utf8");
await writeFile(`${out}/index.html`, html.replace(/\n\s*/g, "\n"));
await copyFile("icon.svg", `${out}/icon.svg`);
