//! Tracks how much a dictionary still saves, from sampled single-row changes.
//!
//! A worsening ratio means that rows have drifted from the training set. Pure: how samples are
//! compressed, and how a verdict is reported, is not known here.

/// One in so many single changes is measured.
const SAMPLE_EVERY: u32 = 16;
/// Samples that a ratio is made of.
const WINDOW: u32 = 64;
/// Growth of the ratio at which training again is due.
const WORN: f64 = 1.10;

/// Samples of one table and one revision of its dictionary.
#[derive(Debug)]
pub struct DictionaryGain {
    revision: u64,
    seen: u32,
    samples: u32,
    with_bytes: u64,
    without_bytes: u64,
}

impl DictionaryGain {
    pub fn new(revision: u64) -> DictionaryGain {
        DictionaryGain { revision, seen: 0, samples: 0, with_bytes: 0, without_bytes: 0 }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the next single change is to be measured.
    pub fn is_due(&mut self) -> bool {
        self.seen = (self.seen + 1) % SAMPLE_EVERY;
        self.seen == 1
    }

    /// Adds a single change, compressed with the dictionary and without. A full window of samples
    /// returns its ratio: bytes with the dictionary ÷ bytes without it.
    pub fn add_sample(&mut self, with_bytes: usize, without_bytes: usize) -> Option<f64> {
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

/// The ratios of a table's dictionary since this gateway uses it.
#[derive(Debug)]
pub struct DictionaryWear {
    revision: u64,
    first: f64,
    last: f64,
    reported: bool,
}

impl DictionaryWear {
    pub fn new(revision: u64, ratio: f64) -> DictionaryWear {
        DictionaryWear { revision, first: ratio, last: ratio, reported: false }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn last_ratio(&self) -> f64 {
        self.last
    }

    /// Notes a ratio. Returns the first one, once, if the dictionary should be trained again.
    pub fn note_ratio(&mut self, ratio: f64) -> Option<f64> {
        self.last = ratio;
        let worn = ratio > self.first * WORN && !self.reported;
        self.reported |= worn;
        worn.then_some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worn_dictionary_is_reported_once() {
        let mut wear = DictionaryWear::new(7, 0.40);
        let reported = [0.40, 0.43, 0.45, 0.46].map(|ratio| wear.note_ratio(ratio));
        assert_eq!(reported, [None, None, Some(0.40), None]);
    }

    #[test]
    fn a_ratio_needs_a_window_of_samples() {
        let mut gain = DictionaryGain::new(7);
        let ratios: Vec<_> = (0..2 * WINDOW).filter_map(|_| gain.add_sample(40, 100)).collect();
        assert_eq!(ratios, [0.40, 0.40]);
    }

    #[test]
    fn one_change_in_sixteen_is_measured() {
        let mut gain = DictionaryGain::new(1);
        assert_eq!((0..160).filter(|_| gain.is_due()).count(), 10);
    }
}
