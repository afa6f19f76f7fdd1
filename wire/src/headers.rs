//! Names of message headers.
//!
//! Their values are short, because the message of a single change must stay small.

/// The message id, by which the server finds duplicates. `init.error` has none.
///
/// The id of a snapshot message holds the numbers of chunk and part, that of a dead letter the
/// position of its change. The id of a change message is what the next one expects before it.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// The stream sequence of the message before this one; the server rejects the message otherwise.
pub const EXPECTED_LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
/// The message id of the message before this one; the server rejects the message otherwise.
pub const EXPECTED_LAST_MSG_ID: &str = "Nats-Expected-Last-Msg-Id";
/// The chain of change messages that this message belongs to, and the sequence where it begins.
///
/// It is set only if each message of the chain expects a sequence. The messages of a chain have
/// consecutive sequences; a gap means that one is missing.
pub const CHAIN: &str = "Wg-Chain";
/// `zstd`; absent if the body is not compressed.
pub const CONTENT_ENCODING: &str = "Content-Encoding";
/// The only value of [`CONTENT_ENCODING`].
pub const ZSTD: &str = "zstd";
/// KV key and revision of the dictionary that decodes the body: `users_dict@7`.
pub const DICT: &str = "Wg-Dict";
/// KV revision of the schema that describes the rows of the body.
pub const SCHEMA: &str = "Wg-Schema";
/// Position of the last change in the body: `<epoch>/<commit_lsn>/<ordinal>`.
pub const POS: &str = "Wg-Pos";
/// Short hash of the guest that produced the body.
pub const GUEST: &str = "Wg-Guest";
/// Part number and number of parts: `2/5` for the second of five messages that carry one body.
pub const PART: &str = "Wg-Part";
/// On the KV entry of a dictionary: its SHA-256 in hex.
pub const SHA256: &str = "Wg-Sha256";
