//! Numbers that start at a cache line, so that no register of them lies across two.

use std::collections::TryReserveError;
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line: they come from memory together, or more.
pub(crate) const LINE: usize = 64;

/// Some numbers, the first of which starts at a cache line: their size must divide one, or the
/// memory may have no such place for them.
#[derive(Debug)]
pub struct Aligned<T> {
    memory: Vec<T>,
    start: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `n` zeros.
    ///
    /// # Errors
    ///
    /// Where the system has no memory for them.
    pub fn zeros(n: usize) -> Result<Aligned<T>, TryReserveError> {
        let mut memory: Vec<T> = Vec::new();
        memory.try_reserve_exact(n.saturating_add(Self::SPARE))?;
        Ok(Aligned::within(memory, n))
    }

    /// `n` zeros for passing use. As with any small vector, a system without memory for them ends the
    /// program.
    #[must_use]
    pub fn scratch(n: usize) -> Aligned<T> {
        Aligned::within(Vec::with_capacity(n.saturating_add(Self::SPARE)), n)
    }

    /// Numbers that may lie before the first line.
    const SPARE: usize = LINE.div_ceil(size_of::<T>());

    /// `n` zeros in an empty vector with room for [`SPARE`](Aligned::SPARE) more.
    fn within(mut memory: Vec<T>, n: usize) -> Aligned<T> {
        // Where a line cannot be reached, as it may be in an interpreter, nothing depends on it.
        let start = memory.as_ptr().align_offset(LINE).min(Self::SPARE);
        memory.resize(start + n, T::default());
        Aligned { memory, start }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.start..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_start_at_a_line() {
        for n in [0, 1, 63, 64, 1000] {
            let mut bytes = Aligned::<u8>::zeros(n).unwrap();
            let numbers = Aligned::<f32>::scratch(n);
            assert_eq!((bytes.len(), numbers.len()), (n, n));
            bytes.iter_mut().for_each(|byte| *byte += 1);
            assert!(bytes.iter().all(|&byte| byte == 1));
            if !cfg!(miri) {
                assert_eq!(bytes.as_ptr().addr() % LINE, 0);
                assert_eq!(numbers.as_ptr().addr() % LINE, 0);
            }
        }
        assert!(Aligned::<f32>::zeros(usize::MAX).is_err());
    }
}
