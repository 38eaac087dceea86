//! What can go wrong with a download, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::super as hub;

/// Names the file or the address. Causes are in the messages, tokens are in none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Cache(#[from] hub::Error),
    #[error("HF_ENDPOINT `{0}` is no address: it must be as https://huggingface.co")]
    Endpoint(String),
    #[error("the token of {0} has characters that no token has: get one at {1}/settings/tokens")]
    Token(String, String),
    #[error("the revision `{0}` cannot be the name of a branch, tag or commit")]
    Revision(String),
    #[error("cannot reach {url}: {cause}")]
    Unreachable { url: String, cause: ureq::Error },
    #[error("{url}: the connection broke off: {cause}")]
    BrokenOff { url: String, cause: io::Error },
    #[error("{url}: cut off, {found} of {expected} bytes")]
    Cut { url: String, found: u64, expected: u64 },
    #[error("{url} answers {status}")]
    Status { url: String, status: u16 },
    #[error("{url} answers {status}: {repository} is private or there is no such model; {advice}")]
    Denied { url: String, status: u16, repository: String, advice: &'static str },
    #[error(
        "{repository} is gated: accept its conditions at {page}, then set HF_TOKEN to a token that may \
         read it"
    )]
    Gated { repository: String, page: String },
    #[error("{url}: there is no such model, revision or file: check the name")]
    NotFound { url: String },
    #[error("{url}: {what}; is this a Hugging Face hub?")]
    Answer { url: String, what: String },
    #[error("{url} leads to `{to}`: {what}")]
    Redirect { url: String, to: String, what: &'static str },
    #[error("{repository} has a file `{file}`: a name that could leave the cache is refused")]
    FileName { repository: String, file: String },
    #[error(
        "{file} has the hash {found}, and the hub says {expected}: what was downloaded is deleted; try \
         again, and if it happens again something on the way changes the file"
    )]
    Hash { file: String, expected: String, found: String },
    #[error(
        "{file} has {found} bytes, and the hub says {expected}: what was downloaded is deleted; try again"
    )]
    Length { file: String, expected: u64, found: String },
    #[error("{needed} bytes are missing and {free} are free at {}: make room, or set HF_HOME", at.display())]
    Space { needed: u64, free: u64, at: PathBuf },
    #[error("interrupted")]
    Interrupted,
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It would again.
    Lasting(Error),
    /// It may go better.
    Passing {
        error: Error,
        /// When, if the server says.
        after: Option<Duration>,
        /// Whether there is more than before.
        progress: bool,
    },
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Lasting(error.into())
    }
}

impl Failure {
    /// One that may go better, of which the server says nothing.
    pub(super) fn passing(error: Error) -> Failure {
        Failure::Passing { error, after: None, progress: false }
    }
}
