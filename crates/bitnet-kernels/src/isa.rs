//! Instruction sets: their names and how they compare.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Portable Rust, on every processor.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// [`Isa::Avx2`] with AVX-VNNI (8-bit dot products).
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// [`Isa::Avx512`] with VNNI (8-bit dot products).
    Avx512Vnni,
    /// AArch64 with Advanced SIMD.
    Neon,
    /// [`Isa::Neon`] with `FEAT_DotProd` (8-bit dot products).
    NeonDot,
    /// [`Isa::NeonDot`] with `FEAT_I8MM` (8-bit matrix products).
    NeonI8mm,
}

impl Isa {
    /// Every instruction set, the best of each architecture last.
    pub const ALL: [Isa; 8] = [
        Isa::Scalar,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512,
        Isa::Avx512Vnni,
        Isa::Neon,
        Isa::NeonDot,
        Isa::NeonI8mm,
    ];

    /// The name used in kernel ids and by `--isa`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
            Isa::NeonI8mm => "neoni8mm",
        }
    }

    /// The architecture the instruction set belongs to; none for [`Isa::Scalar`].
    #[must_use]
    pub const fn arch(self) -> Option<&'static str> {
        match self {
            Isa::Scalar => None,
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => Some("x86_64"),
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => Some("aarch64"),
        }
    }

    /// Whether code for `self` may run where kernels are limited to `limit`: the same set, or a
    /// lesser one of the same architecture. Sets of different architectures do not compare.
    #[must_use]
    pub fn within(self, limit: Isa) -> bool {
        let comparable = self.arch().is_none() || self.arch() == limit.arch();
        comparable && self as u8 <= limit as u8
    }
}

/// Sets of one architecture, from least to best; those of different ones do not compare.
impl PartialOrd for Isa {
    fn partial_cmp(&self, other: &Isa) -> Option<Ordering> {
        match (self.within(*other), other.within(*self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no instruction set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa(pub String);

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Isa::ALL.map(Isa::name).join(", ");
        write!(f, "`{}` is no instruction set; known are {names}", self.0)
    }
}

impl std::error::Error for UnknownIsa {}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Isa, UnknownIsa> {
        let known = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        known.ok_or_else(|| UnknownIsa(name.to_owned()))
    }
}

/// An instruction set that was asked for and that this processor does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingIsa {
    /// What was asked for.
    pub wanted: Isa,
    /// What could be asked for instead.
    pub available: Vec<Isa>,
}

impl fmt::Display for MissingIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.available.iter().map(|isa| isa.name()).collect();
        write!(f, "this processor lacks {}; it has {}", self.wanted, names.join(", "))
    }
}

impl std::error::Error for MissingIsa {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_different_architectures_do_not_compare() {
        assert!(Isa::Avx2.within(Isa::Avx512Vnni));
        assert!(!Isa::Avx512.within(Isa::Avx2));
        assert!(!Isa::Avx2.within(Isa::NeonDot));
        assert!(!Isa::Neon.within(Isa::Avx512));
        assert!(Isa::Scalar.within(Isa::Neon));
    }

    #[test]
    fn sets_of_one_architecture_are_ordered() {
        assert!(Isa::Scalar < Isa::Avx2 && Isa::Avx2 < Isa::Avx512 && Isa::Scalar < Isa::Neon);
        assert!(Isa::NeonI8mm > Isa::NeonDot && Isa::Neon >= Isa::Neon);
        assert_eq!(Isa::Avx512.partial_cmp(&Isa::Neon), None);
        for (i, a) in Isa::ALL.iter().enumerate() {
            for b in &Isa::ALL[i + 1..] {
                assert_ne!(a.partial_cmp(b), Some(Ordering::Greater), "{a}, {b}");
            }
        }
    }

    #[test]
    fn names_parse_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("sse9".parse::<Isa>().unwrap_err().to_string().contains("avx512vnni"));
    }
}
