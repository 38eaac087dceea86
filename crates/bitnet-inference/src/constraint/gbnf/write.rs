//! Makes regular expressions and grammar rules of the rules of a grammar.

use std::collections::{HashMap, VecDeque};

use llguidance::api::{GrammarInit, ParserLimits, SkipSpec};
use llguidance::derivre::{ExprRef, RegexAst};
use llguidance::earley::lexerspec::{LexemeClass, LexerSpec};
use llguidance::earley::{Grammar, SymIdx, SymbolProps};

use super::super::NOTHING;
use super::{Expression, Rules};

/// Symbols of a grammar at most: llguidance numbers them with 16 bits.
const SYMBOLS: usize = 10_000;
/// Regular expressions of a grammar at most: each is compared with all others.
const LEXEMES: usize = 5000;
/// The size of a regular expression at most, with all that it refers to.
const SIZE: usize = 500_000;

/// Makes a grammar of rules.
///
/// # Errors
///
/// Where a text would never end, or the grammar is too large.
pub(super) fn write(rules: &Rules, limits: &ParserLimits) -> Result<GrammarInit, String> {
    let order = Order::new(rules);
    let count = rules.rules.len();
    let mut spec = LexerSpec::new().map_err(|e| e.to_string())?;
    let nothing = SkipSpec::unbounded(RegexAst::NoMatch);
    let class = spec.setup_lexeme_class_with_skip(nothing).map_err(|e| e.to_string())?;
    let mut writer = Writer {
        rules,
        spec,
        class,
        grammar: Grammar::new(None),
        fuel: limits.initial_lexer_fuel,
        regexes: vec![None; count],
        sizes: vec![0; count],
        symbols: vec![None; count],
        lexemes: HashMap::new(),
        repeated: HashMap::new(),
    };
    let start = writer.symbol("start", true)?;
    for &rule in &order.regular {
        writer.regular(rule)?;
    }
    for &rule in &order.others {
        writer.symbols[rule] = Some(writer.symbol(&rules.rules[rule].name, false)?);
    }
    for &rule in &order.others {
        if let Some(symbol) = writer.symbols[rule] {
            writer.rule(symbol, &rules.rules[rule].body)?;
        }
    }
    match writer.sequence(&Expression::Rule(rules.root))? {
        Some(symbols) => writer.add(start, symbols)?,
        None => return Err(format!("the rule \"root\" has no end: {NOTHING}")),
    }
    Ok(GrammarInit::Internal(writer.grammar, writer.spec))
}

/// The rules that a text can need.
struct Order {
    /// Those from which no recursion is reached, each behind those that it names.
    regular: Vec<usize>,
    /// The others from which a text can come: those from which none can are left out.
    others: Vec<usize>,
}

impl Order {
    fn new(rules: &Rules) -> Order {
        let count = rules.rules.len();
        let named: Vec<Vec<usize>> = rules
            .rules
            .iter()
            .map(|rule| {
                let mut named = Vec::new();
                rule.body.add_rules(&mut named);
                named.sort_unstable();
                named.dedup();
                named
            })
            .collect();
        let mut is_needed = vec![false; count];
        let mut naming = vec![Vec::new(); count];
        let mut todo = vec![rules.root];
        while let Some(rule) = todo.pop() {
            if !std::mem::replace(&mut is_needed[rule], true) {
                named[rule].iter().for_each(|&other| naming[other].push(rule));
                todo.extend(&named[rule]);
            }
        }
        let needed = || (0..count).filter(|&rule| is_needed[rule]);
        let mut left: Vec<usize> = named.iter().map(Vec::len).collect();
        let mut regular: Vec<usize> = needed().filter(|&rule| left[rule] == 0).collect();
        let mut done = 0;
        while let Some(&rule) = regular.get(done) {
            done += 1;
            for &other in &naming[rule] {
                left[other] -= 1;
                regular.extend((left[other] == 0).then_some(other));
            }
        }
        let is_regular = left.iter().map(|&left| left == 0).collect();
        let others = with_texts(rules, &naming, &is_needed, is_regular);
        Order { regular, others }
    }
}

/// The rules that are needed and not regular, and of which there are texts. Regular ones always have one.
fn with_texts(
    rules: &Rules,
    naming: &[Vec<usize>],
    is_needed: &[bool],
    mut ends: Vec<bool>,
) -> Vec<usize> {
    let mut found = Vec::new();
    let needed = (0..rules.rules.len()).filter(|&rule| is_needed[rule]);
    let mut todo: VecDeque<usize> = needed.filter(|&rule| !ends[rule]).collect();
    while let Some(rule) = todo.pop_front() {
        if !ends[rule] && can_end(&rules.rules[rule].body, &ends) {
            ends[rule] = true;
            found.push(rule);
            todo.extend(&naming[rule]);
        }
    }
    found
}

/// Whether there is a text of this, with only the rules of which there is one.
fn can_end(expression: &Expression, ends: &[bool]) -> bool {
    match expression {
        Expression::Literal(_) | Expression::Class(_) => true,
        Expression::Rule(rule) => ends[*rule],
        Expression::Sequence(parts) => parts.iter().all(|part| can_end(part, ends)),
        Expression::Choice(parts) => parts.iter().any(|part| can_end(part, ends)),
        Expression::Repeat(part, least, _) => *least == 0 || can_end(part, ends),
    }
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
    /// The other rules of which there are texts.
    symbols: Vec<Option<SymIdx>>,
    /// Symbols of regular expressions.
    lexemes: HashMap<ExprRef, SymIdx>,
    /// Symbols of a symbol so many times, or up to so many times.
    repeated: HashMap<(SymIdx, u32, bool), SymIdx>,
}

impl Writer<'_> {
    fn symbol(&mut self, name: &str, is_start: bool) -> Result<SymIdx, String> {
        if self.grammar.num_symbols() == SYMBOLS {
            return Err(format!("it is too large: it needs more than {SYMBOLS} symbols"));
        }
        let props = SymbolProps { grammar_id: self.class, is_start, ..SymbolProps::default() };
        Ok(self.grammar.fresh_symbol_ext(name, props))
    }

    fn add(&mut self, symbol: SymIdx, sequence: Vec<SymIdx>) -> Result<(), String> {
        self.grammar.add_rule(symbol, sequence).map_err(|e| e.to_string())
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

    fn is_regular(&self, expression: &Expression) -> bool {
        match expression {
            Expression::Rule(rule) => self.regexes[*rule].is_some(),
            _ => expression.parts().iter().all(|part| self.is_regular(part)),
        }
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
        if self.lexemes.len() == LEXEMES {
            return Err(format!(
                "it is too large: it needs more than {LEXEMES} regular expressions"
            ));
        }
        let name = format!("lexeme-{}", self.lexemes.len());
        let symbol = self.symbol(&name, false)?;
        let ast = RegexAst::ExprRef(regex);
        let lexeme = self.spec.add_greedy_lexeme(name, ast, false, None, usize::MAX);
        let terminal =
            lexeme.and_then(|lexeme| self.grammar.make_terminal(symbol, lexeme, &self.spec));
        terminal.map_err(|e| e.to_string())?;
        self.lexemes.insert(regex, symbol);
        Ok(Some(symbol))
    }

    /// Gives a symbol the texts of an expression. False if there are none.
    fn rule(&mut self, symbol: SymIdx, expression: &Expression) -> Result<bool, String> {
        let Expression::Choice(parts) = expression else {
            let sequence = self.sequence(expression)?;
            let is_text = sequence.is_some();
            sequence.map_or(Ok(()), |sequence| self.add(symbol, sequence))?;
            return Ok(is_text);
        };
        let (regular, others): (Vec<_>, Vec<_>) =
            parts.iter().partition(|part| self.is_regular(part));
        let mut is_text = !regular.is_empty();
        if is_text {
            let choice = Expression::Choice(regular.into_iter().cloned().collect());
            let lexeme = self.lexeme(&choice)?;
            self.add(symbol, lexeme.into_iter().collect())?;
        }
        for part in others {
            if let Some(sequence) = self.sequence(part)? {
                self.add(symbol, sequence)?;
                is_text = true;
            }
        }
        Ok(is_text)
    }

    /// The symbols of an expression, or nothing if there is no text of it.
    fn sequence(&mut self, expression: &Expression) -> Result<Option<Vec<SymIdx>>, String> {
        if self.is_regular(expression) {
            return Ok(Some(self.lexeme(expression)?.into_iter().collect()));
        }
        match expression {
            Expression::Literal(_) | Expression::Class(_) => Ok(None),
            Expression::Rule(rule) => Ok(self.symbols[*rule].map(|symbol| vec![symbol])),
            Expression::Sequence(parts) => {
                let is_regular: Vec<_> = parts.iter().map(|part| self.is_regular(part)).collect();
                let (mut symbols, mut at) = (Vec::new(), 0);
                for run in is_regular.chunk_by(|a, b| *a && *b) {
                    let parts = &parts[at..at + run.len()];
                    at += run.len();
                    if run[0] {
                        symbols.extend(self.lexeme(&Expression::Sequence(parts.to_vec()))?);
                        continue;
                    }
                    let Some(part) = self.sequence(&parts[0])? else { return Ok(None) };
                    symbols.extend(part);
                }
                Ok(Some(symbols))
            }
            Expression::Choice(_) => {
                let symbol = self.symbol("choice", false)?;
                Ok(self.rule(symbol, expression)?.then(|| vec![symbol]))
            }
            Expression::Repeat(part, least, most) => match self.sequence(part)? {
                Some(part) => self.repeat(part, *least, *most).map(Some),
                None => Ok((*least == 0).then(Vec::new)),
            },
        }
    }

    /// Symbols from so many times to so many.
    fn repeat(
        &mut self,
        mut symbols: Vec<SymIdx>,
        least: u32,
        most: Option<u32>,
    ) -> Result<Vec<SymIdx>, String> {
        let one = match symbols[..] {
            [one] => one,
            _ => {
                let one = self.symbol("group", false)?;
                self.add(one, symbols)?;
                one
            }
        };
        symbols = match least {
            0 => Vec::new(),
            least => vec![self.times(one, least)?],
        };
        match most {
            None => {
                let any = self.symbol("repeated", false)?;
                self.add(any, Vec::new())?;
                self.add(any, vec![any, one])?;
                symbols.push(any);
            }
            Some(most) if most > least => symbols.push(self.up_to(one, most - least)?),
            Some(_) => {}
        }
        Ok(symbols)
    }

    /// A symbol `n` times, and at least once.
    fn times(&mut self, one: SymIdx, n: u32) -> Result<SymIdx, String> {
        if n == 1 {
            return Ok(one);
        }
        if let Some(&known) = self.repeated.get(&(one, n, false)) {
            return Ok(known);
        }
        let half = self.times(one, n / 2)?;
        let whole = self.symbol("times", false)?;
        let odd = (n % 2 == 1).then_some(one);
        self.add(whole, [half, half].into_iter().chain(odd).collect())?;
        self.repeated.insert((one, n, false), whole);
        Ok(whole)
    }

    /// A symbol up to `n` times, of which there is at least one. There is one way for each number: half of
    /// `n` and what is left of it, or less than half.
    fn up_to(&mut self, one: SymIdx, n: u32) -> Result<SymIdx, String> {
        if let Some(&known) = self.repeated.get(&(one, n, true)) {
            return Ok(known);
        }
        let half = 1 << n.ilog2();
        let mut many = vec![self.times(one, half)?];
        if n > half {
            many.push(self.up_to(one, n - half)?);
        }
        let few = if half > 1 { vec![self.up_to(one, half - 1)?] } else { Vec::new() };
        let whole = self.symbol("up-to", false)?;
        self.add(whole, many)?;
        self.add(whole, few)?;
        self.repeated.insert((one, n, true), whole);
        Ok(whole)
    }
}
