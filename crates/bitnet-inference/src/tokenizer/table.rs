//! Token ids to bytes and back.

use std::hash::{BuildHasher, RandomState};

use super::{TokenType, TokenizerError, Vocabulary, alphabet};

/// An empty place in [`TokenTable::slots`]; no token has this id.
const EMPTY: u32 = u32::MAX;

/// The bytes of every token, and the id of every byte string that is a normal token.
///
/// All bytes lie in one buffer and the hash table holds ids only, so that a vocabulary of 128,256
/// tokens takes 3 MB and no allocation per token. The hash is std's keyed one: a file cannot be
/// made to collide.
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`; it begins where the one before it ends.
    ends: Vec<usize>,
    /// Ids at the place of their hash or, if that is taken, the next free one. A power of two in
    /// length, at most half full.
    slots: Vec<u32>,
    hasher: RandomState,
}

impl TokenTable {
    /// The table of all tokens; only normal ones can be found by their bytes.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let texts = &vocabulary.tokens;
        let mut table = Self {
            bytes: Vec::with_capacity(texts.iter().map(String::len).sum()),
            ends: Vec::with_capacity(texts.len()),
            slots: vec![EMPTY; (2 * texts.len()).next_power_of_two()],
            hasher: RandomState::new(),
        };
        for (id, text, kind) in vocabulary.entries() {
            let normal = kind == TokenType::Normal && alphabet::decode(text, &mut table.bytes);
            match kind {
                _ if normal => {}
                // A normal token may hold characters that are not of the alphabet. It stands for
                // them as they are, but no text is encoded to it.
                TokenType::Normal | TokenType::UserDefined => table.bytes.extend(text.bytes()),
                TokenType::Control | TokenType::Unknown | TokenType::Unused => {}
                TokenType::Byte => {
                    let text = text.to_owned();
                    return Err(TokenizerError::ByteToken { id, text });
                }
            }
            table.ends.push(table.bytes.len());
            if normal && !text.is_empty() {
                table.insert(id)?;
            }
        }
        Ok(table)
    }

    /// Makes a token known by its bytes.
    fn insert(&mut self, id: u32) -> Result<(), TokenizerError> {
        let token = self.bytes(id).unwrap_or_default();
        match self.slot(token) {
            Ok(first) => Err(TokenizerError::DuplicateToken {
                first,
                second: id,
                text: String::from_utf8_lossy(token).into_owned(),
            }),
            Err(free) => {
                self.slots[free] = id;
                Ok(())
            }
        }
    }

    /// The id of the token with these bytes, or the free slot where it would be.
    fn slot(&self, token: &[u8]) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(token) as usize & mask;
        loop {
            let id = self.slots[slot];
            if id == EMPTY {
                return Err(slot);
            }
            if self.bytes(id) == Some(token) {
                return Ok(id);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The normal token with these bytes.
    pub(super) fn id(&self, token: &[u8]) -> Option<u32> {
        self.slot(token).ok()
    }

    /// The bytes of a token, or `None` if there is no such id.
    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let index = id as usize;
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// The number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}
