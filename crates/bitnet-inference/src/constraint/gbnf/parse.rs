//! Reads the text of a grammar.

use std::collections::HashMap;
use std::fmt;

use super::{Expression, LONGEST, Rule, Rules};

/// Groups within each other at most.
const NESTING: usize = 64;
/// Repetitions of one thing, one after another, at most.
const REPETITIONS: usize = 8;
/// The largest number of a repetition.
const MOST: u32 = 50_000;
/// Ranges of a class at most.
const RANGES: usize = 1000;

/// Reads a grammar.
///
/// # Errors
///
/// What is wrong with it, and where, in a sentence.
pub(super) fn parse(text: &str) -> Result<Rules, String> {
    if text.len() > LONGEST {
        return Err(format!("it has {} bytes, of {LONGEST} at most", text.len()));
    }
    let mut parser = Parser { text, at: 0, numbers: HashMap::new(), rules: Vec::new() };
    parser.space();
    while parser.peek().is_some() {
        parser.rule()?;
    }
    parser.finish()
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
    /// The rules by their names.
    numbers: HashMap<&'a str, usize>,
    rules: Vec<Named<'a>>,
}

/// A rule whose name came up.
struct Named<'a> {
    name: &'a str,
    /// Where it came up first.
    at: usize,
    body: Option<Expression>,
}

impl<'a> Parser<'a> {
    /// Says what is wrong at a place.
    fn error<T>(&self, at: usize, what: impl fmt::Display) -> Result<T, String> {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        Err(format!("line {line}, column {column}: {what}"))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += next.map_or(0, char::len_utf8);
        next
    }

    /// Goes behind `what`, if it comes next.
    fn take(&mut self, what: &str) -> bool {
        let is_next = self.rest().starts_with(what);
        self.at += if is_next { what.len() } else { 0 };
        is_next
    }

    /// Goes behind spaces, ends of lines and comments.
    fn space(&mut self) {
        loop {
            self.at = self.text.len() - self.rest().trim_ascii_start().len();
            if !self.take("#") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// A name, if one comes next, and where it begins.
    fn name(&mut self) -> Option<(usize, &'a str)> {
        let (at, rest) = (self.at, self.rest());
        let is_other = |c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_';
        let name = &rest[..rest.find(is_other).unwrap_or(rest.len())];
        self.at += name.len();
        Some((at, name)).filter(|_| !name.is_empty())
    }

    /// The number of the rule of a name that came up at `at`.
    fn number(&mut self, at: usize, name: &'a str) -> usize {
        *self.numbers.entry(name).or_insert_with(|| {
            self.rules.push(Named { name, at, body: None });
            self.rules.len() - 1
        })
    }

    fn rule(&mut self) -> Result<(), String> {
        let Some((at, name)) = self.name() else {
            return self.error(self.at, "a rule is expected, as in name ::= \"text\"");
        };
        self.space();
        if !self.take("::=") {
            return self.error(self.at, format!("::= is expected behind {name:?}"));
        }
        let number = self.number(at, name);
        if self.rules[number].body.is_some() {
            return self.error(at, format!("there are two rules {name:?}"));
        }
        let body = self.choice(0)?;
        if self.peek() == Some(')') {
            return self.error(self.at, "there is no ( to this )");
        }
        self.rules[number].body = Some(body);
        Ok(())
    }

    /// What is between alternatives and their `|`.
    fn choice(&mut self, depth: usize) -> Result<Expression, String> {
        let mut alternatives = vec![self.sequence(depth)?];
        while self.take("|") {
            alternatives.push(self.sequence(depth)?);
        }
        Ok(match alternatives.len() {
            1 => alternatives.remove(0),
            _ => Expression::Choice(alternatives),
        })
    }

    /// What follows each other, up to the end of an alternative, a group or the rule.
    fn sequence(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = Vec::new();
        loop {
            self.space();
            if matches!(self.peek(), None | Some('|' | ')')) || self.is_at_rule() {
                break;
            }
            let part = self.item(depth)?;
            parts.push(self.repeated(part)?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Expression::Sequence(parts),
        })
    }

    /// Whether the name of another rule comes next.
    fn is_at_rule(&mut self) -> bool {
        let at = self.at;
        let is_name = self.name().is_some();
        self.space();
        let is_rule = is_name && self.take("::=");
        self.at = at;
        is_rule
    }

    fn item(&mut self, depth: usize) -> Result<Expression, String> {
        let at = self.at;
        if let Some((at, name)) = self.name() {
            return Ok(Expression::Rule(self.number(at, name)));
        }
        match self.next() {
            Some('"') => self.literal(at),
            Some('[') => self.class(at),
            Some('.') => Ok(Expression::Class(without_surrogates(vec![(0, u32::from(char::MAX))]))),
            Some('(') if depth == NESTING => {
                self.error(at, format!("there are more than {NESTING} groups within each other"))
            }
            Some('(') => {
                let group = self.choice(depth + 1)?;
                match self.take(")") {
                    true => Ok(group),
                    false => self.error(at, "there is no ) to this ("),
                }
            }
            Some('*' | '+' | '?' | '{') => self.error(at, "there is nothing to repeat"),
            Some('<' | '!') => self.error(at, "tokens in a grammar are not supported: write text"),
            found => {
                let found = found.unwrap_or_default();
                self.error(at, format!("{found:?} is none of a name, text in \"\", [], () or ."))
            }
        }
    }

    /// `part` and the repetitions behind it.
    fn repeated(&mut self, mut part: Expression) -> Result<Expression, String> {
        for repetitions in 0.. {
            self.space();
            let at = self.at;
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.numbers()?,
                _ => break,
            };
            if repetitions == REPETITIONS {
                return self.error(at, "there are too many repetitions of the same");
            }
            self.next();
            part = Expression::Repeat(Box::new(part), least, most);
        }
        Ok(part)
    }

    /// The numbers of `{m}`, `{m,}` or `{m,n}`, up to the `}`.
    fn numbers(&mut self) -> Result<(u32, Option<u32>), String> {
        let at = self.at;
        self.next();
        let least = self.count()?;
        let most = match self.take(",") {
            false => Some(least),
            true => {
                self.space();
                (self.peek() != Some('}')).then(|| self.count()).transpose()?
            }
        };
        if self.peek() != Some('}') {
            return self.error(at, "a repetition is {m}, {m,} or {m,n}");
        }
        match most {
            Some(most) if most < least => self
                .error(at, format!("{most} is less than {least}: a repetition is {{least,most}}")),
            most => Ok((least, most)),
        }
    }

    fn count(&mut self) -> Result<u32, String> {
        self.space();
        let (at, rest) = (self.at, self.rest());
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        self.at += digits.len();
        self.space();
        if digits.is_empty() {
            return self.error(at, "a number is expected");
        }
        match digits.parse() {
            Ok(count) if count <= MOST => Ok(count),
            _ => self.error(at, format!("repetitions go up to {MOST}")),
        }
    }

    /// The rest of a literal that begins at `at`.
    fn literal(&mut self, at: usize) -> Result<Expression, String> {
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return self.error(at, "there is no second \" to this one"),
                Some('"') => break,
                Some(_) => text.push(self.character()?),
            }
        }
        self.next();
        Ok(Expression::Literal(text))
    }

    /// The rest of a class that begins at `at`.
    fn class(&mut self, at: usize) -> Result<Expression, String> {
        let is_negated = self.take("^");
        let mut ranges = Vec::new();
        loop {
            let from = self.at;
            match self.peek() {
                None => return self.error(at, "there is no ] to this ["),
                Some(']') => break,
                Some(_) => {}
            }
            let first = self.character()?;
            let mut last = first;
            if self.rest().starts_with('-') && !self.rest().starts_with("-]") {
                self.next();
                if self.peek().is_none() {
                    return self.error(at, "there is no ] to this [");
                }
                last = self.character()?;
            }
            if last < first {
                return self.error(from, format!("{last:?} comes before {first:?}: no range"));
            }
            ranges.push((u32::from(first), u32::from(last)));
        }
        self.next();
        let ranges = in_order(ranges);
        let ranges = without_surrogates(if is_negated { others(&ranges) } else { ranges });
        match ranges.len() {
            0 => self.error(at, "there is no character in this class"),
            1..=RANGES => Ok(Expression::Class(ranges)),
            n => self.error(at, format!("this class has {n} ranges, of {RANGES} at most")),
        }
    }

    /// A character of a literal or a class, of which there is one.
    fn character(&mut self) -> Result<char, String> {
        let at = self.at;
        let digits = match self.next() {
            Some('\\') => match self.next() {
                Some('n') => return Ok('\n'),
                Some('r') => return Ok('\r'),
                Some('t') => return Ok('\t'),
                Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^')) => return Ok(c),
                Some('x') => 2,
                Some('u') => 4,
                Some('U') => 8,
                Some(c) => return self.error(at, format!("\\{c} is no escape: a \\ is \\\\")),
                None => return self.error(at, "there is nothing behind this \\"),
            },
            c => return Ok(c.unwrap_or_default()),
        };
        let hex =
            self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = hex else {
            return self.error(at, format!("this escape needs {digits} hexadecimal digits"));
        };
        self.at += digits;
        match u32::from_str_radix(hex, 16).ok().and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => self.error(at, format!("there is no character U+{hex}")),
        }
    }

    /// The rules, once all are read.
    fn finish(self) -> Result<Rules, String> {
        let Some(&root) = self.numbers.get("root") else {
            return Err("there is no rule \"root\", which a text begins with".into());
        };
        let mut rules = Vec::with_capacity(self.rules.len());
        for Named { name, at, body } in &self.rules {
            let Some(body) = body else {
                return self.error(*at, format!("there is no rule {name:?}"));
            };
            rules.push(Rule { name: (*name).to_owned(), body: body.clone() });
        }
        Ok(Rules { rules, root })
    }
}

/// Ranges in order, those that touch as one.
fn in_order(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let touch = next.0 <= last.1 + 1;
        last.1 = if touch { last.1.max(next.1) } else { last.1 };
        touch
    });
    ranges
}

/// All that is in none of these ranges, which are in order.
fn others(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let starts = [0].into_iter().chain(ranges.iter().map(|range| range.1 + 1));
    let ends = ranges.iter().map(|range| range.0).chain([u32::from(char::MAX) + 1]);
    starts
        .zip(ends)
        .filter(|(start, end)| start < end)
        .map(|(start, end)| (start, end - 1))
        .collect()
}

/// The characters of ranges: surrogates are none.
fn without_surrogates(ranges: Vec<(u32, u32)>) -> Vec<(char, char)> {
    let halves = |(first, last): (u32, u32)| [(first, last.min(0xD7FF)), (first.max(0xE000), last)];
    let characters = |(first, last)| {
        Some((char::from_u32(first)?, char::from_u32(last)?)).filter(|(first, last)| first <= last)
    };
    ranges.into_iter().flat_map(halves).filter_map(characters).collect()
}
