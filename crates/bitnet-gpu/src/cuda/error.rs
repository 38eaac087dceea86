//! What can go wrong with a GPU.

use bitnet_kernels::simple::SimpleError;

use super::probe::Probe;
use crate::CudaComputeCapability;

/// An error of a GPU, or of its driver.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no GPU to compute with.
    #[error("{0}")]
    Unavailable(Probe),
    /// There is no device of this number.
    #[error("there is no cuda:{number}: this machine has {count} such devices")]
    NoSuchDevice {
        /// The number that was asked for.
        number: usize,
        /// Devices that there are.
        count: usize,
    },
    /// The device is too old for any of the kernels.
    #[error("{name} has compute capability {has}; {needs} is the least that there are kernels for")]
    TooOld {
        /// What the device is called.
        name: String,
        /// Its compute capability.
        has: CudaComputeCapability,
        /// The least.
        needs: CudaComputeCapability,
    },
    /// A call of the driver failed.
    #[error("{call} failed: {name} ({code})")]
    Driver {
        /// The function of the driver.
        call: &'static str,
        /// The error, as the driver numbers it.
        code: i32,
        /// Its name.
        name: String,
    },
    /// The driver does not take the kernels.
    #[error("the driver does not compile the kernels for {target}: {name} ({code}){}", if .log.is_empty() { String::new() } else { format!(": {log}", log = .log) })]
    Module {
        /// The devices that they are for.
        target: &'static str,
        /// The error, as the driver numbers it.
        code: i32,
        /// Its name.
        name: String,
        /// What the driver's compiler said.
        log: String,
    },
    /// What is planned does not fit into the memory of the device.
    #[error(
        "{what} need {needs} bytes of the memory of {device}, which has {free} free of {total}; {hint}"
    )]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// Bytes of it.
        needs: usize,
        /// What the device is called.
        device: String,
        /// Bytes that are free.
        free: usize,
        /// Bytes of the device.
        total: usize,
        /// What to do.
        hint: &'static str,
    },
    /// A known answer came out wrong: the device, or its driver, does not compute as it should.
    #[error(
        "{device} computes wrong: {what}; use --device cpu, and look for errors of its memory or a newer driver"
    )]
    Wrong {
        /// What the device is called.
        device: String,
        /// What came out.
        what: String,
    },
    /// Slices that are not those of the matrices.
    #[error(transparent)]
    Arguments(#[from] SimpleError),
    /// The kernels cannot do this.
    #[error("not on a GPU: {what}")]
    Unsupported {
        /// What is asked for, and what to do.
        what: String,
    },
}
