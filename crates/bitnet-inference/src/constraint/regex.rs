//! Regular expressions of which a text is one as a whole.

use llguidance::api::{GrammarInit, ParserLimits, SkipSpec};
use llguidance::derivre::{ExprRef, RegexAst};
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::earley::{Grammar, SymbolProps};

/// Bytes of a regular expression at most.
pub(super) const LONGEST: usize = 1 << 16;

/// The grammar of a text.
///
/// # Errors
///
/// What is wrong with the regular expression.
pub(super) fn compile(regex: &str, limits: &ParserLimits) -> Result<GrammarInit, String> {
    if regex.len() > LONGEST {
        return Err(format!("it has {} bytes, of {LONGEST} at most", regex.len()));
    }
    if regex.contains("<stop>") {
        // For llguidance, it is what comes behind a text.
        return Err("a group cannot be named \"stop\"".into());
    }
    grammar(regex, limits)
        .map_err(|why| why.to_string())
        .and_then(|grammar| grammar.ok_or_else(|| super::NOTHING.to_owned()))
}

/// A grammar of one lexeme, or nothing where no text matches.
fn grammar(
    regex: &str,
    limits: &ParserLimits,
) -> Result<Option<GrammarInit>, Box<dyn std::error::Error + Send + Sync>> {
    let mut spec = LexerSpec::new()?;
    let class = spec.setup_lexeme_class_with_skip(SkipSpec::unbounded(RegexAst::NoMatch))?;
    let whole = spec.regex_builder.mk_regex(regex)?;
    if spec.cost() > limits.initial_lexer_fuel {
        return Err("it is too large".into());
    }
    if whole == ExprRef::NO_MATCH {
        return Ok(None);
    }
    let mut grammar = Grammar::new(None);
    let props = SymbolProps { grammar_id: class, ..SymbolProps::default() };
    let start = SymbolProps { is_start: true, ..props.clone() };
    let start = grammar.fresh_symbol_ext("start", start);
    if whole == ExprRef::EMPTY_STRING {
        grammar.add_rule(start, Vec::new())?;
    } else {
        let text = grammar.fresh_symbol_ext("text", props);
        let ast = RegexAst::ExprRef(whole);
        let lexeme = spec.add_greedy_lexeme("text".into(), ast, false, None, usize::MAX)?;
        grammar.make_terminal(text, lexeme, &spec)?;
        grammar.add_rule(start, vec![text])?;
    }
    Ok(Some(GrammarInit::Internal(grammar, spec)))
}
