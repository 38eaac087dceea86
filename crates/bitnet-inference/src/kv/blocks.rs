//! Which blocks are free, and which hold tokens that a sequence can begin with.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use bitnet_kernels::op::KV_BLOCK;

/// What a block follows: nothing, or the block with this number. Two blocks have the same number if
/// all tokens up to and with theirs are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Parent {
    number: u64,
    chain: u64,
}

/// A hash of all tokens up to the end of a block, of that of those before it and its own: the same in every cache.
pub(crate) fn chain(before: u64, tokens: &[u32; KV_BLOCK]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, tokens).hash(&mut hasher);
    hasher.finish()
}

/// A block that sequences can begin with, by its [`chain`], came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) chain: u64,
    pub(crate) came: bool,
}

/// All tokens up to the end of a block, given by what they follow and its own.
type Prefix = (Parent, [u32; KV_BLOCK]);

/// The blocks of a cache.
///
/// A block is held by some sequences, or by none; then it is free, or still has tokens that a
/// sequence can begin with, and is used for others when no free one is left, the one that was given
/// back first.
#[derive(Debug)]
pub(super) struct Blocks {
    limit: usize,
    all: Vec<Block>,
    free: Vec<u32>,
    /// Published blocks that nobody holds, by when they were given back.
    idle: BTreeMap<u64, u32>,
    published: HashMap<Prefix, Published>,
    /// Counts what was published, and what was given back.
    clock: u64,
    /// What came and went, where somebody wants to know.
    changes: Option<Vec<Change>>,
}

#[derive(Debug, Default)]
struct Block {
    /// The sequences that hold it.
    holders: u32,
    /// What it was published as.
    prefix: Option<Prefix>,
    /// When it was given back.
    given: u64,
}

#[derive(Clone, Copy, Debug)]
struct Published {
    block: u32,
    /// What a block behind it follows.
    number: Parent,
}

impl Blocks {
    pub(super) fn new(limit: usize) -> Blocks {
        Blocks {
            limit,
            all: Vec::new(),
            free: Vec::new(),
            idle: BTreeMap::new(),
            published: HashMap::new(),
            clock: 0,
            changes: None,
        }
    }

    /// What came and went since this was asked before; from the first time on that is noted.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        self.changes.replace(Vec::new()).unwrap_or_default()
    }

    fn note(&mut self, parent: Parent, came: bool) {
        if let Some(changes) = &mut self.changes {
            changes.push(Change { chain: parent.chain, came });
        }
    }

    /// Blocks there can be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Blocks that nobody holds.
    pub(super) fn available(&self) -> usize {
        self.limit - self.all.len() + self.free.len() + self.idle.len()
    }

    /// A block for one sequence: a free one, else a new one, else the one that nobody has used for
    /// longest. Nothing if all are held.
    pub(super) fn take(&mut self) -> Option<u32> {
        let block = match self.free.pop() {
            Some(block) => block,
            None if self.all.len() < self.limit => {
                self.all.push(Block::default());
                self.all.len() as u32 - 1
            }
            None => {
                let (_, block) = self.idle.pop_first()?;
                if let Some(prefix) = self.all[block as usize].prefix.take()
                    && let Some(published) = self.published.remove(&prefix)
                {
                    self.note(published.number, false);
                }
                block
            }
        };
        self.all[block as usize].holders = 1;
        Some(block)
    }

    /// The system has no memory for the block that was made last: there are no more than those before.
    pub(super) fn lost(&mut self) {
        self.all.pop();
        self.limit = self.all.len();
    }

    /// A sequence holds a block no longer.
    pub(super) fn give(&mut self, block: u32) {
        let it = &mut self.all[block as usize];
        it.holders -= 1;
        if it.holders > 0 {
            return;
        }
        if it.prefix.is_none() {
            self.free.push(block);
            return;
        }
        self.clock += 1;
        it.given = self.clock;
        self.idle.insert(self.clock, block);
    }

    /// The block of these tokens behind `parent`, held by one more sequence.
    pub(super) fn find(
        &mut self,
        parent: Parent,
        tokens: &[u32; KV_BLOCK],
    ) -> Option<(Parent, u32)> {
        let &Published { block, number } = self.published.get(&(parent, *tokens))?;
        let it = &mut self.all[block as usize];
        if it.holders == 0 {
            self.idle.remove(&it.given);
        }
        it.holders += 1;
        Some((number, block))
    }

    /// Notes the tokens of a block. Gives what a block behind it follows. If another block has been
    /// published with them, that one stays the one to share.
    pub(super) fn publish(
        &mut self,
        block: u32,
        parent: Parent,
        tokens: &[u32; KV_BLOCK],
    ) -> Parent {
        let prefix = (parent, *tokens);
        if let Some(published) = self.published.get(&prefix) {
            return published.number;
        }
        self.clock += 1;
        let number = Parent { number: self.clock, chain: chain(parent.chain, tokens) };
        self.note(number, true);
        self.published.insert(prefix, Published { block, number });
        self.all[block as usize].prefix = Some(prefix);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u32; KV_BLOCK] = [1; KV_BLOCK];
    const B: [u32; KV_BLOCK] = [2; KV_BLOCK];
    const START: Parent = Parent { number: 0, chain: 0 };

    #[test]
    fn the_same_tokens_are_found_behind_the_same_ones_only() {
        let mut blocks = Blocks::new(8);
        let [a, b] = [0; 2].map(|_| blocks.take().unwrap());
        let after_a = blocks.publish(a, START, &A);
        let after_b = blocks.publish(b, after_a, &B);
        assert_eq!(blocks.find(START, &A), Some((after_a, a)));
        assert_eq!(blocks.find(after_a, &B), Some((after_b, b)));
        assert_eq!(blocks.find(START, &B), None);
        assert_eq!(blocks.find(after_b, &B), None);
        // A block with the same tokens is not shared, but what follows it is what follows the first.
        let other = blocks.take().unwrap();
        assert_eq!(blocks.publish(other, START, &A), after_a);
        assert_eq!(blocks.find(START, &A), Some((after_a, a)));
    }

    #[test]
    fn what_nobody_used_for_longest_goes_first_and_what_is_held_never() {
        let mut blocks = Blocks::new(3);
        let [a, b, c] = [0; 3].map(|_| blocks.take().unwrap());
        assert_eq!((blocks.take(), blocks.available()), (None, 0));
        let after_a = blocks.publish(a, START, &A);
        blocks.publish(b, START, &B);
        blocks.give(b);
        blocks.give(a);
        assert_eq!(blocks.available(), 2);
        // Held again, it is no longer idle; `b` has to go, though it was published later.
        assert_eq!(blocks.find(START, &A), Some((after_a, a)));
        assert_eq!(blocks.take(), Some(b));
        assert_eq!(blocks.find(START, &B), None);
        assert_eq!(blocks.take(), None);
        // What was never published is free at once.
        blocks.give(c);
        assert_eq!(blocks.take(), Some(c));
        // Two held it; it stays until both have given it back.
        assert_eq!(blocks.find(START, &A), Some((after_a, a)));
        blocks.give(a);
        assert_eq!(blocks.available(), 0);
        blocks.give(a);
        assert_eq!(blocks.take(), Some(a));
        assert_eq!(blocks.find(START, &A), None);
    }

    #[test]
    fn what_comes_and_goes_is_noted() {
        let mut blocks = Blocks::new(2);
        assert_eq!(blocks.changes(), []);
        let [a, b] = [0; 2].map(|_| blocks.take().unwrap());
        let after_a = blocks.publish(a, START, &A);
        blocks.publish(b, after_a, &B);
        let [first, second] = [chain(0, &A), chain(chain(0, &A), &B)];
        let change = |chain, came| Change { chain, came };
        assert_eq!(blocks.changes(), [change(first, true), change(second, true)]);
        blocks.give(b);
        blocks.give(a);
        blocks.take().unwrap();
        assert_eq!(blocks.changes(), [change(second, false)]);
        assert_ne!(first, chain(0, &B));
    }

    #[test]
    fn a_block_published_again_behind_others_is_another() {
        let mut blocks = Blocks::new(2);
        let a = blocks.take().unwrap();
        let first = blocks.publish(a, START, &A);
        blocks.give(a);
        let [b, c] = [0; 2].map(|_| blocks.take().unwrap());
        assert_eq!([b, c].iter().filter(|&&block| block == a).count(), 1);
        // `a` lost its tokens: what followed it must not be found behind the new one.
        assert_ne!(blocks.publish(b, START, &A), first);
    }
}
