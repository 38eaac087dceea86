//! What the running processor has.

use super::{Token, scalar::Scalar};
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512, avx512vnni::Avx512Vnni};
#[cfg(target_arch = "aarch64")]
use super::{neon::Neon, neondot::NeonDot};
use crate::cpu::{Cpu, Isa};

impl Cpu {
    /// What the running processor has.
    #[must_use]
    pub fn detect() -> Cpu {
        Cpu::found(detected)
    }
}

fn detected(isa: Isa) -> bool {
    match isa {
        Isa::Scalar => Scalar::detect(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Avx2::detect(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Avx512::detect(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => Avx512Vnni::detect(),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Neon::detect(),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => NeonDot::detect(),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 | Isa::Avx512Vnni => false,
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Neon | Isa::NeonDot => false,
    }
}
