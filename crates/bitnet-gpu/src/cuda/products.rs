//! Products with ternary weights, enqueued.

use super::args::{self, Args, int};
use super::buffers::{Floats, Matrix, Quantized, Vector};
use super::error::Error;
use super::launch::LaunchParams;
use super::queue::{Activation, Queue};
use super::sys::Shape;
use crate::kernels::{self, KernelId};
use crate::tiles;

/// What a product takes.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Quantised rows.
    Bytes(&'a Quantized),
    /// Rows that become such, behind a norm if there is one: in the [kernel](KernelId::prepared) of the product itself, or where
    /// there is none before it, in this room.
    Floats(&'a Floats, Option<(&'a Vector, f32)>, &'a Quantized),
}

/// What is to be done.
#[derive(Clone, Copy)]
struct Job {
    product: args::Product,
    rows: usize,
    /// Of the rows of the matrices.
    tiles: usize,
    gate: bool,
}

impl Queue<'_> {
    /// `y = x W^T` of the first rows of `x`, for each of up to three matrices; `y += x W^T`, if it is to be added.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    ///
    /// # Panics
    ///
    /// If there are more than three.
    pub fn linear(
        &mut self,
        (x, rows): (Input<'_>, usize),
        outputs: &[(&Matrix, &Floats)],
        add: bool,
    ) -> Result<(), Error> {
        let product = args::Product { add: i32::from(add), ..self.product_of(x, outputs) };
        let tiles = outputs.iter().map(|(matrix, _)| matrix.rows.div_ceil(tiles::ROWS)).sum();
        self.product(x, Job { product, rows, tiles, gate: false })
    }

    /// `gate = activation(x G^T) * x U^T` of the first rows of `x`.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn gate(
        &mut self,
        (x, rows): (Input<'_>, usize),
        (gate, up): (&Matrix, &Matrix),
        activation: Activation,
        out: &Floats,
    ) -> Result<(), Error> {
        let product = self.product_of(x, &[(gate, out), (up, out)]);
        let product = args::Product { activation: activation as i32, ..product };
        self.product(x, Job { product, rows, tiles: gate.rows.div_ceil(tiles::ROWS), gate: true })
    }

    fn product(&mut self, x: Input<'_>, job: Job) -> Result<(), Error> {
        let Input::Floats(x, norm, bytes) = x else { return self.product_of_bytes(&job) };
        let target = self.gpu().target().1;
        let (rows, cols) = (job.rows, x.cols);
        if let Some(kernel) = KernelId::prepared(target, (rows, cols), (norm.is_some(), job.gate)) {
            let (weight, eps) = norm.map_or((0, 0.0), |(weight, eps)| (weight.data.address(), eps));
            let input = args::Input { x: self.at(x), weight, eps, cols: int(cols) };
            let product = job.product.of_tokens(0, rows);
            let shape = Shape {
                shared: kernels::prepared_bytes(rows, cols),
                ..self.shape(kernel, (rows, job.tiles))
            };
            return self.launch(kernel, shape, &Args::new(&input).with(&product));
        }
        match norm {
            Some(norm) => self.norm_quantize((x, rows), norm, bytes)?,
            None => self.quantize((x, rows), bytes)?,
        }
        self.product_of_bytes(&job)
    }

    fn product_of_bytes(&mut self, job: &Job) -> Result<(), Error> {
        let Job { ref product, rows, tiles, gate } = *job;
        let kernel = KernelId::product(self.gpu().target().1, rows, gate);
        // Where a kernel takes a few rows only, there are several launches.
        for first in (0..rows).step_by(kernel.rows()) {
            let here = kernel.rows().min(rows - first);
            let shape = self.shape(kernel, (here, tiles));
            self.launch(kernel, shape, &Args::new(&product.of_tokens(first, here)))?;
        }
        Ok(())
    }

    fn shape(&self, kernel: KernelId, size: (usize, usize)) -> Shape {
        let params = LaunchParams::of(self.gpu().info(), kernel, size);
        Shape {
            grid: [params.grid_x as u32, params.grid_y as u32, 1],
            threads: params.block_size as u32,
            shared: params.shared,
        }
    }

    fn product_of(&self, x: Input<'_>, outputs: &[(&Matrix, &Floats)]) -> args::Product {
        let (Input::Bytes(x) | Input::Floats(_, _, x)) = x;
        let mut of = [args::Matrix::default(); 3];
        assert!(outputs.len() <= of.len(), "at most three matrices");
        for (of, (matrix, y)) in of.iter_mut().zip(outputs) {
            assert_eq!(matrix.cols, x.cols, "activations as long as rows of the matrix");
            *of = args::Matrix {
                weights: matrix.weights.address(),
                y: self.at(y),
                scale: matrix.scale,
                rows: int(matrix.rows),
            };
        }
        let [q, scale, sum] = [x.q, x.scale, x.sum].map(|at| self.scratch.address(at));
        args::Product {
            of,
            x: q,
            x_scale: scale,
            x_sum: sum,
            width: int(tiles::width(x.cols)),
            ..args::Product::default()
        }
    }
}

impl args::Product {
    /// The part of some tokens.
    fn of_tokens(mut self, first: usize, tokens: usize) -> args::Product {
        let at = first as u64;
        for matrix in &mut self.of {
            matrix.y += 4 * at * matrix.rows as u64;
        }
        self.x += at * self.width as u64;
        self.x_scale += 4 * at;
        self.x_sum += 4 * at;
        self.tokens = int(tokens);
        self
    }
}
