//! The last catalog fingerprint of a table, kept to notice DDL that the stream does not mention.
//!
//! A comparison shows that something was altered, not where in the stream. How a fingerprint is
//! read is `postgres::catalog::ddl_probe`'s business.

use walgate_wire::Lsn;

use crate::postgres::catalog::{DdlFingerprint, SilentDdl};

/// A fingerprint, the relation that it was read from, and whether types have to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFingerprint {
    relid: u32,
    fingerprint: DdlFingerprint,
    /// A composite type was altered before this position; its rows are not read by it yet.
    composite_altered_before: Option<Lsn>,
}

impl SeenFingerprint {
    /// The new fingerprint, and why copies have to be loaded again, if they have to.
    pub fn compare(
        before: Option<&SeenFingerprint>,
        relid: u32,
        fingerprint: DdlFingerprint,
        lsn: Lsn,
    ) -> (SeenFingerprint, Option<&'static str>) {
        // Another relation of the same name has nothing to compare with.
        let before = before.filter(|before| before.relid == relid);
        let altered = before.map_or(vec![], |seen| fingerprint.diff(&seen.fingerprint));
        let is_composite = |altered: &&SilentDdl| **altered == SilentDdl::Composite;
        let rows = altered.iter().find(|altered| !is_composite(altered));
        let composite = altered.iter().find(is_composite).map(|_| lsn);
        let pending = before.and_then(|before| before.composite_altered_before);
        let composite_altered_before = composite.or(pending);
        let seen = SeenFingerprint { relid, fingerprint, composite_altered_before };
        (seen, rows.map(|altered| altered.describe()))
    }

    /// Whether a composite type was altered before the stream came to `passed`.
    pub fn must_reread_types(&self, passed: Lsn) -> bool {
        self.composite_altered_before.is_some_and(|lsn| lsn <= passed)
    }

    pub fn mark_types_reread(&mut self) {
        self.composite_altered_before = None;
    }
}
