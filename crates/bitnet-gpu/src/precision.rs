//! Precisions of floats.

use std::fmt;
use std::str::FromStr;

/// A precision of numbers that are multiplied. Sums are of single precision in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PrecisionMode {
    /// Single: every device has it.
    #[default]
    Fp32,
    /// Half: from compute capability 6.1 on, with tensor cores from 8.0 on.
    Fp16,
    /// Brain floats: from compute capability 8.0 on, with tensor cores.
    Bf16,
    /// The best that a device has for what is multiplied.
    Auto,
}

impl PrecisionMode {
    /// All.
    pub const ALL: [PrecisionMode; 4] =
        [PrecisionMode::Fp32, PrecisionMode::Fp16, PrecisionMode::Bf16, PrecisionMode::Auto];

    /// Its name, in options and receipts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            PrecisionMode::Fp32 => "fp32",
            PrecisionMode::Fp16 => "fp16",
            PrecisionMode::Bf16 => "bf16",
            PrecisionMode::Auto => "auto",
        }
    }
}

impl fmt::Display for PrecisionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is no precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no precision {0}; there are fp32, fp16, bf16 and auto")]
pub struct UnknownPrecision(pub String);

impl FromStr for PrecisionMode {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<PrecisionMode, UnknownPrecision> {
        let found = PrecisionMode::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| UnknownPrecision(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for mode in PrecisionMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let error = "fp8".parse::<PrecisionMode>().unwrap_err().to_string();
        assert!(PrecisionMode::ALL.iter().all(|mode| error.contains(mode.name())), "{error}");
    }
}
