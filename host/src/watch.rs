//! The drop-in folder of dictionaries: what lies there is validated, stored and made live, without a restart.
//!
//! A file is read only once it has been quiet for a moment. Whatever is wrong with it is said once for each
//! content, and the dictionary that was live stays. Compression itself is not known here.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use walgate_wire::{Dictionary, DictionaryError, MAX_DICTIONARY_BYTES, Token};

use crate::{
    assets::Assets,
    kv::{Dictionaries, KvError},
    status::Status,
};

/// A file that changed more recently than this may still be being written.
const QUIET: Duration = Duration::from_millis(250);
/// Where inotify is missing (overlay, NFS) or overflows, the folder is listed this often all the same.
const POLL: Duration = Duration::from_secs(2);
const SUFFIX: &str = ".zstd.dict";

/// Follows one folder for the configured tables.
#[derive(Debug)]
pub struct DictionaryFolder {
    folder: PathBuf,
    tokens: Vec<Token>,
    store: Dictionaries,
    assets: Assets,
    status: Status,
    seen: HashMap<Token, Seen>,
}

/// What the folder held for a table when it was looked at last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Live([u8; 32]),
    Refused([u8; 32]),
    Unreadable(String),
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Read(io::Error),
    #[error(transparent)]
    Invalid(DictionaryError),
    #[error(transparent)]
    Kv(KvError),
}

impl DictionaryFolder {
    pub fn new(
        folder: PathBuf,
        tokens: Vec<Token>,
        store: Dictionaries,
        assets: Assets,
        status: Status,
    ) -> Self {
        DictionaryFolder { folder, tokens, store, assets, status, seen: HashMap::new() }
    }

    /// Loads what lies in the folder now; to be awaited before the first message is packed.
    pub async fn load(&mut self) {
        if !self.folder.is_dir() {
            tracing::info!(folder = %self.folder.display(), "no such folder: compressing without dictionaries until there is one");
        }
        for token in self.tokens.clone() {
            self.look_at(&token).await;
        }
    }

    /// Follows the folder until the task is dropped.
    pub async fn follow(mut self) {
        let (events, mut changed) = mpsc::channel::<()>(1);
        let mut watcher = None;
        loop {
            // The folder may appear later, or be replaced by another.
            if watcher.is_none() || !self.folder.is_dir() {
                watcher = self.watcher(events.clone());
            }
            let _ = tokio::time::timeout(POLL, changed.recv()).await;
            self.load_quiet().await;
        }
    }

    fn watcher(&self, events: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let on_event = move |event: notify::Result<notify::Event>| {
            // Reading a file is an event, too: ours would wake us for ever.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            // A full channel already means "look again".
            let _ = events.try_send(());
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                tracing::debug!(folder = %self.folder.display(), %error, "cannot watch the folder, polling it");
            })
            .ok()
    }

    /// Looks at every file that has been quiet; waits for those that have not.
    async fn load_quiet(&mut self) {
        for token in self.tokens.clone() {
            let path = self.path(&token);
            for _ in 0..40 {
                let changed = std::fs::metadata(&path).and_then(|m| m.modified());
                let age = changed
                    .map_or(QUIET, |at| SystemTime::now().duration_since(at).unwrap_or(QUIET));
                if age >= QUIET {
                    break;
                }
                tokio::time::sleep(QUIET - age).await;
            }
            self.look_at(&token).await;
        }
    }

    fn path(&self, token: &Token) -> PathBuf {
        self.folder.join(format!("{token}{SUFFIX}"))
    }

    async fn look_at(&mut self, token: &Token) {
        let path = self.path(token);
        let bytes = match read_capped(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.removed(token),
            Err(e) => {
                return self.refuse(
                    token,
                    Seen::Unreadable(e.to_string()),
                    &path,
                    Problem::Read(e),
                );
            }
        };
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        if matches!(self.seen.get(token), Some(Seen::Live(h) | Seen::Refused(h)) if *h == hash) {
            return;
        }
        let dictionary = match tokio::task::spawn_blocking(|| Dictionary::new(bytes)).await {
            Ok(Ok(dictionary)) => dictionary,
            Ok(Err(e)) => {
                return self.refuse(token, Seen::Refused(hash), &path, Problem::Invalid(e));
            }
            Err(_) => return,
        };
        match self.store.ensure(token, dictionary).await {
            Ok(stored) => {
                tracing::info!(table = %token, revision = stored.revision, sha256 = stored.dictionary.sha256(), "dictionary is live");
                self.status.table(token).set_dictionary_revision(stored.revision);
                self.assets.set_dictionary(token, Some(stored));
                self.seen.insert(token.clone(), Seen::Live(hash));
            }
            // Not remembered as seen: tried again at the next look.
            Err(e) => {
                tracing::warn!(table = %token, error = %Problem::Kv(e), "dictionary not stored yet, trying again")
            }
        }
    }

    fn removed(&mut self, token: &Token) {
        if self.seen.remove(token).is_some() && self.assets.dictionary(token).is_some() {
            tracing::info!(table = %token, "dictionary file removed: new messages go without; stored revisions stay");
            self.status.table(token).set_dictionary_revision(0);
            self.assets.set_dictionary(token, None);
        }
    }

    fn refuse(&mut self, token: &Token, seen: Seen, path: &Path, problem: Problem) {
        if self.seen.get(token) == Some(&seen) {
            return;
        }
        let kept = self.assets.dictionary(token).map_or(0, |d| d.revision);
        tracing::warn!(table = %token, file = %path.display(), %problem, revision_kept = kept, "dictionary refused, the one before stays in use");
        self.seen.insert(token.clone(), seen);
    }
}

/// Reads at most one byte more than a dictionary may have, so that the validation sees that it is too large.
fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_DICTIONARY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
