//! Blocks of keys and values that one device lets another copy.

use std::sync::Arc;

use bitnet_gpu::cuda;

use super::{OnGpu, Passes};
use crate::Error;

/// Where the blocks are that another device may copy.
#[derive(Debug)]
pub(crate) struct Lent {
    on: Arc<OnGpu>,
    there: cuda::Cache,
}

impl Passes {
    /// Lets others copy blocks that were written by now; waits for that.
    pub(crate) fn lend(&self) -> Result<Lent, Error> {
        let (on, there) = self.there();
        on.gpu.synchronize()?;
        Ok(Lent { on: Arc::clone(on), there: there.clone() })
    }

    /// Copies blocks of another device: pairs of the block there and the block here.
    pub(crate) fn borrow_blocks(&self, lent: &Lent, pairs: &[(u32, u32)]) -> Result<(), Error> {
        let (on, there) = self.there();
        Ok(there.copy_blocks(&on.gpu, (&lent.on.gpu, &lent.there), pairs)?)
    }

    /// Copies from the memory of other devices to this one so far.
    pub(crate) fn peer_copies(&self) -> u64 {
        self.there().0.gpu.transfers().from_peers
    }
}
