//! Finds special tokens written in a text.

use std::ops::Range;

use super::{TokenType, TokenizerError, Vocabulary};

/// A token that is matched as a whole before the text is split.
struct SpecialToken {
    text: String,
    id: u32,
    /// Whether it is matched only on request; user-defined tokens always are.
    control: bool,
}

/// A part of a text.
pub(super) enum Part<'t> {
    /// A special token.
    Token(u32),
    /// Text between them, which is not empty, and whether the whole text begins with it.
    Text(&'t str, bool),
}

/// Control, unknown and user-defined tokens of a vocabulary.
pub(super) struct SpecialTokens {
    /// Ordered by the bytes of their texts, so that all that begin alike lie side by side.
    sorted: Vec<SpecialToken>,
    /// Whether any begins with this byte: nearly every byte of a text is dismissed with one look.
    begins: [bool; 256],
}

impl SpecialTokens {
    /// Those that are looked for in normalised text, or the others.
    pub(super) fn new(vocabulary: &Vocabulary, normalized: bool) -> Result<Self, TokenizerError> {
        let mut sorted = Vec::new();
        for (id, text, kind) in vocabulary.entries().filter(|(_, text, _)| !text.is_empty()) {
            let control = match kind {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                TokenType::Normal | TokenType::Unused | TokenType::Byte => continue,
            };
            if normalized != vocabulary.normalized.binary_search(&id).is_ok() {
                continue;
            }
            let text = vocabulary.matched(id, text).into_owned();
            sorted.push(SpecialToken { text, id, control });
        }
        sorted.sort_by(|a, b| a.text.cmp(&b.text));
        if let Some([a, b]) = sorted.array_windows().find(|[a, b]| a.text == b.text) {
            return Err(TokenizerError::DuplicateToken {
                first: a.id,
                second: b.id,
                text: a.text.clone(),
            });
        }
        let mut begins = [false; 256];
        for token in &sorted {
            begins[usize::from(token.text.as_bytes()[0])] = true;
        }
        Ok(Self { sorted, begins })
    }

    /// The text of a special token, if this id is one of them.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.sorted.iter().find(|token| token.id == id).map(|token| token.text.as_str())
    }

    /// Calls `take` with the parts of `text`, in order: special tokens, and the text between them
    /// with whether it begins where `text` does. Without `control`, only user-defined tokens count.
    pub(super) fn parts(&self, text: &str, control: bool, mut take: impl FnMut(Part<'_>)) {
        let mut done = 0;
        while let Some((range, id)) = self.find(&text[done..], control) {
            if range.start > 0 {
                take(Part::Text(&text[done..][..range.start], done == 0));
            }
            take(Part::Token(id));
            done += range.end;
        }
        if done < text.len() {
            take(Part::Text(&text[done..], done == 0));
        }
    }

    /// Where the first special token of `text` lies and which it is; of several that begin there,
    /// the longest. Without `control`, only user-defined tokens count.
    fn find(&self, text: &str, control: bool) -> Option<(Range<usize>, u32)> {
        let bytes = text.as_bytes();
        (0..bytes.len()).filter(|&at| self.begins[usize::from(bytes[at])]).find_map(|at| {
            let token = self.longest(&bytes[at..], control)?;
            Some((at..at + token.text.len(), token.id))
        })
    }

    /// Whether `text` begins with a control token, or `rest`, which is `text` without spaces at its end,
    /// is the beginning of one.
    pub(super) fn begins_control(&self, text: &str, rest: &str) -> bool {
        let bytes = text.as_bytes();
        if bytes.first().is_none_or(|&byte| !self.begins[usize::from(byte)]) {
            return false;
        }
        if let Some(token) = self.longest(bytes, true) {
            return token.control;
        }
        let start = self.sorted.partition_point(|token| token.text.as_str() < rest);
        let mut completed =
            self.sorted[start..].iter().take_while(|token| token.text.starts_with(rest));
        !rest.is_empty() && completed.any(|token| token.control)
    }

    /// The longest special token that `text` begins with.
    fn longest(&self, text: &[u8], control: bool) -> Option<&SpecialToken> {
        let mut longest = None;
        // The tokens that begin as `text` does, narrowed byte by byte.
        let mut alike = self.sorted.as_slice();
        for (depth, byte) in text.iter().enumerate() {
            let at_depth = |token: &SpecialToken| token.text.as_bytes().get(depth).copied();
            let start = alike.partition_point(|token| at_depth(token) < Some(*byte));
            let end = alike.partition_point(|token| at_depth(token) <= Some(*byte));
            alike = &alike[start..end];
            // One that ends here comes before all that go on.
            let Some(first) = alike.first() else { break };
            if first.text.len() == depth + 1 && (control || !first.control) {
                longest = Some(first);
            }
        }
        longest
    }
}
