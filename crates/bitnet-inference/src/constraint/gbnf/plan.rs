//! What of a grammar is for the lexer, and what for the parser.

use std::collections::{HashMap, HashSet};

use super::{Expression, Rules};

/// Symbols of a grammar at most: llguidance numbers them with 16 bits.
const SYMBOLS: usize = 10_000;
/// Regular expressions of a grammar at most: each is compared with all others.
const LEXEMES: usize = 5000;
/// A sequence of more parts than these is taken apart in the middle.
const LONG: usize = 8;

/// What is in a sequence of the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Symbol {
    Lexeme(usize),
    /// A symbol with sequences, by its number.
    Sequences(usize),
}

/// Regular expressions, each once.
#[derive(Debug, Default)]
pub(super) struct Lexemes {
    numbers: HashMap<Expression, usize>,
    pub(super) expressions: Vec<Expression>,
}

impl Lexemes {
    fn number(&mut self, expression: &Expression) -> usize {
        if let Some(&number) = self.numbers.get(expression) {
            return number;
        }
        self.expressions.push(expression.clone());
        self.numbers.insert(expression.clone(), self.expressions.len() - 1);
        self.expressions.len() - 1
    }
}

/// Regular expressions that must not be lexemes.
#[derive(Debug)]
pub(super) enum Apart {
    These(HashSet<Expression>),
    /// All but characters.
    All,
}

impl Apart {
    fn contains(&self, expression: &Expression) -> bool {
        match self {
            Apart::These(expressions) => expressions.contains(expression),
            Apart::All => !is_character(expression),
        }
    }
}

/// Whether this is a character, or nothing: it cannot be taken apart.
pub(super) fn is_character(expression: &Expression) -> bool {
    match expression {
        Expression::Class(_) => true,
        Expression::Literal(text) => text.chars().nth(1).is_none(),
        _ => false,
    }
}

/// A grammar for the parser.
#[derive(Debug)]
pub(super) struct Plan {
    /// The sequences of each symbol, of which the first is what a text is.
    pub(super) sequences: Vec<Vec<Vec<Symbol>>>,
    /// What symbols are called.
    pub(super) names: Vec<String>,
}

impl Plan {
    /// Plans a grammar whose rules `regular` reach no recursion, and of whose other rules `others` have
    /// texts.
    ///
    /// # Errors
    ///
    /// Where the grammar is too large.
    pub(super) fn new(
        rules: &Rules,
        (regular, others): (&[usize], &[usize]),
        apart: &Apart,
        lexemes: &mut Lexemes,
    ) -> Result<Option<Plan>, String> {
        let count = rules.rules.len();
        let plan = Plan { sequences: Vec::new(), names: Vec::new() };
        let mut planner = Planner {
            rules,
            apart,
            lexemes,
            plan,
            is_regular: vec![false; count],
            symbols: vec![None; count],
            todo: Vec::new(),
            used: HashSet::new(),
            repeated: HashMap::new(),
        };
        regular.iter().for_each(|&rule| planner.is_regular[rule] = true);
        let start = planner.symbol("start")?;
        for &rule in others {
            planner.symbols[rule] = Some(planner.symbol(&rules.rules[rule].name)?);
        }
        planner.todo.extend(others);
        let Some(root) = planner.sequence(&Expression::Rule(rules.root))? else { return Ok(None) };
        planner.add(start, root);
        while let Some(rule) = planner.todo.pop() {
            if let Some(symbol) = planner.symbols[rule] {
                planner.rule(symbol, &rules.rules[rule].body)?;
            }
        }
        Ok(Some(planner.plan))
    }
}

struct Planner<'r> {
    rules: &'r Rules,
    apart: &'r Apart,
    lexemes: &'r mut Lexemes,
    plan: Plan,
    is_regular: Vec<bool>,
    /// The symbols of rules that are for the parser.
    symbols: Vec<Option<usize>>,
    /// Such rules whose sequences are not there yet.
    todo: Vec<usize>,
    /// Lexemes that there are.
    used: HashSet<usize>,
    /// Symbols of a symbol so many times, or up to so many times.
    repeated: HashMap<(Symbol, u32, bool), Symbol>,
}

impl Planner<'_> {
    fn symbol(&mut self, name: &str) -> Result<usize, String> {
        if self.plan.names.len() == SYMBOLS {
            return Err(format!("it is too large: it needs more than {SYMBOLS} symbols"));
        }
        self.plan.names.push(name.to_owned());
        self.plan.sequences.push(Vec::new());
        Ok(self.plan.names.len() - 1)
    }

    fn add(&mut self, symbol: usize, sequence: Vec<Symbol>) {
        self.plan.sequences[symbol].push(sequence);
    }

    fn is_regular(&self, expression: &Expression) -> bool {
        match expression {
            Expression::Rule(rule) => self.is_regular[*rule],
            _ => expression.parts().iter().all(|part| self.is_regular(part)),
        }
    }

    /// The symbols of something regular.
    fn regular(&mut self, expression: &Expression) -> Result<Vec<Symbol>, String> {
        if self.apart.contains(expression) {
            return self.parts(expression);
        }
        let number = self.lexemes.number(expression);
        self.used.insert(number);
        match self.used.len() {
            0..=LEXEMES => Ok(vec![Symbol::Lexeme(number)]),
            _ => Err(format!("it is too large: it needs more than {LEXEMES} regular expressions")),
        }
    }

    /// The symbols of something regular that must not be a lexeme.
    fn parts(&mut self, expression: &Expression) -> Result<Vec<Symbol>, String> {
        match expression {
            Expression::Literal(text) => {
                let one = |c: char| Expression::Literal(c.into());
                self.each(&text.chars().map(one).collect::<Vec<_>>())
            }
            // A character is always a lexeme.
            Expression::Class(_) => Ok(Vec::new()),
            Expression::Rule(rule) => {
                let symbol = match self.symbols[*rule] {
                    Some(symbol) => symbol,
                    None => {
                        let symbol = self.symbol(&self.rules.rules[*rule].name)?;
                        self.todo.push(*rule);
                        *self.symbols[*rule].insert(symbol)
                    }
                };
                Ok(vec![Symbol::Sequences(symbol)])
            }
            Expression::Sequence(parts) => match (self.apart, parts.len()) {
                (Apart::All, _) | (_, 0 | 1) => self.each(parts),
                (_, n) => {
                    let (before, behind) = parts.split_at(if n > LONG { n / 2 } else { n - 1 });
                    Ok([self.run(before)?, self.run(behind)?].concat())
                }
            },
            Expression::Choice(parts) => {
                let symbol = self.symbol("choice")?;
                for part in parts {
                    let sequence = self.regular(part)?;
                    self.add(symbol, sequence);
                }
                Ok(vec![Symbol::Sequences(symbol)])
            }
            Expression::Repeat(part, least, most) => {
                let part = self.regular(part)?;
                self.repeat(part, *least, *most)
            }
        }
    }

    fn each(&mut self, parts: &[Expression]) -> Result<Vec<Symbol>, String> {
        let mut symbols = Vec::new();
        for part in parts {
            symbols.extend(self.regular(part)?);
        }
        Ok(symbols)
    }

    /// The symbols of what is regular and next to each other.
    fn run(&mut self, parts: &[Expression]) -> Result<Vec<Symbol>, String> {
        match parts {
            [part] => self.regular(part),
            _ => self.regular(&Expression::Sequence(parts.to_vec())),
        }
    }

    /// Gives a symbol the texts of an expression. False if there are none.
    fn rule(&mut self, symbol: usize, expression: &Expression) -> Result<bool, String> {
        let Expression::Choice(parts) = expression else {
            let sequence = self.sequence(expression)?;
            let is_text = sequence.is_some();
            sequence.into_iter().for_each(|sequence| self.add(symbol, sequence));
            return Ok(is_text);
        };
        let (regular, others): (Vec<_>, Vec<_>) =
            parts.iter().partition(|part| self.is_regular(part));
        let mut is_text = !regular.is_empty();
        let choice = Expression::Choice(regular.iter().map(|&part| part.clone()).collect());
        if regular.len() > 1 && !self.apart.contains(&choice) {
            let lexeme = self.regular(&choice)?;
            self.add(symbol, lexeme);
        } else {
            for part in regular {
                let sequence = self.regular(part)?;
                self.add(symbol, sequence);
            }
        }
        for part in others {
            if let Some(sequence) = self.sequence(part)? {
                self.add(symbol, sequence);
                is_text = true;
            }
        }
        Ok(is_text)
    }

    /// The symbols of an expression, or nothing if there is no text of it.
    fn sequence(&mut self, expression: &Expression) -> Result<Option<Vec<Symbol>>, String> {
        if self.is_regular(expression) {
            return self.regular(expression).map(Some);
        }
        match expression {
            Expression::Literal(_) | Expression::Class(_) => Ok(None),
            Expression::Rule(rule) => {
                Ok(self.symbols[*rule].map(|symbol| vec![Symbol::Sequences(symbol)]))
            }
            Expression::Sequence(parts) => {
                let is_regular: Vec<_> = parts.iter().map(|part| self.is_regular(part)).collect();
                let (mut symbols, mut at) = (Vec::new(), 0);
                for run in is_regular.chunk_by(|a, b| *a && *b) {
                    let parts = &parts[at..at + run.len()];
                    at += run.len();
                    let part = match run[0] {
                        true => Some(self.run(parts)?),
                        false => self.sequence(&parts[0])?,
                    };
                    let Some(part) = part else { return Ok(None) };
                    symbols.extend(part);
                }
                Ok(Some(symbols))
            }
            Expression::Choice(_) => {
                let symbol = self.symbol("choice")?;
                Ok(self.rule(symbol, expression)?.then(|| vec![Symbol::Sequences(symbol)]))
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
        mut symbols: Vec<Symbol>,
        least: u32,
        most: Option<u32>,
    ) -> Result<Vec<Symbol>, String> {
        let one = match symbols[..] {
            [one] => one,
            _ => {
                let one = self.symbol("group")?;
                self.add(one, symbols);
                Symbol::Sequences(one)
            }
        };
        symbols = match least {
            0 => Vec::new(),
            least => vec![self.times(one, least)?],
        };
        match most {
            None => {
                let any = self.symbol("repeated")?;
                self.add(any, Vec::new());
                self.add(any, vec![Symbol::Sequences(any), one]);
                symbols.push(Symbol::Sequences(any));
            }
            Some(most) if most > least => symbols.push(self.up_to(one, most - least)?),
            Some(_) => {}
        }
        Ok(symbols)
    }

    /// A symbol `n` times, and at least once.
    fn times(&mut self, one: Symbol, n: u32) -> Result<Symbol, String> {
        if n == 1 {
            return Ok(one);
        }
        if let Some(&known) = self.repeated.get(&(one, n, false)) {
            return Ok(known);
        }
        let half = self.times(one, n / 2)?;
        let whole = self.symbol("times")?;
        let odd = (n % 2 == 1).then_some(one);
        self.add(whole, [half, half].into_iter().chain(odd).collect());
        self.repeated.insert((one, n, false), Symbol::Sequences(whole));
        Ok(Symbol::Sequences(whole))
    }

    /// A symbol up to `n` times, of which there is at least one. There is one way for each number: half of
    /// `n` and what is left of it, or less than half.
    fn up_to(&mut self, one: Symbol, n: u32) -> Result<Symbol, String> {
        if let Some(&known) = self.repeated.get(&(one, n, true)) {
            return Ok(known);
        }
        let half = 1 << n.ilog2();
        let mut many = vec![self.times(one, half)?];
        if n > half {
            many.push(self.up_to(one, n - half)?);
        }
        let few = if half > 1 { vec![self.up_to(one, half - 1)?] } else { Vec::new() };
        let whole = self.symbol("up-to")?;
        self.add(whole, many);
        self.add(whole, few);
        self.repeated.insert((one, n, true), Symbol::Sequences(whole));
        Ok(Symbol::Sequences(whole))
    }
}
