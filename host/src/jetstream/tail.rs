//! The last messages of the streams: where changes end, whether there is a gap, which revisions the
//! messages refer to.
//!
//! Only reads. What follows from it is decided elsewhere.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, pull},
        message::StreamMessage,
        stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream},
    },
};
use futures::TryStreamExt;
use walgate_wire::{
    CHAIN, DICT, Epoch, InitStart, PART, POS, PROGRESS_SUBJECT, Part, Progress, SCHEMA,
    StreamPosition, Token, subjects,
};

use crate::jetstream::{
    chain::{ChainId, IN_FLIGHT_MESSAGES_MAX},
    streams::{JetStreamError, Streams},
};

/// Reads headers at the end of CDC, for one gateway at a time: the one that holds the slot.
pub(super) const CONSUMER: &str = "walgate_tail";
/// The server deletes the consumer after this long without a request.
const INACTIVE: Duration = Duration::from_secs(10);
const READ_WITHIN: Duration = Duration::from_secs(10);
/// A refused chain has at most its window behind the gap. Two or more chains can meet there.
const ORIGINS_MAX: u64 = 4 * IN_FLIGHT_MESSAGES_MAX as u64;

/// The end of the CDC stream: where the last gateway stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    pub last_sequence: u64,
    /// Position of the last retained message; an incomplete multi-part body does not count.
    pub position: Option<StreamPosition>,
    /// The last retained progress message: the slot was never confirmed beyond its `end_lsn`.
    pub progress: Option<(Epoch, Progress)>,
    /// Messages of this epoch may be missing: another client wrote between those of one chain. If
    /// messages follow ids instead of sequences, the server prevents that.
    pub has_gap: bool,
}

/// Reads the tail of the CDC stream.
pub async fn read_tail(streams: &Streams) -> Result<Tail, JetStreamError> {
    let cdc = &streams.cdc;
    let info = cdc.get_info().await.map_err(|e| read_error("the CDC stream", e))?;
    let last_sequence = info.state.last_sequence;
    let mut tail = Tail { last_sequence, ..Tail::default() };
    if info.state.messages == 0 {
        return Ok(tail);
    }
    if let Some(message) = last_of(cdc, "the last progress", PROGRESS_SUBJECT).await? {
        let progress = walgate_wire::from_msgpack(&message.payload)
            .map_err(|e| read_error("the last progress", e))?;
        tail.progress = Some((position_of(&message.headers)?.epoch, progress));
    }
    // An operator may have deleted the last one.
    if let Some(last) =
        last_of(cdc, "the last message of the CDC stream", subjects::CDC_ALL).await?
    {
        tail.position = last_whole_position(cdc, last.sequence).await?;
        if let (Some(_), Some(position)) = (last.headers.get(CHAIN), tail.position) {
            let origins = read_last_origins(cdc, last.sequence).await?;
            tail.has_gap = has_gap(&origins, position.epoch);
        }
    }
    Ok(tail)
}

/// The sequence of a message, and the chain that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MessageOrigin {
    sequence: u64,
    epoch: Option<Epoch>,
    /// `None`: no gateway wrote it.
    chain: Option<ChainId>,
}

/// Reads the origins of the last messages up to `last`: as many as the last chains can have had in
/// flight.
async fn read_last_origins(cdc: &Stream, last: u64) -> Result<Vec<MessageOrigin>, JetStreamError> {
    let failed = |e: &dyn std::fmt::Display| {
        read_error(
            "the writers of the last messages of the CDC stream",
            format!("{e}; docs/NATS.md lists what NATS has to allow"),
        )
    };
    // A previous gateway may have left one; the server may have deleted it already.
    let _ = cdc.delete_consumer(CONSUMER).await;
    let config = pull::Config {
        name: Some(CONSUMER.to_owned()),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: last.saturating_sub(ORIGINS_MAX).max(1),
        },
        ack_policy: AckPolicy::None,
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: INACTIVE,
        ..pull::Config::default()
    };
    let consumer = cdc.create_consumer(config).await.map_err(|e| failed(&e))?;
    let mut messages = consumer.messages().await.map_err(|e| failed(&e))?;
    let mut origins = vec![];
    // The consumer may be on a node that lags behind.
    let read = tokio::time::timeout(READ_WITHIN, async {
        while let Some(message) = messages.try_next().await.map_err(|e| failed(&e))? {
            let info = message.info().map_err(|e| failed(&e))?;
            if info.consumer_sequence != origins.len() as u64 + 1 {
                return Err(failed(&"another gateway reads them at the same time"));
            }
            let sequence = info.stream_sequence;
            origins.push(MessageOrigin::new(sequence, message.headers.as_ref()));
            if sequence >= last {
                return Ok(());
            }
        }
        Err(failed(&"the reading ended early"))
    });
    let in_time = read.await.map_err(|_| failed(&"they did not arrive in time"));
    in_time.flatten().map(|()| origins)
}

impl MessageOrigin {
    fn new(sequence: u64, headers: Option<&HeaderMap>) -> MessageOrigin {
        let chain = headers.and_then(|headers| headers.get(CHAIN));
        MessageOrigin {
            sequence,
            epoch: headers.and_then(|headers| position_of(headers).ok()).map(|found| found.epoch),
            chain: chain.and_then(|chain| chain.as_str().parse().ok()),
        }
    }
}

/// Whether a message of `epoch` is not directly behind the message of its chain that it follows.
/// Then that one was refused or deleted.
fn has_gap(origins: &[MessageOrigin], epoch: Epoch) -> bool {
    let is_separated = |before: &MessageOrigin, message: &MessageOrigin| {
        let Some(chain) = message.chain.filter(|chain| chain.first < message.sequence) else {
            return false;
        };
        before.sequence + 1 != message.sequence || before.chain != Some(chain)
    };
    let mut pairs = origins.windows(2);
    pairs.any(|pair| pair[1].epoch == Some(epoch) && is_separated(&pair[0], &pair[1]))
}

/// The revisions that the last changes of a table refer to, or its last snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionReference {
    pub token: Token,
    pub epoch: Epoch,
    pub schema: u64,
    pub dictionary: Option<u64>,
}

/// Reads the revisions that the table's last messages in CDC and INIT refer to.
pub async fn read_references(
    streams: &Streams,
    token: &Token,
) -> Result<Vec<RevisionReference>, JetStreamError> {
    let mut references = vec![];
    if let Some(message) = last_of(&streams.cdc, "the CDC stream", &subjects::cdc(token)).await?
        && let Some(schema) = read_revision(&message.headers, SCHEMA)?
    {
        let epoch = position_of(&message.headers)?.epoch;
        let dictionary = read_revision(&message.headers, DICT)?;
        references.push(RevisionReference { token: token.clone(), epoch, schema, dictionary });
    }
    let subject = subjects::init_start(token);
    if let Some(message) = last_of(&streams.init, "the INIT stream", &subject).await? {
        let start: InitStart = walgate_wire::from_msgpack(&message.payload)
            .map_err(|e| read_error("the last init.start", e))?;
        references.push(RevisionReference {
            token: token.clone(),
            epoch: start.epoch,
            schema: start.schema_revision,
            dictionary: start.dictionary_revision,
        });
    }
    Ok(references)
}

async fn last_of(
    stream: &Stream,
    what: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, JetStreamError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(read_error(what, e)),
    }
}

/// Reads the 7 of `7` and of `users_dict@7`.
fn read_revision(headers: &HeaderMap, name: &str) -> Result<Option<u64>, JetStreamError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.as_str().rsplit('@').next().unwrap_or_default().parse();
    number.map(Some).map_err(|e| read_error("the CDC stream", format!("{name}: {e}")))
}

/// Position of the last complete body. A gateway that died within a body of several parts, once or
/// several times, left incomplete bodies: they do not count.
async fn last_whole_position(
    cdc: &Stream,
    last_sequence: u64,
) -> Result<Option<StreamPosition>, JetStreamError> {
    let mut sequence = last_sequence;
    while sequence > 0 {
        let message = match cdc.get_raw_message(sequence).await {
            Ok(message) => message,
            // Nothing before the parts is retained: the session sends everything from the slot's
            // position on again.
            Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(e) => return Err(read_error("the last message of the CDC stream", e)),
        };
        let part = message.headers.get(PART).map(|part| part.as_str().parse::<Part>()).transpose();
        match part.map_err(|e| read_error("the last message of the CDC stream", e))? {
            Some(part) if !part.is_last() => {
                sequence = sequence.saturating_sub(u64::from(part.number));
            }
            _ => return position_of(&message.headers).map(Some),
        }
    }
    Ok(None)
}

fn position_of(headers: &HeaderMap) -> Result<StreamPosition, JetStreamError> {
    let header = headers.get(POS).ok_or_else(|| {
        let reason = "a message has no Wg-Pos: something else writes to cdc.>; forbid it, the \
                      gateway must be the only writer";
        read_error("the CDC stream", reason)
    })?;
    header.as_str().parse().map_err(|e| read_error("the CDC stream", e))
}

fn read_error(what: &str, reason: impl std::fmt::Display) -> JetStreamError {
    JetStreamError::Read { what: what.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream from its seventh message on, a letter each. Chain `a` begins at 7, chain `b` at the
    /// letter `B`, both in epoch 2. `x` is of a chain of epoch 1 that began earlier, `-` is of
    /// another client, a space is a missing message.
    fn stream_has_gap(stream: &str) -> bool {
        let began = stream.find('B').map_or(0, |index| index as u64 + 7);
        let letters = (7..).zip(stream.chars()).filter(|(_, letter)| *letter != ' ');
        let origins = letters.map(|(sequence, letter)| {
            let (id, first, epoch) = match letter {
                'a' => (1, 7, 2),
                'b' | 'B' => (2, began, 2),
                'x' => (3, 3, 1),
                _ => return MessageOrigin { sequence, epoch: None, chain: None },
            };
            let chain = Some(ChainId { id, first });
            MessageOrigin { sequence, epoch: Some(Epoch(epoch)), chain }
        });
        has_gap(&origins.collect::<Vec<_>>(), Epoch(2))
    }

    #[test]
    fn every_message_is_directly_behind_the_one_that_it_follows() {
        for whole in ["", "a", "aaa", "bbb", "aaaBbb", "aa-", "aa-Bb", "aa  Bb", "xxBbb", "x-xBb"] {
            assert!(!stream_has_gap(whole), "{whole}");
        }
        for hole in ["aa-a", "aa a", "aBab", "aaBbaa", "aBxb", "aa-b", "-bb", "-b"] {
            assert!(stream_has_gap(hole), "{hole}");
        }
    }

    #[test]
    fn a_chain_id_is_written_and_parsed() {
        let chain = ChainId { id: 0xbeef, first: 300 };
        assert_eq!(chain.to_string(), "beef.12c");
        assert_eq!("beef.12c".parse(), Ok(chain));
        for bad in ["", "beef", "beef.", "beef.x", ".1"] {
            assert!(bad.parse::<ChainId>().is_err(), "{bad}");
        }
    }
}
