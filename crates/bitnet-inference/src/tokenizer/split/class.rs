//! What kind of character the expressions of the splitters see.

use unicode_general_category::{GeneralCategory as Gc, get_general_category};

/// The classes of characters the expressions tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
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
    pub(super) fn of(c: char) -> Self {
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

    /// Whether this is `\s`.
    pub(super) fn is_space(self) -> bool {
        matches!(self, Self::Space | Self::Newline)
    }
}

/// `` [\p{P}\$\+<=>\^~\|`] ``: general category P and what ASCII has beside it.
pub(super) fn is_punctuation(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_punctuation();
    }
    matches!(
        get_general_category(c),
        Gc::ConnectorPunctuation
            | Gc::DashPunctuation
            | Gc::OpenPunctuation
            | Gc::ClosePunctuation
            | Gc::InitialPunctuation
            | Gc::FinalPunctuation
            | Gc::OtherPunctuation
    )
}

/// The length in bytes of the longest start of `text` whose characters are all of a class in `of`.
pub(super) fn run(text: &str, of: impl Fn(Class) -> bool) -> usize {
    text.find(|c| !of(Class::of(c))).unwrap_or(text.len())
}
