//! A pass, enqueued: the operations of [`forward`] over queues of a device.

use bitnet_gpu::cuda::{self, Floats, Input, Parts, Quantized, Queue, Step};

use super::super::{GpuMatrix, OnGpu, key};
use crate::Error;
use crate::arch::{Model, forward};
use crate::backend::{Backend, Heads, Norm, Row};
use crate::config::Activation;
use crate::linear::Linear;
use crate::matrix::FloatMatrix;
use crate::state::Buffers;

/// What tells recorded passes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) outputs: usize,
    /// Spans of positions.
    pub(super) spans: usize,
    /// Whether no two rows are of one sequence, and attention takes them one by one: then it turns and stores what they have.
    pub(super) apart: bool,
    /// Pieces of rows that attention takes together.
    pub(super) tiles: usize,
    /// Whether there are others.
    pub(super) alone: bool,
}

/// Rows that are to be 8-bit activations: what multiplies by them makes them.
#[derive(Debug)]
pub(super) struct Activations {
    /// Room for them.
    pub(super) bytes: Quantized,
    /// What they are made of, and the norm before, once that is known.
    pub(super) of: Option<(Floats, Option<(cuda::Vector, f32)>)>,
}

/// The weights of a linear layer on a device, if they are there.
fn on_gpu(linear: &Linear, replica: usize) -> Option<&GpuMatrix> {
    match linear {
        Linear::OnGpu(linear) => Some(linear.matrix(replica)),
        _ => None,
    }
}

impl Activations {
    fn input(&self) -> Input<'_> {
        match &self.of {
            Some((x, norm)) => {
                let norm = norm.as_ref().map(|(weight, eps)| (weight, *eps));
                Input::Floats(x, norm, &self.bytes)
            }
            None => Input::Bytes(&self.bytes),
        }
    }
}

/// A pass that is enqueued.
pub(super) struct Pass<'p, 'q> {
    pub(super) queue: &'p mut Queue<'q>,
    pub(super) on: &'p OnGpu,
    pub(super) model: &'p Model,
    pub(super) there: &'p cuda::Cache,
    pub(super) parts: &'p Parts,
    pub(super) step: &'p Step,
    pub(super) size: Size,
    /// Queries, keys and values that attention has to turn and to store, and the frequencies.
    pub(super) placed: Option<([Floats; 3], usize)>,
    /// The frequencies of angles, by where these would be.
    pub(super) turned: Vec<(usize, usize)>,
    /// The first error.
    pub(super) failed: Option<Error>,
}

impl Pass<'_, '_> {
    /// All of a pass of so many rows, up to the hidden states of so many outputs.
    pub(super) fn all(
        &mut self,
        buffers: &mut Buffers<Floats, Activations>,
        see: impl FnMut(usize, &Floats),
    ) {
        let Size { rows, outputs, .. } = self.size;
        // Which they are stands in the memory of the device.
        let nobody = vec![Row { sequence: 0, position: 0, token: 0 }; rows];
        let which = vec![0; outputs];
        let model = self.model;
        forward(self, model, buffers, (&nobody, &which), see);
    }

    /// Enqueues something, if nothing has failed before.
    fn enqueue(&mut self, f: impl FnOnce(&mut Queue<'_>, &OnGpu) -> Result<(), cuda::Error>) {
        if self.failed.is_none() {
            self.failed = f(self.queue, self.on).err().map(Error::from);
        }
    }

    fn activation(&self) -> cuda::Activation {
        match self.model.config.activation {
            Activation::Relu2 => cuda::Activation::Relu2,
            Activation::Silu => cuda::Activation::Silu,
            Activation::Gelu => cuda::Activation::Gelu,
        }
    }

    /// Enqueues something with the weights of linear layers, which must be on the device.
    fn with<const N: usize>(
        &mut self,
        linears: [&Linear; N],
        f: impl FnOnce(&mut Queue<'_>, [&GpuMatrix; N]) -> Result<(), cuda::Error>,
    ) {
        let there: Option<Vec<&GpuMatrix>> =
            linears.into_iter().map(|linear| on_gpu(linear, self.on.replica)).collect();
        match there.and_then(|there| there.try_into().ok()) {
            Some(there) => self.enqueue(|queue, _| f(queue, there)),
            None => {
                let what = "linear layers that are not ternary; use --device cpu".to_owned();
                self.failed.get_or_insert(cuda::Error::Unsupported { what }.into());
            }
        }
    }

    fn norm_of<'o>(on: &'o OnGpu, norm: Norm<'_>) -> (&'o cuda::Vector, f32) {
        (&on.vectors[&key(norm.weight)], norm.eps)
    }
}

impl Backend for Pass<'_, '_> {
    type Floats = Floats;
    type Quantized = Activations;

    fn embed(&mut self, table: &FloatMatrix, rows: &[Row], scale: f32, out: &mut Floats) {
        let rows = (self.step.rows(), rows.len());
        self.enqueue(|queue, on| queue.embed(&on.tables[&key(table)], rows, scale, out));
    }

    /// They are on the device, of all positions.
    fn angles(&mut self, frequencies: &[f32], _: &[Row], out: &mut (Floats, Floats)) {
        self.turned.push((out.0.place(), key(frequencies)));
    }

    fn norm(&mut self, x: &Floats, norm: Norm<'_>, rows: usize, out: &mut Floats) {
        self.enqueue(|queue, on| queue.norm((x, rows), Self::norm_of(on, norm), out));
    }

    fn add(&mut self, x: &Floats, rows: usize, sum: &mut Floats) {
        self.enqueue(|queue, _| queue.add((x, rows), sum));
    }

    fn norm_quantize(&mut self, x: &Floats, norm: Norm<'_>, _: usize, out: &mut Activations) {
        let (weight, eps) = Self::norm_of(self.on, norm);
        out.of = Some((*x, Some((weight.clone(), eps))));
    }

    fn quantize(&mut self, x: &Floats, _: usize, out: &mut Activations) {
        out.of = Some((*x, None));
    }

    fn linear<const N: usize>(
        &mut self,
        x: &Activations,
        rows: usize,
        outputs: [(&Linear, &mut Floats); N],
    ) {
        let linears = outputs.each_ref().map(|(linear, _)| *linear);
        let outs = outputs.map(|(_, out)| *out);
        self.with(linears, |queue, there| {
            let outputs: Vec<_> = there.into_iter().zip(&outs).collect();
            queue.linear((x.input(), rows), &outputs, false)
        });
    }

    fn linear_add(
        &mut self,
        x: &Activations,
        rows: usize,
        linear: &Linear,
        (sum, _): (&mut Floats, &mut Floats),
    ) {
        self.with([linear], |queue, [there]| {
            queue.linear((x.input(), rows), &[(there, sum)], true)
        });
    }

    fn gate(
        &mut self,
        x: &Activations,
        rows: usize,
        [(gate, gated), (up, _)]: [(&Linear, &mut Floats); 2],
    ) {
        let activation = self.activation();
        self.with([gate, up], |queue, [gate, up]| {
            queue.gate((x.input(), rows), (gate, up), activation, gated)
        });
    }

    fn activate(&mut self, gate: &mut Floats, up: &Floats, rows: usize) {
        let activation = self.activation();
        self.enqueue(|queue, _| queue.activate((gate, rows), up, activation));
    }

    fn place(
        &mut self,
        layer: usize,
        rows: &[Row],
        (cos, _): &(Floats, Floats),
        (q, k, v): (&mut Floats, &mut Floats, &Floats),
    ) {
        let frequencies =
            self.turned.iter().find(|(place, _)| *place == cos.place()).map_or(0, |(_, of)| *of);
        let (rows, there) = ((self.step.rows(), rows.len()), (self.there, layer));
        if self.size.apart {
            self.placed = Some(([*q, *k, *v], frequencies));
            return;
        }
        self.enqueue(|queue, on| {
            let [cos, sin] = &on.angles[&frequencies];
            let heads = cuda::Heads { qkv: [q, k, v], angles: [cos, sin] };
            queue.rope_append(rows, &heads, there)
        });
    }

    fn attend(&mut self, layer: usize, rows: &[Row], _: Heads, q: &Floats, out: &mut Floats) {
        let (there, parts) = ((self.there, layer), (self.parts, self.size.spans));
        let placed = self.placed.take();
        let (step, tiles, mut which) = (self.step, self.size.tiles, self.step.rows().clone());
        if tiles > 0 {
            self.enqueue(|queue, _| queue.attend_together((step, tiles), (q, out), there, parts));
            which = step.alone();
        }
        if !self.size.alone {
            return;
        }
        let rows = (&which, rows.len());
        self.enqueue(|queue, on| {
            let heads = placed.as_ref().map(|([q, k, v], frequencies)| {
                let [cos, sin] = &on.angles[frequencies];
                cuda::Heads { qkv: [q, k, v], angles: [cos, sin] }
            });
            queue.attend(rows, (q, heads.as_ref(), out), there, parts)
        });
    }

    /// Which rows these are stands in the memory of the device.
    fn norm_rows(&mut self, x: &Floats, norm: Norm<'_>, which: &[usize], out: &mut Floats) {
        if !which.is_empty() {
            let (step, count) = (self.step, which.len());
            self.enqueue(|queue, on| {
                queue.norm_outputs((x, step, count), Self::norm_of(on, norm), out)
            });
        }
    }
}
