//! Reads and writes [GGUF] model files, those with ternary weights included.
//!
//! GGUF is one file: a header with metadata (keys and typed values) and tensor descriptions, then
//! the tensor data. [`Gguf::open`] maps the file, walks the header once, checks all of it and
//! copies almost nothing; [`Gguf::data`] gives the bytes of a tensor as a shared slice of the map.
//! [`Writer`] makes files.
//!
//! Files are not trusted. Every count and length is held against the bytes that are left before it
//! is used, every offset against the file, and every [`Error`] says in which file, at which byte,
//! what was found and what to do next. What cannot be understood is refused by name.
//!
//! Type ids are not unique among the programs that write ternary models, so
//! [`Gguf::tensor_type`] judges by architecture and size; see [`TensorType`].
//!
//! ```
//! use bitnet_gguf::{Gguf, TensorType, Writer};
//!
//! # fn main() -> Result<(), bitnet_gguf::Error> {
//! let norm: Vec<u8> = [1.0f32, 0.5].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let mut file = Vec::new();
//! Writer::new()
//!     .metadata("general.architecture", "bitnet-b1.58")
//!     .metadata("bitnet-b1.58.block_count", 4u32)
//!     .tensor("output_norm.weight", &[2], TensorType::F32.id(), &norm)
//!     .write_to(&mut file)?;
//!
//! let gguf = Gguf::from_vec("example.gguf", file)?;
//! assert_eq!(gguf.architecture()?, "bitnet-b1.58");
//! assert_eq!(gguf.require_u32("bitnet-b1.58.block_count")?, 4);
//! assert_eq!(gguf.u32("bitnet-b1.58.expert_count")?, None);
//! for tensor in gguf.tensors() {
//!     assert_eq!(gguf.tensor_type(tensor)?, TensorType::F32);
//!     assert_eq!(gguf.data(tensor)?[..], norm);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `map` | [`Bytes`]: the mapped file; the only `unsafe` |
//! | `cursor` | checked reads, one after another |
//! | `value` | [`Value`], [`Array`]: metadata |
//! | `tensor` | [`Tensor`] as described |
//! | `types`, `resolve` | [`TensorType`], and which one a tensor is judged to be |
//! | `header` | the parser |
//! | `file` | [`Gguf`] |
//! | `write` | [`Writer`] |
//!
//! [GGUF]: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

#![deny(unsafe_code)]

mod cursor;
mod error;
mod file;
mod header;
#[expect(unsafe_code, reason = "mapping a file into memory is unsafe")]
mod map;
mod resolve;
mod tensor;
mod types;
mod value;
mod write;

pub use error::Error;
pub use file::Gguf;
pub use map::Bytes;
pub use tensor::Tensor;
pub use types::TensorType;
pub use value::{Array, Element, Strings, Value, ValueType};
pub use write::Writer;
