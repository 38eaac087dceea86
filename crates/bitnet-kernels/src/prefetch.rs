//! Memory that will be read soon, asked for while something else is computed.
#![expect(unsafe_code, reason = "processor intrinsics")]

/// Bytes that come from memory together, or more: asking for a part twice costs little.
const LINE: usize = 64;

/// Asks for some bytes, and waits for nothing.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(LINE) {
        let at = line.as_ptr();
        // SAFETY: every x86-64 processor has the instruction, which accesses nothing.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
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
}
