//! The dictionaries that are live, swapped whole between batches.
//!
//! A dictionary becomes live here only after its revision is stored in KV. Files and folders are
//! not known here; live guests are table state, see `tables`.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use walgate_wire::Token;

use crate::egress::compress::StoredDictionary;

/// The live dictionary of each table. Cheap to clone and to read.
#[derive(Clone, Debug, Default)]
pub struct LiveDictionaries {
    dictionaries: Arc<ArcSwap<HashMap<Token, Arc<StoredDictionary>>>>,
}

impl LiveDictionaries {
    pub fn dictionary(&self, token: &Token) -> Option<Arc<StoredDictionary>> {
        self.dictionaries.load().get(token).cloned()
    }

    /// From the next batch on, the table uses `dictionary`, or none.
    pub fn set_dictionary(&self, token: &Token, dictionary: Option<Arc<StoredDictionary>>) {
        self.dictionaries.rcu(|live| {
            let mut live = HashMap::clone(live);
            match &dictionary {
                Some(dictionary) => live.insert(token.clone(), Arc::clone(dictionary)),
                None => live.remove(token),
            };
            live
        });
    }

    /// Replaces `old` by `new`, unless another one became live meanwhile.
    pub fn replace_dictionary(
        &self,
        token: &Token,
        old: &Arc<StoredDictionary>,
        new: &Arc<StoredDictionary>,
    ) {
        self.dictionaries.rcu(|live| {
            let mut live = HashMap::clone(live);
            if let Some(current) = live.get_mut(token).filter(|current| Arc::ptr_eq(current, old)) {
                *current = Arc::clone(new);
            }
            live
        });
    }
}
