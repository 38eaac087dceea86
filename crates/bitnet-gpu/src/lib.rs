//! Kernels for GPUs.

mod capability;
#[cfg(feature = "cuda")]
pub mod cuda;
mod draw;
pub mod kernels;
pub mod tiles;

pub use capability::{CudaComputeCapability, UnknownCapability};
pub use draw::{Cut, Draw};
