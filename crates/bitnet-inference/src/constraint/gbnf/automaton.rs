//! What two regular expressions have in common.

use std::collections::HashSet;

use super::{Expression, Rules};

/// States of an automaton at most.
const STATES: usize = 2000;
/// Rules within each other at most.
const DEPTH: usize = 200;
/// So many times of a repetition are told apart; where those are too many states, one is.
const COPIES: [u32; 2] = [8, 1];

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bytes([u64; 4]);

impl Bytes {
    pub(super) const ALL: Bytes = Bytes([u64::MAX; 4]);

    /// Those that characters of ranges begin with.
    fn of(ranges: &[(char, char)]) -> Bytes {
        let first = |c: char| c.encode_utf8(&mut [0; 4]).as_bytes()[0];
        let mut bytes = Bytes::default();
        for byte in ranges.iter().flat_map(|&(from, to)| first(from)..=first(to)) {
            bytes.0[usize::from(byte / 64)] |= 1 << (byte % 64);
        }
        bytes
    }

    pub(super) fn add(&mut self, others: Bytes) {
        self.0.iter_mut().zip(others.0).for_each(|(a, b)| *a |= b);
    }

    pub(super) fn meets(self, others: Bytes) -> bool {
        self.0.iter().zip(others.0).any(|(a, b)| a & b != 0)
    }
}

/// Finds the texts of a regular expression, and perhaps more: of a repetition with large numbers, it does
/// not count all.
#[derive(Debug)]
pub(super) struct Automaton {
    states: Vec<State>,
    start: usize,
    /// Whether the empty text is one.
    pub(super) is_nullable: bool,
    /// What other texts begin with.
    pub(super) first: Bytes,
}

/// Goes on to other states with a character, or with none if it has no ranges.
#[derive(Debug)]
struct State {
    ranges: Vec<(char, char)>,
    first: Bytes,
    next: Vec<usize>,
}

/// The state in which a text is complete.
const END: usize = 0;

impl Automaton {
    /// Nothing where it would be too large.
    pub(super) fn new(expression: &Expression, rules: &Rules) -> Option<Automaton> {
        COPIES.iter().find_map(|&copies| {
            let mut builder = Builder { rules, copies, depth: 0, states: Vec::new() };
            builder.state(Vec::new(), Vec::new())?;
            let start = builder.add(expression, END)?;
            let states = builder.states;
            let mut automaton =
                Automaton { states, start, is_nullable: false, first: Bytes::default() };
            let mut seen = HashSet::from([start]);
            let mut todo = vec![start];
            while let Some(at) = todo.pop() {
                let state = &automaton.states[at];
                automaton.is_nullable |= at == END;
                automaton.first.add(state.first);
                if state.ranges.is_empty() {
                    todo.extend(state.next.iter().filter(|&&next| seen.insert(next)));
                }
            }
            Some(automaton)
        })
    }
}

struct Builder<'r> {
    rules: &'r Rules,
    copies: u32,
    depth: usize,
    states: Vec<State>,
}

impl Builder<'_> {
    fn state(&mut self, ranges: Vec<(char, char)>, next: Vec<usize>) -> Option<usize> {
        let first = Bytes::of(&ranges);
        self.states.push(State { ranges, first, next });
        (self.states.len() <= STATES).then(|| self.states.len() - 1)
    }

    /// The state from which an expression leads to the state `to`.
    fn add(&mut self, expression: &Expression, to: usize) -> Option<usize> {
        match expression {
            Expression::Literal(text) => {
                text.chars().rev().try_fold(to, |to, c| self.state(vec![(c, c)], vec![to]))
            }
            Expression::Class(ranges) => self.state(ranges.clone(), vec![to]),
            Expression::Rule(_) if self.depth == DEPTH => None,
            Expression::Rule(rule) => {
                self.depth += 1;
                let state = self.add(&self.rules.rules[*rule].body, to);
                self.depth -= 1;
                state
            }
            Expression::Sequence(parts) => {
                parts.iter().rev().try_fold(to, |to, part| self.add(part, to))
            }
            Expression::Choice(parts) => {
                let next: Option<_> = parts.iter().map(|part| self.add(part, to)).collect();
                self.state(Vec::new(), next?)
            }
            Expression::Repeat(part, least, most) => self.repeat(part, *least, *most, to),
        }
    }

    /// The state from which an expression, so many times or more, leads to the state `to`.
    fn repeat(
        &mut self,
        part: &Expression,
        least: u32,
        most: Option<u32>,
        to: usize,
    ) -> Option<usize> {
        let mut at = match most {
            Some(most) if most <= self.copies => (least..most).try_fold(to, |at, _| {
                let one = self.add(part, at)?;
                self.state(Vec::new(), vec![one, to])
            })?,
            _ => {
                let any = self.state(Vec::new(), vec![to])?;
                let one = self.add(part, any)?;
                self.states[any].next.push(one);
                any
            }
        };
        for _ in 0..least.min(self.copies) {
            at = self.add(part, at)?;
        }
        Some(at)
    }
}

/// What two regular expressions have in common, or may have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meeting {
    /// Whether there is a text of both that is not empty.
    pub(super) is_same: bool,
    /// Bytes with which texts of the first go on where they are a text of the second.
    pub(super) first_goes_on: Bytes,
    /// Bytes with which texts of the second go on where they are a text of the first.
    pub(super) second_goes_on: Bytes,
}

impl Meeting {
    /// What is assumed where it is not known.
    const WORST: Meeting =
        Meeting { is_same: true, first_goes_on: Bytes::ALL, second_goes_on: Bytes::ALL };

    /// Takes what it costs from `budget`.
    pub(super) fn new(
        first: Option<&Automaton>,
        second: Option<&Automaton>,
        budget: &mut usize,
    ) -> Meeting {
        let (Some(first), Some(second)) = (first, second) else { return Meeting::WORST };
        let mut meeting = Meeting::default();
        if !first.first.meets(second.first) {
            return meeting;
        }
        // Two states, and whether anything led to them.
        let mut todo = vec![(first.start, second.start, false)];
        let mut seen: HashSet<_> = todo.iter().copied().collect();
        while let Some((a, b, is_behind)) = todo.pop() {
            let (one, other) = (&first.states[a], &second.states[b]);
            if is_behind {
                meeting.is_same |= (a, b) == (END, END);
                meeting.first_goes_on.add(if b == END { one.first } else { Bytes::default() });
                meeting.second_goes_on.add(if a == END { other.first } else { Bytes::default() });
            }
            let mut next = Vec::new();
            if one.ranges.is_empty() {
                next.extend(one.next.iter().map(|&a| (a, b, is_behind)));
            }
            if other.ranges.is_empty() {
                next.extend(other.next.iter().map(|&b| (a, b, is_behind)));
            }
            if one.first.meets(other.first) && overlap(&one.ranges, &other.ranges) {
                next.push((one.next[0], other.next[0], true));
            }
            let steps = 1 + next.len();
            if *budget < steps {
                return Meeting::WORST;
            }
            *budget -= steps;
            todo.extend(next.into_iter().filter(|&pair| seen.insert(pair)));
        }
        meeting
    }

    /// The same for the two in the other order.
    pub(super) fn turned(self) -> Meeting {
        Meeting {
            is_same: self.is_same,
            first_goes_on: self.second_goes_on,
            second_goes_on: self.first_goes_on,
        }
    }
}

/// Whether a character is in both.
fn overlap(a: &[(char, char)], b: &[(char, char)]) -> bool {
    let (mut i, mut j) = (0, 0);
    while let (Some(one), Some(other)) = (a.get(i), b.get(j)) {
        if one.0 <= other.1 && other.0 <= one.1 {
            return true;
        }
        if one.1 < other.1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    false
}
