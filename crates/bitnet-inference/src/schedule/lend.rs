//! Keys and values of a scheduler that another one copies, on another device.

use bitnet_kernels::op::KV_BLOCK;

use super::Scheduler;
use crate::Error;
use crate::gpu::Lent;

/// Blocks that another scheduler may copy, until they are [taken back](Scheduler::take_back).
#[derive(Debug)]
pub(super) struct Loan {
    /// Whose they are: the place of its device.
    pub(super) from: usize,
    /// What they hold.
    tokens: Vec<u32>,
    pub(super) blocks: Vec<u32>,
    lent: Lent,
}

impl Scheduler<'_> {
    /// Lets another copy the keys and values of these tokens, as far as they are in the cache. Nothing if none are.
    ///
    /// # Errors
    ///
    /// Where the device fails.
    pub(super) fn lend(&mut self, mut tokens: Vec<u32>) -> Result<Option<Loan>, Error> {
        let blocks = self.session.cache().hold(&tokens);
        if blocks.is_empty() {
            return Ok(None);
        }
        match self.session.lend() {
            Ok(Some(lent)) => {
                self.lent += blocks.len();
                tokens.truncate(blocks.len() * KV_BLOCK);
                Ok(Some(Loan { from: self.replica, tokens, blocks, lent }))
            }
            none => {
                self.session.cache().let_go(&blocks);
                none.map(|_| None)
            }
        }
    }

    /// Nobody copies these blocks any more.
    pub(super) fn take_back(&mut self, blocks: &[u32]) {
        self.lent -= blocks.len();
        self.session.cache().let_go(blocks);
    }

    /// Whether there is something to do for which there is no room until what is lent comes back.
    pub(super) fn waits_for_loans(&self) -> bool {
        self.lent > 0
            && self.running.is_empty()
            && !self.waiting.is_empty()
            && self.events.is_empty()
    }

    /// Copies blocks of another into the cache, those that are not in it, as far as there is room. Gives how many.
    ///
    /// # Errors
    ///
    /// Where either device fails.
    pub(super) fn borrow_blocks(&mut self, loan: &Loan) -> Result<usize, Error> {
        let slot = self.spare();
        let copied = self.copy(slot, loan);
        self.session.cache().release(slot);
        copied
    }

    fn copy(&mut self, slot: usize, loan: &Loan) -> Result<usize, Error> {
        let cache = self.session.cache();
        let (mut parent, first) = cache.share(slot, &loan.tokens);
        let mut pairs = Vec::new();
        for (index, &there) in loan.blocks.iter().enumerate().skip(first) {
            // Not at the cost of what is in use.
            if cache.available() == 0 || !cache.reserve(slot, (index + 1) * KV_BLOCK)? {
                break;
            }
            pairs.push((there, cache.table(slot)[index]));
        }
        self.session.borrow_blocks(&loan.lent, &pairs)?;
        let tokens = loan.tokens.as_chunks::<KV_BLOCK>().0.iter().enumerate();
        for (index, tokens) in tokens.skip(first).take(pairs.len()) {
            parent = self.session.cache().publish((slot, index), parent, tokens);
        }
        Ok(pairs.len())
    }
}
