//! Models of the Hugging Face hub: the cache that its tools share, and downloads into it.

mod cache;
mod choose;
mod error;
pub(crate) mod list;
mod name;
#[cfg(feature = "hub")]
mod net;
pub(crate) mod pull;
pub(crate) mod rm;
mod snapshot;

use std::path::{Path, PathBuf};

use cache::Cache;
pub(crate) use error::Error;
use name::Name;

/// The model that `-m` means: a path as it is, or `ORG/NAME[:FILE]` from the cache. What exists as a
/// path is one. Nothing is downloaded.
pub(crate) fn find(model: &Path) -> Result<PathBuf, Error> {
    let name = model.to_str().and_then(|text| text.parse::<Name>().ok());
    match (name, Cache::locate()) {
        (Some(name), Ok(cache)) if !model.exists() => cache.find(&name, None),
        _ => Ok(model.to_owned()),
    }
}
