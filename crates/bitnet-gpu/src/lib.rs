//! Kernels for GPUs.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod kernels;
pub mod tiles;
