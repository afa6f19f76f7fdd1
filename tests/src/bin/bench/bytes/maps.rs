//! Rows and changes in the most obvious form: MessagePack maps with column names, uncompressed.
//! Only their size matters.

use walgate_wire::{Change, Column, Op, Schema, Value, pack};

/// `{column: value, …}`
pub fn row(columns: &[Column], row: &[Value<'_>]) -> usize {
    let mut out = vec![];
    append_row(&mut out, columns.iter().zip(row));
    out.len()
}

/// `{op, lsn, n, xid, at, row: {column: value, …}}`, with `old` if Postgres sent it.
pub fn change(schema: &Schema, change: &Change<'_>) -> usize {
    let mut out = vec![];
    let all = |row| schema.columns.iter().zip::<&Vec<Value<'_>>>(row);
    let (op, new, old) = match &change.op {
        Op::Insert { row } => ("i", Some(row), None),
        Op::Update { row, old, .. } => ("u", Some(row), old.as_ref()),
        Op::Delete { old } => ("d", None, Some(old)),
        Op::Truncate => ("t", None, None),
    };
    pack::map(&mut out, 5 + usize::from(new.is_some()) + usize::from(old.is_some()));
    pack::str(&mut out, "op");
    pack::str(&mut out, op);
    for (name, value) in [
        ("lsn", change.position.commit_lsn.0 as i64),
        ("n", i64::from(change.position.ordinal)),
        ("xid", i64::from(change.xid)),
        ("at", change.at),
    ] {
        pack::str(&mut out, name);
        pack::int(&mut out, value);
    }
    if let Some(new) = new {
        pack::str(&mut out, "row");
        append_row(&mut out, all(new));
    }
    if let Some(old) = old {
        pack::str(&mut out, "old");
        let columns = schema.old.iter().filter_map(|&index| schema.columns.get(index as usize));
        append_row(&mut out, columns.zip(old));
    }
    out.len()
}

fn append_row<'a, 'b: 'a>(
    out: &mut Vec<u8>,
    cells: impl Iterator<Item = (&'a Column, &'a Value<'b>)>,
) {
    let cells: Vec<_> = cells.collect();
    pack::map(out, cells.len());
    for (column, value) in cells {
        pack::str(out, &column.name);
        value.pack(out);
    }
}
