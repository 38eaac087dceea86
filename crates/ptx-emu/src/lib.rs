//! An interpreter of PTX, the language that NVIDIA's drivers compile: it runs CUDA kernels without a GPU, and finds
//! what devices leave undefined.
//!
//! Results are those of a device, to the bit, but for tensor cores on floating-point numbers. What it refuses:
//! accesses outside of buffers or unaligned; memory and registers that are read before they are written; accesses
//! to shared memory that no barrier orders; instructions for a whole warp, or for four, that not all of their threads come to; products
//! of four warps whose registers or memory are touched before they are done, or were not shown to them; waiting
//! for ever. Instructions that it does not know are errors when a text is parsed.
//!
//! A warp's threads execute an instruction together where they are at the same one; those furthest behind go first.

mod block;
mod decode;
mod error;
mod functions;
mod inst;
mod launch;
mod lex;
mod matrix;
mod memory;
mod order;
mod parse;
mod shared;
mod warp;

pub use error::{Error, Place, Space};
pub use launch::{Launch, Read, Report};
pub use memory::Memory;
pub use parse::Module;
