//! What a text must be: JSON by a schema, a regular expression or a grammar, token by token.

use std::fmt;
use std::sync::Arc;

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::Error;
use crate::tokenizer::Tokenizer;

mod gbnf;

/// What a text must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// JSON that a schema allows.
    JsonSchema(Value),
    /// All of it what a regular expression describes.
    Regex(String),
    /// What a grammar of llama.cpp describes, from its rule `root` on.
    Gbnf(String),
    /// What a grammar in the Lark dialect of llguidance describes, from its rule `start` on.
    Lark(String),
}

impl Constraint {
    /// Any JSON object.
    #[must_use]
    pub fn json_object() -> Constraint {
        Constraint::JsonSchema(json!({ "type": "object" }))
    }

    /// What errors call it.
    const fn what(&self) -> &'static str {
        match self {
            Constraint::JsonSchema(_) => "JSON schema",
            Constraint::Regex(_) => "regular expression",
            Constraint::Gbnf(_) | Constraint::Lark(_) => "grammar",
        }
    }

    fn error(&self, why: impl fmt::Display) -> Error {
        // The first lines say what is wrong; what follows is the state of a parser.
        let why = why.to_string();
        let why = why.split("\n<state>").next().unwrap_or_default().trim().to_owned();
        Error::Constraint { what: self.what(), why }
    }

    fn grammar(&self, limits: &ParserLimits) -> Result<GrammarInit, Error> {
        let grammar = match self {
            Constraint::JsonSchema(schema) => {
                let mut schema = schema.clone();
                if let Value::Object(fields) = &mut schema {
                    // As much space as people put between things, but not without end.
                    let space = json!({ "whitespace_pattern": r"( |\n{1,2}[ \t]{0,20})?" });
                    fields.entry("x-guidance").or_insert(space);
                }
                TopLevelGrammar::from_json_schema(schema)
            }
            Constraint::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Constraint::Gbnf(grammar) => {
                return gbnf::compile(grammar, limits).map_err(|why| self.error(why));
            }
            Constraint::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        };
        Ok(GrammarInit::Serialized(grammar))
    }
}

/// What constraints need to know of a vocabulary.
pub(crate) struct Grammars(ParserFactory);

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grammars")
    }
}

impl Grammars {
    /// Takes some tenths of a second for a large vocabulary.
    ///
    /// # Errors
    ///
    /// Where the vocabulary is none that grammars can work with.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Grammars, String> {
        let tokens = 0..tokenizer.len() as u32;
        let ends: Vec<u32> = tokens.clone().filter(|&id| tokenizer.is_end(id)).collect();
        let end = *ends.first().ok_or("the model has no token that ends a text")?;
        let bytes = |id: u32| match tokenizer.bytes(id) {
            // Control tokens are no text.
            Some(bytes) if !bytes.is_empty() => bytes.to_vec(),
            _ => [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("<[{id}]>").as_bytes()].concat(),
        };
        let words: Vec<_> = tokens.map(bytes).collect();
        let info = TokRxInfo::new(words.len() as u32, end);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let environment = Arc::new(ApproximateTokEnv::new(trie)) as Arc<_>;
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| e.to_string())?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars(factory))
    }

    /// A constraint at the beginning of a text.
    ///
    /// # Errors
    ///
    /// [`Error::Constraint`] where it is damaged, asks for too much, or cannot be met.
    pub(crate) fn constrain(&self, constraint: &Constraint) -> Result<Constrained, Error> {
        let grammar = constraint.grammar(self.0.limits())?;
        let parser = self.0.create_parser_from_init_default(grammar);
        let mut matcher = Matcher::new(parser);
        if let Some(why) = matcher.get_error() {
            return Err(constraint.error(why));
        }
        matcher.compute_mask_or_eos().map_err(|why| constraint.error(why))?;
        Ok(Constrained { constraint: constraint.clone(), matcher })
    }
}

/// A constraint somewhere in a text.
pub(crate) struct Constrained {
    constraint: Constraint,
    matcher: Matcher,
}

impl fmt::Debug for Constrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Constrained").field(&self.constraint).finish()
    }
}

impl Constrained {
    /// The tokens that may come next, those that end the text among them where it can end.
    ///
    /// # Errors
    ///
    /// [`Error::Constraint`] where finding out takes too much.
    pub(crate) fn allowed(&mut self) -> Result<SimpleVob, Error> {
        self.matcher.compute_mask_or_eos().map_err(|why| self.constraint.error(why))
    }

    /// Goes on behind a token that is allowed. True where nothing can come after it.
    ///
    /// # Errors
    ///
    /// As [`Constrained::allowed`].
    pub(crate) fn push(&mut self, token: u32) -> Result<bool, Error> {
        self.matcher.consume_token(token).map_err(|why| self.constraint.error(why))?;
        Ok(self.matcher.is_stopped())
    }
}
