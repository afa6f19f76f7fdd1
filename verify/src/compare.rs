//! Compares two copies of a table without holding either: sums of hashes by range of key hash, then
//! the rows of differing ranges.
//!
//! Pure. This file does not know where rows come from. A row is its cells in MessagePack, one after
//! the other.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

/// Ranges of key hashes that are summed separately.
const RANGES: usize = 1024;
/// At most so many row hashes are held while differences are searched.
const SUSPECTS_MAX: u64 = 500_000;

/// One row, reused from row to row.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Append a cell here, then call [`Row::end_cell`].
    pub bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Row {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub fn end_cell(&mut self) {
        self.ends.push(self.bytes.len());
    }

    pub fn cells(&self) -> usize {
        self.ends.len()
    }

    pub fn cell(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    fn hash(&self) -> u128 {
        xxh3_128(&self.bytes)
    }
}

/// The columns that identify rows.
#[derive(Clone, Debug)]
pub struct Key {
    columns: Vec<usize>,
}

impl Key {
    /// Indexes of the key columns; empty: the whole row is its key.
    pub fn new(columns: Vec<usize>) -> Self {
        Key { columns }
    }

    pub fn hash(&self, row: &Row) -> u128 {
        match self.columns[..] {
            [] => row.hash(),
            [only] => xxh3_128(row.cell(only)),
            _ => xxh3_128(
                &self.columns.iter().flat_map(|&c| row.cell(c)).copied().collect::<Vec<u8>>(),
            ),
        }
    }

    /// The columns that name a row: those of the key, or all `columns` of them.
    pub fn naming(&self, columns: usize) -> Vec<usize> {
        if self.columns.is_empty() { (0..columns).collect() } else { self.columns.clone() }
    }
}

fn range_of(key_hash: u128) -> usize {
    key_hash as usize % RANGES
}

/// A pass over every row of a side.
pub trait Look: Send + 'static {
    fn at(&mut self, row: &Row);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    hashes: u128,
}

/// First pass: counts and hashes by range, in any order of rows.
#[derive(Clone, Debug)]
pub struct Sums {
    key: Key,
    ranges: Vec<Sum>,
}

impl Sums {
    pub fn new(key: Key) -> Self {
        Sums { key, ranges: vec![Sum::default(); RANGES] }
    }

    pub fn rows(&self) -> u64 {
        self.ranges.iter().map(|sum| sum.rows).sum()
    }

    /// Ranges that differ between both sides.
    pub fn differing(&self, other: &Sums) -> Vec<usize> {
        (0..RANGES).filter(|&range| self.ranges[range] != other.ranges[range]).collect()
    }

    /// As many of the differing ranges, the smallest first, as may be held at once.
    pub fn suspects(&self, other: &Sums) -> Suspects {
        let rows = |range: usize| self.ranges[range].rows.max(other.ranges[range].rows);
        let mut differing = self.differing(other);
        differing.sort_by_key(|&range| rows(range));
        let mut held = 0;
        let mut ranges = vec![false; RANGES];
        for (index, &range) in differing.iter().enumerate() {
            held += rows(range);
            if index > 0 && held > SUSPECTS_MAX {
                break;
            }
            ranges[range] = true;
        }
        Suspects { key: self.key.clone(), ranges, rows: HashMap::new(), of_replica: false }
    }
}

impl Look for Sums {
    fn at(&mut self, row: &Row) {
        let sum = &mut self.ranges[range_of(self.key.hash(row))];
        sum.rows += 1;
        sum.hashes = sum.hashes.wrapping_add(row.hash());
    }
}

/// Second pass: the source's rows of the differing ranges, minus the replica's.
#[derive(Debug)]
pub struct Suspects {
    key: Key,
    ranges: Vec<bool>,
    rows: HashMap<u128, (i64, u128)>,
    of_replica: bool,
}

impl Suspects {
    /// The following rows are the replica's.
    pub fn now_replica(mut self) -> Self {
        self.of_replica = true;
        self
    }

    /// At most `max` differing rows, for a third pass that names them.
    pub fn culprits(self, max: usize) -> Named {
        let rows = self.rows.into_keys().take(max).map(|key| (key, Pair::default())).collect();
        Named { key: self.key, rows, of_replica: false }
    }
}

impl Look for Suspects {
    fn at(&mut self, row: &Row) {
        let key = self.key.hash(row);
        if !self.ranges[range_of(key)] {
            return;
        }
        let (count, sum) = self.rows.entry(key).or_default();
        if self.of_replica {
            *count -= 1;
            *sum = sum.wrapping_sub(row.hash());
        } else {
            *count += 1;
            *sum = sum.wrapping_add(row.hash());
        }
        if (*count, *sum) == (0, 0) {
            self.rows.remove(&key);
        }
    }
}

/// A row on both sides, with its counts, which matter for tables without a key.
#[derive(Debug, Default)]
struct Pair {
    source: Option<Row>,
    replica: Option<Row>,
    surplus: i64,
}

/// Third pass: the differing rows, with their values.
#[derive(Debug)]
pub struct Named {
    key: Key,
    rows: HashMap<u128, Pair>,
    of_replica: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Missing,
    Extra,
    Different,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub kind: Kind,
    /// The cells that name the row.
    pub key: Vec<Vec<u8>>,
    /// Indexes of the columns with different values.
    pub columns: Vec<usize>,
}

impl Named {
    pub fn now_replica(mut self) -> Self {
        self.of_replica = true;
        self
    }

    /// A row that became equal in between is not a difference.
    pub fn differences(self) -> Vec<Difference> {
        let key = &self.key;
        let mut differences: Vec<_> =
            self.rows.values().filter_map(|pair| pair.difference(key)).collect();
        differences.sort_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
        differences
    }
}

impl Look for Named {
    fn at(&mut self, row: &Row) {
        let Some(pair) = self.rows.get_mut(&self.key.hash(row)) else { return };
        if self.of_replica {
            pair.replica = Some(row.clone());
            pair.surplus -= 1;
        } else {
            pair.source = Some(row.clone());
            pair.surplus += 1;
        }
    }
}

impl Pair {
    fn difference(&self, key: &Key) -> Option<Difference> {
        let row = self.source.as_ref().or(self.replica.as_ref())?;
        let named =
            key.naming(row.cells()).into_iter().map(|column| row.cell(column).to_vec()).collect();
        let columns = match (&self.source, &self.replica) {
            (Some(a), Some(b)) => {
                (0..a.cells()).filter(|&column| a.cell(column) != b.cell(column)).collect()
            }
            _ => vec![],
        };
        let kind = match self.surplus {
            1.. => Kind::Missing,
            ..0 => Kind::Extra,
            0 if columns.is_empty() => return None,
            0 => Kind::Different,
        };
        Some(Difference { kind, key: named, columns })
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
