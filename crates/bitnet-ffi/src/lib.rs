//! C++ engines as a second backend: their libraries are found, understood, and checked against.
//!
//! * [`discover`]: where libraries of llama.cpp and bitnet.cpp are.
//! * [`symbols`]: what a library has and needs, read from its file.
//! * [`contract`]: which functions it must have.
//! * [`Reference`]: a library in a process of its own, `bitnet ffi-host`: a crash there is an error here.
//! * [`compare`]: how far results agree, and which engine is faster.
//!
//! Nothing is linked. What is called is looked up when it is called, and only in libraries whose functions and
//! structures are of a version that is known.

pub mod compare;
pub mod contract;
pub mod discover;
mod error;
pub mod host;
mod layout;
mod load;
pub mod parity;
mod process;
mod reference;
pub mod symbols;
mod wire;

pub use contract::validate_ffi_library;
pub use error::Error;
pub use process::{Host, Patience};
pub use reference::{LibraryInfo, Logits, Reference};
pub use symbols::{SymbolAnalysis, analyze_library, detect_kernel_backends};
pub use wire::{Loaded, Row, Settings};
