//! Kernels for GPUs.

mod capability;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod kernels;
pub mod tiles;

pub use capability::{CudaComputeCapability, UnknownCapability};
