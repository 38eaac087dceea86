//! Architectures: one file each, the forward pass from top to bottom.

mod bitnet;

pub(crate) use bitnet::{BitNet, Layer, forward};
