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

/// Samples of one table and one revision of its dictionary.
#[derive(Debug)]
pub struct Gain {
    revision: u64,
    seen: u32,
    samples: u32,
    with_bytes: u64,
    without_bytes: u64,
}

impl Gain {
    pub fn new(revision: u64) -> Gain {
        Gain { revision, seen: 0, samples: 0, with_bytes: 0, without_bytes: 0 }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the next single change is to be measured.
    pub fn is_due(&mut self) -> bool {
        self.seen = (self.seen + 1) % SAMPLE_EVERY;
        self.seen == 1
    }

    /// A single change, compressed with the dictionary and without. Now and then what that comes to: bytes with it ÷ bytes
    /// without it.
    pub fn add(&mut self, with_bytes: usize, without_bytes: usize) -> Option<f64> {
        self.samples += 1;
        self.with_bytes += with_bytes as u64;
        self.without_bytes += without_bytes as u64;
        if self.samples < WINDOW {
            return None;
        }
        let ratio = self.with_bytes as f64 / self.without_bytes.max(1) as f64;
        (self.samples, self.with_bytes, self.without_bytes) = (0, 0, 0);
        Some(ratio)
    }
}

/// How a table's dictionary has done since it is in use here.
#[derive(Debug)]
pub struct Wear {
    revision: u64,
    first: f64,
    last: f64,
    told: bool,
}

impl Wear {
    pub fn new(revision: u64, ratio: f64) -> Wear {
        Wear { revision, first: ratio, last: ratio, told: false }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn last(&self) -> f64 {
        self.last
    }

    /// The ratio at first, if it has become so much worse that the dictionary should be trained again. Once.
    pub fn worn(&mut self, ratio: f64) -> Option<f64> {
        self.last = ratio;
        let worn = ratio > self.first * WORN && !self.told;
        self.told |= worn;
        worn.then_some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_that_fits_less_and_less_is_told_once() {
        let mut wear = Wear::new(7, 0.40);
        let told = [0.40, 0.43, 0.45, 0.46].map(|ratio| wear.worn(ratio));
        assert_eq!(told, [None, None, Some(0.40), None]);
    }

    #[test]
    fn a_ratio_is_of_many_samples() {
        let mut gain = Gain::new(7);
        let ratios: Vec<_> = (0..2 * WINDOW).filter_map(|_| gain.add(40, 100)).collect();
        assert_eq!(ratios, [0.40, 0.40]);
    }

    #[test]
    fn few_changes_are_measured() {
        let mut gain = Gain::new(1);
        assert_eq!((0..160).filter(|_| gain.is_due()).count(), 10);
    }
}
