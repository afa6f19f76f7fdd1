//! What the folders made available: live dictionaries and guests, swapped whole between batches.
//!
//! A dictionary becomes live here only after its revision is stored in KV. A guest is offered here, and becomes
//! live when the session, between two transactions, says so. Files and folders are not known.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use walgate_wire::Token;

use crate::egress::compress::StoredDictionary;
pub use crate::egress::outlet::Gate;

/// What each table uses at this moment. Cheap to clone and to read.
#[derive(Clone, Debug, Default)]
pub struct Assets {
    dictionaries: Arc<ArcSwap<HashMap<Token, Arc<StoredDictionary>>>>,
    offered: Arc<ArcSwap<HashMap<Token, Gate>>>,
    live: Arc<ArcSwap<HashMap<Token, Gate>>>,
    /// Changes with every offer.
    offers: watch::Sender<()>,
}

impl Assets {
    pub fn dictionary(&self, token: &Token) -> Option<Arc<StoredDictionary>> {
        self.dictionaries.load().get(token).cloned()
    }

    /// From the next batch on the table uses `dictionary`, or none.
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

    /// `new` for `old`, unless another one has become live meanwhile.
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

    /// What the folder of guests last said of the table.
    pub fn offered(&self, token: &Token) -> Gate {
        self.offered.load().get(token).cloned().unwrap_or_default()
    }

    /// Tells when [`Assets::offered`] may have changed.
    pub fn offers(&self) -> watch::Receiver<()> {
        self.offers.subscribe()
    }

    pub fn offer(&self, token: &Token, gate: Gate) {
        set(&self.offered, token, gate);
        self.offers.send_replace(());
    }

    /// How the table's rows leave now, in changes and in snapshots that begin now.
    pub fn gate(&self, token: &Token) -> Gate {
        self.live.load().get(token).cloned().unwrap_or_default()
    }

    /// Between two transactions only: the session's to call.
    pub fn set_gate(&self, token: &Token, gate: Gate) {
        set(&self.live, token, gate);
    }
}

fn set(gates: &ArcSwap<HashMap<Token, Gate>>, token: &Token, gate: Gate) {
    gates.rcu(|gates| {
        let mut gates = HashMap::clone(gates);
        gates.insert(token.clone(), gate.clone());
        gates
    });
}
