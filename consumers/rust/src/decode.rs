//! From messages to bodies: reads headers, joins parts, decompresses frames. The contents of bodies
//! are not known here.

use std::collections::HashMap;

use async_nats::HeaderMap;
use walgate_wire::{CONTENT_ENCODING, Caps, DICT, PART, POS, Part, SCHEMA, StreamPosition, ZSTD};

use crate::{
    Error,
    assets::{AssetCache, DictionaryName},
    error::UnreadableMessage,
    feed::Delivery,
};

/// The headers that describe a message's body.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Envelope {
    pub zstd: bool,
    pub dictionary: Option<DictionaryName>,
    pub schema: Option<u64>,
    pub position: Option<StreamPosition>,
    pub part: Option<Part>,
}

impl Envelope {
    pub fn read(headers: &HeaderMap) -> Result<Envelope, UnreadableMessage> {
        let zstd = match headers.get(CONTENT_ENCODING).map(|value| value.as_str()) {
            None => false,
            Some(ZSTD) => true,
            Some(other) => {
                return Err(UnreadableMessage::Other(format!("content encoding '{other}'")));
            }
        };
        Ok(Envelope {
            zstd,
            dictionary: parse_header(headers, DICT)?,
            schema: parse_header(headers, SCHEMA)?,
            position: parse_header(headers, POS)?,
            part: parse_header(headers, PART)?,
        })
    }
}

fn parse_header<T: std::str::FromStr>(
    headers: &HeaderMap,
    name: &str,
) -> Result<Option<T>, UnreadableMessage>
where
    T::Err: std::fmt::Display,
{
    let Some(value) = headers.get(name) else { return Ok(None) };
    let parsed = value.as_str().parse();
    parsed.map(Some).map_err(|e| UnreadableMessage::Other(format!("header {name}: {e}")))
}

/// Adds the message's subject and sequence to an error.
pub(crate) fn protocol_error(delivery: &Delivery) -> impl FnOnce(UnreadableMessage) -> Error {
    let subject = delivery.subject.clone();
    let sequence = delivery.seq;
    move |reason| Error::Protocol { subject, sequence, reason: reason.to_string() }
}

/// Joins bodies that were sent in several messages. Part 1 of a subject always begins a new body,
/// because an interrupted writer begins again. Subjects may interleave.
#[derive(Debug)]
pub(crate) struct PartJoiner {
    open: HashMap<String, PartialBody>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct PartialBody {
    body: Vec<u8>,
    /// Number of the last part received.
    number: u32,
    of: u32,
    /// Position of the last change in the body.
    position: Option<StreamPosition>,
}

impl PartJoiner {
    pub fn new(caps: &Caps) -> PartJoiner {
        PartJoiner { open: HashMap::new(), bytes: 0, bytes_max: caps.body_bytes_max }
    }

    /// Whether a body of this subject has begun and is incomplete.
    pub fn has_partial_body(&self, subject: &str) -> bool {
        self.open.contains_key(subject)
    }

    /// Subjects with an incomplete body at or before `place`, up to which the stream is complete.
    pub fn overdue_subjects(&self, place: StreamPosition) -> Vec<String> {
        let due = |partial: &PartialBody| {
            partial
                .position
                .is_some_and(|last| last.epoch == place.epoch && last.position <= place.position)
        };
        let open = self.open.iter().filter(|(_, joined)| due(joined));
        open.map(|(subject, _)| subject.clone()).collect()
    }

    pub fn clear(&mut self) {
        self.open.clear();
        self.bytes = 0;
    }

    /// Adds a part. Returns the body if this was its last part.
    pub fn push_part(
        &mut self,
        delivery: &Delivery,
        part: Part,
        position: Option<StreamPosition>,
    ) -> Result<Option<Vec<u8>>, UnreadableMessage> {
        if part.number == 1 {
            self.drop_partial_body(&delivery.subject);
            let fresh = PartialBody { of: part.of, position, ..PartialBody::default() };
            self.open.insert(delivery.subject.clone(), fresh);
        }
        let Some(joined) = self.open.get_mut(&delivery.subject) else {
            return Err(UnreadableMessage::Other(format!(
                "part {part} comes without those before it"
            )));
        };
        if joined.of == part.of && part.number <= joined.number {
            return Ok(None);
        }
        if joined.number + 1 != part.number || joined.of != part.of {
            let number = joined.number;
            let of = joined.of;
            return Err(UnreadableMessage::Other(format!(
                "part {part} follows part {number}/{of}"
            )));
        }
        self.bytes += delivery.payload.len();
        if self.bytes > self.bytes_max {
            self.clear();
            return Err(UnreadableMessage::Other(
                "the parts of one body exceed the cap".to_owned(),
            ));
        }
        joined.body.extend_from_slice(&delivery.payload);
        joined.number = part.number;
        if !part.is_last() {
            return Ok(None);
        }
        let body = self.open.remove(&delivery.subject).map(|joined| joined.body);
        self.bytes -= body.as_ref().map_or(0, Vec::len);
        Ok(body)
    }

    fn drop_partial_body(&mut self, subject: &str) {
        if let Some(joined) = self.open.remove(subject) {
            self.bytes -= joined.body.len();
        }
    }
}

/// The decompressed body, if this message completes one.
pub(crate) async fn complete_body(
    delivery: &Delivery,
    envelope: Envelope,
    joiner: &mut PartJoiner,
    assets: &mut AssetCache,
    sha256: Option<&str>,
) -> Result<Option<Vec<u8>>, UnreadableMessage> {
    let joined = match envelope.part {
        None => {
            // The rest of an incomplete body never arrives once another body follows on its
            // subject.
            joiner.drop_partial_body(&delivery.subject);
            None
        }
        Some(part) => match joiner.push_part(delivery, part, envelope.position)? {
            None => return Ok(None),
            joined => joined,
        },
    };
    if !envelope.zstd {
        return Ok(Some(joined.unwrap_or_else(|| delivery.payload.to_vec())));
    }
    let frame = joined.as_deref().unwrap_or(&delivery.payload);
    assets.decompress_frame(frame, envelope.dictionary, sha256).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(subject: &str, payload: &'static [u8]) -> Delivery {
        Delivery {
            seq: 1,
            subject: subject.into(),
            headers: HeaderMap::new(),
            payload: payload.into(),
            pending: 0,
            rewound: false,
        }
    }

    #[test]
    fn parts_of_several_subjects_interleave() {
        let mut joiner = PartJoiner::new(&Caps::default());
        let part = |number, of| Part { number, of };
        assert_eq!(joiner.push_part(&delivery("a", b"1"), part(1, 2), None).unwrap(), None);
        assert_eq!(joiner.push_part(&delivery("b", b"x"), part(1, 3), None).unwrap(), None);
        assert_eq!(
            joiner.push_part(&delivery("a", b"2"), part(2, 2), None).unwrap().unwrap(),
            b"12"
        );
        assert_eq!(joiner.push_part(&delivery("b", b"y"), part(2, 3), None).unwrap(), None);
        assert_eq!(
            joiner.push_part(&delivery("b", b"z"), part(3, 3), None).unwrap().unwrap(),
            b"xyz"
        );
        assert_eq!(joiner.bytes, 0);
    }

    #[test]
    fn parts_out_of_order_are_rejected_and_a_repeated_body_begins_again() {
        let mut joiner = PartJoiner::new(&Caps { body_bytes_max: 3, ..Caps::default() });
        let part = |number, of| Part { number, of };
        assert!(joiner.push_part(&delivery("a", b"1"), part(2, 2), None).is_err());
        assert_eq!(joiner.push_part(&delivery("a", b"1"), part(1, 3), None).unwrap(), None);
        assert!(joiner.push_part(&delivery("a", b"3"), part(3, 3), None).is_err());
        assert_eq!(joiner.push_part(&delivery("a", b"1"), part(1, 2), None).unwrap(), None);
        assert_eq!(
            joiner.push_part(&delivery("a", b"2"), part(2, 2), None).unwrap().unwrap(),
            b"12"
        );
        assert_eq!(joiner.push_part(&delivery("a", b"1"), part(1, 3), None).unwrap(), None);
        assert_eq!(joiner.push_part(&delivery("a", b"2"), part(2, 3), None).unwrap(), None);
        assert_eq!(
            joiner.push_part(&delivery("a", b"2"), part(2, 3), None).unwrap(),
            None,
            "sent twice"
        );
        assert_eq!(
            joiner.push_part(&delivery("a", b"3"), part(3, 3), None).unwrap().unwrap(),
            b"123"
        );
        assert_eq!(joiner.push_part(&delivery("a", b"12"), part(1, 2), None).unwrap(), None);
        assert!(
            joiner.push_part(&delivery("a", b"34"), part(2, 2), None).is_err(),
            "beyond the cap"
        );
    }

    #[test]
    fn an_overdue_incomplete_body_is_noticed() {
        let mut joiner = PartJoiner::new(&Caps::default());
        let place = |text: &str| text.parse::<StreamPosition>().unwrap();
        let first = Part { number: 1, of: 2 };
        joiner.push_part(&delivery("cdc.a", b"1"), first, Some(place("00000001/0A/5"))).unwrap();
        joiner.push_part(&delivery("cdc.b", b"1"), first, Some(place("00000001/0B/1"))).unwrap();
        assert!(joiner.overdue_subjects(place("00000001/0A/4")).is_empty());
        assert_eq!(joiner.overdue_subjects(place("00000001/0A/6")), ["cdc.a"]);
        assert!(joiner.overdue_subjects(place("00000002/0A/6")).is_empty(), "of another epoch");
        let last = Part { number: 2, of: 2 };
        joiner.push_part(&delivery("cdc.a", b"2"), last, Some(place("00000001/0A/5"))).unwrap();
        assert!(joiner.overdue_subjects(place("00000001/0A/6")).is_empty());
    }

    #[test]
    fn envelopes_are_read_from_headers() {
        let mut headers = HeaderMap::new();
        assert_eq!(Envelope::read(&headers).unwrap(), Envelope::default());
        headers.insert(CONTENT_ENCODING, ZSTD);
        headers.insert(DICT, "users_dict@7");
        headers.insert(SCHEMA, "3");
        headers.insert(POS, "0000000a/16B374D848/5");
        headers.insert(PART, "2/5");
        let envelope = Envelope::read(&headers).unwrap();
        assert_eq!((envelope.zstd, envelope.schema), (true, Some(3)));
        assert_eq!(envelope.position.unwrap().to_string(), "0000000a/16B374D848/5");
        headers.insert(CONTENT_ENCODING, "gzip");
        assert!(Envelope::read(&headers).is_err());
    }
}
