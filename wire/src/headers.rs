//! The names of message headers. Values are short, for a single change must stay small.

/// Deduplication id: of the messages of a snapshot, with the numbers of chunk and part, and of a dead letter, by the
/// position of its change. Of changes it is what the next message follows; init.error has none.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// The stream sequence that a message of changes follows; the server refuses it behind any other.
pub const EXPECTED_LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
/// The message id that a message of changes follows, likewise.
pub const EXPECTED_LAST_MSG_ID: &str = "Nats-Expected-Last-Msg-Id";
/// Which chain of messages of changes this one belongs to, and where that begins, if each states a sequence: they stand in
/// the stream one behind the other, or one of them is missing.
pub const CHAIN: &str = "Wg-Chain";
/// `zstd`, or absent when the body is not compressed.
pub const CONTENT_ENCODING: &str = "Content-Encoding";
/// The only value of [`CONTENT_ENCODING`].
pub const ZSTD: &str = "zstd";
/// `users_dict@7`: KV key and revision of the dictionary that decodes the body.
pub const DICT: &str = "Wg-Dict";
/// Revision of the table's schema in KV that describes the rows of the body.
pub const SCHEMA: &str = "Wg-Schema";
/// `<epoch>/<commit_lsn>/<ordinal>` of the last change in the body.
pub const POS: &str = "Wg-Pos";
/// Short hash of the guest that produced the body.
pub const GUEST: &str = "Wg-Guest";
/// `2/5`: this message is the second of five that make up one body.
pub const PART: &str = "Wg-Part";
/// On a dictionary's KV entry: SHA-256 of the dictionary, in hex.
pub const SHA256: &str = "Wg-Sha256";
