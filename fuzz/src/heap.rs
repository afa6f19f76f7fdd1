//! Measures the peak of the heap during a call. Counts Rust's allocations; C libraries have their
//! own.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The allowed peak of a call: so much for each byte of input, plus a fixed amount.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    pub per_byte: usize,
    pub fixed: usize,
}

impl Peak {
    /// Runs `call`; panics if its peak was higher.
    pub fn of<T>(self, input: &[u8], call: impl FnOnce() -> T) -> T {
        let (result, taken) = peak_of(call);
        let Peak { per_byte, fixed } = self;
        let allowed = per_byte * input.len() + fixed;
        assert!(taken <= allowed, "{} bytes in, {taken} taken, {allowed} allowed", input.len());
        result
    }
}

/// Returns the result of the call and the peak growth of the heap in bytes. Other threads are
/// counted, too.
pub fn peak_of<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = call();
    (result, HEAP.peak_usage().saturating_sub(before))
}
