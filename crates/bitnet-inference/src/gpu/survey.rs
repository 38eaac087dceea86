//! What a forward pass of a model reads besides its linear layers, found by a pass that computes nothing.

use std::collections::HashSet;

use super::key;
use crate::arch::{Model, forward};
use crate::backend::{Backend, Heads, Norm, Row};
use crate::linear::Linear;
use crate::matrix::FloatMatrix;
use crate::state::Buffers;

/// A part of a model.
#[derive(Debug)]
pub(super) enum Part<'a> {
    /// The weights of a norm.
    Norm(&'a [f32]),
    /// Embeddings, or the output layer.
    Table(&'a FloatMatrix),
    /// Rotary angles of a step in position.
    Angles(&'a [f32]),
}

/// Shows every part of a model once, in the order in which a pass reads them.
pub(super) fn survey(model: &Model, see: impl FnMut(Part<'_>)) {
    let mut survey = Survey { see, seen: HashSet::new() };
    if let Ok(mut buffers) = Buffers::new(model, |_| Ok(()), |_| Ok(())) {
        forward(&mut survey, model, &mut buffers, (&[], &[0]), |_, ()| {});
    }
    survey.show(Part::Table(model.output()));
}

struct Survey<F> {
    see: F,
    seen: HashSet<usize>,
}

impl<F: FnMut(Part<'_>)> Survey<F> {
    fn show(&mut self, part: Part<'_>) {
        let at = match &part {
            Part::Norm(numbers) | Part::Angles(numbers) => key(*numbers),
            Part::Table(table) => key(*table),
        };
        if self.seen.insert(at) {
            (self.see)(part);
        }
    }
}

impl<F: FnMut(Part<'_>)> Backend for Survey<F> {
    type Floats = ();
    type Quantized = ();

    fn embed(&mut self, table: &FloatMatrix, _: &[Row], _: f32, (): &mut ()) {
        self.show(Part::Table(table));
    }

    fn angles(&mut self, frequencies: &[f32], _: &[Row], _: &mut ((), ())) {
        self.show(Part::Angles(frequencies));
    }

    fn norm(&mut self, (): &(), norm: Norm<'_>, _: usize, (): &mut ()) {
        self.show(Part::Norm(norm.weight));
    }

    fn add(&mut self, (): &(), _: usize, (): &mut ()) {}

    fn norm_quantize(&mut self, (): &(), norm: Norm<'_>, _: usize, (): &mut ()) {
        self.show(Part::Norm(norm.weight));
    }

    fn quantize(&mut self, (): &(), _: usize, (): &mut ()) {}

    fn linear<const N: usize>(&mut self, (): &(), _: usize, _: [(&Linear, &mut ()); N]) {}

    fn linear_add(&mut self, (): &(), _: usize, _: &Linear, _: (&mut (), &mut ())) {}

    fn gate(&mut self, (): &(), _: usize, _: [(&Linear, &mut ()); 2]) {}

    fn activate(&mut self, (): &mut (), (): &(), _: usize) {}

    fn place(&mut self, _: usize, _: &[Row], _: &((), ()), _: (&mut (), &mut (), &())) {}

    fn attend(&mut self, _: usize, _: &[Row], _: Heads, (): &(), (): &mut ()) {}

    fn norm_rows(&mut self, (): &(), norm: Norm<'_>, _: &[usize], (): &mut ()) {
        self.show(Part::Norm(norm.weight));
    }
}
