//! The key-value cache: blocks of [`KV_BLOCK`] positions, and which of them are whose.

use bitnet_kernels::op::{KV_BLOCK, Keys, Place, StoreArgs, StoreFn};
use bitnet_kernels::{Aligned, Format};

use crate::state::zeros;
use crate::{Config, Error};

mod blocks;

use blocks::Blocks;
pub(crate) use blocks::{Change, Parent, chain};

/// Keys and values of several sequences. Blocks are taken from the system as sequences grow, and
/// shared by sequences that begin with the same tokens, if those were [published](Self::publish).
#[derive(Debug)]
pub(crate) struct KvCache {
    /// Each `[layer][keys, values][kv head]`, and of a head its positions: keys side by side, values
    /// one after another.
    data: Vec<Aligned<u8>>,
    blocks: Blocks,
    /// The blocks of each sequence.
    tables: Vec<Vec<u32>>,
    layers: usize,
    kv_heads: usize,
    /// Numbers of a head.
    head_size: usize,
    /// Bytes of a head of one position.
    head_bytes: usize,
    /// Whether they are here. Those on another device have only their places here.
    here: bool,
}

impl KvCache {
    /// An empty cache for `sequences` sequences of so many layers, in the format `kv`, of `limit` blocks at most.
    pub(crate) fn new(
        config: &Config,
        (layers, sequences): (usize, usize),
        (kv, limit): (Format, usize),
    ) -> KvCache {
        let &Config { kv_heads, head_size, .. } = config;
        let (numbers, bytes) = kv.block();
        let head_bytes = head_size.div_ceil(numbers) * bytes;
        let (data, blocks) = (Vec::new(), Blocks::new(limit));
        let tables = vec![Vec::new(); sequences];
        KvCache { data, blocks, tables, layers, kv_heads, head_size, head_bytes, here: true }
    }

    /// The same, with all keys and values on another device.
    pub(crate) fn elsewhere(self) -> KvCache {
        KvCache { here: false, ..self }
    }

    /// The blocks of a sequence, in order.
    pub(crate) fn table(&self, sequence: usize) -> &[u32] {
        &self.tables[sequence]
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        self.starts(self.layers, 0).0
    }

    /// Blocks that hold nothing that a sequence needs.
    pub(crate) fn available(&self) -> usize {
        self.blocks.available()
    }

    /// Blocks that sequences need, and all there can be.
    pub(crate) fn used(&self) -> (usize, usize) {
        let all = self.blocks.limit();
        (all - self.blocks.available(), all)
    }

    /// Makes room for `positions` positions of a sequence. False where all blocks are taken; those
    /// that there were are then the sequence's.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub(crate) fn reserve(&mut self, sequence: usize, positions: usize) -> Result<bool, Error> {
        while self.tables[sequence].len() * KV_BLOCK < positions {
            let Some(block) = self.blocks.take() else {
                return Ok(false);
            };
            self.tables[sequence].push(block);
            if self.here && self.data.len() <= block as usize {
                match zeros(self.block_bytes(), "key-value cache") {
                    Ok(data) => self.data.push(data),
                    Err(error) => {
                        self.tables[sequence].pop();
                        self.blocks.lost();
                        return Err(error);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Gives all blocks of a sequence back.
    pub(crate) fn release(&mut self, sequence: usize) {
        // The last go first: what others can begin with stays longest.
        while let Some(block) = self.tables[sequence].pop() {
            self.blocks.give(block);
        }
    }

    /// Gives a sequence that has no block yet the blocks whose tokens are those that it begins with.
    /// Gives what the next block of it follows, and the number of blocks.
    pub(crate) fn share(&mut self, sequence: usize, tokens: &[u32]) -> (Parent, usize) {
        let table = &mut self.tables[sequence];
        let mut parent = Parent::default();
        for tokens in tokens.as_chunks::<KV_BLOCK>().0 {
            let Some((next, block)) = self.blocks.find(parent, tokens) else { break };
            table.push(block);
            parent = next;
        }
        (parent, table.len())
    }

    /// Holds the blocks whose tokens are these, as far as there are any, without a sequence.
    pub(crate) fn hold(&mut self, tokens: &[u32]) -> Vec<u32> {
        let mut parent = Parent::default();
        let mut held = Vec::new();
        for tokens in tokens.as_chunks::<KV_BLOCK>().0 {
            let Some((next, block)) = self.blocks.find(parent, tokens) else { break };
            held.push(block);
            parent = next;
        }
        held
    }

    /// Holds blocks no longer.
    pub(crate) fn let_go(&mut self, held: &[u32]) {
        held.iter().rev().for_each(|&block| self.blocks.give(block));
    }

    /// Blocks that sequences can begin with: which came and went since this was asked before.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        self.blocks.changes()
    }

    /// Lets others share block `index` of a sequence, which holds `tokens` behind `parent`. Gives what
    /// the next block follows.
    pub(crate) fn publish(
        &mut self,
        (sequence, index): (usize, usize),
        parent: Parent,
        tokens: &[u32; KV_BLOCK],
    ) -> Parent {
        self.blocks.publish(self.tables[sequence][index], parent, tokens)
    }

    /// Where the keys and the values of a head of a layer start in a block.
    fn starts(&self, layer: usize, kv_head: usize) -> (usize, usize) {
        let head = KV_BLOCK * self.head_bytes;
        let (part, within) = (self.kv_heads * head, kv_head * head);
        (2 * layer * part + within, (2 * layer + 1) * part + within)
    }

    /// Stores the key and the value of a position, of all heads.
    pub(crate) fn store(
        &mut self,
        run: StoreFn,
        layer: usize,
        (sequence, position): (usize, usize),
        [key, value]: [&[f32]; 2],
    ) {
        let block = self.tables[sequence][position / KV_BLOCK] as usize;
        let lane = position % KV_BLOCK;
        let all = KV_BLOCK * self.head_bytes;
        let heads = key.chunks(self.head_size).zip(value.chunks(self.head_size));
        for (kv_head, (key, value)) in heads.enumerate() {
            let (keys, values) = self.starts(layer, kv_head);
            let block = &mut self.data[block];
            let out = &mut block[keys..][..all];
            run(StoreArgs { x: key, place: Place::Lane(lane), out });
            let out = &mut block[values + lane * self.head_bytes..][..self.head_bytes];
            run(StoreArgs { x: value, place: Place::Row, out });
        }
    }

    /// The keys and values of a head of a layer of a sequence.
    pub(crate) fn keys(&self, layer: usize, sequence: usize, kv_head: usize) -> Keys<'_> {
        let (keys, values) = self.starts(layer, kv_head);
        let table = &self.tables[sequence];
        Keys { blocks: &self.data, table, keys, values, stride: self.head_bytes }
    }

    /// The bytes of the blocks of a sequence, one after another.
    pub(crate) fn bytes(&self, sequence: usize) -> impl Iterator<Item = &[u8]> {
        self.tables[sequence].iter().map(|&block| &self.data[block as usize][..])
    }

    /// Block `index` of a sequence, to be filled with what [`KvCache::bytes`] gave.
    pub(crate) fn block_mut(&mut self, sequence: usize, index: usize) -> &mut [u8] {
        &mut self.data[self.tables[sequence][index] as usize]
    }
}
