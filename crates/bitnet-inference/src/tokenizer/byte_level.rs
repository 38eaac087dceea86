//! Byte-level BPE: a text is cut into words, and the bytes of each are merged.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::bpe::{Merges, Work};
use super::table::TokenTable;
use super::{ByteLevel, Splitter, TokenizerError, alphabet};

/// A byte-level model, ready to encode.
pub(super) struct ByteLevelEncoder {
    merges: Merges,
    /// The token of each byte.
    bytes: Box<[u32; 256]>,
    splitter: Splitter,
    ignore_merges: bool,
    nfc: bool,
}

impl ByteLevelEncoder {
    pub(super) fn new(model: &ByteLevel, tokens: &TokenTable) -> Result<Self, TokenizerError> {
        let mut bytes = Box::new([0; 256]);
        for (byte, id) in (0..=u8::MAX).zip(bytes.iter_mut()) {
            *id = tokens.id(&[byte]).ok_or(TokenizerError::MissingByte { byte })?;
        }
        Ok(Self {
            merges: Merges::listed(tokens, &model.merges, alphabet::decode)?,
            bytes,
            splitter: model.splitter.clone(),
            ignore_merges: model.ignore_merges,
            nfc: model.nfc,
        })
    }

    /// The text as the model wants it.
    pub(super) fn normalize<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.nfc { nfc(text) } else { Cow::Borrowed(text) }
    }

    /// Appends the ids of normalised text without special tokens.
    pub(super) fn encode(
        &self,
        tokens: &TokenTable,
        text: &str,
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) {
        self.splitter.pieces(text, |piece| {
            if let Some(id) = tokens.id(piece).filter(|_| self.ignore_merges) {
                return ids.push(id);
            }
            work.clear();
            for (at, &byte) in piece.iter().enumerate() {
                work.push(self.bytes[usize::from(byte)], at);
            }
            self.merges.run(tokens, piece, work, |id, _| ids.push(id));
        });
    }
}

/// The text in Unicode's normalisation form C, which ASCII is in already.
pub(super) fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}
