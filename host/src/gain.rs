//! What a table's dictionary still saves, by samples of single changes: rows that have become others than those it was
//! trained on are the sign to train it again.
//!
//! Pure: who compresses, and whom a verdict reaches, is not known here.

/// One in so many single changes is measured.
const SAMPLE_EVERY: u32 = 16;
/// Samples that a ratio is made of.
const WINDOW: u32 = 64;
/// Growth of the ratio at which training again is due.
const WORN: f64 = 1.10;

/// Of one table and one revision of its dictionary.
#[derive(Debug)]
pub struct Gain {
    revision: u64,
    seen: u32,
    samples: u32,
    with_bytes: u64,
    without_bytes: u64,
    /// Of the first window.
    first: Option<f64>,
    told: bool,
}

/// The last window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Bytes with the dictionary ÷ bytes without it.
    pub ratio: f64,
    /// The ratio at first, if it has become so much worse that the dictionary should be trained again. Once a revision.
    pub worn: Option<f64>,
}

impl Gain {
    pub fn new(revision: u64) -> Gain {
        Gain {
            revision,
            seen: 0,
            samples: 0,
            with_bytes: 0,
            without_bytes: 0,
            first: None,
            told: false,
        }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the next single change is to be measured.
    pub fn is_due(&mut self) -> bool {
        self.seen = (self.seen + 1) % SAMPLE_EVERY;
        self.seen == 1
    }

    /// A single change, compressed with the dictionary and without.
    pub fn add(&mut self, with_bytes: usize, without_bytes: usize) -> Option<Window> {
        self.samples += 1;
        self.with_bytes += with_bytes as u64;
        self.without_bytes += without_bytes as u64;
        if self.samples < WINDOW {
            return None;
        }
        let ratio = self.with_bytes as f64 / self.without_bytes.max(1) as f64;
        (self.samples, self.with_bytes, self.without_bytes) = (0, 0, 0);
        let first = *self.first.get_or_insert(ratio);
        let worn = (ratio > first * WORN && !self.told).then_some(first);
        self.told |= worn.is_some();
        Some(Window { ratio, worn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(gain: &mut Gain, with_bytes: usize) -> Window {
        let mut windows = (0..WINDOW).filter_map(|_| gain.add(with_bytes, 100));
        let last = windows.next().unwrap();
        assert_eq!(windows.next(), None);
        last
    }

    #[test]
    fn a_dictionary_that_fits_less_and_less_is_told_once() {
        let mut gain = Gain::new(7);
        assert_eq!(window(&mut gain, 40), Window { ratio: 0.40, worn: None });
        assert_eq!(window(&mut gain, 43), Window { ratio: 0.43, worn: None });
        assert_eq!(window(&mut gain, 45), Window { ratio: 0.45, worn: Some(0.40) });
        assert_eq!(window(&mut gain, 46), Window { ratio: 0.46, worn: None });
    }

    #[test]
    fn few_changes_are_measured() {
        let mut gain = Gain::new(1);
        assert_eq!((0..160).filter(|_| gain.is_due()).count(), 10);
    }
}
