//! Grammars in the notation of llama.cpp (GBNF).
//!
//! [`parse`] reads one into rules, [`write`] makes of them what the lexer and the parser of llguidance
//! take. Rules from which no recursion is reached are regular, and become regular expressions of the
//! lexer: those next to each other one, so that `[a-z]* "b"` is matched as a whole. Where a lexeme could
//! end or go on, it goes on. So a text always is one of the grammar, but where something recursive begins
//! with what the text before it could go on with, not every text of the grammar is possible.

use llguidance::api::{GrammarInit, ParserLimits};

mod parse;
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
#[derive(Clone, Debug, PartialEq)]
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
