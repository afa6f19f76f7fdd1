//! What a stream that exists already must not differ in, and how it is put right.
//!
//! Pure. Limits and subjects are an operator's choice: they follow the configuration. The settings here are not, for with
//! another value the server throws away what consumers have not read, or what messages refer to.

use std::collections::HashSet;

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, PersistenceMode};

/// A setting whose value loses data.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsafe {
    key: &'static str,
    found: String,
    wanted: String,
}

/// In words, for an error: `discard is old and has to be new`.
pub fn in_words(settings: &[Unsafe]) -> String {
    let words = settings
        .iter()
        .map(|Unsafe { key, found, wanted }| format!("{key} is {found} and has to be {wanted}"));
    words.collect::<Vec<_>>().join(", ")
}

/// The settings of `found` with which the server would lose data.
pub fn unsafe_settings(found: &StreamConfig, wanted: &StreamConfig) -> Vec<Unsafe> {
    let differs = |key, is_safe: bool, found: String, wanted: String| {
        (!is_safe).then_some(Unsafe { key, found, wanted })
    };
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_ascii_lowercase();
    let (kept, to_keep) = (found.max_messages_per_subject, wanted.max_messages_per_subject);
    // Nothing of a bucket may be deleted: neither does it age.
    let ages = wanted.deny_delete && !found.max_age.is_zero();
    let settings = [
        differs(
            "retention",
            found.retention == wanted.retention,
            word(&found.retention),
            word(&wanted.retention),
        ),
        differs(
            "storage",
            found.storage == wanted.storage,
            word(&found.storage),
            word(&wanted.storage),
        ),
        differs(
            "discard",
            wanted.discard == DiscardPolicy::Old || found.discard == wanted.discard,
            word(&found.discard),
            word(&wanted.discard),
        ),
        differs("max_msgs_per_subject", keeps(kept, to_keep), limit(kept), limit(to_keep)),
        differs("max_age", !ages, format!("{:?}", found.max_age), "unlimited".to_owned()),
        differs(
            "persist_mode",
            found.persist_mode != Some(PersistenceMode::Async),
            "async".to_owned(),
            "default".to_owned(),
        ),
    ];
    settings.into_iter().flatten().collect()
}

/// Whether what the configuration says of a stream is so.
pub fn is_as_configured(found: &StreamConfig, wanted: &StreamConfig) -> bool {
    found.max_bytes == wanted.max_bytes
        && found.max_age == wanted.max_age
        && found.num_replicas >= wanted.num_replicas
        && HashSet::<&String>::from_iter(&found.subjects) == HashSet::from_iter(&wanted.subjects)
}

/// `found` as it has to be; all else is left as somebody wanted it.
pub fn put_right(found: &StreamConfig, wanted: StreamConfig) -> StreamConfig {
    let mut right = found.clone();
    right.retention = wanted.retention;
    right.storage = wanted.storage;
    if wanted.discard == DiscardPolicy::New {
        right.discard = wanted.discard;
    }
    if !keeps(found.max_messages_per_subject, wanted.max_messages_per_subject) {
        right.max_messages_per_subject = wanted.max_messages_per_subject;
        // It means a limit for each subject, and is refused without one.
        right.discard_new_per_subject = wanted.discard_new_per_subject;
    }
    right.persist_mode = right.persist_mode.filter(|mode| *mode != PersistenceMode::Async);
    right.max_bytes = wanted.max_bytes;
    right.max_age = wanted.max_age;
    if !right.max_age.is_zero() {
        right.duplicate_window = right.duplicate_window.min(right.max_age);
    }
    right.num_replicas = right.num_replicas.max(wanted.num_replicas);
    right.subjects = wanted.subjects;
    right
}

/// Whether as many messages of a subject are kept as have to be; zero and less are no limit.
fn keeps(found: i64, wanted: i64) -> bool {
    found <= 0 || (wanted > 0 && found >= wanted)
}

fn limit(value: i64) -> String {
    if value <= 0 { "unlimited".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use async_nats::jetstream::stream::{RetentionPolicy, StorageType};

    fn changes() -> StreamConfig {
        StreamConfig { discard: DiscardPolicy::New, num_replicas: 1, ..StreamConfig::default() }
    }

    fn bucket() -> StreamConfig {
        StreamConfig { max_messages_per_subject: 1000, deny_delete: true, ..changes() }
    }

    /// What is said of it, and whether it is as it has to be once it is put right.
    fn said(found: &StreamConfig, wanted: &StreamConfig) -> String {
        let right = put_right(found, wanted.clone());
        assert_eq!(unsafe_settings(&right, wanted), []);
        assert!(is_as_configured(&right, wanted));
        in_words(&unsafe_settings(found, wanted))
    }

    #[test]
    fn what_loses_data_is_named_and_put_right() {
        let old = StreamConfig { discard: DiscardPolicy::Old, ..changes() };
        assert_eq!(said(&old, &changes()), "discard is old and has to be new");
        // The server says -1 where nothing was said.
        let few = |limit| StreamConfig { max_messages_per_subject: limit, ..bucket() };
        assert_eq!(said(&few(64), &bucket()), "max_msgs_per_subject is 64 and has to be 1000");
        let five = StreamConfig { max_messages_per_subject: 5, ..changes() };
        assert_eq!(said(&five, &changes()), "max_msgs_per_subject is 5 and has to be unlimited");
        for enough in [1000, 1001, 0, -1] {
            assert_eq!(said(&few(enough), &bucket()), "");
            assert_eq!(put_right(&few(enough), bucket()).max_messages_per_subject, enough);
        }
        let queue = StreamConfig {
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::Memory,
            persist_mode: Some(PersistenceMode::Async),
            ..changes()
        };
        assert_eq!(
            said(&queue, &changes()),
            "retention is workqueue and has to be limits, storage is memory and has to be file, \
             persist_mode is async and has to be default"
        );
        let ages = StreamConfig { max_age: Duration::from_secs(60), ..bucket() };
        assert_eq!(said(&ages, &bucket()), "max_age is 60s and has to be unlimited");
    }

    #[test]
    fn limits_are_the_configurations_and_all_else_is_left() {
        let minute = Duration::from_secs(60);
        let mine = StreamConfig {
            duplicate_window: 2 * minute,
            description: Some("ours".to_owned()),
            num_replicas: 3,
            ..changes()
        };
        let wanted = StreamConfig { max_age: minute, max_bytes: 7, ..changes() };
        assert!(!is_as_configured(&mine, &wanted));
        assert_eq!(said(&mine, &wanted), "");
        let right = put_right(&mine, wanted);
        // More servers than asked for are no fault; a window that is longer than messages live is refused.
        assert_eq!((right.num_replicas, right.duplicate_window), (3, minute));
        assert_eq!(right.description, mine.description);
        // What is set aside for an operator may be kept by an operator's rule.
        let dlq = StreamConfig { discard: DiscardPolicy::Old, ..changes() };
        assert_eq!(said(&changes(), &dlq), "");
        assert_eq!(put_right(&changes(), dlq).discard, DiscardPolicy::New);
        assert!(!is_as_configured(&changes(), &StreamConfig { num_replicas: 3, ..changes() }));
    }
}
