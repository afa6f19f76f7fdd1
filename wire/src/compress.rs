//! zstd frames, and the dictionaries that shorten them.
//!
//! Every frame carries its content size, a checksum and the ID of its dictionary. The checksum is
//! necessary: with a wrong dictionary a frame without one decodes to garbage, and no error is
//! reported. The header of a received frame is checked before memory is allocated for its content.
//!
//! This module does not know where dictionaries come from, nor which one is current.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use zstd::{
    bulk,
    zstd_safe::{self, CParameter},
};

use crate::{Caps, hex};

/// Most bytes of a dictionary. It must fit one KV message.
pub const MAX_DICTIONARY_BYTES: usize = 900 << 10;

/// First bytes of a trained dictionary (RFC 8878, section 5).
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];
/// A frame may declare this many bytes whatever its compression ratio.
const SMALL_BODY_BYTES: u64 = 16 << 20;

/// A trained dictionary that was validated. Clones share its bytes.
#[derive(Clone)]
pub struct Dictionary {
    bytes: Arc<[u8]>,
    id: u32,
    sha256: String,
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Dictionary {} ({} bytes, sha256 {})",
            self.id,
            self.bytes.len(),
            &self.sha256[..12]
        )
    }
}

/// Bytes that are not a valid dictionary, or samples from which none can be trained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DictionaryError {
    /// There are no bytes.
    #[error("the dictionary is empty")]
    Empty,
    /// It has this many bytes, more than [`MAX_DICTIONARY_BYTES`].
    #[error(
        "the dictionary has {0} bytes, more than the {MAX_DICTIONARY_BYTES} that fit one message; train a smaller one (110 KiB is usual)"
    )]
    TooLarge(usize),
    /// It does not begin with the magic number and the ID of a trained dictionary.
    #[error(
        "this is not a trained zstd dictionary: it does not begin with 37 A4 30 EC (raw content has no ID to check against and is refused)"
    )]
    NotTrained,
    /// zstd cannot use it, for this reason.
    #[error("zstd does not accept the dictionary: {0}")]
    Refused(String),
    /// zstd could not train it, for this reason.
    #[error("training failed: {0}; give it some hundred rows or more")]
    Training(String),
}

impl Dictionary {
    /// Validates a dictionary file.
    ///
    /// # Errors
    /// If magic number, ID or size are wrong, or if a test frame does not decode to the original.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Result<Dictionary, DictionaryError> {
        let bytes: Arc<[u8]> = bytes.into();
        if bytes.is_empty() {
            return Err(DictionaryError::Empty);
        }
        if bytes.len() > MAX_DICTIONARY_BYTES {
            return Err(DictionaryError::TooLarge(bytes.len()));
        }
        if !bytes.starts_with(&DICTIONARY_MAGIC) {
            return Err(DictionaryError::NotTrained);
        }
        let id = zstd_safe::get_dict_id_from_dict(&bytes).ok_or(DictionaryError::NotTrained)?.get();
        let sha256 = hex::encode(&Sha256::digest(&bytes));
        let dictionary = Dictionary { bytes, id, sha256 };
        dictionary.check_round_trip().map_err(|e| DictionaryError::Refused(e.to_string()))?;
        Ok(dictionary)
    }

    /// Compresses and decompresses a sample. A truncated file has a valid magic number and ID, so
    /// this is the only way to find it.
    fn check_round_trip(&self) -> Result<(), FrameError> {
        let sample = &self.bytes[self.bytes.len().saturating_sub(4096)..];
        let mut frame = Vec::new();
        Compressor::new(3, Some(self))?.compress(sample, &mut frame)?;
        let body = Decompressor::new(Some(self))?.decompress(&frame, &Caps::default())?;
        if body == sample {
            Ok(())
        } else {
            Err(FrameError::Zstd("the test frame decodes to other bytes".into()))
        }
    }

    /// The dictionary file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The ID in the frames of this dictionary. Two dictionaries can have the same ID.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// SHA-256 of the file, in hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

/// A frame that cannot be written, or must not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// zstd failed, for this reason.
    #[error("zstd: {0}")]
    Zstd(String),
    /// The header lacks the size of the content.
    #[error("the frame does not say how large its content is")]
    NoContentSize,
    /// The declared size exceeds [`Caps::body_bytes_max`] or [`Caps::ratio_max`].
    #[error("the frame of {frame_bytes} bytes declares {declared_bytes} bytes, beyond the cap")]
    TooLarge {
        /// Bytes of the frame.
        frame_bytes: usize,
        /// Bytes of the content, according to the frame's header.
        declared_bytes: u64,
    },
    /// The frame was written with another dictionary.
    #[error("the frame needs dictionary {needed}, but {given} was named for it (0: none)")]
    WrongDictionary {
        /// ID of the dictionary in the frame's header; 0: none.
        needed: u32,
        /// ID of the decompressor's dictionary; 0: none.
        given: u32,
    },
}

impl From<std::io::Error> for FrameError {
    fn from(error: std::io::Error) -> Self {
        FrameError::Zstd(error.to_string())
    }
}

/// Writes frames.
///
/// Loading a dictionary takes about a millisecond: keep one compressor per revision in use.
pub struct Compressor(bulk::Compressor<'static>);

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// A compressor of a zstd level from 1 to 22.
    ///
    /// # Errors
    /// If zstd refuses the dictionary or cannot allocate memory.
    pub fn new(level: i32, dictionary: Option<&Dictionary>) -> Result<Compressor, FrameError> {
        let mut inner = match dictionary {
            Some(dictionary) => bulk::Compressor::with_dictionary(level, dictionary.bytes())?,
            None => bulk::Compressor::new(level)?,
        };
        inner.set_parameter(CParameter::ChecksumFlag(true))?;
        inner.set_parameter(CParameter::ContentSizeFlag(true))?;
        inner.set_parameter(CParameter::DictIdFlag(true))?;
        Ok(Compressor(inner))
    }

    /// Replaces the contents of `out` by a frame that holds `body`. The capacity of `out` is
    /// reused.
    ///
    /// # Errors
    /// If zstd fails.
    pub fn compress(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.clear();
        out.reserve(zstd_safe::compress_bound(body.len()));
        self.0.compress_to_buffer(body, out)?;
        Ok(())
    }
}

/// Decodes frames of one dictionary, or of none.
pub struct Decompressor {
    inner: bulk::Decompressor<'static>,
    dictionary_id: u32,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decompressor for dictionary {}", self.dictionary_id)
    }
}

impl Decompressor {
    /// A decompressor for frames that were written with `dictionary`.
    ///
    /// # Errors
    /// If zstd refuses the dictionary or cannot allocate memory.
    pub fn new(dictionary: Option<&Dictionary>) -> Result<Decompressor, FrameError> {
        let inner = match dictionary {
            Some(dictionary) => bulk::Decompressor::with_dictionary(dictionary.bytes())?,
            None => bulk::Decompressor::new()?,
        };
        Ok(Decompressor { inner, dictionary_id: dictionary.map_or(0, Dictionary::id) })
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// If the frame is malformed, needs another dictionary, or declares more bytes than `caps`
    /// allow. Nothing is allocated for the content of such a frame.
    pub fn decompress(&mut self, frame: &[u8], caps: &Caps) -> Result<Vec<u8>, FrameError> {
        let declared_bytes = zstd_safe::get_frame_content_size(frame)
            .map_err(|_| FrameError::Zstd("not a zstd frame".into()))?
            .ok_or(FrameError::NoContentSize)?;
        let ratio_limit =
            (frame.len() as u64).saturating_mul(caps.ratio_max as u64).max(SMALL_BODY_BYTES);
        if declared_bytes > (caps.body_bytes_max as u64).min(ratio_limit) {
            return Err(FrameError::TooLarge { frame_bytes: frame.len(), declared_bytes });
        }
        let needed = zstd_safe::get_dict_id_from_frame(frame).map_or(0, std::num::NonZeroU32::get);
        if needed != self.dictionary_id {
            return Err(FrameError::WrongDictionary { needed, given: self.dictionary_id });
        }
        Ok(self.inner.decompress(frame, declared_bytes as usize)?)
    }
}

/// Trains a dictionary of at most `max_bytes` bytes with zstd's fast cover algorithm.
///
/// `samples` is the concatenation of all samples, `sizes` the number of bytes of each.
///
/// # Errors
/// If there are too few samples, or if `max_bytes` exceeds [`MAX_DICTIONARY_BYTES`] and is used up.
pub fn train_dictionary(
    samples: &[u8],
    sizes: &[usize],
    max_bytes: usize,
) -> Result<Dictionary, DictionaryError> {
    let bytes = zstd::dict::from_continuous(samples, sizes, max_bytes)
        .map_err(|e| DictionaryError::Training(e.to_string()))?;
    Dictionary::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trained(seed: u32) -> Dictionary {
        let rows: Vec<String> = (0..2000u32)
            .map(|i| {
                format!(
                    "user{}@{}.example.org country-{} plan-{}",
                    i * 7919 + seed,
                    seed,
                    i % 17,
                    i % 3
                )
            })
            .collect();
        let sizes: Vec<usize> = rows.iter().map(String::len).collect();
        train_dictionary(rows.concat().as_bytes(), &sizes, 8 << 10).unwrap()
    }

    #[test]
    fn frames_round_trip_with_and_without_dictionary() {
        let dictionary = trained(1);
        for dictionary in [None, Some(&dictionary)] {
            let mut frame = vec![9];
            Compressor::new(1, dictionary)
                .unwrap()
                .compress(b"user7919@1.example.org", &mut frame)
                .unwrap();
            let body = Decompressor::new(dictionary).unwrap().decompress(&frame, &Caps::default());
            assert_eq!(body.unwrap(), b"user7919@1.example.org");
        }
    }

    #[test]
    fn a_wrong_dictionary_is_named() {
        let (one, two) = (trained(1), trained(2));
        let mut frame = Vec::new();
        Compressor::new(1, Some(&one))
            .unwrap()
            .compress(b"user0@1.example.org", &mut frame)
            .unwrap();
        let error = Decompressor::new(Some(&two)).unwrap().decompress(&frame, &Caps::default());
        assert_eq!(error, Err(FrameError::WrongDictionary { needed: one.id(), given: two.id() }));
        let error = Decompressor::new(None).unwrap().decompress(&frame, &Caps::default());
        assert_eq!(error, Err(FrameError::WrongDictionary { needed: one.id(), given: 0 }));
    }

    #[test]
    fn a_changed_frame_fails_its_checksum() {
        let mut frame = Vec::new();
        let body: Vec<u8> = (0..=255u8).cycle().map(|b| b.wrapping_mul(b)).take(2000).collect();
        Compressor::new(1, None).unwrap().compress(&body, &mut frame).unwrap();
        let at = frame.len() / 2;
        frame[at] ^= 1;
        assert!(Decompressor::new(None).unwrap().decompress(&frame, &Caps::default()).is_err());
    }

    #[test]
    fn a_frame_that_expands_beyond_reason_is_refused_unread() {
        let mut frame = Vec::new();
        Compressor::new(1, None).unwrap().compress(&vec![0; 1 << 30], &mut frame).unwrap();
        assert!(frame.len() < 64 << 10);
        let error =
            Decompressor::new(None).unwrap().decompress(&frame, &Caps::default()).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn what_is_no_dictionary_is_refused() {
        let good = trained(1);
        assert_eq!(Dictionary::new(vec![]).unwrap_err(), DictionaryError::Empty);
        assert_eq!(Dictionary::new(b"garbage".to_vec()).unwrap_err(), DictionaryError::NotTrained);
        let oversized = vec![0; MAX_DICTIONARY_BYTES + 1];
        assert!(matches!(Dictionary::new(oversized), Err(DictionaryError::TooLarge(_))));
        let half = good.bytes()[..60].to_vec();
        assert!(matches!(Dictionary::new(half), Err(DictionaryError::Refused(_))));
    }

    proptest! {
        #[test]
        fn garbage_frames_are_refused_not_panicked(frame: Vec<u8>) {
            let _ = Decompressor::new(None).unwrap().decompress(&frame, &Caps::default());
            let _ = Dictionary::new(frame);
        }
    }
}
