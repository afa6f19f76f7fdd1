//! The stream after START_REPLICATION: frames in, status updates out, in separate halves.
//!
//! The reading half detects a server that is silent for too long. What the frames hold is not known
//! here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout_at},
};
use walgate_wire::Lsn;

use super::{
    messages::{self, Messages},
    pgoutput::POSTGRES_EPOCH_MICROS,
    socket::Writer,
    timing::Timing,
};
use crate::postgres::PostgresError;

/// What arrives while streaming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Output of the plugin. Its LSN is omitted, because it is neither monotonic nor unique.
    Data(&'a [u8]),
    KeepAlive {
        /// The server has decoded and sent everything below.
        wal_end: Lsn,
        reply_requested: bool,
    },
}

/// Frames, parsed in place.
pub struct FrameReader {
    messages: Messages,
    silence_max: Duration,
    keepalive_due: Duration,
    last_received: Instant,
    /// Since when a caller has been waiting with nothing to read.
    waiting_since: Option<Instant>,
}

impl FrameReader {
    pub(super) fn new(messages: Messages, timing: Timing) -> Self {
        FrameReader {
            messages,
            silence_max: Duration::from_millis(timing.silence_ms_max.into()),
            keepalive_due: Duration::from_millis((timing.wal_sender_timeout_ms / 2).into()),
            last_received: Instant::now(),
            waiting_since: None,
        }
    }

    /// The next frame if it was received in full. Never reads.
    #[inline]
    pub fn try_next(&mut self) -> Result<Option<Frame<'_>>, PostgresError> {
        loop {
            // Peeked first: a borrow that one arm returns would last for the whole loop.
            match self.messages.peek_tag()? {
                Some(b'd') => break,
                Some(_) => self.handle_control()?,
                None => return Ok(None),
            }
        }
        match self.messages.try_next()? {
            Some((_, body)) => parse_frame(body).map(Some),
            None => Ok(None),
        }
    }

    /// Handles a message other than CopyData. Notices and parameter changes are skipped, all others
    /// end the stream.
    #[cold]
    fn handle_control(&mut self) -> Result<(), PostgresError> {
        match self.messages.try_next()? {
            Some((b'N' | b'S', _)) => Ok(()),
            Some((b'E', body)) => Err(streaming_error(body)),
            Some((b'c' | b'C' | b'Z', _)) => Err(PostgresError::Closed),
            Some((tag, _)) => Err(PostgresError::Protocol(format!(
                "a message '{}' while streaming",
                tag.escape_ascii()
            ))),
            None => Ok(()),
        }
    }

    /// Reads the bytes that the socket holds already. False if it holds none.
    pub fn fill_now(&mut self) -> Result<bool, PostgresError> {
        match self.messages.fill().now_or_never() {
            Some(result) => result.map(|()| self.mark_received()).map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits for more. Safe to cancel; waiting counts as one across cancelled calls.
    pub async fn fill(&mut self) -> Result<(), PostgresError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        match timeout_at(since + self.silence_max, self.messages.fill()).await {
            Ok(result) => result.map(|()| self.mark_received()),
            Err(_) => Err(PostgresError::Silent {
                silent: since.elapsed(),
                due: self.keepalive_due,
                last: format!("{:.1} s ago", self.last_received.elapsed().as_secs_f32()),
            }),
        }
    }

    fn mark_received(&mut self) {
        self.last_received = Instant::now();
        self.waiting_since = None;
    }
}

/// An error in the middle of the stream. One of them needs a hint that Postgres does not give.
fn streaming_error(body: &[u8]) -> PostgresError {
    match messages::server_error("continue streaming", body) {
        PostgresError::Server { what, message, code, hint }
            if code == UNDEFINED_OBJECT && hint.is_empty() =>
        {
            let hint = "the publication has to exist already where the slot stands: if it was created later, drop the slot \
                        (SELECT pg_drop_replication_slot(…)) and start again"
                .to_owned();
            PostgresError::Server { what, message, code, hint }
        }
        other => other,
    }
}

const UNDEFINED_OBJECT: &str = "42704";

#[inline]
fn parse_frame(body: &[u8]) -> Result<Frame<'_>, PostgresError> {
    let malformed = || PostgresError::Protocol("a replication frame that ends too early".into());
    match body.first() {
        Some(b'w') => body.get(25..).map(Frame::Data).ok_or_else(malformed),
        Some(b'k') => {
            let (wal_end, rest) = body[1..].split_first_chunk::<8>().ok_or_else(malformed)?;
            let reply = *rest.get(8).ok_or_else(malformed)?;
            Ok(Frame::KeepAlive {
                wal_end: Lsn(u64::from_be_bytes(*wal_end)),
                reply_requested: reply != 0,
            })
        }
        _ => Err(PostgresError::Protocol(
            "a replication frame that is neither data nor keepalive".into(),
        )),
    }
}

/// Reports to the server what is durable.
pub struct Feedback {
    writer: Writer,
}

impl Feedback {
    pub(super) fn new(writer: Writer) -> Self {
        Feedback { writer }
    }

    /// Reports `durable` as written, flushed and applied. While the written position is behind the
    /// sent one, Postgres announces at once that it has nothing more to send. With `ask_reply` the
    /// server answers with a keepalive; a missing answer reveals a dead connection. Not safe to
    /// cancel.
    pub async fn send(&mut self, durable: Lsn, ask_reply: bool) -> Result<(), PostgresError> {
        let message = status_update(durable, now_micros(), ask_reply);
        self.writer.write_all(&message).await.map_err(PostgresError::Lost)?;
        self.writer.flush().await.map_err(PostgresError::Lost)
    }
}

const STATUS_UPDATE_BYTES: usize = 39;

fn status_update(durable: Lsn, at_micros: i64, ask_reply: bool) -> [u8; STATUS_UPDATE_BYTES] {
    let mut message = [0; STATUS_UPDATE_BYTES];
    message[0] = b'd';
    message[1..5].copy_from_slice(&(STATUS_UPDATE_BYTES as u32 - 1).to_be_bytes());
    message[5] = b'r';
    for field in 0..3 {
        message[6 + field * 8..][..8].copy_from_slice(&durable.0.to_be_bytes());
    }
    message[30..38].copy_from_slice(&(at_micros - POSTGRES_EPOCH_MICROS).to_be_bytes());
    message[38] = u8::from(ask_reply);
    message
}

fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reader(bytes: Vec<u8>) -> FrameReader {
        FrameReader::new(Messages::new(Box::new(std::io::Cursor::new(bytes))), Timing::default())
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    #[tokio::test]
    async fn frames_are_distinguished() {
        let data = [&[b'w'][..], &[9; 24], b"payload"].concat();
        let keepalive = [&[b'k'][..], &77u64.to_be_bytes(), &[0; 8], &[1]].concat();
        let notice = b"SNOTICE\0\0";
        let bytes =
            [message(b'N', notice), message(b'd', &data), message(b'd', &keepalive)].concat();
        let mut reader = reader([bytes, message(b'c', b"")].concat());
        assert_eq!(reader.try_next().unwrap(), None);
        reader.fill().await.unwrap();
        assert_eq!(reader.try_next().unwrap(), Some(Frame::Data(b"payload")));
        let keepalive = Frame::KeepAlive { wal_end: Lsn(77), reply_requested: true };
        assert_eq!(reader.try_next().unwrap(), Some(keepalive));
        assert!(matches!(reader.try_next(), Err(PostgresError::Closed)));
    }

    #[tokio::test]
    async fn silence_is_noticed_across_cancelled_waits() {
        let (_server, client) = tokio::io::duplex(64);
        let timing = Timing { silence_ms_max: 100, ..Timing::default() };
        let mut reader = FrameReader::new(Messages::new(Box::new(client)), timing);
        assert!(!reader.fill_now().unwrap());
        let error = loop {
            match tokio::time::timeout(Duration::from_millis(10), reader.fill()).await {
                Ok(result) => break result.unwrap_err(),
                Err(_cancelled) => {}
            }
        };
        assert!(
            matches!(error, PostgresError::Silent { silent, .. } if silent >= Duration::from_millis(100))
        );
    }

    #[test]
    fn a_status_update_has_the_layout_of_the_protocol() {
        let message = status_update(Lsn(0x0102), POSTGRES_EPOCH_MICROS + 5, true);
        assert_eq!(message[..6], [b'd', 0, 0, 0, 38, b'r']);
        assert_eq!(message[6..14], 0x0102u64.to_be_bytes());
        assert_eq!(message[6..14], message[22..30]);
        assert_eq!(message[30..], [0, 0, 0, 0, 0, 0, 0, 5, 1]);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_not_panicked(body: Vec<u8>) {
            let _ = parse_frame(&body);
        }
    }
}
