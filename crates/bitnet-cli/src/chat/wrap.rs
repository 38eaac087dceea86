//! Words that do not fit the line begin the next one.

use std::io::{self, IsTerminal};

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthChar as _;

/// Columns that are too few to wrap words for.
const NARROW: usize = 20;

/// Wraps a text that comes piece by piece. What there is of a word is shown at once, and is taken back when
/// the word turns out to be too long for the line.
pub(super) struct Wrap {
    /// Columns that are used.
    width: usize,
    column: usize,
    /// What there is of the last word.
    word: String,
}

impl Wrap {
    /// For stdout, if it is a terminal that is wide enough.
    pub(super) fn stdout() -> Option<Wrap> {
        if !io::stdout().is_terminal() || std::env::var_os("TERM").is_some_and(|it| it == "dumb") {
            return None;
        }
        let (Width(width), _) = terminal_size_of(io::stdout())?;
        Wrap::new(width.into())
    }

    fn new(width: usize) -> Option<Wrap> {
        // Behind the last column it depends on the terminal where the cursor is.
        let width = width.saturating_sub(1);
        (width >= NARROW).then(|| Wrap { width, column: 0, word: String::new() })
    }

    /// What to print of some more text.
    pub(super) fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        for c in text.chars() {
            let columns = match c {
                '\t' => 8 - self.column % 8,
                c => c.width().unwrap_or(0),
            };
            if c == '\n' {
                self.end_line(&mut out);
            } else if self.column + columns <= self.width {
                self.put(c, columns, &mut out);
            } else if c.is_whitespace() {
                self.end_line(&mut out);
            } else {
                self.take_along(&mut out);
                self.put(c, columns, &mut out);
            }
        }
        out
    }

    fn put(&mut self, c: char, columns: usize, out: &mut String) {
        out.push(c);
        self.column += columns;
        if c.is_whitespace() {
            self.word.clear();
        } else {
            self.word.push(c);
        }
    }

    fn end_line(&mut self, out: &mut String) {
        out.push('\n');
        self.column = 0;
        self.word.clear();
    }

    /// Goes on in the next line, with the word, unless it is long: writing without spaces is cut anywhere.
    fn take_along(&mut self, out: &mut String) {
        let word = std::mem::take(&mut self.word);
        let columns = word.chars().filter_map(|c| c.width()).sum();
        if columns == 0 || columns > self.width / 2 {
            return self.end_line(out);
        }
        // Back to its beginning, and away with it.
        out.push_str(&format!("\x1b[{columns}D\x1b[K\n{word}"));
        (self.column, self.word) = (columns, word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a screen shows of a text that comes in pieces of `size` characters.
    fn shown(text: &str, size: usize) -> Vec<String> {
        let mut wrap = Wrap::new(21).unwrap();
        let chars: Vec<_> = text.chars().collect();
        let out: String =
            chars.chunks(size).map(|piece| wrap.push(&piece.iter().collect::<String>())).collect();
        let mut lines = vec![String::new()];
        for part in out.split('\x1b') {
            let line = lines.last_mut().unwrap();
            let rest = match part.split_once(['D', 'K']) {
                Some((back, rest)) if part.starts_with('[') => {
                    let columns = back[1..].parse().unwrap_or(0);
                    line.truncate(line.len() - columns);
                    rest
                }
                _ => part,
            };
            let mut rest = rest.split('\n');
            line.push_str(rest.next().unwrap());
            lines.extend(rest.map(str::to_owned));
        }
        lines
    }

    #[test]
    fn words_are_taken_to_the_next_line() {
        let text = "Once upon a time there lived a king\nwho had a daughter";
        let lines = ["Once upon a time ", "there lived a king", "who had a daughter"];
        for size in [1, 2, 5, 100] {
            assert_eq!(shown(text, size), lines, "{size}");
        }
        // A space at the end of a line is none at the beginning of the next.
        assert_eq!(shown("12345678901234567890 a", 3), ["12345678901234567890", "a"]);
    }

    #[test]
    fn what_has_no_spaces_is_cut() {
        assert_eq!(shown("123456789012345678901234", 4), ["12345678901234567890", "1234"]);
        let mut wrap = Wrap::new(21).unwrap();
        // Two columns each.
        assert_eq!(wrap.push(&"王".repeat(11)), format!("{}\n王", "王".repeat(10)));
        assert_eq!(wrap.push("\ta"), "\ta");
        assert_eq!(wrap.column, 9);
        assert!(Wrap::new(20).is_none());
    }
}
