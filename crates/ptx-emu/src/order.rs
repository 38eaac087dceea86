//! Blocks share memory, and may be there at once: what each knows of what the others have done.
//!
//! A fence makes what a block has done so far ready to be known, and an atomic operation behind it leaves that at its address; who comes
//! to the address by an atomic operation or an acquiring load hears of it, and knows it from the next fence on, or at
//! once. An access to what another block has written, or is to be the first to write over what another has read, must know of
//! that.

use std::collections::HashMap;

/// Fences that each block has passed, as far as somebody knows: none of those behind the last.
type Clocks = Vec<u32>;

/// The accesses of the blocks of a launch.
#[derive(Debug)]
pub(crate) struct Order {
    known: Vec<Clocks>,
    /// Heard of, and not known until there is a fence.
    heard: Vec<Clocks>,
    /// What is left at addresses of atomic operations.
    left: HashMap<u64, Clocks>,
    /// By their addresses divided by four; those that nobody has written in this launch are not here.
    words: HashMap<u64, Word>,
}

/// Accesses to a word that no later one has taken the place of.
#[derive(Debug, Default)]
struct Word {
    writes: Vec<Access>,
    reads: Vec<Access>,
}

/// A block, how many fences it has passed with the next one, and which bytes.
#[derive(Clone, Copy, Debug)]
struct Access {
    block: usize,
    time: u32,
    bytes: u8,
}

/// An access that another is not ordered with: what both are, and the block of the other.
pub(crate) type Unordered = (&'static str, usize);

fn join(to: &mut Clocks, from: &Clocks) {
    to.resize(to.len().max(from.len()), 0);
    to.iter_mut().zip(from).for_each(|(to, from)| *to = (*to).max(*from));
}

/// The words of an access, and which of their bytes.
fn words(address: u64, bytes: usize) -> impl Iterator<Item = (u64, u8)> {
    let end = address + bytes as u64;
    (address / 4..end.div_ceil(4)).map(move |word| {
        let first = address.saturating_sub(4 * word).min(4);
        let last = (end - 4 * word).min(4);
        (word, (first..last).fold(0, |all, byte| all | 1 << byte))
    })
}

impl Order {
    pub(crate) fn new(blocks: usize) -> Order {
        let nothing = vec![Clocks::new(); blocks];
        let (left, words) = (HashMap::new(), HashMap::new());
        Order { known: nothing.clone(), heard: nothing, left, words }
    }

    pub(crate) fn fence(&mut self, block: usize) {
        let known = &mut self.known[block];
        join(known, &self.heard[block]);
        known.resize(known.len().max(block + 1), 0);
        known[block] += 1;
    }

    /// An atomic operation, which is ordered with all others at its address.
    pub(crate) fn atomic(&mut self, block: usize, address: u64) {
        let left = self.left.entry(address).or_default();
        join(&mut self.heard[block], left);
        join(left, &self.known[block]);
    }

    /// An acquiring load.
    pub(crate) fn acquire(&mut self, block: usize, address: u64) {
        if let Some(left) = self.left.get(&address) {
            join(&mut self.heard[block], left);
            join(&mut self.known[block], left);
        }
    }

    /// Fences that a block has passed, as another knows.
    fn fences(&self, of: usize, by: usize) -> u32 {
        self.known[by].get(of).copied().unwrap_or(0)
    }

    fn now(&self, block: usize, bytes: u8) -> Access {
        Access { block, time: self.fences(block, block) + 1, bytes }
    }

    /// The first of some accesses that a block does not know of.
    fn unknown(&self, to: &[Access], now: Access) -> Option<usize> {
        let ordered = |access: &Access| {
            access.block == now.block
                || access.bytes & now.bytes == 0
                || access.time <= self.fences(access.block, now.block)
        };
        to.iter().find(|access| !ordered(access)).map(|access| access.block)
    }

    pub(crate) fn read(
        &mut self,
        block: usize,
        address: u64,
        bytes: usize,
    ) -> Result<(), Unordered> {
        for (at, bytes) in words(address, bytes) {
            let now = self.now(block, bytes);
            let Some(word) = self.words.get(&at) else { continue };
            if let Some(other) = self.unknown(&word.writes, now) {
                return Err(("a read and a write of", other));
            }
            if let Some(word) = self.words.get_mut(&at) {
                word.reads.retain(|read| read.block != block || read.bytes & !bytes != 0);
                word.reads.push(now);
            }
        }
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        block: usize,
        address: u64,
        bytes: usize,
    ) -> Result<(), Unordered> {
        for (at, bytes) in words(address, bytes) {
            let now = self.now(block, bytes);
            if let Some(word) = self.words.get(&at) {
                if let Some(other) = self.unknown(&word.writes, now) {
                    return Err(("two writes, the other of", other));
                }
                if let Some(other) = self.unknown(&word.reads, now) {
                    return Err(("a write and a read of", other));
                }
            }
            let word = self.words.entry(at).or_default();
            for list in [&mut word.writes, &mut word.reads] {
                list.retain(|access| access.bytes & !bytes != 0);
            }
            word.writes.push(now);
        }
        Ok(())
    }
}
