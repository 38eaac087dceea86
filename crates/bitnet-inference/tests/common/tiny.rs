//! The smallest model, and one of it that has room for more.

/// Two layers with random weights.
pub(crate) static TINY: &[u8] = include_bytes!("../data/tiny-i2_s.gguf");

/// [`TINY`] with 2048 positions instead of 512.
pub(crate) fn long_tiny() -> &'static [u8] {
    let mut bytes = TINY.to_vec();
    let key = b"bitnet-b1.58.context_length";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    // The type is between the key and the number.
    bytes[at + key.len() + 4..][..4].copy_from_slice(&2048_u32.to_le_bytes());
    bytes.leak()
}
