//! SentencePiece BPE: the characters of a text are merged, and its spaces with them.
//!
//! In the model file a space is spelled `▁` (U+2581), and a text's spaces are to become that. Here
//! it is the other way round: the tokens are read with spaces for it, and where a text has `▁`, it
//! counts as a space, too.

use std::borrow::Cow;

use super::bpe::{Merges, UNKNOWN, Work};
use super::table::TokenTable;
use super::{MergeOrder, SentencePiece, SpacePrefix, TokenType, TokenizerError, Vocabulary};

/// How a space is spelled.
pub(super) const SPACE: char = '\u{2581}';

/// A SentencePiece model, ready to encode.
pub(super) struct SentencePieceEncoder {
    merges: Merges,
    /// What a character that is no token becomes.
    fallback: Fallback,
    pub(super) prefix: SpacePrefix,
    split: bool,
}

/// What characters that are no tokens become.
enum Fallback {
    /// A token for each of its bytes.
    Bytes(Box<[u32; 256]>),
    /// The unknown token, if `fuse` one for all that stand side by side.
    Unknown { id: u32, fuse: bool },
}

impl SentencePieceEncoder {
    /// `tokens` are those of the vocabulary.
    pub(super) fn new(
        model: &SentencePiece,
        vocabulary: &Vocabulary,
        tokens: &TokenTable,
    ) -> Result<Self, TokenizerError> {
        let merges = match &model.order {
            MergeOrder::Scores(scores) => Merges::scored(scores)?,
            MergeOrder::Merges(list) => Merges::listed(tokens, list, |token, out| {
                unescape_into(token, out);
                true
            })?,
        };
        let fallback = match byte_tokens(vocabulary)? {
            Some(bytes) => Fallback::Bytes(bytes),
            None => {
                let id = model.unknown.ok_or(TokenizerError::MissingUnknown)?;
                Fallback::Unknown { id, fuse: model.fuse_unknown }
            }
        };
        Ok(Self { merges, fallback, prefix: model.prefix, split: model.split })
    }

    /// Appends the ids of normalised text without special tokens. `first`: the whole text begins
    /// here.
    pub(super) fn encode(
        &self,
        tokens: &TokenTable,
        (text, first): (&str, bool),
        work: &mut Work,
        ids: &mut Vec<u32>,
    ) {
        let text = match self.prefix {
            SpacePrefix::None | SpacePrefix::Always => Cow::Borrowed(text),
            SpacePrefix::FirstIfMissing | SpacePrefix::AlwaysIfMissing => {
                let wanted = first || self.prefix == SpacePrefix::AlwaysIfMissing;
                let text = unescape(text);
                if wanted && !text.starts_with(' ') { prefixed(text) } else { text }
            }
        };
        let mut rest = &*text;
        while !rest.is_empty() {
            // A piece ends before the next space, but not before its own.
            let next = rest.match_indices(' ').map(|(at, _)| at).find(|&at| at > 0);
            let end = next.filter(|_| self.split).unwrap_or(rest.len());
            self.encode_piece(tokens, &rest[..end], work, ids);
            rest = &rest[end..];
        }
    }

    fn encode_piece(&self, tokens: &TokenTable, piece: &str, work: &mut Work, ids: &mut Vec<u32>) {
        work.clear();
        let mut utf8 = [0; 4];
        for (at, c) in piece.char_indices() {
            let character = c.encode_utf8(&mut utf8).as_bytes();
            work.push(tokens.id(character).unwrap_or(UNKNOWN), at);
        }
        let mut unknown_before = false;
        self.merges.run(tokens, piece.as_bytes(), work, |id, part| {
            let unknown = id == UNKNOWN;
            match &self.fallback {
                _ if !unknown => ids.push(id),
                Fallback::Bytes(bytes) => {
                    ids.extend(part.iter().map(|&byte| bytes[usize::from(byte)]));
                }
                Fallback::Unknown { fuse: true, .. } if unknown_before => {}
                Fallback::Unknown { id, .. } => ids.push(*id),
            }
            unknown_before = unknown;
        });
    }
}

/// The text as special tokens that are [`normalized`](Vocabulary::normalized) are looked for in it.
pub(super) fn normalize(prefix: SpacePrefix, text: &str) -> Cow<'_, str> {
    match prefix {
        SpacePrefix::None => unescape(text),
        SpacePrefix::Always => prefixed(unescape(text)),
        SpacePrefix::FirstIfMissing | SpacePrefix::AlwaysIfMissing => Cow::Borrowed(text),
    }
}

/// The text with spaces for `▁`.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if text.contains(SPACE) { Cow::Owned(text.replace(SPACE, " ")) } else { Cow::Borrowed(text) }
}

/// Appends the bytes of a spelled token.
pub(super) fn unescape_into(token: &str, out: &mut Vec<u8>) {
    out.extend(unescape(token).bytes());
}

/// A space and the text, or nothing if the text is nothing.
fn prefixed(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.is_empty() { text } else { Cow::Owned(format!(" {text}")) }
}

/// The byte that the text of a byte token names, `<0x0A>` for a line break.
pub(super) fn byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let two = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| two)
}

/// The tokens of all bytes, or nothing if there is none of any.
fn byte_tokens(vocabulary: &Vocabulary) -> Result<Option<Box<[u32; 256]>>, TokenizerError> {
    let mut bytes = Box::new([None; 256]);
    for (id, text, _) in vocabulary.entries().filter(|&(_, _, kind)| kind == TokenType::Byte) {
        let malformed = || TokenizerError::ByteSyntax { id, text: text.to_owned() };
        let slot = &mut bytes[usize::from(byte(text).ok_or_else(malformed)?)];
        if let Some(first) = slot.replace(id) {
            let text = text.to_owned();
            return Err(TokenizerError::DuplicateToken { first, second: id, text });
        }
    }
    if bytes.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut ids = Box::new([0; 256]);
    for (byte, (id, found)) in (0..=u8::MAX).zip(ids.iter_mut().zip(*bytes)) {
        *id = found.ok_or(TokenizerError::MissingByte { byte })?;
    }
    Ok(Some(ids))
}
