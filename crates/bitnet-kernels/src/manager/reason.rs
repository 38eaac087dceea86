//! Why there is no kernel, and what would help.

use std::fmt;

use crate::device::Device;
use crate::format::{Format, FormatError};
use crate::isa::Isa;
use crate::operation::{DataType, Operation};
use crate::registry::KernelId;

/// Why a kernel does not run, or why there is none.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// There are no kernels for a device in this crate.
    NotCompiled {
        /// The device.
        device: Device,
    },
    /// This version has no kernels of this kind.
    Absent,
    /// They are for GPUs, where nobody chooses between kernels.
    OnGpu,
    /// A matrix is packed once, in a layout that gemv and gemm must both read.
    Layouts,
    /// The operation does not take such weights.
    Weights {
        /// The formats it takes; empty if it takes no weights.
        takes: Vec<Format>,
    },
    /// The operation takes other activations.
    Data {
        /// Those it takes.
        takes: DataType,
    },
    /// It is for processors of another architecture.
    Architecture {
        /// Which.
        needs: &'static str,
    },
    /// The processor does not have its instruction set.
    Lacks {
        /// Which.
        isa: Isa,
    },
    /// The user allows no better instruction set than another one.
    Excluded {
        /// Which.
        limit: Isa,
    },
    /// The user wants ternary matrices in another layout.
    OtherLayout {
        /// Which.
        layout: Format,
    },
    /// The user prefers other kernels of the same operation.
    NotPreferred,
    /// A run does not compute what it computes.
    Unused,
    /// It does not take matrices of this shape.
    Shape(FormatError),
    /// It takes one row of activations at a time.
    Tokens {
        /// Rows that were asked for.
        tokens: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotCompiled { device: device @ Device::Cuda(_) } => {
                write!(f, "these are the kernels of cpu: {device} has its own, which whole models are loaded for")
            }
            Reason::NotCompiled { device } => {
                write!(f, "not compiled: this version has no kernels for {device}, only for cpu")
            }
            Reason::Absent => f.write_str("not compiled: this version has no such kernels"),
            Reason::OnGpu => f.write_str(
                "not of this processor: NVIDIA GPUs take their kernels by themselves; leave it out, and take --device cuda",
            ),
            Reason::Layouts => {
                f.write_str("gemv and gemm read the same weights: name kernels of one layout")
            }
            Reason::Weights { takes } if takes.is_empty() => f.write_str("it takes no weights"),
            Reason::Weights { takes } => {
                let names: Vec<_> = takes.iter().map(|format| format.name()).collect();
                write!(f, "it takes weights in {}", names.join(", "))
            }
            Reason::Data { takes } => write!(f, "it takes activations in {takes}"),
            Reason::Architecture { needs } => {
                write!(f, "not compiled: it is for {needs}, and this build for {ARCH}")
            }
            Reason::Lacks { isa } => write!(f, "CPU lacks {isa}"),
            Reason::Excluded { limit } => write!(f, "excluded by --isa {limit}"),
            Reason::OtherLayout { layout } => write!(f, "excluded by --layout {layout}"),
            Reason::NotPreferred => f.write_str("excluded by --kernel, which names others"),
            Reason::Unused => f.write_str("this model does not compute with that"),
            Reason::Shape(error) => error.fmt(f),
            Reason::Tokens { tokens } => {
                write!(f, "it takes one row of activations, not {tokens}: ask for gemm")
            }
        }
    }
}

/// The architecture this is compiled for.
pub(super) const ARCH: &str = std::env::consts::ARCH;

/// There is no kernel for what was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct NoKernel {
    /// What should compute.
    pub device: Device,
    /// The operation.
    pub operation: Operation,
    /// The format of the weights.
    pub format: Option<Format>,
    /// The kernels that come nearest, and why each does not do. A reason without a kernel holds for
    /// all.
    pub reasons: Vec<(Option<KernelId>, Reason)>,
}

impl fmt::Display for NoKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoKernel { device, operation, format, reasons } = self;
        write!(f, "no {operation} kernel")?;
        if let Some(format) = format {
            write!(f, " for {format} weights")?;
        }
        write!(f, " on {device}")?;
        // One kernel stands for all that have the same reason, and those of other architectures are
        // only worth a word where there are no others.
        let foreign = |reason: &Reason| matches!(reason, Reason::Architecture { .. });
        let alone = reasons.iter().all(|(_, reason)| foreign(reason));
        let mut said = Vec::new();
        for (_, reason) in reasons.iter().filter(|(_, reason)| alone || !foreign(reason)) {
            if !said.contains(&reason) {
                f.write_str(if said.is_empty() { ": " } else { "; or " })?;
                reason.fmt(f)?;
                said.push(reason);
            }
        }
        Ok(())
    }
}

impl std::error::Error for NoKernel {}
