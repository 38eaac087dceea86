//! The suite that holds every kernel against a plain definition, bit for bit.
//!
//! Library code, so that tests, tools and other backends run the same suite. The definitions in
//! `reference` are loops that read like the formulas; no kernel shares code with them.

use std::fmt;

use crate::isa::Isa;
use crate::op::{Gelu, GeluFn, Relu2, Relu2Fn, Silu, SiluFn};
use crate::operation::Operation;
use crate::registry::{Kernel, kernels};
use crate::simd::cpu::Cpu;

mod attention;
mod cases;
mod product;
mod reference;
mod shortlist;

/// What [`run`] found.
#[derive(Debug, Default)]
pub struct Report {
    /// Kernels that ran, right or wrong.
    pub tested: Vec<&'static Kernel>,
    /// Kernels that this processor cannot run, or that `cpu` excludes.
    pub skipped: Vec<&'static Kernel>,
    /// Kernels that gave other bits than the definition, or wrote where they should not.
    pub failures: Vec<Failure>,
}

/// A kernel that is wrong.
#[derive(Debug)]
pub struct Failure {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// The first case that it failed.
    pub case: String,
}

impl Report {
    /// Kernels tested on `isa`.
    #[must_use]
    pub fn tested_on(&self, isa: Isa) -> usize {
        self.tested.iter().filter(|kernel| kernel.isa() == isa).count()
    }
}

/// One line for each instruction set, then the kernels not run, then the failures.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for isa in Isa::ALL {
            let tested = self.tested_on(isa);
            if tested > 0 {
                writeln!(f, "{isa}: {tested} kernels tested")?;
            }
        }
        for kernel in &self.skipped {
            writeln!(f, "not run here: {kernel}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED {}: {}", failure.kernel, failure.case)?;
        }
        Ok(())
    }
}

/// Runs every kernel that `cpu` can run through all cases of its operation.
#[must_use]
pub fn run(cpu: &Cpu) -> Report {
    let mut report = Report::default();
    for kernel in kernels() {
        match check(kernel, cpu) {
            None => report.skipped.push(kernel),
            Some(result) => {
                report.tested.push(kernel);
                if let Err(case) = result {
                    report.failures.push(Failure { kernel, case });
                }
            }
        }
    }
    report
}

/// The first failed case of a kernel; nothing if `cpu` cannot run it.
fn check(kernel: &Kernel, cpu: &Cpu) -> Option<Result<(), String>> {
    let weights = kernel.format();
    Some(match (kernel.operation(), weights) {
        (Operation::Gemv, _) => product::gemv(kernel.bind(cpu)?, kernel.format()?),
        (Operation::Gemm, _) => product::gemm(kernel.bind(cpu)?, kernel.format()?),
        (Operation::Head, Some(format)) => cases::head(kernel.bind(cpu)?, format),
        (Operation::Quantize, _) => cases::quantize(kernel.bind(cpu)?),
        (Operation::Norm, _) => cases::norm(kernel.bind(cpu)?),
        (Operation::Rope, _) => cases::rope(kernel.bind(cpu)?),
        (Operation::Softmax, _) => cases::softmax(kernel.bind(cpu)?),
        (Operation::Relu2, _) => cases::gate(kernel.bind::<Relu2Fn>(cpu)?, Relu2, reference::relu2),
        (Operation::Silu, _) => cases::gate(kernel.bind::<SiluFn>(cpu)?, Silu, reference::silu),
        (Operation::Gelu, _) => cases::gate(kernel.bind::<GeluFn>(cpu)?, Gelu, reference::gelu),
        (Operation::Attend, Some(format)) => attention::attend(kernel.bind(cpu)?, format),
        (Operation::Join, _) => attention::join(kernel.bind(cpu)?),
        (Operation::Store, Some(format)) => attention::store(kernel.bind(cpu)?, format),
        (Operation::Add, _) => cases::add(kernel.bind(cpu)?),
        (Operation::Absmean, _) => cases::absmean(kernel.bind(cpu)?),
        (Operation::Ternarize, _) => cases::ternarize(kernel.bind(cpu)?, weights),
        (Operation::Matmul, _) => cases::matmul(kernel.bind(cpu)?),
        (Operation::Condense, Some(format)) => shortlist::condense(kernel.bind(cpu)?, format),
        (Operation::Scan, _) => shortlist::scan(kernel.bind(cpu)?),
        (Operation::Refine, _) => shortlist::refine(kernel.bind(cpu)?),
        (Operation::Peak, _) => cases::peak(kernel.bind(cpu)?),
        (Operation::Read, _) => cases::read(kernel.bind(cpu)?),
        (operation, None) => Err(format!("{operation:?} without a weight format has no cases")),
    })
}
