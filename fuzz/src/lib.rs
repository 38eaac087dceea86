//! What each fuzz target does with an input, as functions: the targets call them, and so do ordinary
//! tests (`crates/bitnet-inference/tests/files/found.rs`) with seeds and with inputs that broke
//! something once.
//!
//! Each reads all that users can read of such a file. It returns the error that a user would see, and
//! panics where something is wrong that is no error.

mod checkpoint;
mod folder;
mod gguf;
mod template;
mod tokenizer;

pub use checkpoint::{config, index, model, safetensors};
pub use gguf::gguf;
pub use template::template;
pub use tokenizer::tokenizer;
