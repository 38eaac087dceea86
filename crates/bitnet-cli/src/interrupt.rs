//! Ctrl-C: ends the process, or asks a command that heeds it to stop; then the second ends the process.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// Whether Ctrl-C was pressed.
static PRESSED: AtomicBool = AtomicBool::new(false);
/// Whether a command looks at that.
static HEEDED: AtomicBool = AtomicBool::new(false);

/// Takes Ctrl-C over from the system, which does nothing where the parent ignores it.
pub(crate) fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        let again = PRESSED.swap(true, Ordering::Relaxed);
        if again || !HEEDED.load(Ordering::Relaxed) {
            process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")
}

/// A command that heeds Ctrl-C.
#[derive(Debug)]
pub(crate) struct Interrupt(());

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Interrupt {
        HEEDED.store(true, Ordering::Relaxed);
        Interrupt(())
    }

    /// Whether it was pressed since this was asked last.
    pub(crate) fn take(&self) -> bool {
        PRESSED.swap(false, Ordering::Relaxed)
    }

    /// Whether it was pressed.
    pub(crate) fn pressed(&self) -> bool {
        PRESSED.load(Ordering::Relaxed)
    }
}
