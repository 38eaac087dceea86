//! How threads read memory that stand next to each other.

/// The order of what threads read, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPattern {
    /// Each the next: what a warp reads are as few pieces of memory as there can be.
    Sequential,
    /// Each as far behind the one before, or all the same.
    Strided {
        /// How far.
        stride: usize,
    },
    /// Anything else.
    Random,
}

/// The pattern of indices. Of fewer than two it is [`AccessPattern::Sequential`].
#[must_use]
pub fn analyze_access_pattern(indices: &[usize]) -> AccessPattern {
    let mut strides = indices.windows(2).map(|pair| pair[1].checked_sub(pair[0]));
    let Some(first) = strides.next() else { return AccessPattern::Sequential };
    match first.filter(|_| strides.all(|stride| stride == first)) {
        None => AccessPattern::Random,
        Some(1) => AccessPattern::Sequential,
        Some(stride) => AccessPattern::Strided { stride },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_differences() {
        for indices in [&[][..], &[7], &[7, 8], &[0, 1, 2, 3]] {
            assert_eq!(analyze_access_pattern(indices), AccessPattern::Sequential, "{indices:?}");
        }
        for (indices, stride) in [(&[0, 4, 8][..], 4), (&[3, 3, 3], 0), (&[1, 3], 2)] {
            let expected = AccessPattern::Strided { stride };
            assert_eq!(analyze_access_pattern(indices), expected, "{indices:?}");
        }
        for indices in [&[0, 1, 3][..], &[0, 2, 3], &[5, 4, 3], &[4, 0, 8], &[0, 1, 0, 1]] {
            assert_eq!(analyze_access_pattern(indices), AccessPattern::Random, "{indices:?}");
        }
    }
}
