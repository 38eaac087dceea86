//! Cuts text into the pieces that are encoded on their own.
//!
//! Vocabularies are trained on pieces cut by a regular expression, and a text must be cut the same
//! way. The expression is followed by hand here: without backtracking, so that no text takes more
//! than linear time, and without a regular-expression engine.

use std::iter;
use std::str::FromStr;

use unicode_general_category::{GeneralCategory as Gc, get_general_category};

use super::TokenizerError;

/// How a text is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Splitter {
    /// Llama 3's expression; of its alternatives the first that matches is taken:
    ///
    /// ```text
    /// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
    ///  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    /// ```
    Llama3,
}

impl FromStr for Splitter {
    type Err = TokenizerError;

    /// The splitter that GGUF's `tokenizer.ggml.pre` names.
    fn from_str(name: &str) -> Result<Self, TokenizerError> {
        match name {
            "llama-bpe" | "llama3" | "llama-v3" => Ok(Self::Llama3),
            _ => Err(TokenizerError::UnknownSplitter { name: name.to_owned() }),
        }
    }
}

impl Splitter {
    /// The pieces of `text`, in order; joined, they are the text.
    pub(super) fn pieces(self, text: &str) -> impl Iterator<Item = &str> {
        let first_len = match self {
            Self::Llama3 => llama3,
        };
        let mut rest = text;
        iter::from_fn(move || {
            let (piece, after) = rest.split_at(first_len(rest));
            rest = after;
            Some(piece).filter(|piece| !piece.is_empty())
        })
    }
}

/// The classes of characters the expressions tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// `\p{L}`: general category L. (`char::is_alphabetic` is another, larger set.)
    Letter,
    /// `\p{N}`: general category N.
    Number,
    /// `[\r\n]`.
    Newline,
    /// The rest of `\s`: property `White_Space`.
    Space,
    /// Everything else: punctuation, symbols, marks, controls, unassigned.
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            '\r' | '\n' => Self::Newline,
            'a'..='z' | 'A'..='Z' => Self::Letter,
            '0'..='9' => Self::Number,
            _ if c.is_whitespace() => Self::Space,
            _ if c.is_ascii() => Self::Other,
            _ => match get_general_category(c) {
                Gc::UppercaseLetter
                | Gc::LowercaseLetter
                | Gc::TitlecaseLetter
                | Gc::ModifierLetter
                | Gc::OtherLetter => Self::Letter,
                Gc::DecimalNumber | Gc::LetterNumber | Gc::OtherNumber => Self::Number,
                _ => Self::Other,
            },
        }
    }
}

/// The length in bytes of the longest start of `text` whose characters are all of a class in `of`.
fn run(text: &str, of: impl Fn(Class) -> bool) -> usize {
    text.find(|c| !of(Class::of(c))).unwrap_or(text.len())
}

/// The length in bytes of the first piece of `text`: see [`Splitter::Llama3`].
fn llama3(text: &str) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let rest = chars.as_str();
    if first == '\''
        && let Some(len) = contraction(rest)
    {
        return 1 + len;
    }
    let letters = |text| run(text, |class| class == Class::Letter);
    let others = |text: &str| {
        let len = run(text, |class| class == Class::Other);
        len + run(&text[len..], |class| class == Class::Newline)
    };
    match (Class::of(first), chars.next().map(Class::of)) {
        (Class::Letter, _) => letters(text),
        (Class::Space | Class::Other, Some(Class::Letter)) => first.len_utf8() + letters(rest),
        (Class::Number, _) => numbers(text),
        (Class::Other, _) => others(text),
        (Class::Space, Some(Class::Other)) if first == ' ' => 1 + others(rest),
        (Class::Space | Class::Newline, _) => spaces(text),
    }
}

/// The length of `(?i:s|t|re|ve|m|ll|d)` at the start of the text after an apostrophe. The long s,
/// U+017F, is the one other character that folds to one of these letters.
fn contraction(text: &str) -> Option<usize> {
    let mut chars = text.chars();
    let first = chars.next()?.to_ascii_lowercase();
    if matches!(first, 's' | 'ſ' | 't' | 'm' | 'd') {
        return Some(first.len_utf8());
    }
    let second = chars.next()?.to_ascii_lowercase();
    matches!((first, second), ('r', 'e') | ('v', 'e') | ('l', 'l')).then_some(2)
}

/// The length of `\p{N}{1,3}`.
fn numbers(text: &str) -> usize {
    let three = text.char_indices().nth(3).map_or(text.len(), |(at, _)| at);
    run(&text[..three], |class| class == Class::Number)
}

/// The length of `\s*[\r\n]+|\s+(?!\S)|\s+`: white space through its last line break; if it has
/// none, all of it but the last character, which may belong to the word that follows; all of it if
/// no word follows, or if it is but one character.
fn spaces(text: &str) -> usize {
    let len = run(text, |class| matches!(class, Class::Space | Class::Newline));
    let space = &text[..len];
    if let Some(line_break) = space.rfind(['\r', '\n']) {
        return line_break + 1;
    }
    let last = space.chars().next_back().map_or(0, char::len_utf8);
    if len == text.len() || len == last { len } else { len - last }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use proptest::string::string_regex;
    use tokenizers::utils::SysRegex;

    use super::*;

    /// The expression, in the engine that the `tokenizers` crate uses.
    static LLAMA3: LazyLock<SysRegex> = LazyLock::new(|| {
        let expression = concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        SysRegex::new(expression).unwrap()
    });

    fn oracle<'t>(regex: &SysRegex, text: &'t str) -> Vec<&'t str> {
        regex.find_iter(text).map(|(start, end)| &text[start..end]).collect()
    }

    /// Every character there is, against the oracle's `\p{L}`, `\p{N}` and `\s`.
    #[test]
    fn classes_agree_for_every_character() {
        let all: String = (char::MIN..=char::MAX).collect();
        let mut differ = BTreeSet::new();
        let mut hold = |pattern: &str, ours: &dyn Fn(char) -> bool| {
            let theirs: String = oracle(&SysRegex::new(pattern).unwrap(), &all).concat();
            let theirs: BTreeSet<char> = theirs.chars().collect();
            assert!(theirs.len() > 20, "{pattern}");
            differ.extend(all.chars().filter(|c| ours(*c) != theirs.contains(c)));
        };
        hold(r"\p{L}", &|c| Class::of(c) == Class::Letter);
        hold(r"\p{N}", &|c| Class::of(c) == Class::Number);
        hold(r"\s", &|c| matches!(Class::of(c), Class::Space | Class::Newline));
        println!("our classes follow Unicode {:?}", unicode_general_category::UNICODE_VERSION);
        assert!(differ.is_empty(), "the classes of these characters differ: {differ:?}");
    }

    /// Every assigned character that is not for private use (and some more), at each place of a
    /// piece where its class or its case decides.
    #[test]
    fn pieces_agree_for_every_character() {
        for c in (char::MIN..'\u{40000}').chain('\u{e0000}'..'\u{e0200}') {
            let text = format!("'{c}a'r{c}  {c} {c}a1{c}\n{c}.{c}");
            let ours: Vec<&str> = Splitter::Llama3.pieces(&text).collect();
            assert_eq!(ours, oracle(&LLAMA3, &text), "{c:?} in {text:?}");
        }
    }

    #[test]
    fn names() {
        for name in ["llama-bpe", "llama3", "llama-v3"] {
            assert_eq!(name.parse(), Ok(Splitter::Llama3));
        }
        let error = "falcon3".parse::<Splitter>().unwrap_err();
        assert_eq!(error, TokenizerError::UnknownSplitter { name: "falcon3".to_owned() });
        assert!(error.to_string().contains("falcon3"));
    }

    /// Texts of the characters that the expression tells apart, and of any others.
    fn texts() -> impl Strategy<Value = String> {
        let marked = "[ \t\r\n\u{85}\u{a0}\u{3000}'’sStTrReEvVmMlLdDſa1٣½éक्٠.,\u{301}\u{200d}😀]";
        prop_oneof![
            3 => string_regex(&format!("{marked}{{0,40}}")).unwrap(),
            1 => string_regex(&format!("({marked}|\\PC){{0,40}}")).unwrap(),
            1 => any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn pieces_agree(text in texts()) {
            let ours: Vec<&str> = Splitter::Llama3.pieces(&text).collect();
            prop_assert_eq!(ours, oracle(&LLAMA3, &text));
        }
    }
}
