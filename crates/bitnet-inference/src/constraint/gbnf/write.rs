//! Makes regular expressions and grammar rules of the rules of a grammar.

use std::collections::{HashMap, HashSet};

use llguidance::api::{GrammarInit, ParserLimits, SkipSpec};
use llguidance::derivre::{ExprRef, RegexAst};
use llguidance::earley::lexerspec::{LexemeClass, LexerSpec};
use llguidance::earley::{Grammar, SymIdx, SymbolProps};

use super::super::NOTHING;
use super::conflicts::Finder;
use super::order::Order;
use super::plan::{Apart, Lexemes, Plan, Symbol};
use super::{Expression, Rules};

/// The size of a regular expression at most, with all that it refers to.
const SIZE: usize = 500_000;
/// How often lexemes are taken apart, at most, before all are.
const ROUNDS: usize = 32;

/// Makes a grammar of rules.
///
/// # Errors
///
/// Where a text would never end, or the grammar is too large.
pub(super) fn write(rules: &Rules, limits: &ParserLimits) -> Result<GrammarInit, String> {
    let order = Order::new(rules);
    let mut writer = Writer::new(rules, limits)?;
    for &rule in &order.regular {
        writer.regular(rule)?;
    }
    let mut lexemes = Lexemes::default();
    match plan(rules, &order, &mut lexemes)? {
        Some(plan) => writer.grammar(&plan, &lexemes)?,
        None => return Err(format!("the rule \"root\" has no end: {NOTHING}")),
    }
    Ok(GrammarInit::Internal(writer.grammar, writer.spec))
}

/// A plan without conflicts, or nothing if there are no texts.
fn plan(rules: &Rules, order: &Order, lexemes: &mut Lexemes) -> Result<Option<Plan>, String> {
    let (order, mut finder) = ((&order.regular[..], &order.others[..]), Finder::new(rules));
    let mut expressions = HashSet::new();
    if order.0.contains(&rules.root) {
        return Plan::new(rules, order, &Apart::These(expressions), lexemes);
    }
    for _ in 0..ROUNDS {
        let apart = Apart::These(expressions);
        let Some(plan) = Plan::new(rules, order, &apart, lexemes)? else { return Ok(None) };
        let Some(found) = finder.find(&plan, lexemes) else { break };
        if found.is_empty() {
            return Ok(Some(plan));
        }
        let Apart::These(known) = apart else { break };
        expressions = known;
        expressions.extend(found);
    }
    Plan::new(rules, order, &Apart::All, lexemes)
}

struct Writer<'r> {
    rules: &'r Rules,
    spec: LexerSpec,
    class: LexemeClass,
    grammar: Grammar,
    /// What regular expressions may cost.
    fuel: u64,
    /// What the regular rules are, as far as they are done.
    regexes: Vec<Option<ExprRef>>,
    /// How large they are.
    sizes: Vec<usize>,
    /// Symbols of regular expressions.
    lexemes: HashMap<ExprRef, SymIdx>,
}

impl<'r> Writer<'r> {
    fn new(rules: &'r Rules, limits: &ParserLimits) -> Result<Writer<'r>, String> {
        let mut spec = LexerSpec::new().map_err(|e| e.to_string())?;
        let nothing = SkipSpec::unbounded(RegexAst::NoMatch);
        let class = spec.setup_lexeme_class_with_skip(nothing).map_err(|e| e.to_string())?;
        let count = rules.rules.len();
        Ok(Writer {
            rules,
            spec,
            class,
            grammar: Grammar::new(None),
            fuel: limits.initial_lexer_fuel,
            regexes: vec![None; count],
            sizes: vec![0; count],
            lexemes: HashMap::new(),
        })
    }

    /// Writes what is planned.
    fn grammar(&mut self, plan: &Plan, lexemes: &Lexemes) -> Result<(), String> {
        let symbols: Vec<_> = plan.names.iter().map(|name| self.symbol(name)).collect();
        if let Some(&start) = symbols.first() {
            self.grammar.sym_props_mut(start).is_start = true;
        }
        let mut known = HashMap::new();
        for (&symbol, sequences) in symbols.iter().zip(&plan.sequences) {
            for sequence in sequences {
                let mut parts = Vec::with_capacity(sequence.len());
                for part in sequence {
                    parts.extend(match *part {
                        Symbol::Sequences(other) => Some(symbols[other]),
                        Symbol::Lexeme(lexeme) => match known.get(&lexeme) {
                            Some(&symbol) => symbol,
                            None => {
                                let symbol = self.lexeme(&lexemes.expressions[lexeme])?;
                                *known.entry(lexeme).or_insert(symbol)
                            }
                        },
                    });
                }
                self.grammar.add_rule(symbol, parts).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    fn symbol(&mut self, name: &str) -> SymIdx {
        let props = SymbolProps { grammar_id: self.class, ..SymbolProps::default() };
        self.grammar.fresh_symbol_ext(name, props)
    }

    /// A regular rule, of which those that it names are done.
    fn regular(&mut self, rule: usize) -> Result<(), String> {
        let rules = self.rules;
        let body = &rules.rules[rule].body;
        self.sizes[rule] = self.size(body);
        self.regexes[rule] = Some(
            self.regex(body)
                .map_err(|why| format!("the rule {:?} {why}", rules.rules[rule].name))?,
        );
        Ok(())
    }

    /// The regular expression of something regular.
    fn regex(&mut self, expression: &Expression) -> Result<ExprRef, String> {
        let too_large = || "is too large to be matched as a whole".to_owned();
        if self.size(expression) > SIZE {
            return Err(too_large());
        }
        let ast = self.ast(expression)?;
        let regex = self.spec.regex_builder.mk(&ast).map_err(|e| e.to_string())?;
        if self.spec.cost() > self.fuel {
            return Err(too_large());
        }
        Ok(regex)
    }

    fn ast(&self, expression: &Expression) -> Result<RegexAst, String> {
        let all = |parts: &[Expression]| -> Result<Vec<_>, String> {
            parts.iter().map(|part| self.ast(part)).collect()
        };
        Ok(match expression {
            Expression::Literal(text) => RegexAst::Literal(text.clone()),
            Expression::Class(ranges) => {
                let range = |(first, last): &(char, char)| {
                    format!(r"\x{{{:X}}}-\x{{{:X}}}", u32::from(*first), u32::from(*last))
                };
                let ranges: String = ranges.iter().map(range).collect();
                RegexAst::Regex(format!("[{ranges}]"))
            }
            Expression::Rule(rule) => {
                let regex = self.regexes[*rule].ok_or("is not regular")?;
                RegexAst::ExprRef(regex)
            }
            Expression::Sequence(parts) => RegexAst::Concat(all(parts)?),
            Expression::Choice(parts) => RegexAst::Or(all(parts)?),
            Expression::Repeat(part, least, most) => {
                RegexAst::Repeat(Box::new(self.ast(part)?), *least, most.unwrap_or(u32::MAX))
            }
        })
    }

    /// The size of something regular, with all that it refers to.
    fn size(&self, expression: &Expression) -> usize {
        let own = match expression {
            Expression::Literal(text) => text.len(),
            Expression::Class(ranges) => ranges.len(),
            Expression::Rule(rule) => self.sizes[*rule],
            _ => 0,
        };
        let parts = expression.parts().iter().map(|part| self.size(part));
        parts.fold(own.saturating_add(1), usize::saturating_add)
    }

    /// The symbol of a regular expression, or nothing if it is the empty text.
    fn lexeme(&mut self, regular: &Expression) -> Result<Option<SymIdx>, String> {
        let regex = self.regex(regular).map_err(|why| format!("a part of a rule {why}"))?;
        if regex == ExprRef::EMPTY_STRING {
            return Ok(None);
        }
        if let Some(&symbol) = self.lexemes.get(&regex) {
            return Ok(Some(symbol));
        }
        let name = format!("lexeme-{}", self.lexemes.len());
        let symbol = self.symbol(&name);
        let ast = RegexAst::ExprRef(regex);
        let lexeme = self.spec.add_greedy_lexeme(name, ast, false, None, usize::MAX);
        let terminal =
            lexeme.and_then(|lexeme| self.grammar.make_terminal(symbol, lexeme, &self.spec));
        terminal.map_err(|e| e.to_string())?;
        self.lexemes.insert(regex, symbol);
        Ok(Some(symbol))
    }
}
