// The canonical ABI of walgate:guest@1.0.0, written by hand for guests in AssemblyScript. batch.ts reads
// batches, decisions.ts writes decisions. This file does not know what the guest decides.

import { Batch } from "./batch";
import { Decisions } from "./decisions";

export namespace Kind {
  export const BOOLEAN: u8 = 0;
  export const INTEGER: u8 = 1;
  export const FLOAT: u8 = 2;
  export const TEXT: u8 = 3;
  export const BYTES: u8 = 4;
  export const UUID: u8 = 5;
  export const TIMESTAMP: u8 = 6;
  export const DATE: u8 = 7;
  export const TIME: u8 = 8;
  export const PACKED: u8 = 9;
}

export class Column {
  constructor(public name: string, public typeName: string, public kind: u8, public nullable: bool, public key: bool) {}
}

export class Table {
  columns: Column[] = [];
  parameters: Map<string, string> = new Map();
  constructor(public name: string, public oldRows: bool) {}
}

export class Read {
  constructor(public column: string, public unchanged: bool = false) {}
}

export class Output {
  // `kind` is that of the type. With an empty type a replaced column keeps its own.
  constructor(public column: string, public typeName: string, public kind: u8, public nullable: bool = true) {}
}

export class Plan {
  reads: Read[] = [];
  hides: string[] = [];
  replaces: Output[] = [];
  adds: Output[] = [];
  filters: bool = true;
  // A message for the operator. If it is set, the plan fails.
  error: string = "";
}

export abstract class Guest {
  abstract name(): string;
  abstract version(): string;
  abstract plan(table: Table): Plan;
  abstract process(batch: Batch, out: Decisions): void;
}

let guest: Guest | null = null;
let decisions: Decisions | null = null;

// Sets the guest of this module. Call it once, at the top level.
export function register(it: Guest): void {
  guest = it;
}

// @ts-ignore: decorator
@external("walgate:guest/host@1.0.0", "log")
declare function hostLog(level: i32, text: usize, length: usize): void;

export function log(level: i32, message: string): void {
  const text = String.UTF8.encode(message);
  hostLog(level, changetype<usize>(text), text.byteLength);
}

// Replaces AssemblyScript's own abort, which needs an import that the gateway does not provide. It
// logs message and location.
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const place = `${file ? file : ""}:${line}:${column}`;
  log(3, `aborted at ${place}: ${message ? message : ""}`);
  unreachable();
}

// Memory that is shared with the gateway. It is freed when the gateway has read the result.
let crossing: usize[] = [];

function room(bytes: usize): usize {
  const at = heap.alloc(bytes);
  crossing.push(at);
  return at;
}

export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (size == 0) return align;
  const at = room(size);
  if (oldSize > 0) memory.copy(at, old, oldSize);
  return at;
}

export function release(result: usize): void {
  for (let i = 0; i < crossing.length; i++) heap.free(unchecked(crossing[i]));
  crossing = [];
}

function readString(at: usize): string {
  return String.UTF8.decodeUnsafe(load<u32>(at), load<u32>(at, 4));
}

function writeString(at: usize, text: string): void {
  const length = String.UTF8.byteLength(text);
  const bytes = room(length);
  String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, bytes);
  store<u32>(at, <u32>bytes);
  store<u32>(at, <u32>length, 4);
}

function writeList(at: usize, elements: usize, size: usize): usize {
  const list = room(elements * size);
  store<u32>(at, <u32>list);
  store<u32>(at, <u32>elements, 4);
  return list;
}

function writeOutputs(at: usize, outputs: Output[]): void {
  const list = writeList(at, outputs.length, 20);
  for (let i = 0; i < outputs.length; i++) {
    const entry = list + i * 20;
    writeString(entry, outputs[i].column);
    writeString(entry + 8, outputs[i].typeName);
    store<u8>(entry, outputs[i].nullable, 16);
  }
}

export function describe(): usize {
  const at = room(16);
  writeString(at, guest!.name());
  writeString(at + 8, guest!.version());
  return at;
}

export function plan(
  name: usize, nameLength: usize, columns: usize, columnCount: usize,
  oldRows: i32, parameters: usize, parameterCount: usize,
): usize {
  const table = new Table(String.UTF8.decodeUnsafe(name, nameLength), oldRows != 0);
  for (let i: usize = 0; i < columnCount; i++) {
    const at = columns + i * 20;
    const nullable = load<u8>(at, 17) != 0, key = load<u8>(at, 18) != 0;
    table.columns.push(new Column(readString(at), readString(at + 8), load<u8>(at, 16), nullable, key));
  }
  for (let i: usize = 0; i < parameterCount; i++) {
    const at = parameters + i * 16;
    table.parameters.set(readString(at), readString(at + 8));
  }
  const made = guest!.plan(table);
  decisions = new Decisions(made.replaces, made.adds);
  return writePlan(made);
}

function writePlan(made: Plan): usize {
  const at = room(40);
  store<u8>(at, made.error.length > 0);
  if (made.error.length > 0) {
    writeString(at + 4, made.error);
    return at;
  }
  const reads = writeList(at + 4, made.reads.length, 12);
  for (let i = 0; i < made.reads.length; i++) {
    writeString(reads + i * 12, made.reads[i].column);
    store<u8>(reads + i * 12, made.reads[i].unchanged, 8);
  }
  const hides = writeList(at + 12, made.hides.length, 8);
  for (let i = 0; i < made.hides.length; i++) writeString(hides + i * 8, made.hides[i]);
  writeOutputs(at + 20, made.replaces);
  writeOutputs(at + 28, made.adds);
  store<u8>(at, made.filters, 36);
  return at;
}

export function process(batch: usize, length: usize): usize {
  const out = decisions!;
  const rows = new Batch(batch);
  out.begin(rows.rows);
  guest!.process(rows, out);
  const at = room(12);
  const size = out.size();
  const buffer = room(size);
  out.encode(buffer, size);
  store<u8>(at, 0);
  store<u32>(at, <u32>buffer, 4);
  store<u32>(at, <u32>size, 8);
  return at;
}
