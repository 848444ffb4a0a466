/** Builds dist/ from tracker.js: `npm ci && npm run build`. Prints what each build weighs. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { minify } from "terser";

const BUILDS = {
  "script.js": { PAGEVIEWS: false, EXTENDED: false },
  "script.pageviews.js": { PAGEVIEWS: true, EXTENDED: false },
  "script.extended.js": { PAGEVIEWS: false, EXTENDED: true },
};

const folder = new URL("dist/", import.meta.url);
const source = readFileSync(new URL("tracker.js", import.meta.url), "utf8");
mkdirSync(folder, { recursive: true });
for (const [name, constants] of Object.entries(BUILDS)) {
  const { code } = await minify(source, {
    ecma: 2021,
    compress: { ecma: 2021, passes: 5, unsafe_arrows: true, global_defs: constants },
    format: { ecma: 2021 },
  });
  writeFileSync(new URL(name, folder), code);
  console.log(`${name}: ${code.length} bytes, ${gzipSync(code, { level: 9 }).length} gzipped`);
}
