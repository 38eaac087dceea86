//! SHA-256, as text.

use sha2::{Digest, Sha256};

/// The hash of some bytes, in hexadecimal.
#[must_use]
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// A hash that was computed piece by piece.
pub(crate) fn finish(hash: Sha256) -> String {
    hexadecimal(&hash.finalize())
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
