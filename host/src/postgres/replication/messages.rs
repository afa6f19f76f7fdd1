//! The backend's messages: framing in place in one buffer, and the few bodies that are read outside
//! streaming.
//!
//! Every length is checked. What CopyData carries is not known here.

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;

use super::socket::Reader;
use crate::postgres::PostgresError;

/// Minimum free space of a read.
const READ_BYTES: usize = 256 << 10;
/// A buffer that grew beyond this for one huge message is freed.
const KEEP_BYTES_MAX: usize = 4 << 20;
/// A field holds up to 1 GiB; pgoutput's message of one row cannot exceed that either.
const MESSAGE_BYTES_MAX: usize = (1 << 30) + (64 << 20);

pub(super) struct Messages {
    reader: Reader,
    buffer: BytesMut,
    /// Length of the message that was returned last.
    consumed: usize,
}

impl Messages {
    pub fn new(reader: Reader) -> Self {
        Messages { reader, buffer: BytesMut::with_capacity(READ_BYTES), consumed: 0 }
    }

    /// Tag and body of the next message if it was received in full. Never reads.
    #[inline]
    pub fn try_next(&mut self) -> Result<Option<(u8, &[u8])>, PostgresError> {
        let Some(total) = self.next_len()? else { return Ok(None) };
        self.consumed = total;
        Ok(Some((self.buffer[0], &self.buffer[5..total])))
    }

    /// Tag of the message that [`Messages::try_next`] would return.
    #[inline]
    pub fn peek_tag(&mut self) -> Result<Option<u8>, PostgresError> {
        Ok(self.next_len()?.map(|_| self.buffer[0]))
    }

    #[inline]
    fn next_len(&mut self) -> Result<Option<usize>, PostgresError> {
        self.buffer.advance(self.consumed);
        self.consumed = 0;
        Ok(frame_len(&self.buffer)?.filter(|&total| total <= self.buffer.len()))
    }

    /// Reads the received bytes, at least one. Safe to cancel.
    pub async fn fill(&mut self) -> Result<(), PostgresError> {
        self.make_room()?;
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(0) => Err(PostgresError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(PostgresError::Lost(error)),
        }
    }

    fn make_room(&mut self) -> Result<(), PostgresError> {
        self.buffer.advance(self.consumed);
        self.consumed = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        let missing =
            frame_len(&self.buffer)?.map_or(0, |total| total.saturating_sub(self.buffer.len()));
        if self.buffer.capacity() - self.buffer.len() < missing.max(READ_BYTES / 4) {
            self.buffer.reserve(missing.max(READ_BYTES));
        }
        Ok(())
    }

    pub async fn next(&mut self) -> Result<(u8, &[u8]), PostgresError> {
        // Peeked first: a borrow that is returned from a loop would last for the whole loop.
        while self.peek_tag()?.is_none() {
            self.fill().await?;
        }
        self.try_next()?.ok_or(PostgresError::Closed)
    }
}

/// Length of the message at the beginning of `buffer`, tag included, if its header is complete.
#[inline]
fn frame_len(buffer: &[u8]) -> Result<Option<usize>, PostgresError> {
    let Some((header, _)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let [tag, length @ ..] = *header;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(PostgresError::Protocol(format!(
            "a message '{}' of {length} bytes; is this a Postgres server?",
            tag.escape_ascii()
        )));
    }
    Ok(Some(length + 1))
}

/// The columns of a DataRow, in text.
pub(super) fn read_data_row(body: &[u8]) -> Result<Vec<Option<String>>, PostgresError> {
    let malformed = || PostgresError::Protocol("a DataRow that ends too early".into());
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(malformed)?;
    let mut row = vec![];
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            rest = after;
            row.push(None);
            continue;
        };
        let (value, after) = after.split_at_checked(len).ok_or_else(malformed)?;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Ok(row)
}

/// An ErrorResponse as an error; `what` completes "Postgres refused to …".
pub(super) fn server_error(what: &str, body: &[u8]) -> PostgresError {
    let (mut message, mut code, mut hint) = (String::new(), String::new(), String::new());
    for field in body.split(|&b| b == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = || String::from_utf8_lossy(text).into_owned();
        match kind {
            b'M' => message = text(),
            b'C' => code = text(),
            b'H' => hint = text(),
            _ => {}
        }
    }
    PostgresError::Server { what: what.to_owned(), message, code, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages(bytes: &[u8]) -> Messages {
        Messages::new(Box::new(std::io::Cursor::new(bytes.to_vec())))
    }

    #[tokio::test]
    async fn messages_are_framed_across_reads() {
        let mut bytes = vec![];
        for length in [0usize, 1, 70_000, 600_000, 3] {
            bytes.push(b'd');
            bytes.extend_from_slice(&(length as u32 + 4).to_be_bytes());
            bytes.resize(bytes.len() + length, length as u8);
        }
        let mut messages = messages(&bytes);
        for length in [0usize, 1, 70_000, 600_000, 3] {
            let (tag, body) = messages.next().await.unwrap();
            assert_eq!((tag, body.len()), (b'd', length));
            assert!(body.iter().all(|&b| b == length as u8));
        }
        assert!(matches!(messages.next().await, Err(PostgresError::Closed)));
    }

    #[tokio::test]
    async fn another_protocol_is_detected() {
        let error = messages(b"HTTP/1.1 400 Bad Request\r\n").next().await.err();
        assert!(matches!(error, Some(PostgresError::Protocol(_))));
    }

    #[test]
    fn errors_carry_their_sqlstate() {
        let error = server_error("start replication", b"SFATAL\0C53300\0Mtoo many\0Hraise it\0\0");
        assert_eq!(
            error.to_string(),
            "Postgres refused to start replication: too many (SQLSTATE 53300); raise it"
        );
        assert_eq!(error.kind(), crate::postgres::ErrorKind::Retry);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_not_panicked(body: Vec<u8>) {
            let _ = read_data_row(&body);
            let _ = server_error("x", &body);
            let _ = frame_len(&body);
        }
    }
}
