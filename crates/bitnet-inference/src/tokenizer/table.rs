//! Token ids to bytes and back.

use std::hash::{BuildHasher, RandomState};

use super::{Model, TokenType, TokenizerError, Vocabulary, alphabet, sentence_piece};

/// An empty place in [`TokenTable::slots`]; no token has this id.
const EMPTY: u32 = u32::MAX;

/// The bytes of every token, and the id of every byte string that text may be merged to.
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
    /// The table of all tokens. Those that text may be merged to can be found by their bytes: the
    /// normal ones, and user-defined ones where no normal one has the same bytes.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let texts = &vocabulary.tokens;
        let mut table = Self {
            bytes: Vec::with_capacity(texts.iter().map(String::len).sum()),
            ends: Vec::with_capacity(texts.len()),
            slots: vec![EMPTY; (2 * texts.len()).next_power_of_two()],
            hasher: RandomState::new(),
        };
        let mut later = Vec::new();
        for (id, text, kind) in vocabulary.entries() {
            let found = table.push(vocabulary, (id, text, kind))?;
            if found && kind == TokenType::Normal {
                table.insert(id)?;
            } else if found {
                later.push(id);
            }
        }
        for id in later {
            if let Err(free) = table.slot(table.bytes(id).unwrap_or_default()) {
                table.slots[free] = id;
            }
        }
        Ok(table)
    }

    /// Adds the bytes of the next token; whether text may be merged to it.
    fn push(
        &mut self,
        vocabulary: &Vocabulary,
        (id, text, kind): (u32, &str, TokenType),
    ) -> Result<bool, TokenizerError> {
        let start = self.bytes.len();
        let found = match (&vocabulary.model, kind) {
            (_, TokenType::Control | TokenType::Unknown | TokenType::Unused) => false,
            (Model::ByteLevel(_), TokenType::Normal) => {
                // A normal token may hold characters that are not of the alphabet. It stands for
                // them as they are, but no text is encoded to it.
                let spelled = alphabet::decode(text, &mut self.bytes);
                self.bytes.extend(text.bytes().filter(|_| !spelled));
                spelled
            }
            (Model::ByteLevel(_), TokenType::UserDefined) => {
                self.bytes.extend(vocabulary.matched(id, text).bytes());
                // It may be named in merges if it is spelled as it is.
                text.bytes().all(|byte| byte.is_ascii_graphic())
            }
            (Model::ByteLevel(_), TokenType::Byte) => {
                return Err(TokenizerError::ByteToken { id, text: text.to_owned() });
            }
            (Model::SentencePiece(_), TokenType::Normal) => {
                sentence_piece::unescape_into(text, &mut self.bytes);
                // No text is spelled with a space.
                !text.contains(' ')
            }
            (Model::SentencePiece(_), TokenType::UserDefined) => {
                sentence_piece::unescape_into(&vocabulary.matched(id, text), &mut self.bytes);
                true
            }
            (Model::SentencePiece(_), TokenType::Byte) => {
                self.bytes.extend(sentence_piece::byte(text));
                false
            }
        };
        self.ends.push(self.bytes.len());
        Ok(found && self.bytes.len() > start)
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

    /// The token with these bytes that text may be merged to.
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
