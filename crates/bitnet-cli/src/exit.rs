//! Exit codes, and how errors are shown.

use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::Style;
use bitnet_inference::Error;
use bitnet_inference::chat::ChatError;

use crate::{hub, output};

/// What the codes mean, for `--help`.
pub(crate) const CODES: &str = "Exit codes:
  0    done
  1    failed while running
  2    wrong usage
  3    model not found, unreadable or unsupported; a receipt or measurements damaged
  4    out of memory, or the context is too small
  5    a receipt does not hold, or models differ
  130  interrupted by Ctrl-C";

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It did all it was asked to.
    Done,
    /// Ctrl-C stopped it.
    Interrupted,
    /// What was to be verified is wrong, or what was to be the same is not.
    Refuted,
}

/// Wrong usage that the argument parser cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

/// Shows the error, if there is one, and gives the exit code.
pub(crate) fn code(result: anyhow::Result<End>) -> ExitCode {
    match result {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Interrupted) => ExitCode::from(130),
        Ok(End::Refuted) => ExitCode::from(5),
        Err(error) => {
            // The engine's errors name their causes themselves. What is around one, such as which text
            // it was, comes first.
            let (first, cause) = (error.to_string(), error.downcast_ref::<Error>());
            match cause.map(Error::to_string) {
                Some(cause) if cause == first => say(&format!("error: {cause}")),
                Some(cause) => say(&format!("error: {first}: {cause}")),
                None => say(&format!("error: {error:#}")),
            }
            ExitCode::from(code_of(&error))
        }
    }
}

/// A line on stderr. That nobody reads it is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{}", output::plain(line));
}

/// A line on stderr that is less important than others: dim, where that can be shown.
pub(crate) fn dim(line: &str) {
    const DIM: Style = Style::new().dimmed();
    let _ = writeln!(anstream::stderr(), "{DIM}{}{DIM:#}", output::plain(line));
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return 2;
    }
    if error.is::<Unreadable>() {
        return 3;
    }
    if let Some(error) = error.downcast_ref::<hub::Error>() {
        return if error.is_usage() { 2 } else { 3 };
    }
    #[cfg(feature = "ffi")]
    if let Some(error) = error.downcast_ref::<bitnet_ffi::Error>().or_else(|| {
        error.downcast_ref::<Error>().and_then(|error| match error {
            Error::Library(error) => Some(error),
            _ => None,
        })
    }) {
        use bitnet_ffi::Error as Ffi;
        return match error {
            Ffi::Start { .. } | Ffi::Died { .. } | Ffi::Late { .. } | Ffi::Protocol { .. } => 1,
            _ => 3,
        };
    }
    #[cfg(feature = "cuda")]
    if let Some(Error::Gpu(error)) = error.downcast_ref::<Error>() {
        use bitnet_gpu::cuda::Error as Gpu;
        return match error {
            Gpu::Driver { .. } | Gpu::Module { .. } | Gpu::Wrong { .. } => 1,
            Gpu::OutOfMemory { .. } => 4,
            _ => 2,
        };
    }
    match error.downcast_ref::<Error>() {
        Some(
            Error::Isa(_)
            | Error::Device(_)
            | Error::Preference(_)
            | Error::EmptyPrompt
            | Error::Sampling { .. }
            | Error::Capacity { .. }
            | Error::StopString
            | Error::Constraint { .. }
            | Error::NoReceipt { .. }
            | Error::Perplexity { .. }
            | Error::Token { .. }
            | Error::Synthetic { .. }
            | Error::Chat(
                ChatError::Given { .. } | ChatError::Raised { .. } | ChatError::Noncharacters,
            )
            | Error::ShapeFormat { .. }
            | Error::Unsuitable { .. }
            | Error::Exists { .. },
        ) => 2,
        Some(Error::Threads { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => 2,
        Some(Error::Threads { .. } | Error::Memory { .. } | Error::Context { .. }) => 4,
        Some(Error::NotFinite | Error::Output { .. } | Error::Unequal { .. } | Error::Stopped)
        | None => 1,
        Some(_) => 3,
    }
}
