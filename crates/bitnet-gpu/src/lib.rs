//! Kernels for GPUs.

mod access;
mod capability;
#[cfg(feature = "cuda")]
pub mod cuda;
mod draw;
pub mod kernels;
mod precision;
pub mod tiles;

pub use access::{AccessPattern, analyze_access_pattern};
pub use capability::{CudaComputeCapability, UnknownCapability};
pub use draw::{Cut, Draw};
pub use precision::{PrecisionMode, UnknownPrecision};
