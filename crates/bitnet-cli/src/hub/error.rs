//! What can be wrong with a model that is looked for in the cache, or among the files of a repository.

use std::io;
use std::path::PathBuf;

/// Names the repository and what to do. Causes are in the messages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "`{model}`: there is no such file, and no such model in the cache {}: `bitnet pull {model}` \
         downloads it", cache.display()
    )]
    NotCached { model: String, cache: PathBuf },
    #[error("`{model}` is in the cache in part only: `bitnet pull {model}` goes on")]
    Partial { model: String },
    #[error(
        "{repository} is in the cache in several revisions, and `main` is none of them: give -m the \
         path of one, out of {}", snapshots.display()
    )]
    Revisions { repository: String, snapshots: PathBuf },
    #[error("{repository} has several models: name one of {}", names.join(", "))]
    Several { repository: String, names: Vec<String> },
    #[error("{repository} has no model `{wanted}`; it has {}", names.join(", "))]
    NotThere { repository: String, wanted: String, names: Vec<String> },
    #[error(
        "{repository} has no model that bitnet could run: neither a GGUF file, nor config.json and \
         *.safetensors"
    )]
    NoModel { repository: String },
    #[error("{repository} is being downloaded: stop that first")]
    Busy { repository: String },
    #[error("there is no folder for a cache: set HF_HOME")]
    Nowhere,
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

impl Error {
    /// Whether the arguments are at fault.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Error::Several { .. })
    }

    /// Adds the path to an error of the system.
    pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        |cause| Error::Io { path, cause }
    }
}
