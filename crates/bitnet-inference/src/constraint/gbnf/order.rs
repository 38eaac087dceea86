//! Which rules a text can need.

use std::collections::VecDeque;

use super::{Expression, Rules};

/// The rules that a text can need.
pub(super) struct Order {
    /// Those from which no recursion is reached, each behind those that it names.
    pub(super) regular: Vec<usize>,
    /// The others from which a text can come: those from which none can are left out.
    pub(super) others: Vec<usize>,
}

impl Order {
    pub(super) fn new(rules: &Rules) -> Order {
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
