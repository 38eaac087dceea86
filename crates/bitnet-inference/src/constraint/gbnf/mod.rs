//! Grammars in the notation of llama.cpp (GBNF).
//!
//! [`parse`] reads one into rules, [`write`] makes of them what the lexer and the parser of llguidance
//! take. Rules from which no recursion is reached are regular. A grammar whose root is so becomes one
//! regular expression, which the lexer matches as a whole.
//!
//! In other grammars what is regular and next to each other is a lexeme, but only where that changes
//! nothing. The lexer looks for all the lexemes that the parser allows at a place, and where one of them
//! is complete and one can go on, it goes on. So [`conflicts`] finds those that can go on with a character
//! that can also come behind one that is complete, and [`plan`] takes them apart, into characters in the
//! end: of these none can go on. The texts that are possible are those of the grammar, all of them and no
//! others.
//!
//! Lexemes make it fast. Where there are none, as within `[a-z]+` if a letter can come behind it, the parser
//! works for each character of each token: with a vocabulary of a hundred thousand that takes a few
//! milliseconds at each place, and some tens where texts have many readings.
//! [`Watch`](super::watch::Watch) ends what takes too long.

use llguidance::api::{GrammarInit, ParserLimits};

mod automaton;
mod conflicts;
mod order;
mod parse;
mod plan;
#[cfg(test)]
mod tests;
mod write;

/// Bytes of a grammar at most.
const LONGEST: usize = 1 << 20;

/// The grammar of a text.
///
/// # Errors
///
/// What is wrong with it, and where, in a sentence.
pub(super) fn compile(text: &str, limits: &ParserLimits) -> Result<GrammarInit, String> {
    write::write(&parse::parse(text)?, limits)
}

/// A grammar that has been read. All rules that are named are there.
#[derive(Debug)]
struct Rules {
    rules: Vec<Rule>,
    /// The rule that a text is.
    root: usize,
}

#[derive(Debug)]
struct Rule {
    name: String,
    body: Expression,
}

/// What a rule, or a part of it, describes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Expression {
    Literal(String),
    /// A character of ranges that are in order, do not touch, and of which there is at least one.
    Class(Vec<(char, char)>),
    /// Another rule, by its number.
    Rule(usize),
    Sequence(Vec<Expression>),
    Choice(Vec<Expression>),
    /// From so many times to so many, or without end.
    Repeat(Box<Expression>, u32, Option<u32>),
}

impl Expression {
    /// The expressions that it is made of.
    fn parts(&self) -> &[Expression] {
        match self {
            Expression::Literal(_) | Expression::Class(_) | Expression::Rule(_) => &[],
            Expression::Sequence(parts) | Expression::Choice(parts) => parts,
            Expression::Repeat(part, ..) => std::slice::from_ref(part),
        }
    }

    /// Adds the rules that it names.
    fn add_rules(&self, rules: &mut Vec<usize>) {
        if let Expression::Rule(rule) = self {
            rules.push(*rule);
        }
        self.parts().iter().for_each(|part| part.add_rules(rules));
    }
}
