//! CPU kernels for ternary (BitNet b1.58) language models.
//!
//! A *kernel* is one operation (`gemv`, `norm`, `attend`, ...), for one weight format if it has
//! weights, on one instruction set. All are rows of one table, [`KERNELS`]; a [`KernelManager`]
//! gives the best row once, when a model is loaded, and a plain function pointer with it.
//!
//! * [`isa`]: instruction sets; [`Cpu`]: which of them the processor has.
//! * [`manager`]: which kernel computes what, and why another does not.
//! * [`mod@format`]: how ternary and floating-point matrices are laid out in bytes.
//! * [`packed`]: ternary matrices in the layout that kernels read.
//! * [`op`]: the operations, written once, generic over the instruction set.
//! * [`mod@ternarize`]: ternary matrices from floating-point ones.
//! * [`simple`]: a product and a quantisation as plain functions.
//! * [`shortlist`]: the greatest logits of a large output layer from a fraction of its bytes.
//! * [`pool`]: threads that share the tiles of an output.
//! * [`limits`]: what the machine can do at best.
//! * [`conformance`]: the suite that holds every row against a plain definition, bit for bit.
//!
//! The numbers contract: every operation has one definition down to the order of its roundings, so
//! results are the same bits on every instruction set, with any number of threads, for any batch.
//!
//! ```
//! use bitnet_kernels::op::{GemvArgs, GemvFn, RowScale};
//! use bitnet_kernels::{Format, KernelManager, Packed, Pool, format};
//!
//! // Two rows of 128 weights, all +1 and all -1, with the scale 0.5.
//! let weights = [[1; 128], [-1; 128]].concat();
//! let file = format::encode(Format::I2S, &weights, 2, 128, 0.5)?;
//! let matrix = Packed::new(Format::I2S, &file, (2, 128), Format::I2SR32, &Pool::alone())?;
//!
//! let gemv = KernelManager::new().select::<GemvFn>(Some(Format::I2SR32))?;
//! let (x, mut y) = ([[1; 4]; 32], [0.0; 2]);
//! (gemv.run)(GemvArgs {
//!     panels: matrix.panels(0..2),
//!     scale: matrix.scale(),
//!     x: &x,
//!     x_scale: RowScale { scale: 1.0, sum: 128 },
//!     y: &mut y,
//! });
//! assert_eq!(y, [64.0, -64.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aligned;
pub mod conformance;
mod device;
pub mod format;
pub mod isa;
pub mod limits;
pub mod manager;
pub mod op;
mod operation;
pub mod packed;
pub mod pool;
mod registry;
pub mod shapes;
pub mod shortlist;
mod simd;
pub mod simple;
pub mod ternarize;

pub use aligned::Aligned;
pub use device::{Device, Devices, UnknownDevice, UnknownDevices};
pub use format::Format;
pub use isa::Isa;
pub use manager::{KernelManager, NoKernel, Reason};
pub use operation::{DataType, Operation};
pub use packed::Packed;
pub use pool::Pool;
pub use registry::{
    Bound, Calls, Function, KERNELS, Kernel, KernelId, Line, UnknownKernel, kernels,
};
pub use simd::cpu::Cpu;
