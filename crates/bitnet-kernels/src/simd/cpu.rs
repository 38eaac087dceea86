//! The processor: which instruction sets it has, and which of them may be used.

use super::{Token, scalar::Scalar};
#[cfg(target_arch = "x86_64")]
use super::{
    avx2::Avx2,
    avx512::Avx512,
    vnni::{Avx512Vnni, AvxVnni},
};
#[cfg(target_arch = "aarch64")]
use super::{
    neon::Neon,
    neondot::{NeonDot, NeonI8mm},
};
use crate::isa::{Isa, MissingIsa};

/// The instruction sets kernels may use: those the processor has, less those the user excluded.
///
/// There is no way to make one that claims more than [`Cpu::detect`] found: kernels run on the
/// strength of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu(Vec<Isa>);

impl Cpu {
    /// What the running processor has.
    #[must_use]
    pub fn detect() -> Cpu {
        Cpu(Isa::ALL.into_iter().filter(|&isa| detected(isa)).collect())
    }

    /// `self` without everything better than `isa`.
    ///
    /// # Errors
    ///
    /// [`MissingIsa`] where the processor does not have `isa`.
    pub fn limit(&self, isa: Isa) -> Result<Cpu, MissingIsa> {
        if !self.has(isa) {
            return Err(MissingIsa { wanted: isa, available: self.0.clone() });
        }
        Ok(Cpu(self.0.iter().copied().filter(|i| i.within(isa)).collect()))
    }

    /// Whether kernels for `isa` may run.
    #[must_use]
    pub fn has(&self, isa: Isa) -> bool {
        self.0.contains(&isa)
    }

    /// The instruction sets, best last.
    #[must_use]
    pub fn isas(&self) -> &[Isa] {
        &self.0
    }
}

fn detected(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => Scalar::detect(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Avx2::detect(),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => AvxVnni::detect(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Avx512::detect(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => Avx512Vnni::detect(),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Neon::detect(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => NeonDot::detect(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => NeonI8mm::detect(),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 | Isa::Avx512Vnni => false,
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_narrows_and_never_widens() {
        let cpu = Cpu::detect();
        let scalar = cpu.limit(Isa::Scalar).unwrap();
        assert_eq!(scalar.isas(), [Isa::Scalar]);
        for isa in Isa::ALL {
            assert_eq!(cpu.limit(isa).is_ok(), cpu.has(isa), "{isa}");
            assert!(!scalar.has(isa) || isa == Isa::Scalar);
        }
        assert!(scalar.limit(*cpu.isas().last().unwrap()).is_err() || cpu.isas().len() == 1);
    }
}
