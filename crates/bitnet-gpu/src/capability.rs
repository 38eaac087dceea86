//! Generations of NVIDIA GPUs.

use std::fmt;
use std::str::FromStr;

/// A generation of NVIDIA GPUs, as CUDA numbers them: 9.0 is Hopper. Later ones are greater.
///
/// ```
/// use bitnet_gpu::CudaComputeCapability;
///
/// let ada: CudaComputeCapability = "8.9".parse()?;
/// assert!(ada < CudaComputeCapability::new(10, 0));
/// assert_eq!(ada.to_string(), "8.9");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CudaComputeCapability {
    /// The number before the dot.
    pub major: u32,
    /// The number behind it.
    pub minor: u32,
}

impl CudaComputeCapability {
    /// From its two numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> CudaComputeCapability {
        CudaComputeCapability { major, minor }
    }
}

impl fmt::Display for CudaComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A text that is no compute capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no compute capability: write two numbers with a dot between, as 8.6")]
pub struct UnknownCapability(pub String);

impl FromStr for CudaComputeCapability {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<CudaComputeCapability, UnknownCapability> {
        // A sign is no digit, whatever numbers take.
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        let numbers = text.split_once('.').map(|(major, minor)| (number(major), number(minor)));
        match numbers {
            Some((Some(major), Some(minor))) => Ok(CudaComputeCapability { major, minor }),
            _ => Err(UnknownCapability(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_parse_back_and_are_in_order() {
        let all = [(6, 1), (7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 1)]
            .map(|(major, minor)| CudaComputeCapability::new(major, minor));
        assert!(all.is_sorted());
        for capability in all {
            assert_eq!(capability.to_string().parse(), Ok(capability));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", ".", "8", "8.", ".6", "8.6.1", "-8.6", "+8.6", " 8.6", "8.x", "sm_86"] {
            let error = text.parse::<CudaComputeCapability>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("as 8.6"), "{error}");
        }
        assert!("8.99999999999".parse::<CudaComputeCapability>().is_err());
    }
}
