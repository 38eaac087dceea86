//! Memory that will be read soon, asked for while something else is computed.

use crate::aligned::LINE;

/// Asks for as many bytes as `bytes` has, `distance` behind its start: there may be others there
/// that are read next, or nothing.
#[inline(always)]
pub(crate) fn prefetch_behind<const N: usize>(bytes: &[u8; N], distance: usize) {
    for at in (0..N).step_by(LINE) {
        line(bytes.as_ptr().wrapping_add(distance + at));
    }
}

/// Asks for the line that holds byte `at` of `bytes`.
#[inline(always)]
pub(crate) fn prefetch_at(bytes: &[u8], at: usize) {
    line(bytes.as_ptr().wrapping_add(at));
}

/// Asks for some elements, each of a size that divides a line, and waits for nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(bytes: &[T]) {
    for chunk in bytes.chunks(LINE / size_of::<T>()) {
        line(chunk.as_ptr().cast());
    }
}

/// Asks for the line at an address, which need not be there.
#[inline(always)]
fn line(at: *const u8) {
    // SAFETY: every x86-64 processor has the instruction, which accesses nothing.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    // SAFETY: a hint, which accesses nothing and changes no register.
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{at}]",
            at = in(reg) at,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}
