// Checks that the Mermaid diagrams of documents can be parsed: node mermaid.mjs TOOLS FILE…
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [tools, ...files] = process.argv.slice(2);
const require = createRequire(`${tools}/`);
// Mermaid cleans texts with a document of a browser.
const { JSDOM } = require("jsdom");
globalThis.window = new JSDOM("").window;
globalThis.document = globalThis.window.document;
const { default: mermaid } = await import(pathToFileURL(`${tools}/node_modules/mermaid/dist/mermaid.core.mjs`));

let [diagrams, broken] = [0, 0];
for (const file of files) {
  const text = readFileSync(file, "utf8");
  for (const { 1: diagram, index } of text.matchAll(/^```mermaid\n(.*?)^```$/gms)) {
    diagrams += 1;
    try {
      await mermaid.parse(diagram);
    } catch (error) {
      broken += 1;
      console.error(`${file}:${text.slice(0, index).split("\n").length}: ${error.message}`);
    }
  }
}
if (diagrams === 0) console.error("there is no diagram to check");
process.exit(diagrams > 0 && broken === 0 ? 0 : 1);
