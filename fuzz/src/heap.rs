//! Measures the peak of heap memory during a call.
//!
//! Only allocations by Rust are counted. C libraries such as zstd use an allocator of their own.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The heap memory that a parser may use: `fixed` bytes, and `per_byte` bytes per byte of input.
#[derive(Clone, Copy, Debug)]
pub struct HeapLimit {
    /// Bytes per byte of input.
    pub per_byte: usize,
    /// Bytes for any input.
    pub fixed: usize,
}

impl HeapLimit {
    /// Runs `call` on `input`. Panics if it used more than the limit.
    pub fn enforce<T>(self, input: &[u8], call: impl FnOnce() -> T) -> T {
        let (result, taken) = measure_peak(call);
        let HeapLimit { per_byte, fixed } = self;
        let allowed = per_byte * input.len() + fixed;
        assert!(taken <= allowed, "{} bytes in, {taken} taken, {allowed} allowed", input.len());
        result
    }
}

/// Returns the result of `call`, and by how many bytes the heap grew at most meanwhile.
///
/// Allocations of other threads are counted, too.
pub fn measure_peak<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = call();
    (result, HEAP.peak_usage().saturating_sub(before))
}
