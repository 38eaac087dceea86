//! The kernels of the processor that do not depend on a matrix.

use bitnet_kernels::op::{
    AddFn, AttendFn, GateArgs, Gelu, GeluFn, JoinFn, NormFn, QuantizeFn, Relu2, Relu2Fn, RopeFn,
    Silu, SiluFn, StoreFn,
};
use bitnet_kernels::{Bound, Calls, Format, Kernel, KernelManager, NoKernel};

use crate::config::Activation;

/// The kernels that do not depend on a matrix.
#[derive(Clone, Debug)]
pub(crate) struct Kernels {
    pub(super) quantize: Bound<QuantizeFn>,
    pub(super) norm: Bound<NormFn>,
    pub(super) rope: Bound<RopeFn>,
    pub(super) store: Bound<StoreFn>,
    pub(super) attend: Bound<AttendFn>,
    pub(super) join: Bound<JoinFn>,
    pub(super) add: Bound<AddFn>,
    pub(super) gate: Gate,
}

impl Kernels {
    /// The best ones, for keys and values in the format `kv` and a gate by `activation`.
    pub(crate) fn select(
        manager: &KernelManager,
        kv: Format,
        activation: Activation,
    ) -> Result<Kernels, NoKernel> {
        Ok(Kernels {
            quantize: manager.select(None)?,
            norm: manager.select(None)?,
            rope: manager.select(None)?,
            store: manager.select(Some(kv))?,
            attend: manager.select(Some(kv))?,
            join: manager.select(None)?,
            add: manager.select(None)?,
            gate: Gate::select(manager, activation)?,
        })
    }

    /// The rows of the table.
    pub(crate) fn all(&self) -> [&'static Kernel; 8] {
        let Kernels { quantize, norm, rope, store, attend, join, add, gate } = self;
        [
            quantize.kernel,
            norm.kernel,
            rope.kernel,
            store.kernel,
            attend.kernel,
            join.kernel,
            add.kernel,
            gate.kernel(),
        ]
    }
}

/// The kernel of a gate.
#[derive(Clone, Debug)]
pub(super) enum Gate {
    Relu2(Bound<Relu2Fn>),
    Silu(Bound<SiluFn>),
    Gelu(Bound<GeluFn>),
}

impl Gate {
    fn select(manager: &KernelManager, activation: Activation) -> Result<Gate, NoKernel> {
        Ok(match activation {
            Activation::Relu2 => Gate::Relu2(manager.select(None)?),
            Activation::Silu => Gate::Silu(manager.select(None)?),
            Activation::Gelu => Gate::Gelu(manager.select(None)?),
        })
    }

    pub(super) fn run(&self, gate: &mut [f32], up: &[f32]) {
        match self {
            Gate::Relu2(bound) => (bound.run)(GateArgs { gate, up, by: Relu2 }),
            Gate::Silu(bound) => (bound.run)(GateArgs { gate, up, by: Silu }),
            Gate::Gelu(bound) => (bound.run)(GateArgs { gate, up, by: Gelu }),
        }
    }

    fn kernel(&self) -> &'static Kernel {
        match self {
            Gate::Relu2(bound) => bound.kernel,
            Gate::Silu(bound) => bound.kernel,
            Gate::Gelu(bound) => bound.kernel,
        }
    }

    pub(super) fn count(&self, calls: &mut Calls, rows: usize) {
        match self {
            Gate::Relu2(bound) => calls.add(bound, rows as u64),
            Gate::Silu(bound) => calls.add(bound, rows as u64),
            Gate::Gelu(bound) => calls.add(bound, rows as u64),
        }
    }
}
