//! The models of `references/make.py`.

use std::path::{Path, PathBuf};

/// The folder of a model.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references").join(name)
}
