//! Settings of an existing stream that would lose data, and their correction.
//!
//! Pure. Limits and subjects are an operator's choice: they follow the configuration. The settings
//! here are not. With another value the server deletes unread messages, or revisions that messages
//! refer to.

use std::collections::HashSet;

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, PersistenceMode};

/// A setting whose value loses data.
#[derive(Debug, PartialEq, Eq)]
pub struct UnsafeSetting {
    key: &'static str,
    found: String,
    wanted: String,
}

/// A text for errors: `discard is old and has to be new`.
pub fn describe_settings(settings: &[UnsafeSetting]) -> String {
    let words = settings.iter().map(|UnsafeSetting { key, found, wanted }| {
        format!("{key} is {found} and has to be {wanted}")
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The settings of `found` with which the server would lose data.
pub fn find_unsafe_settings(found: &StreamConfig, wanted: &StreamConfig) -> Vec<UnsafeSetting> {
    let differs = |key, is_safe: bool, found: String, wanted: String| {
        (!is_safe).then_some(UnsafeSetting { key, found, wanted })
    };
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_ascii_lowercase();
    let (kept, to_keep) = (found.max_messages_per_subject, wanted.max_messages_per_subject);
    // A bucket must keep everything, whatever its age.
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
        differs(
            "max_msgs_per_subject",
            keeps_as_many(kept, to_keep),
            format_limit(kept),
            format_limit(to_keep),
        ),
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

/// Whether the limits and subjects of the stream are the configured ones.
pub fn matches_configuration(found: &StreamConfig, wanted: &StreamConfig) -> bool {
    found.max_bytes == wanted.max_bytes
        && found.max_age == wanted.max_age
        && found.num_replicas >= wanted.num_replicas
        && HashSet::<&String>::from_iter(&found.subjects) == HashSet::from_iter(&wanted.subjects)
}

/// `found` with safe settings and the configured limits. Everything else stays as it was.
pub fn correct_config(found: &StreamConfig, wanted: StreamConfig) -> StreamConfig {
    let mut corrected = found.clone();
    corrected.retention = wanted.retention;
    corrected.storage = wanted.storage;
    if wanted.discard == DiscardPolicy::New {
        corrected.discard = wanted.discard;
    }
    if !keeps_as_many(found.max_messages_per_subject, wanted.max_messages_per_subject) {
        corrected.max_messages_per_subject = wanted.max_messages_per_subject;
        // It is about the limit of each subject; the server refuses it without such a limit.
        corrected.discard_new_per_subject = wanted.discard_new_per_subject;
    }
    corrected.persist_mode = corrected.persist_mode.filter(|mode| *mode != PersistenceMode::Async);
    corrected.max_bytes = wanted.max_bytes;
    corrected.max_age = wanted.max_age;
    if !corrected.max_age.is_zero() {
        corrected.duplicate_window = corrected.duplicate_window.min(corrected.max_age);
    }
    corrected.num_replicas = corrected.num_replicas.max(wanted.num_replicas);
    corrected.subjects = wanted.subjects;
    corrected
}

/// Whether the server keeps as many messages of a subject; zero and less are no limit.
fn keeps_as_many(found: i64, wanted: i64) -> bool {
    found <= 0 || (wanted > 0 && found >= wanted)
}

fn format_limit(value: i64) -> String {
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

    /// Describes the unsafe settings of `found`, and checks that the correction removes them.
    fn describe_and_correct(found: &StreamConfig, wanted: &StreamConfig) -> String {
        let corrected = correct_config(found, wanted.clone());
        assert_eq!(find_unsafe_settings(&corrected, wanted), []);
        assert!(matches_configuration(&corrected, wanted));
        describe_settings(&find_unsafe_settings(found, wanted))
    }

    #[test]
    fn settings_that_lose_data_are_described_and_corrected() {
        let old = StreamConfig { discard: DiscardPolicy::Old, ..changes() };
        assert_eq!(describe_and_correct(&old, &changes()), "discard is old and has to be new");
        // The server reports -1 for a setting that was never set.
        let few = |limit| StreamConfig { max_messages_per_subject: limit, ..bucket() };
        assert_eq!(
            describe_and_correct(&few(64), &bucket()),
            "max_msgs_per_subject is 64 and has to be 1000"
        );
        let five = StreamConfig { max_messages_per_subject: 5, ..changes() };
        assert_eq!(
            describe_and_correct(&five, &changes()),
            "max_msgs_per_subject is 5 and has to be unlimited"
        );
        for enough in [1000, 1001, 0, -1] {
            assert_eq!(describe_and_correct(&few(enough), &bucket()), "");
            assert_eq!(correct_config(&few(enough), bucket()).max_messages_per_subject, enough);
        }
        let queue = StreamConfig {
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::Memory,
            persist_mode: Some(PersistenceMode::Async),
            ..changes()
        };
        assert_eq!(
            describe_and_correct(&queue, &changes()),
            "retention is workqueue and has to be limits, storage is memory and has to be file, \
             persist_mode is async and has to be default"
        );
        let ages = StreamConfig { max_age: Duration::from_secs(60), ..bucket() };
        assert_eq!(
            describe_and_correct(&ages, &bucket()),
            "max_age is 60s and has to be unlimited"
        );
    }

    #[test]
    fn limits_follow_the_configuration_and_all_else_stays() {
        let minute = Duration::from_secs(60);
        let mine = StreamConfig {
            duplicate_window: 2 * minute,
            description: Some("ours".to_owned()),
            num_replicas: 3,
            ..changes()
        };
        let wanted = StreamConfig { max_age: minute, max_bytes: 7, ..changes() };
        assert!(!matches_configuration(&mine, &wanted));
        assert_eq!(describe_and_correct(&mine, &wanted), "");
        let corrected = correct_config(&mine, wanted);
        // More replicas than configured are fine. A window longer than `max_age` is refused.
        assert_eq!((corrected.num_replicas, corrected.duplicate_window), (3, minute));
        assert_eq!(corrected.description, mine.description);
        // An operator may choose how dead letters are discarded.
        let dlq = StreamConfig { discard: DiscardPolicy::Old, ..changes() };
        assert_eq!(describe_and_correct(&changes(), &dlq), "");
        assert_eq!(correct_config(&changes(), dlq).discard, DiscardPolicy::New);
        assert!(!matches_configuration(&changes(), &StreamConfig { num_replicas: 3, ..changes() }));
    }
}
