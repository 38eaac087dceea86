//! What a scheduler has called, launched and read.

use bitnet_kernels::Calls;

use super::Scheduler;
use crate::{Error, PerformanceStats, WeightsRead};

impl Scheduler<'_> {
    /// Kernels called by all forward passes so far.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        self.session.calls()
    }

    /// Bytes of weights read so far.
    #[must_use]
    pub fn read(&self) -> WeightsRead {
        self.session.read()
    }

    /// What a GPU did so far, and what it took; nothing where none computes.
    #[must_use]
    pub fn performance_stats(&self) -> Option<PerformanceStats> {
        self.session.performance_stats()
    }

    /// Passes that a library of another engine has computed, and what it is called in receipts.
    pub(crate) fn foreign_calls(&self) -> Option<(&'static str, u64)> {
        self.session.foreign_calls()
    }

    /// Kernels of a GPU that were launched so far, by name.
    pub(crate) fn launches(&self) -> Vec<(&'static str, u64)> {
        self.session.launches()
    }

    /// Passes that a GPU began before their tokens were known, and dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.session.dropped()
    }

    /// All logits of the last row of the last forward pass that had some.
    ///
    /// # Errors
    ///
    /// Where a GPU fails.
    pub(crate) fn last_logits(&mut self) -> Result<Option<&[f32]>, Error> {
        self.session.last_logits()
    }
}
