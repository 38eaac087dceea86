//! Lexemes that the lexer would go on with where the text before them could be one that is complete.

use std::collections::{HashMap, HashSet};

use super::automaton::{Automaton, Bytes, Meeting};
use super::plan::{Lexemes, Plan, Symbol, is_character};
use super::{Expression, Rules};

/// Places of lexemes in a grammar at most: each may be compared with all others.
const PLACES: usize = 2000;
/// How often all sequences are looked at, at most.
const PASSES: usize = 200;
/// States of two lexemes at most, of all that are compared.
const STEPS: usize = 2_000_000;
/// What comparing all places may take, in words of sets.
const WORK: usize = 400_000_000;
/// What comparing two lexemes takes, in the same, at first and once it is known.
const NEW: usize = 1000;
const COMPARED: usize = 16;

/// Finds conflicts of the lexemes of a grammar, and keeps what it finds out about them.
pub(super) struct Finder<'r> {
    rules: &'r Rules,
    automata: Vec<Option<Automaton>>,
    meetings: HashMap<(usize, usize), Meeting>,
    steps: usize,
    work: usize,
}

impl<'r> Finder<'r> {
    pub(super) fn new(rules: &'r Rules) -> Finder<'r> {
        Finder { rules, automata: Vec::new(), meetings: HashMap::new(), steps: STEPS, work: WORK }
    }

    /// The lexemes that must be taken apart, or nothing where finding them takes too much.
    pub(super) fn find(&mut self, plan: &Plan, lexemes: &Lexemes) -> Option<HashSet<Expression>> {
        for expression in &lexemes.expressions[self.automata.len()..] {
            self.automata.push(Automaton::new(expression, self.rules));
        }
        let places = Places::new(plan, |lexeme| {
            self.automata[lexeme].as_ref().is_none_or(|automaton| automaton.is_nullable)
        })?;
        let together = self.together(&places)?;
        let mut found = HashSet::new();
        for (place, &lexeme) in places.lexemes.iter().enumerate() {
            let mut behind = Bytes::default();
            for next in places.follow[place].iter() {
                self.spend(1)?;
                behind.add(self.first(places.lexemes[next]));
            }
            for other in together[place].iter().map(|other| places.lexemes[other]) {
                self.spend(COMPARED)?;
                let expression = &lexemes.expressions[other];
                if !is_character(expression)
                    && self.meeting(lexeme, other).second_goes_on.meets(behind)
                {
                    found.insert(expression.clone());
                }
            }
        }
        Some(found)
    }

    fn first(&self, lexeme: usize) -> Bytes {
        self.automata[lexeme].as_ref().map_or(Bytes::ALL, |automaton| automaton.first)
    }

    fn meeting(&mut self, first: usize, second: usize) -> Meeting {
        if first > second {
            return self.meeting(second, first).turned();
        }
        if !self.first(first).meets(self.first(second)) {
            return Meeting::default();
        }
        let (automata, steps) = (&self.automata, &mut self.steps);
        *self.meetings.entry((first, second)).or_insert_with(|| {
            self.work = self.work.saturating_sub(NEW);
            Meeting::new(automata[first].as_ref(), automata[second].as_ref(), steps)
        })
    }

    /// Nothing where that is too much work, with all that was done before.
    fn spend(&mut self, work: usize) -> Option<()> {
        self.work = self.work.checked_sub(work)?;
        Some(())
    }

    /// For each place of a lexeme, those that may be allowed when it is.
    fn together(&mut self, places: &Places) -> Option<Vec<Set>> {
        let count = places.lexemes.len();
        let mut together = vec![Set::new(count); count];
        self.add(&mut together, &places.first, &places.first)?;
        let follow = places.follow_numbers();
        let mut seen = HashSet::new();
        for next in (0..count).filter(|&place| seen.insert(follow[place])) {
            self.add(&mut together, &places.follow[next], &places.follow[next])?;
        }
        // Where two lexemes have the same text, what is behind either is allowed behind it.
        let mut known = vec![Set::new(count); count];
        let mut added = HashSet::new();
        loop {
            let mut is_new = false;
            for one in 0..count {
                for other in together[one].clone().iter().filter(|&other| other > one) {
                    let both = (follow[one].min(follow[other]), follow[one].max(follow[other]));
                    if both.0 == both.1 || added.contains(&both) || !known[one].insert(other) {
                        continue;
                    }
                    self.spend(COMPARED)?;
                    let (first, second) = (places.lexemes[one], places.lexemes[other]);
                    if first == second || self.meeting(first, second).is_same {
                        added.insert(both);
                        self.add(&mut together, &places.follow[one], &places.follow[other])?;
                        is_new = true;
                    }
                }
            }
            if !is_new {
                return Some(together);
            }
        }
    }

    /// Notes that some may be allowed when others are.
    fn add(&mut self, together: &mut [Set], some: &Set, others: &Set) -> Option<()> {
        for (some, others) in [(some, others), (others, some)] {
            for place in some.iter() {
                self.spend(others.0.len())?;
                together[place].add(others);
            }
        }
        Some(())
    }
}

/// The places of lexemes in the sequences of a grammar.
struct Places {
    /// The lexeme at each.
    lexemes: Vec<usize>,
    /// Those that a text can begin with.
    first: Set,
    /// Those that can come behind each.
    follow: Vec<Set>,
}

/// What is at a place of a sequence: a place of a lexeme, or a symbol.
#[derive(Clone, Copy)]
enum Part {
    Place(usize),
    Symbol(usize),
}

impl Places {
    /// Nothing where it takes too much.
    fn new(plan: &Plan, is_nullable: impl Fn(usize) -> bool) -> Option<Places> {
        let mut lexemes = Vec::new();
        let mut part = |symbol: &Symbol| match *symbol {
            Symbol::Sequences(symbol) => Part::Symbol(symbol),
            Symbol::Lexeme(lexeme) => {
                lexemes.push(lexeme);
                Part::Place(lexemes.len() - 1)
            }
        };
        let sequences: Vec<(usize, Vec<Part>)> = plan
            .sequences
            .iter()
            .enumerate()
            .flat_map(|(symbol, sequences)| sequences.iter().map(move |parts| (symbol, parts)))
            .map(|(symbol, parts)| (symbol, parts.iter().map(&mut part).collect()))
            .collect();
        if lexemes.len() > PLACES {
            return None;
        }
        let is_nullable = lexemes.iter().map(|&lexeme| is_nullable(lexeme)).collect();
        let mut flow = Flow::new(&sequences, is_nullable, plan.sequences.len());
        flow.until_done(Flow::ends)?;
        flow.until_done(Flow::begins)?;
        flow.until_done(Flow::follows)?;
        let first = flow.first.swap_remove(0);
        Some(Places { lexemes, first, follow: flow.follow })
    }

    /// A number for what can come behind each place: many have the same.
    fn follow_numbers(&self) -> Vec<usize> {
        let mut numbers = HashMap::new();
        let number = |next| {
            let number = numbers.len();
            *numbers.entry(next).or_insert(number)
        };
        self.follow.iter().map(number).collect()
    }
}

/// What is known of symbols and places, and grows until it is all.
struct Flow<'s> {
    sequences: &'s [(usize, Vec<Part>)],
    /// Whether each place can be empty.
    is_nullable: Vec<bool>,
    /// Whether each symbol can be empty.
    is_empty: Vec<bool>,
    /// The places that texts of each symbol can begin with.
    first: Vec<Set>,
    /// The places that can come behind each place.
    follow: Vec<Set>,
    /// The places that can come behind each symbol.
    behind: Vec<Set>,
}

impl<'s> Flow<'s> {
    fn new(sequences: &'s [(usize, Vec<Part>)], is_nullable: Vec<bool>, symbols: usize) -> Self {
        let nothing = Set::new(is_nullable.len());
        Flow {
            sequences,
            is_empty: vec![false; symbols],
            first: vec![nothing.clone(); symbols],
            follow: vec![nothing.clone(); is_nullable.len()],
            behind: vec![nothing; symbols],
            is_nullable,
        }
    }

    /// Looks at all sequences, forwards and backwards in turn, until nothing is new.
    fn until_done(&mut self, look: fn(&mut Self, usize, &'s [Part]) -> bool) -> Option<()> {
        let sequences = self.sequences;
        for pass in 0..PASSES {
            let mut is_new = false;
            for at in 0..sequences.len() {
                let at = if pass % 2 == 0 { sequences.len() - 1 - at } else { at };
                let (symbol, parts) = &sequences[at];
                is_new |= look(self, *symbol, parts);
            }
            if !is_new {
                return Some(());
            }
        }
        None
    }

    fn can_be_empty(&self, part: Part) -> bool {
        match part {
            Part::Place(place) => self.is_nullable[place],
            Part::Symbol(symbol) => self.is_empty[symbol],
        }
    }

    fn ends(&mut self, symbol: usize, parts: &[Part]) -> bool {
        let is_empty = parts.iter().all(|&part| self.can_be_empty(part));
        is_empty && !std::mem::replace(&mut self.is_empty[symbol], true)
    }

    fn begins(&mut self, symbol: usize, parts: &[Part]) -> bool {
        let mut first = self.first[symbol].clone();
        for &part in parts {
            self.add_first(&mut first, part);
            if !self.can_be_empty(part) {
                break;
            }
        }
        self.first[symbol].add(&first)
    }

    fn add_first(&self, to: &mut Set, part: Part) {
        match part {
            Part::Place(place) => _ = to.insert(place),
            Part::Symbol(symbol) => _ = to.add(&self.first[symbol]),
        }
    }

    fn follows(&mut self, symbol: usize, parts: &[Part]) -> bool {
        let mut behind = self.behind[symbol].clone();
        let mut is_new = false;
        for &part in parts.iter().rev() {
            is_new |= match part {
                Part::Place(place) => self.follow[place].add(&behind),
                Part::Symbol(symbol) => self.behind[symbol].add(&behind),
            };
            if !self.can_be_empty(part) {
                behind.clear();
            }
            self.add_first(&mut behind, part);
        }
        is_new
    }
}

/// A set of small numbers.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn new(count: usize) -> Set {
        Set(vec![0; count.div_ceil(64)])
    }

    /// Whether it was not there.
    fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (&mut self.0[number / 64], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether any was not there.
    fn add(&mut self, others: &Set) -> bool {
        let mut is_new = false;
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            is_new |= other & !*word != 0;
            *word |= other;
        }
        is_new
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            let bits =
                std::iter::successors(Some(word), |&left| Some(left & (left.wrapping_sub(1))));
            bits.take_while(|&left| left != 0)
                .map(move |left| 64 * at + left.trailing_zeros() as usize)
        })
    }
}
