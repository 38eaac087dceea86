//! Where weights come from: named tensors of a file, checked and in one internal form.

pub(crate) mod gguf;
