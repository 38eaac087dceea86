//! Options to compare with references.

use bitnet_inference::{KvType, Options};

/// Keys and values are kept as they are computed.
pub(crate) fn exact() -> Options {
    Options { kv: KvType::F32, ..Options::default() }
}
