// Encodes texts with an exported directory under Node: `node check.mjs DIRECTORY [SIDE] < texts.json > vectors.json`.

import { readFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { runInThisContext } from "node:vm";

// What the runtime expects of a worker.
globalThis.self = globalThis;
globalThis.require = createRequire(import.meta.url);
globalThis.__dirname = "";
globalThis.importScripts = (url) => runInThisContext(readFileSync(fileURLToPath(url), "utf8"));

const directory = resolve(process.argv[2]);
const { Encoder } = await import(pathToFileURL(join(directory, "encoder.js")));
const encoder = await Encoder.load((name) => readFile(join(directory, name)));
const results = [];
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  const ids = encoder.tokenIds(text, process.argv[3]);
  results.push({ ids, vector: Array.from(await encoder.encodeIds(ids)) });
}
process.stdout.write(JSON.stringify(results));
