//! NVIDIA GPUs.

mod args;
mod buffers;
mod condensed;
mod error;
mod gpu;
mod health;
mod known;
mod launch;
mod memory;
mod mixed;
mod peers;
mod probe;
mod products;
mod queue;
mod select;
mod simple;
mod step;
mod sys;
mod together;

pub use buffers::{Floats, Loader, Matrix, Plan, Quantized, Scratch, Table, Transfers, Vector};
pub use condensed::{Condensed, Output, Shortlist};
pub use error::Error;
pub use gpu::{Gpu, Launches};
pub use health::MemoryResult;
pub use launch::LaunchParams;
pub use memory::{MemoryTracker, MemoryUse};
pub use mixed::{MixedPrecisionKernel, MixedPrecisionMetrics};
pub use probe::{CudaDeviceInfo, DRIVER, Probe, version};
pub use products::Input;
pub use queue::{Activation, Cache, Heads, KV_BLOCK, Parts, Queue, Rows, SPAN};
pub use select::{Found, Pick, Picks};
pub use simple::BatchMatmulParams;
pub use step::{CacheShape, Recorded, Row, Step};
