//! How much of the heap a call takes at its worst. Counts what Rust allocates; C libraries have their own.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What a call may take: so much for each byte of its input, and so much in any case.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    pub per_byte: usize,
    pub fixed: usize,
}

impl Peak {
    /// Runs `call`; panics if it took more.
    pub fn of<T>(self, input: &[u8], call: impl FnOnce() -> T) -> T {
        let (result, taken) = peak_of(call);
        let Peak { per_byte, fixed } = self;
        let allowed = per_byte * input.len() + fixed;
        assert!(taken <= allowed, "{} bytes in, {taken} taken, {allowed} allowed", input.len());
        result
    }
}

/// What the call returns, and by how many bytes the heap grew at its worst. Other threads are counted with it.
pub fn peak_of<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = call();
    (result, HEAP.peak_usage().saturating_sub(before))
}
