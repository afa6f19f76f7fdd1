// Runs the guest as a core module through the canonical ABI, on the vectors of tests/vectors/guest.

import assert from "node:assert/strict";
import fs from "node:fs";

const HOME = new URL("../../../tests/vectors/guest/", import.meta.url);
const T = "walgate:guest/transform@1.0.0#";
const KINDS = ["boolean", "integer", "float", "text", "bytes", "uuid", "timestamp", "date", "time", "packed"];
const module = new WebAssembly.Module(fs.readFileSync(new URL("../build/region.wasm", import.meta.url)));
assert.deepEqual(WebAssembly.Module.imports(module).map((i) => `${i.module}#${i.name}`), ["walgate:guest/host@1.0.0#log"]);

class Instance {
  constructor() {
    const log = (level, at, length) => console.log("log", level, this.text(at, length));
    this.exports = new WebAssembly.Instance(module, { "walgate:guest/host@1.0.0": { log } }).exports;
  }
  get view() { return new DataView(this.exports.memory.buffer); }
  u32(at) { return this.view.getUint32(at, true); }
  bytes(at, length) { return Buffer.from(this.exports.memory.buffer, at, length); }
  text(at, length) { return this.bytes(at, length).toString("utf8"); }
  string(at) { return this.text(this.u32(at), this.u32(at + 4)); }
  list(at, size, read) { return Array.from({ length: this.u32(at + 4) }, (_, i) => read(this.u32(at) + i * size)); }
  give(bytes, align = 1) {
    const at = this.exports.cabi_realloc(0, 0, align, bytes.length);
    this.bytes(at, bytes.length).set(bytes);
    return [at, bytes.length];
  }
  call(name, ...parameters) {
    const at = this.exports[T + name](...parameters.flat());
    const done = () => this.exports[`cabi_post_${T}${name}`](at);
    return [at, done];
  }
  plan(table) {
    const record = (size, count) => Buffer.alloc(size * count);
    const columns = record(20, table.columns.length);
    table.columns.forEach((column, i) => {
      [...this.give(Buffer.from(column.name)), ...this.give(Buffer.from(column.type))]
        .forEach((number, k) => columns.writeUInt32LE(number, i * 20 + k * 4));
      columns.set([KINDS.indexOf(column.kind), column.nullable, column.key], i * 20 + 16);
    });
    const [at, done] = this.call("plan", this.give(Buffer.from(table.name)), this.give(columns, 4)[0],
      table.columns.length, Number(table.old_rows), 4, 0);
    assert.equal(this.view.getUint8(at), 0);
    const flag = (at) => this.view.getUint8(at) !== 0;
    const output = (at) => ({ column: this.string(at), type: this.string(at + 8), nullable: flag(at + 16) });
    const plan = {
      reads: this.list(at + 4, 12, (at) => ({ column: this.string(at), unchanged: flag(at + 8) })),
      hides: this.list(at + 12, 8, (at) => this.string(at)),
      replaces: this.list(at + 20, 20, output),
      adds: this.list(at + 28, 20, output),
      filters: flag(at + 36),
    };
    done();
    return plan;
  }
  process(batch) {
    const [at, done] = this.call("process", this.give(batch));
    assert.equal(this.view.getUint8(at), 0);
    const decisions = this.bytes(this.u32(at + 4), this.u32(at + 8)).toString("hex");
    done();
    return decisions;
  }
}

for (const name of ["empty", "region", "old_images"]) {
  const vector = JSON.parse(fs.readFileSync(new URL(`${name}.json`, HOME), "utf8"));
  const guest = new Instance();
  const [at, done] = guest.call("describe");
  assert.deepEqual([guest.string(at), guest.string(at + 8)], ["region", "0.1.0"]);
  done();
  assert.deepEqual(guest.plan(vector.table), vector.plan, name);
  // Many times: a batch must not affect the next one, and memory must not grow.
  const batch = Buffer.from(vector.batch, "hex");
  for (let i = 0; i < 1000; i++) assert.equal(guest.process(batch), vector.decisions, name);
  assert.ok(guest.exports.memory.buffer.byteLength < 1 << 20, "memory does not grow");
  console.log(`${name}: ok`);
}
