// Collects decisions row by row and encodes them. docs/GUESTS.md specifies the layout.

import { Kind, Output } from "./walgate";

const HEADER: usize = 24;
const ENTRY: usize = 16;

// A growing buffer, reused from batch to batch.
class Buffer {
  at: usize = heap.alloc(64);
  length: usize = 0;
  private capacity: usize = 64;

  // Makes room for more bytes and returns their address.
  grow(bytes: usize): usize {
    const begin = this.length;
    this.length += bytes;
    if (this.length > this.capacity) {
      this.capacity = max(this.length, this.capacity * 2);
      this.at = heap.realloc(this.at, this.capacity);
    }
    return this.at + begin;
  }
}

class Writer {
  states: Buffer = new Buffer();
  data: Buffer = new Buffer();
  ends: Buffer = new Buffer();
  touched: bool = false;
  width: u32;

  constructor(public kind: u8, public replaces: bool) {
    if (kind == Kind.TEXT || kind == Kind.BYTES || kind == Kind.PACKED) this.width = 0;
    else this.width = kind == Kind.BOOLEAN ? 1 : kind == Kind.UUID ? 16 : 8;
  }

  // False for a replaced column that no row sets. Such a column has no sections.
  get written(): bool {
    return this.touched || !this.replaces;
  }

  begin(rows: u32): void {
    this.touched = false;
    this.states.length = this.data.length = this.ends.length = 0;
    memory.fill(this.states.grow(rows), this.replaces ? 2 : 0, rows);
    const bytes = rows * this.width;
    memory.fill(this.data.grow(bytes), 0, bytes);
    if (this.width == 0) store<u32>(this.ends.grow(4), 0);
  }

  set(row: u32, state: u8): void {
    store<u8>(this.states.at + row, state);
    this.touched = true;
  }

  endRow(): void {
    if (this.width == 0) store<u32>(this.ends.grow(4), <u32>this.data.length);
  }
}

export class Decisions {
  private rows: u32 = 0;
  private row: u32 = 0;
  private verdicts: Buffer = new Buffer();
  private errors: Buffer = new Buffer();
  private errorTexts: Buffer = new Buffer();
  private columns: Writer[] = [];

  constructor(replaces: Output[], adds: Output[]) {
    for (let i = 0; i < replaces.length; i++) this.columns.push(new Writer(replaces[i].kind, true));
    for (let i = 0; i < adds.length; i++) this.columns.push(new Writer(adds[i].kind, false));
  }

  begin(rows: u32): void {
    this.rows = rows;
    this.row = 0;
    this.verdicts.length = this.errors.length = this.errorTexts.length = 0;
    memory.fill(this.verdicts.grow(rows), 1, rows);
    for (let i = 0; i < this.columns.length; i++) this.columns[i].begin(rows);
  }

  // Call exactly one of keep, drop and error for each row, in order. Set the cells of a row before,
  // and only if the row is kept.
  keep(): void {
    for (let i = 0; i < this.columns.length; i++) this.columns[i].endRow();
    this.row++;
  }

  drop(): void {
    store<u8>(this.verdicts.at + this.row, 0);
    this.keep();
  }

  error(message: string): void {
    store<u8>(this.verdicts.at + this.row, 2);
    const text = String.UTF8.encode(message);
    const entry = this.errors.grow(12);
    store<u32>(entry, this.row);
    // Relative to the first text; `encode` adds the offset of the texts.
    store<u32>(entry, <u32>this.errorTexts.length, 4);
    store<u32>(entry, text.byteLength, 8);
    memory.copy(this.errorTexts.grow(text.byteLength), changetype<usize>(text), text.byteLength);
    this.keep();
  }

  // Columns are numbered as in the plan: replaces, then adds.
  null(column: u32): void {
    this.columns[column].set(this.row, 0);
  }

  boolean(column: u32, value: bool): void {
    store<u8>(this.columns[column].data.at + this.row, value);
    this.columns[column].set(this.row, 1);
  }

  // Integers, timestamps, dates and times.
  integer(column: u32, value: i64): void {
    store<i64>(this.columns[column].data.at + this.row * 8, value);
    this.columns[column].set(this.row, 1);
  }

  float(column: u32, value: f64): void {
    store<f64>(this.columns[column].data.at + this.row * 8, value);
    this.columns[column].set(this.row, 1);
  }

  // Appends to the row's text, bytes or packed value.
  bytes(column: u32, at: usize, length: usize): void {
    memory.copy(this.columns[column].data.grow(length), at, length);
    this.columns[column].set(this.row, 1);
  }

  text(column: u32, value: string): void {
    const text = String.UTF8.encode(value);
    this.bytes(column, changetype<usize>(text), text.byteLength);
  }

  // The number of bytes that `encode` writes.
  size(): usize {
    let size = align(HEADER + this.columns.length * ENTRY) + this.rows;
    for (let i = 0; i < this.columns.length; i++) {
      const column = this.columns[i];
      if (!column.written) continue;
      size = align(align(size) + column.states.length) + column.ends.length + column.data.length;
    }
    return align(size) + this.errors.length + this.errorTexts.length;
  }

  encode(out: usize, size: usize): void {
    memory.fill(out, 0, size);
    store<u32>(out, 0x31444757);
    store<u32>(out, this.rows, 4);
    store<u32>(out, this.columns.length, 8);
    store<u32>(out, <u32>(this.errors.length / 12), 12);
    let at = align(HEADER + this.columns.length * ENTRY);
    store<u32>(out, <u32>at, 16);
    at = put(out, at, this.verdicts);
    for (let i = 0; i < this.columns.length; i++) {
      const column = this.columns[i], entry = out + HEADER + i * ENTRY;
      store<u8>(entry, column.kind);
      if (!column.written) continue;
      at = align(at);
      store<u32>(entry, <u32>at, 4);
      at = align(put(out, at, column.states));
      store<u32>(entry, <u32>at, 8);
      store<u32>(entry, <u32>(column.ends.length + column.data.length), 12);
      at = put(out, put(out, at, column.ends), column.data);
    }
    at = align(at);
    store<u32>(out, <u32>at, 20);
    const texts = at + this.errors.length;
    for (let i: usize = 0; i < this.errors.length; i += 12) {
      const entry = this.errors.at + i;
      store<u32>(entry, load<u32>(entry, 4) + <u32>texts, 4);
    }
    put(out, put(out, at, this.errors), this.errorTexts);
  }
}

function align(at: usize): usize {
  return (at + 7) & ~7;
}

// Copies a section and returns its end.
function put(out: usize, at: usize, section: Buffer): usize {
  memory.copy(out + at, section.at, section.length);
  return at + section.length;
}
