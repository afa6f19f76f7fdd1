//! Texts of values that only the server can print (ranges, tsvector, geometry, …), for one batch.
//!
//! A first pass over the batch notes unknown values. The server prints all of them at once. Then
//! the batch is packed. How the server prints them is not known here.

use std::collections::HashMap;

use walgate_wire::pack;

/// Texts by type and binary value; none while a text is unknown.
#[derive(Debug, Default)]
pub struct Rendered {
    texts: HashMap<u32, HashMap<Box<[u8]>, Option<String>>>,
    missing: usize,
}

impl Rendered {
    /// Forgets all texts. A text may depend on the catalog (`regclass`), so it is valid for its
    /// batch only.
    pub fn clear(&mut self) {
        self.texts.clear();
        self.missing = 0;
    }

    /// Whether the texts of all noted values are known.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Values without a text, by type.
    pub fn missing(&self) -> impl Iterator<Item = (u32, Vec<&[u8]>)> {
        self.texts.iter().filter_map(|(&oid, texts)| {
            let unknown = texts.iter().filter(|(_, text)| text.is_none());
            let values: Vec<&[u8]> = unknown.map(|(value, _)| &**value).collect();
            (!values.is_empty()).then_some((oid, values))
        })
    }

    /// Adds the text that the server printed for a value.
    pub fn insert(&mut self, oid: u32, value: &[u8], text: String) {
        let known = self.texts.entry(oid).or_default();
        if let Some(None) = known.insert(value.into(), Some(text)) {
            self.missing -= 1;
        }
    }

    /// Appends the text; if it is not known, notes the value and appends nil.
    pub fn pack(&mut self, oid: u32, value: &[u8], out: &mut Vec<u8>) {
        let known = self.texts.entry(oid).or_default();
        match known.get(value) {
            Some(Some(text)) => pack::str(out, text),
            Some(None) => pack::nil(out),
            None => {
                known.insert(value.into(), None);
                self.missing += 1;
                pack::nil(out);
            }
        }
    }
}
