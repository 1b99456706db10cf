// `npm run lock`: writes package-lock.json anew without the addresses npm puts in (registry, funding, …), so that the
// lockfile holds on any machine and its checksums alone say what is installed.

import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(path, "utf8"));
for (const entry of Object.values(lock.packages)) {
  for (const key of ["resolved", "funding", "deprecated"]) delete entry[key];
}
writeFileSync(path, JSON.stringify(lock, null, 2) + "\n");
