// Compiles assembly/index.ts to build/region.wasm. AssemblyScript cannot export names with colons and
// slashes, as the component model requires. Therefore the exports are renamed afterwards.

import fs from "node:fs";
import asc from "assemblyscript/asc";
import binaryen from "binaryen";

const INTERFACE = "walgate:guest/transform@1.0.0#";

const { error, stderr } = await asc.main(
  ["assembly/index.ts", "--outFile", "build/plain.wasm", "--optimize", "--runtime", "incremental",
    "--use", "abort=assembly/walgate/abort"],
  {},
);
if (error) {
  console.error(stderr.toString());
  process.exit(1);
}
const module = binaryen.readBinary(fs.readFileSync("build/plain.wasm"));
const rename = (from, to) => {
  const { value } = binaryen.getExportInfo(module.getExport(from));
  for (const name of to) module.addFunctionExport(value, name);
  module.removeExport(from);
};
for (const name of ["describe", "plan", "process"]) rename(name, [INTERFACE + name]);
rename("release", ["describe", "plan", "process"].map((name) => `cabi_post_${INTERFACE}${name}`));
const bytes = module.emitBinary();
fs.writeFileSync("build/region.wasm", bytes);
fs.rmSync("build/plain.wasm");
console.log(`build/region.wasm: ${Math.ceil(bytes.length / 1000)} KB`);
