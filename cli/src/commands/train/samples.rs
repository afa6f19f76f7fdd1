//! Samples in one buffer, thinned out evenly when they become too many. Pure.

#[derive(Clone, Debug, Default)]
pub struct Samples {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
}

impl Samples {
    pub fn push(&mut self, sample: &[u8]) {
        self.bytes.extend_from_slice(sample);
        self.sizes.push(sample.len());
    }

    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        self.sizes.iter().map(move |&size| {
            let (sample, after) = rest.split_at(size);
            rest = after;
            sample
        })
    }

    /// All but every `nth` sample, and every `nth`.
    pub fn split(&self, nth: usize) -> (Samples, Samples) {
        let mut parts = (Samples::default(), Samples::default());
        for (index, sample) in self.iter().enumerate() {
            let part = if index % nth == nth - 1 { &mut parts.1 } else { &mut parts.0 };
            part.push(sample);
        }
        parts
    }

    /// Every second sample.
    fn half(&self) -> Samples {
        let mut half = Samples::default();
        self.iter().step_by(2).for_each(|sample| half.push(sample));
        half
    }
}

/// Takes samples from a sequence of unknown length, evenly, and keeps at most so many bytes.
#[derive(Debug)]
pub struct Thinned {
    samples: Samples,
    bytes_max: usize,
    seen: u64,
    /// One of so many is kept.
    step: u64,
}

impl Thinned {
    pub fn new(bytes_max: usize) -> Self {
        Thinned { samples: Samples::default(), bytes_max, seen: 0, step: 1 }
    }

    /// Whether to push the next sample; call this once for each.
    pub fn wants_next(&mut self) -> bool {
        self.seen += 1;
        (self.seen - 1).is_multiple_of(self.step)
    }

    pub fn push(&mut self, sample: &[u8]) {
        self.samples.push(sample);
        while self.samples.bytes.len() > self.bytes_max && self.samples.count() > 1 {
            self.samples = self.samples.half();
            self.step *= 2;
        }
    }

    pub fn seen(&self) -> u64 {
        self.seen
    }

    pub fn into_samples(self) -> Samples {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_over_all_and_stay_within_their_bytes() {
        let mut thinned = Thinned::new(1000);
        for n in 0..10_000u32 {
            if thinned.wants_next() {
                thinned.push(&n.to_be_bytes());
            }
        }
        assert_eq!(thinned.seen(), 10_000);
        let samples = thinned.into_samples();
        assert!((125..=250).contains(&samples.count()), "{}", samples.count());
        let kept: Vec<u32> =
            samples.iter().map(|s| u32::from_be_bytes(s.try_into().unwrap())).collect();
        let step = kept[1] - kept[0];
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == step));
        assert!(kept[kept.len() - 1] + step >= 10_000);
    }

    #[test]
    fn every_nth_is_held_out() {
        let mut samples = Samples::default();
        (0..10u8).for_each(|n| samples.push(&[n]));
        let (training, held_out) = samples.split(5);
        assert_eq!(held_out.bytes(), [4, 9]);
        assert_eq!(training.count(), 8);
    }
}
