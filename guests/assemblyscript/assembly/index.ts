// Keeps the rows of one region, masks addresses and adds their length, and hides the secret.

import { Batch } from "./batch";
import { Decisions } from "./decisions";
import { Guest, Kind, Output, Plan, Read, Table, register } from "./walgate";

export { cabi_realloc, describe, plan, process, release } from "./walgate";

// Read columns, in the order of the plan.
const EMAIL = 0, COUNTRY = 1;
// Output columns, in the order of the plan.
const MASKED = 0, LENGTH = 1;

const AT: u8 = 0x40;

class Region extends Guest {
  private region: ArrayBuffer = String.UTF8.encode("DE");
  private stars: ArrayBuffer = String.UTF8.encode("***");

  name(): string { return "region"; }
  version(): string { return "0.1.0"; }

  plan(table: Table): Plan {
    const plan = new Plan();
    if (table.parameters.has("region")) this.region = String.UTF8.encode(table.parameters.get("region"));
    plan.reads = [new Read("email"), new Read("country")];
    plan.hides = ["secret"];
    plan.replaces = [new Output("email", "", Kind.TEXT, false)];
    plan.adds = [new Output("length", "int4", Kind.INTEGER)];
    return plan;
  }

  process(batch: Batch, out: Decisions): void {
    for (let row: u32 = 0; row < batch.rows; row++) {
      if (batch.isKeyOnly(row)) out.keep();
      else if (!batch.equals(COUNTRY, row, this.region)) out.drop();
      else if (batch.bytesLength(EMAIL, row) == 0) out.error("no address");
      else {
        const length = batch.bytesLength(EMAIL, row);
        out.integer(LENGTH, length);
        this.mask(batch.bytesAt(EMAIL, row), length, out);
        out.keep();
      }
    }
  }

  // Writes the first character, stars, and the rest from the last @ on.
  private mask(at: usize, length: u32, out: Decisions): void {
    let end: usize = length;
    while (end > 0 && load<u8>(at + end - 1) != AT) end--;
    let first: usize = end > 1 ? 1 : 0;
    // Continuation bytes of UTF-8 begin with the bits 10.
    while (first > 0 && first < end - 1 && (load<u8>(at + first) & 0xc0) == 0x80) first++;
    out.bytes(MASKED, at, first);
    out.bytes(MASKED, changetype<usize>(this.stars), this.stars.byteLength);
    if (end > 0) out.bytes(MASKED, at + end - 1, length - (end - 1));
  }
}

register(new Region());
