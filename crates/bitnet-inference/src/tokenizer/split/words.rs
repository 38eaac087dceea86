//! The expressions of Llama 3, Qwen 2 and GPT-2, followed by hand.

use super::class::{Class, run};

/// The length in bytes of the first piece of `text`: see [`Stage::Llama3`](super::Stage::Llama3),
/// whose numbers have at most `digits` characters.
pub(super) fn llama3(text: &str, digits: usize) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let rest = chars.as_str();
    if first == '\''
        && let Some(len) = contraction(rest, true)
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
        (Class::Number, _) => numbers(text, digits),
        (Class::Other, _) => others(text),
        (Class::Space, Some(Class::Other)) if first == ' ' => 1 + others(rest),
        (Class::Space | Class::Newline, _) => lines(text),
    }
}

/// The length in bytes of the first piece of `text`: see [`Stage::Gpt2`](super::Stage::Gpt2).
pub(super) fn gpt2(text: &str) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let rest = chars.as_str();
    if first == '\''
        && let Some(len) = contraction(rest, false)
    {
        return 1 + len;
    }
    let alike = |text, class| run(text, |other| other == class);
    match (Class::of(first), chars.next().map(Class::of)) {
        (Class::Space, Some(class)) if first == ' ' && !class.is_space() => 1 + alike(rest, class),
        (class, _) if class.is_space() => spaces(text),
        (class, _) => alike(text, class),
    }
}

/// The length of `s|t|re|ve|m|ll|d` at the start of the text after an apostrophe. If upper case is
/// read as lower case, the long s, U+017F, is the one other character that is one of these letters.
fn contraction(text: &str, fold: bool) -> Option<usize> {
    let lower = |c: char| if fold { c.to_ascii_lowercase() } else { c };
    let mut chars = text.chars();
    let first = lower(chars.next()?);
    if matches!(first, 's' | 't' | 'm' | 'd') || (fold && first == 'ſ') {
        return Some(first.len_utf8());
    }
    let second = lower(chars.next()?);
    matches!((first, second), ('r', 'e') | ('v', 'e') | ('l', 'l')).then_some(2)
}

/// The length of `\p{N}{1,most}`.
fn numbers(text: &str, most: usize) -> usize {
    let end = text.char_indices().nth(most).map_or(text.len(), |(at, _)| at);
    run(&text[..end], |class| class == Class::Number)
}

/// The length of `\s*[\r\n]+|\s+(?!\S)|\s+`: white space through its last line break; if it has
/// none, as [`spaces`].
fn lines(text: &str) -> usize {
    let space = &text[..run(text, Class::is_space)];
    space.rfind(['\r', '\n']).map_or_else(|| spaces(text), |line_break| line_break + 1)
}

/// The length of `\s+(?!\S)|\s+`: all white space but its last character, which may belong to the
/// word that follows; all of it if no word follows, or if it is but one character.
fn spaces(text: &str) -> usize {
    let len = run(text, Class::is_space);
    let last = text[..len].chars().next_back().map_or(0, char::len_utf8);
    if len == text.len() || len == last { len } else { len - last }
}
