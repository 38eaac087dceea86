//! Byte-pair encoding of one piece of text.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::TokenizerError;
use super::table::TokenTable;

/// The id of a symbol that has been merged into the one before it; no token has this id.
const MERGED: u32 = u32::MAX;

/// The id of a symbol that is no token; no token has this id.
pub(super) const UNKNOWN: u32 = u32::MAX - 1;

/// The place before the first symbol or after the last.
const NONE: usize = usize::MAX;

/// Which neighbours are merged, and which first.
pub(super) enum Merges {
    /// Those of a list: the rank in it of each (left, right), and what they make.
    Listed(HashMap<(u32, u32), (u32, u32)>),
    /// All that make a token: the rank of each token by its score, the same for the same score.
    Scored(Vec<u32>),
}

/// Buffers of [`Merges::run`], kept from piece to piece.
#[derive(Default)]
pub(super) struct Work {
    symbols: Vec<Symbol>,
    /// Possible merges as (rank, place of the left symbol, token they make): the lowest rank first,
    /// and of those the leftmost.
    queue: BinaryHeap<Reverse<(u32, usize, u32)>>,
}

/// A part of the piece being encoded, linked to its neighbours.
struct Symbol {
    id: u32,
    /// Where it begins in the piece; it ends where the one after it begins.
    start: usize,
    before: usize,
    after: usize,
}

impl Merges {
    /// The merges of a list, each as `"left right"`. `read` appends to a buffer the bytes that the
    /// spelling of a token stands for; where it answers false, there is no such token.
    pub(super) fn listed(
        tokens: &TokenTable,
        list: &[String],
        read: fn(&str, &mut Vec<u8>) -> bool,
    ) -> Result<Self, TokenizerError> {
        let mut ranks = HashMap::with_capacity(list.len());
        let mut joined = Vec::new();
        for (rank, text) in (0..).zip(list) {
            let (pair, result) = parse_merge(tokens, (rank, text), read, &mut joined)?;
            // A merge listed twice is done at its first place.
            ranks.entry(pair).or_insert((rank, result));
        }
        Ok(Self::Listed(ranks))
    }

    /// Merges by score, the highest first. `scores` are those of all tokens.
    pub(super) fn scored(scores: &[f32]) -> Result<Self, TokenizerError> {
        if let Some((id, _)) = (0..).zip(scores).find(|(_, score)| score.is_nan()) {
            return Err(TokenizerError::Score { id });
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut ranks = vec![0; scores.len()];
        let mut rank = 0;
        for pair in order.windows(2) {
            // Zero and minus zero are the same score.
            rank += u32::from(scores[pair[0]] != scores[pair[1]]);
            ranks[pair[1]] = rank;
        }
        Ok(Self::Scored(ranks))
    }

    /// Merges the symbols of `work`, which make up `piece`, until no merge is left, and gives their
    /// ids to `take`, with the part of the piece that each stands for.
    ///
    /// Each merge removes a symbol and queues at most two more, so the time is O(n log n).
    pub(super) fn run(
        &self,
        tokens: &TokenTable,
        piece: &[u8],
        work: &mut Work,
        mut take: impl FnMut(u32, &[u8]),
    ) {
        work.queue.clear();
        for left in 0..work.symbols.len() {
            self.queue(tokens, piece, work, left);
        }
        while let Some(Reverse((_, left, result))) = work.queue.pop() {
            // The pair may be gone: one of the two was merged since it was queued. Symbols only
            // grow, so what has the length of the token is the pair that makes it.
            let Some((_, right)) = work.pair(left) else { continue };
            let len = work.end(piece, right) - work.symbols[left].start;
            if tokens.bytes(result).map(<[u8]>::len) != Some(len) {
                continue;
            }
            let after = work.symbols[right].after;
            work.symbols[right].id = MERGED;
            work.symbols[left].id = result;
            work.symbols[left].after = after;
            if let Some(after) = work.symbols.get_mut(after) {
                after.before = left;
            }
            self.queue(tokens, piece, work, left);
            self.queue(tokens, piece, work, work.symbols[left].before);
        }
        let mut at = if work.symbols.is_empty() { NONE } else { 0 };
        while let Some(symbol) = work.symbols.get(at) {
            take(symbol.id, &piece[symbol.start..work.end(piece, at)]);
            at = symbol.after;
        }
    }

    /// Queues the merge of the symbol at `left` with the one after it, if there is such a merge.
    fn queue(&self, tokens: &TokenTable, piece: &[u8], work: &mut Work, left: usize) {
        let Some((ids, right)) = work.pair(left) else { return };
        let merge = match self {
            Self::Listed(ranks) => ranks.get(&ids).copied(),
            Self::Scored(ranks) => {
                let joined = &piece[work.symbols[left].start..work.end(piece, right)];
                tokens.id(joined).map(|id| (ranks[id as usize], id))
            }
        };
        if let Some((rank, result)) = merge {
            work.queue.push(Reverse((rank, left, result)));
        }
    }
}

impl Work {
    /// Forgets the last piece.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Adds the next symbol of a piece, which begins at `start`. `id` is [`UNKNOWN`] if it is no
    /// token.
    pub(super) fn push(&mut self, id: u32, start: usize) {
        let at = self.symbols.len();
        if let Some(before) = self.symbols.last_mut() {
            before.after = at;
        }
        let before = at.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start, before, after: NONE });
    }

    /// The ids of the symbol at `left` and of the one after it, and where that is, if there are
    /// both.
    fn pair(&self, left: usize) -> Option<((u32, u32), usize)> {
        let left = self.symbols.get(left).filter(|left| left.id != MERGED)?;
        Some(((left.id, self.symbols.get(left.after)?.id), left.after))
    }

    /// Where the symbol at `at` ends in the piece.
    fn end(&self, piece: &[u8], at: usize) -> usize {
        self.symbols.get(self.symbols[at].after).map_or(piece.len(), |after| after.start)
    }
}

/// Reads a merge and its rank: the ids of the pair, and of what it makes. `joined` is a buffer, kept
/// from merge to merge.
fn parse_merge(
    tokens: &TokenTable,
    (index, text): (u32, &str),
    read: fn(&str, &mut Vec<u8>) -> bool,
    joined: &mut Vec<u8>,
) -> Result<((u32, u32), u32), TokenizerError> {
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
    if !read(left, joined) {
        return Err(missing(left));
    }
    let middle = joined.len();
    if !read(right, joined) {
        return Err(missing(right));
    }
    let id = |bytes| tokens.id(bytes);
    let pair = (
        id(&joined[..middle]).ok_or_else(|| missing(left))?,
        id(&joined[middle..]).ok_or_else(|| missing(right))?,
    );
    Ok((pair, id(joined).ok_or_else(|| missing(&format!("{left}{right}")))?))
}
