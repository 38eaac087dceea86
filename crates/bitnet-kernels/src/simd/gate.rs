//! Functions compiled for an instruction set, and the one place they are given out.

use super::cpu::Cpu;
use super::{Op, Token};
use crate::isa::Isa;

/// A function compiled for one instruction set, that is only given out where it can run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated<F> {
    isa: Isa,
    run: F,
}

/// `O` compiled for `S`.
pub(crate) const fn gate<S: Token, O: Op<S>>() -> Gated<for<'a> fn(O::Args<'a>)> {
    fn enter<S: Token, O: Op<S>>(args: O::Args<'_>) {
        // SAFETY: only `Gated::bind` gives out this function, and only for a `Cpu` that has
        // `S::ISA`; a `Cpu` holds nothing that `S::detect` did not find.
        unsafe { S::assume() }.run::<O>(args);
    }
    Gated { isa: S::ISA, run: enter::<S, O> }
}

impl<F: Copy> Gated<F> {
    /// The function, if `cpu` has its instruction set.
    pub(crate) fn bind(&self, cpu: &Cpu) -> Option<F> {
        cpu.has(self.isa).then_some(self.run)
    }
}
