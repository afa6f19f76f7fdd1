//! What the last messages of the streams say: where changes end, whether they are without a hole, what they name.
//!
//! Only reads. What follows from it is decided elsewhere.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    message::StreamMessage,
    stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream},
};
use futures::TryStreamExt;
use walgate_wire::{
    CHAIN, DICT, Epoch, InitStart, PART, POS, PROGRESS_SUBJECT, Part, Progress, SCHEMA,
    StreamPosition, Token, subjects,
};

use crate::jetstream::{
    chain::{ChainId, IN_FLIGHT_MESSAGES_MAX},
    publisher::Headers,
    streams::{BrokerError, Streams},
};

/// Reads headers at the end of CDC, for one gateway at a time: whoever holds the slot.
pub const CONSUMER: &str = "walgate_tail";
/// The server drops the consumer that nobody asks for so long.
const INACTIVE: Duration = Duration::from_secs(10);
const READ_WITHIN: Duration = Duration::from_secs(10);
/// A chain that was refused has no more than its window behind the place; two can have met there, or more.
const WRITTEN_MAX: u64 = 4 * IN_FLIGHT_MESSAGES_MAX as u64;

/// What the CDC stream says about where the gateway stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    pub last_sequence: u64,
    /// Of the last message that is still there; an incomplete multi-part body does not count.
    pub position: Option<StreamPosition>,
    /// The last progress message that is still there: the slot was never confirmed beyond its `end_lsn`.
    pub progress: Option<(Epoch, Progress)>,
    /// Messages of this epoch may be missing: somebody else wrote between those of one chain. Where ids are followed
    /// instead of sequences the server sees to it that this cannot be.
    pub is_torn: bool,
}

/// Reads the tail of the CDC stream.
pub async fn read_tail(cdc: &Stream) -> Result<Tail, BrokerError> {
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
    // Somebody may have deleted the last one.
    if let Some(last) =
        last_of(cdc, "the last message of the CDC stream", subjects::CDC_ALL).await?
    {
        tail.position = last_whole_position(cdc, last.sequence).await?;
        if let (Some(_), Some(position)) = (last.headers.get(CHAIN), tail.position) {
            let written = last_written(cdc, last.sequence).await?;
            tail.is_torn = is_torn(&written, position.epoch);
        }
    }
    Ok(tail)
}

/// Whether the server keeps the stream on more than one node.
pub fn is_replicated(stream: &Stream) -> bool {
    stream.cached_info().config.num_replicas > 1
}

/// Where a message stands and where it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    sequence: u64,
    epoch: Option<Epoch>,
    /// None: it is nobody's.
    chain: Option<ChainId>,
}

/// Of the messages up to the one with this sequence, as many as can hold what the last chains had under way.
async fn last_written(cdc: &Stream, last: u64) -> Result<Vec<Written>, BrokerError> {
    let failed = |e: &dyn std::fmt::Display| {
        read_error(
            "who wrote the last messages of the CDC stream",
            format!("{e}; docs/NATS.md lists what NATS has to allow"),
        )
    };
    // One that a gateway left behind; the server may have dropped it by now.
    let _ = cdc.delete_consumer(CONSUMER).await;
    let config = pull::Config {
        name: Some(CONSUMER.to_owned()),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: last.saturating_sub(WRITTEN_MAX).max(1),
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
    let mut written = vec![];
    // The consumer may be on a node that is behind.
    let read = tokio::time::timeout(READ_WITHIN, async {
        while let Some(message) = messages.try_next().await.map_err(|e| failed(&e))? {
            let info = message.info().map_err(|e| failed(&e))?;
            if info.consumer_sequence != written.len() as u64 + 1 {
                return Err(failed(&"another gateway reads them"));
            }
            let sequence = info.stream_sequence;
            written.push(Written::of(sequence, message.headers.as_ref()));
            if sequence >= last {
                return Ok(());
            }
        }
        Err(failed(&"the reading ended early"))
    });
    let in_time = read.await.map_err(|_| failed(&"they did not arrive in time"));
    in_time.flatten().map(|()| written)
}

impl Written {
    fn of(sequence: u64, headers: Option<&Headers>) -> Written {
        let chain = headers.and_then(|headers| headers.get(CHAIN));
        Written {
            sequence,
            epoch: headers.and_then(|headers| position_of(headers).ok()).map(|found| found.epoch),
            chain: chain.and_then(|chain| chain.as_str().parse().ok()),
        }
    }
}

/// Whether a message of `epoch` does not stand behind the one of its chain that it follows: that one was refused, or is
/// gone.
fn is_torn(written: &[Written], epoch: Epoch) -> bool {
    let parted = |before: &Written, message: &Written| {
        let Some(chain) = message.chain.filter(|chain| chain.first < message.sequence) else {
            return false;
        };
        before.sequence + 1 != message.sequence || before.chain != Some(chain)
    };
    written.windows(2).any(|pair| pair[1].epoch == Some(epoch) && parted(&pair[0], &pair[1]))
}

/// What the last changes of a table name, or its last snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub token: Token,
    pub epoch: Epoch,
    pub schema: u64,
    pub dictionary: Option<u64>,
}

/// Reads what the table's last messages in CDC and INIT name.
pub async fn last_named(streams: &Streams, token: &Token) -> Result<Vec<Named>, BrokerError> {
    let mut named = vec![];
    if let Some(message) = last_of(&streams.cdc, "the CDC stream", &subjects::cdc(token)).await?
        && let Some(schema) = revision(&message.headers, SCHEMA)?
    {
        let epoch = position_of(&message.headers)?.epoch;
        let dictionary = revision(&message.headers, DICT)?;
        named.push(Named { token: token.clone(), epoch, schema, dictionary });
    }
    let subject = subjects::init_start(token);
    if let Some(message) = last_of(&streams.init, "the INIT stream", &subject).await? {
        let start: InitStart = walgate_wire::from_msgpack(&message.payload)
            .map_err(|e| read_error("the last init.start", e))?;
        let (schema, dictionary) = (start.schema_revision, start.dictionary_revision);
        named.push(Named { token: token.clone(), epoch: start.epoch, schema, dictionary });
    }
    Ok(named)
}

async fn last_of(
    stream: &Stream,
    what: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, BrokerError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(read_error(what, e)),
    }
}

/// `7` of `7` and of `users_dict@7`.
fn revision(headers: &Headers, name: &str) -> Result<Option<u64>, BrokerError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.as_str().rsplit('@').next().unwrap_or_default().parse();
    number.map(Some).map_err(|e| read_error("the CDC stream", format!("{name}: {e}")))
}

/// Position of the last body that is complete. A gateway that died in the midst of a body of several parts, once
/// or several times, left parts without the rest: they do not count.
async fn last_whole_position(
    cdc: &Stream,
    last_sequence: u64,
) -> Result<Option<StreamPosition>, BrokerError> {
    let mut sequence = last_sequence;
    while sequence > 0 {
        let message = match cdc.get_raw_message(sequence).await {
            Ok(message) => message,
            // Nothing before the parts is left: everything from the slot's position on is sent again.
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

fn position_of(headers: &Headers) -> Result<StreamPosition, BrokerError> {
    let header = headers.get(POS).ok_or_else(|| {
        read_error("the CDC stream", "a message has no Wg-Pos: something else writes to cdc.>; forbid it, the gateway must be the only writer")
    })?;
    header.as_str().parse().map_err(|e| read_error("the CDC stream", e))
}

fn read_error(what: &str, reason: impl std::fmt::Display) -> BrokerError {
    BrokerError::Read { what: what.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream from its seventh message on, a letter each: chain `a` begins at 7, `b` where `B` stands, both in epoch 2;
    /// `x` is of a chain of epoch 1 that began earlier, `-` a stranger's, a space is missing.
    fn torn(stream: &str) -> bool {
        let began = stream.find('B').map_or(0, |index| index as u64 + 7);
        let written = (7..).zip(stream.chars()).filter(|(_, letter)| *letter != ' ');
        let written = written.map(|(sequence, letter)| {
            let (id, first, epoch) = match letter {
                'a' => (1, 7, 2),
                'b' | 'B' => (2, began, 2),
                'x' => (3, 3, 1),
                _ => return Written { sequence, epoch: None, chain: None },
            };
            Written { sequence, epoch: Some(Epoch(epoch)), chain: Some(ChainId { id, first }) }
        });
        is_torn(&written.collect::<Vec<_>>(), Epoch(2))
    }

    #[test]
    fn every_message_stands_behind_the_one_that_it_follows() {
        for whole in ["", "a", "aaa", "bbb", "aaaBbb", "aa-", "aa-Bb", "aa  Bb", "xxBbb", "x-xBb"] {
            assert!(!torn(whole), "{whole}");
        }
        for hole in ["aa-a", "aa a", "aBab", "aaBbaa", "aBxb", "aa-b", "-bb", "-b"] {
            assert!(torn(hole), "{hole}");
        }
    }

    #[test]
    fn a_chain_says_where_it_begins() {
        let chain = ChainId { id: 0xbeef, first: 300 };
        assert_eq!(chain.to_string(), "beef.12c");
        assert_eq!("beef.12c".parse(), Ok(chain));
        for bad in ["", "beef", "beef.", "beef.x", ".1"] {
            assert!(bad.parse::<ChainId>().is_err(), "{bad}");
        }
    }
}
