// Reads a batch in place. docs/GUESTS.md specifies the layout. The gateway encoded the batch, so
// nothing is checked here.

export class Batch {
  rows: u32;
  private flags: usize;

  constructor(private at: usize) {
    this.rows = load<u32>(at, 4);
    this.flags = at + load<u32>(at, 16);
  }

  // The operation: 0 snapshot, 1 insert, 2 update, 3 delete.
  op(row: u32): u8 {
    return load<u8>(this.flags + row) & 3;
  }

  isOldImage(row: u32): bool {
    return (load<u8>(this.flags + row) & 4) != 0;
  }

  // Whether only the key of the row is known. Such a row needs no decision but `keep`.
  isKeyOnly(row: u32): bool {
    return (load<u8>(this.flags + row) & 8) != 0;
  }

  // The state of a cell: 0 NULL, 1 value, 2 unchanged, 3 absent. Columns are numbered in the order of
  // the plan's reads.
  state(column: u32, row: u32): u8 {
    return load<u8>(this.at + load<u32>(this.entry(column), 4) + row);
  }

  boolean(column: u32, row: u32): bool {
    return load<u8>(this.data(column) + row) != 0;
  }

  // Integers, timestamps, dates and times.
  integer(column: u32, row: u32): i64 {
    return load<i64>(this.data(column) + row * 8);
  }

  float(column: u32, row: u32): f64 {
    return load<f64>(this.data(column) + row * 8);
  }

  // The address of a text, bytes or packed value. `bytesLength` is its length.
  bytesAt(column: u32, row: u32): usize {
    const data = this.data(column);
    return data + (this.rows + 1) * 4 + load<u32>(data + row * 4);
  }

  bytesLength(column: u32, row: u32): u32 {
    const end = this.data(column) + row * 4;
    return load<u32>(end, 4) - load<u32>(end);
  }

  // Copies and converts the text. For a comparison in every row, `equals` is faster.
  text(column: u32, row: u32): string {
    return String.UTF8.decodeUnsafe(this.bytesAt(column, row), this.bytesLength(column, row));
  }

  // Whether the cell holds this value, in UTF-8.
  equals(column: u32, row: u32, value: ArrayBuffer): bool {
    const length = this.bytesLength(column, row);
    if (<i32>length != value.byteLength || this.state(column, row) != 1) return false;
    return memory.compare(this.bytesAt(column, row), changetype<usize>(value), length) == 0;
  }

  private entry(column: u32): usize {
    return this.at + 24 + column * 16;
  }

  private data(column: u32): usize {
    return this.at + load<u32>(this.entry(column), 8);
  }
}
