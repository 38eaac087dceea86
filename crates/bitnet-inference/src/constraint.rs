//! What a text must be: JSON by a schema, a regular expression or a grammar, token by token.

use std::fmt;
use std::sync::Arc;
use std::thread;

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::Error;
use crate::tokenizer::Tokenizer;

mod finite;
mod gbnf;
mod limits;
mod meet;
mod regex;
mod watch;

use watch::Watch;

/// Bytes of stack for what llguidance does one within the other, of which there may be
/// [`limits::LEVELS`].
const STACK: usize = 128 << 20;

/// Steps of the parser at most to find out which tokens may come next: where it works for each character of
/// each token, they are some millions.
const ITEMS: usize = 20_000_000;
/// Ways at most to read a text up to a place: a rule that ends with itself adds one each time, and all are
/// kept for each place.
const READINGS: usize = 5000;
/// Why a constraint that no text meets is refused.
const NOTHING: &str = "there is no text that it describes";
/// Characters of a reason at most.
const REASON: usize = 300;

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
        Error::Constraint { what: self.what(), why: reason(&why.to_string()) }
    }

    fn grammar(&self, limits: &ParserLimits) -> Result<GrammarInit, String> {
        Ok(GrammarInit::Serialized(match self {
            Constraint::JsonSchema(schema) => {
                limits::check_schema(schema)?;
                meet::check_schema(schema)?;
                finite::check(schema)?;
                let mut schema = schema.clone();
                if let Value::Object(fields) = &mut schema {
                    // As much space as people put between things, but not without end.
                    let space = json!({ "whitespace_pattern": r"( |\n{1,2}[ \t]{0,20})?" });
                    fields.entry("x-guidance").or_insert(space);
                }
                TopLevelGrammar::from_json_schema(schema)
            }
            Constraint::Lark(grammar) => {
                limits::check_lark(grammar)?;
                meet::check_lark(grammar)?;
                TopLevelGrammar::from_lark(grammar.clone())
            }
            Constraint::Regex(regex) => return regex::compile(regex, limits),
            Constraint::Gbnf(grammar) => return gbnf::compile(grammar, limits),
        }))
    }
}

/// The reason in what llguidance says: its first line, and the one behind it that says more.
fn reason(said: &str) -> String {
    let mut lines = said.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = lines.find_map(|line| line.strip_prefix("error: "));
    let why = match first {
        "NoExtensionBias" => NOTHING.to_owned(),
        "operation cancelled" => "it takes too long to find out how a text can go on".to_owned(),
        // Numbers that it does not calculate with, or more of something than it can count.
        _ if first.starts_with("panic: ") => "it asks for more than can be worked out".to_owned(),
        _ => [first].into_iter().chain(more).collect::<Vec<_>>().join(" "),
    };
    match why.char_indices().nth(REASON) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why,
    }
}

/// What constraints need to know of a vocabulary.
pub(crate) struct Grammars {
    factory: ParserFactory,
    watch: Watch,
}

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
        // Done when it is needed, it can be ended.
        factory.limits_mut().precompute_large_lexemes = false;
        factory.limits_mut().step_max_items = ITEMS;
        factory.limits_mut().max_items_in_row = READINGS;
        let watch = Watch::new().map_err(|e| e.to_string())?;
        Ok(Grammars { factory, watch })
    }

    /// A constraint at the beginning of a text.
    ///
    /// # Errors
    ///
    /// [`Error::Constraint`] where it is damaged, asks for too much, or cannot be met.
    pub(crate) fn constrain(&self, constraint: &Constraint) -> Result<Constrained, Error> {
        let matcher = self.matcher(constraint).map_err(|why| constraint.error(why))?;
        let watch = self.watch.clone();
        let constraint = constraint.clone();
        let mut constrained = Constrained { constraint, matcher, watch, allowed: None };
        constrained.allowed()?;
        Ok(constrained)
    }

    fn matcher(&self, constraint: &Constraint) -> Result<Matcher, String> {
        let create = || {
            let grammar = constraint.grammar(self.factory.limits())?;
            let parser = self.factory.create_parser_from_init_default(grammar);
            parser.map_err(|why| why.to_string())
        };
        let parser = thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, create);
            let result = thread.map_err(|why| format!("there can be no thread for it: {why}"))?;
            result.join().unwrap_or_else(|_| Err("panic: ".into()))
        })?;
        let matcher = Matcher::new(Ok(parser)).into_cancellable();
        matcher.get_error().map_or(Ok(matcher), Err)
    }
}

/// A constraint that has been found to be one that can be met, at the beginning of a text.
#[derive(Debug)]
pub struct Compiled(pub(crate) Constrained);

/// A constraint somewhere in a text.
pub(crate) struct Constrained {
    constraint: Constraint,
    matcher: Matcher,
    watch: Watch,
    /// The tokens that may come next, once they are known.
    allowed: Option<SimpleVob>,
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
    pub(crate) fn allowed(&mut self) -> Result<&SimpleVob, Error> {
        let allowed = match self.allowed.take() {
            Some(allowed) => allowed,
            None => {
                let found = self.watch.run(&mut self.matcher, Matcher::compute_mask_or_eos);
                found.map_err(|why| self.constraint.error(why))?
            }
        };
        Ok(self.allowed.insert(allowed))
    }

    /// The error where no token may come next.
    pub(crate) fn stuck(&self) -> Error {
        self.constraint.error(NOTHING)
    }

    /// Goes on behind a token that is allowed. True where nothing can come after it.
    ///
    /// # Errors
    ///
    /// As [`Constrained::allowed`].
    pub(crate) fn push(&mut self, token: u32) -> Result<bool, Error> {
        self.allowed = None;
        let pushed = self.watch.run(&mut self.matcher, |matcher| matcher.consume_token(token));
        pushed.map_err(|why| self.constraint.error(why))?;
        Ok(self.matcher.is_stopped())
    }
}
