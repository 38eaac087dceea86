//! What can go wrong with a foreign library.

use std::io;
use std::path::PathBuf;

/// What can go wrong with a foreign library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that is no library of a kind that is known.
    #[error("{}: this is no library: {what}", path.display())]
    NoLibrary {
        /// The file.
        path: PathBuf,
        /// What it is, or what is wrong with it.
        what: String,
    },
    /// A library that cannot be opened by programs at run time.
    #[error("{}: a static archive can be looked at, and not opened: build the shared library (-DBUILD_SHARED_LIBS=ON)", path.display())]
    Static {
        /// The file.
        path: PathBuf,
    },
    /// A library for other machines.
    #[error("{}: it is for {}, and this program for {ours}: take one for this machine", path.display(), theirs.join(" and "))]
    Architecture {
        /// The file.
        path: PathBuf,
        /// What the library is for.
        theirs: Vec<String>,
        /// What this program is for.
        ours: String,
    },
    /// A library without functions that are called.
    #[error("{}: not {contract}: without {}", path.display(), missing.join(", "))]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it is not.
        contract: &'static str,
        /// The functions that are missing; of several names one is enough.
        missing: Vec<String>,
    },
    /// A library whose structures are of no version that is known.
    #[error("{}: {what}: no function is called with a structure that is not known; take another version of the library", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What was measured.
        what: String,
    },
    /// There is no library.
    #[error(
        "no library of llama.cpp or bitnet.cpp found in {looked} folders: name one with --reference, or its folder with BITNET_CROSSVAL_LIBDIR or BITNET_CPP_DIR"
    )]
    NotFound {
        /// Folders that exist and were looked at.
        looked: usize,
    },
    /// The program that opens libraries cannot be started.
    #[error("cannot start {} for the library: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What the library reports.
    #[error("{}: {what}{}", library.display(), said(last))]
    Refused {
        /// The library.
        library: PathBuf,
        /// What it reports.
        what: String,
        /// The last lines that it wrote, where they say why.
        last: String,
    },
    /// The process with the library ended in the middle of a call.
    #[error("{}: its process ended ({how}) in `{call}`{}", library.display(), said(last))]
    Died {
        /// The library.
        library: PathBuf,
        /// The call.
        call: &'static str,
        /// How it ended: a signal, or an exit code.
        how: String,
        /// The last lines that it wrote.
        last: String,
    },
    /// The library does not come back from a call.
    #[error("{}: no answer to `{call}` for {seconds} s: its process was ended{}", library.display(), said(last))]
    Late {
        /// The library.
        library: PathBuf,
        /// The call.
        call: &'static str,
        /// For how long was waited.
        seconds: u64,
        /// The last lines that it wrote.
        last: String,
    },
    /// The process with the library answers what was not asked.
    #[error("{}: its process does not keep to the protocol: {what}", library.display())]
    Protocol {
        /// The library.
        library: PathBuf,
        /// What came.
        what: String,
    },
}

/// What a library wrote, behind what happened.
fn said(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!("; it wrote:\n{last}") }
}
