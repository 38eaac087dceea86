//! The text of a sequence, up to a stop string.

use crate::tokenizer::Stream;

/// Turns tokens into text and looks for strings that end it. What may be the beginning of one is held
/// back until it is clear.
#[derive(Debug)]
pub(super) struct Text<'a> {
    stream: Option<Stream<'a>>,
    stops: Vec<String>,
    /// Not given out yet.
    held: String,
}

/// What a token adds to a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// What is now clear.
    pub(super) text: String,
    /// The stop string that follows it, by its number.
    pub(super) stop: Option<usize>,
}

impl<'a> Text<'a> {
    /// No text at all where there is no stream. Stop strings must not be empty.
    pub(super) fn new(stream: Option<Stream<'a>>, stops: Vec<String>) -> Text<'a> {
        Text { stream, stops, held: String::new() }
    }

    /// Takes the next token.
    pub(super) fn push(&mut self, token: u32) -> Piece {
        let Some(stream) = &mut self.stream else {
            return Piece::default();
        };
        self.held.push_str(stream.push(token));
        self.give()
    }

    /// Ends the text.
    pub(super) fn finish(&mut self) -> Piece {
        self.held.push_str(self.stream.take().map_or("", Stream::finish));
        let mut piece = self.give();
        if piece.stop.is_none() {
            piece.text.push_str(&std::mem::take(&mut self.held));
        }
        piece
    }

    /// Gives out what no stop string can begin in, or all before the first one.
    fn give(&mut self) -> Piece {
        let found = self.stops.iter().enumerate();
        let found = found.filter_map(|(i, stop)| Some((self.held.find(stop.as_str())?, i)));
        if let Some((at, stop)) = found.min() {
            self.held.truncate(at);
            return Piece { text: std::mem::take(&mut self.held), stop: Some(stop) };
        }
        let begins = |at: &usize| {
            let rest = &self.held[*at..];
            self.stops.iter().any(|stop| stop.starts_with(rest))
        };
        let ends = self.held.char_indices().map(|(at, _)| at);
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let near = self.held.len().saturating_sub(longest);
        let clear = ends.filter(|&at| at >= near).find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(clear);
        Piece { text: std::mem::replace(&mut self.held, rest), stop: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text of some pieces gives out, piece by piece, and the stop string.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut text = Text::new(None, stops.iter().map(ToString::to_string).collect());
        let mut out = Vec::new();
        for piece in pieces {
            text.held.push_str(piece);
            let Piece { text, stop } = text.give();
            out.push(text);
            if stop.is_some() {
                return (out, stop);
            }
        }
        let Piece { text, stop } = text.finish();
        out.push(text);
        (out, stop)
    }

    #[test]
    fn stop_strings_straddle_pieces() {
        assert_eq!(run(&["END"], &["one E", "N", "D two"]), (owned(&["one ", "", ""]), Some(0)));
        assert_eq!(run(&["END"], &["one E", "N", "e"]), (owned(&["one ", "", "ENe", ""]), None));
        // What is held back comes out at the end.
        assert_eq!(run(&["END"], &["one EN"]), (owned(&["one ", "EN"]), None));
    }

    #[test]
    fn the_first_of_several_ends_the_text() {
        assert_eq!(run(&["b", "ab"], &["xa", "b"]), (owned(&["x", ""]), Some(1)));
        assert_eq!(run(&["zz", "c"], &["a", "zc", "z"]), (owned(&["a", "z"]), Some(1)));
        // A beginning within a beginning.
        assert_eq!(run(&["aab"], &["aa", "a", "b"]), (owned(&["", "a", ""]), Some(0)));
    }

    #[test]
    fn characters_are_not_cut() {
        assert_eq!(run(&["é!"], &["né", "e", "é", "!"]), (owned(&["n", "ée", "", ""]), Some(0)));
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }
}
