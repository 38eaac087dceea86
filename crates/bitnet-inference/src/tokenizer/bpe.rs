//! Byte-pair encoding of one piece of text.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::table::TokenTable;
use super::{TokenizerError, alphabet};

/// The id of a symbol that has been merged into the one before it; no token has this id.
const MERGED: u32 = u32::MAX;

/// The place before the first symbol or after the last.
const NONE: usize = usize::MAX;

/// Two tokens and what they make.
struct Merge {
    left: u32,
    right: u32,
    result: u32,
}

/// The merge list, and the tokens it starts from.
pub(super) struct Bpe {
    /// The token of each byte.
    bytes: [u32; 256],
    /// By rank: the smaller, the earlier a merge is done.
    merges: Vec<Merge>,
    /// The rank of each (left, right).
    ranks: HashMap<(u32, u32), u32>,
}

/// Buffers of [`Bpe::encode`], kept from piece to piece.
#[derive(Default)]
pub(super) struct Work {
    symbols: Vec<Symbol>,
    /// Possible merges as (rank, place of the left symbol): the lowest rank first, and of those the
    /// leftmost.
    queue: BinaryHeap<Reverse<(u32, usize)>>,
}

/// A token of the piece being encoded, linked to its neighbours.
struct Symbol {
    id: u32,
    before: usize,
    after: usize,
}

impl Bpe {
    pub(super) fn new(tokens: &TokenTable, list: &[String]) -> Result<Self, TokenizerError> {
        let mut bytes = [0; 256];
        for (byte, id) in (0..=u8::MAX).zip(&mut bytes) {
            *id = tokens.id(&[byte]).ok_or(TokenizerError::MissingByte { byte })?;
        }
        let mut merges = Vec::with_capacity(list.len());
        let mut ranks = HashMap::with_capacity(list.len());
        let mut joined = Vec::new();
        for (rank, text) in (0..).zip(list) {
            let merge = parse_merge(tokens, rank, text, &mut joined)?;
            // A merge listed twice is done at its first place.
            ranks.entry((merge.left, merge.right)).or_insert(rank);
            merges.push(merge);
        }
        Ok(Self { bytes, merges, ranks })
    }

    /// Appends the tokens of `piece`: its bytes, merged by rank until no merge is left.
    ///
    /// Each merge removes a symbol and queues at most two more, so the time is O(n log n).
    pub(super) fn encode(&self, piece: &[u8], work: &mut Work, ids: &mut Vec<u32>) {
        work.symbols.clear();
        work.queue.clear();
        work.symbols.extend(piece.iter().enumerate().map(|(at, &byte)| Symbol {
            id: self.bytes[usize::from(byte)],
            before: at.checked_sub(1).unwrap_or(NONE),
            after: if at + 1 < piece.len() { at + 1 } else { NONE },
        }));
        for left in 0..piece.len() {
            self.queue(work, left);
        }
        while let Some(Reverse((rank, left))) = work.queue.pop() {
            let merge = &self.merges[rank as usize];
            let right = work.symbols[left].after;
            // The pair may be gone: one of the two was merged since it was queued.
            if work.pair(left) != Some((merge.left, merge.right)) {
                continue;
            }
            let after = work.symbols[right].after;
            work.symbols[right].id = MERGED;
            work.symbols[left].id = merge.result;
            work.symbols[left].after = after;
            if let Some(after) = work.symbols.get_mut(after) {
                after.before = left;
            }
            self.queue(work, left);
            self.queue(work, work.symbols[left].before);
        }
        ids.extend(work.symbols.iter().map(|symbol| symbol.id).filter(|&id| id != MERGED));
    }

    /// Queues the merge of the symbol at `left` with the one after it, if there is such a merge.
    fn queue(&self, work: &mut Work, left: usize) {
        if let Some(&rank) = work.pair(left).and_then(|pair| self.ranks.get(&pair)) {
            work.queue.push(Reverse((rank, left)));
        }
    }
}

impl Work {
    /// The tokens of the symbol at `left` and of the one after it, if there are both.
    fn pair(&self, left: usize) -> Option<(u32, u32)> {
        let left = self.symbols.get(left)?;
        Some((left.id, self.symbols.get(left.after)?.id))
    }
}

/// Reads `"left right"`. `joined` is a buffer, kept from merge to merge.
fn parse_merge(
    tokens: &TokenTable,
    index: u32,
    text: &str,
    joined: &mut Vec<u8>,
) -> Result<Merge, TokenizerError> {
    let (left, right) = text
        .split_once(' ')
        .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
        .ok_or_else(|| TokenizerError::MergeSyntax { index, merge: text.to_owned() })?;
    let missing = |token: &str| TokenizerError::MergeToken {
        index,
        merge: text.to_owned(),
        missing: token.to_owned(),
    };
    joined.clear();
    if !alphabet::decode(left, joined) {
        return Err(missing(left));
    }
    let middle = joined.len();
    if !alphabet::decode(right, joined) {
        return Err(missing(right));
    }
    Ok(Merge {
        left: tokens.id(&joined[..middle]).ok_or_else(|| missing(left))?,
        right: tokens.id(&joined[middle..]).ok_or_else(|| missing(right))?,
        result: tokens.id(joined).ok_or_else(|| missing(&format!("{left}{right}")))?,
    })
}
