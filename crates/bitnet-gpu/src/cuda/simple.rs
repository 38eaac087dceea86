//! Products for those who have activations and weights of a byte each, as [`bitnet_kernels::simple`] takes them: no model is
//! needed. Weights go to the device with each product; forward passes keep theirs there.

use std::sync::Arc;

use bitnet_kernels::simple::check_matmul;

use super::buffers::{Loader, Plan, Scratch};
use super::error::Error;
use super::gpu::Gpu;
use super::products::Input;
use super::queue::Queue;
use crate::tiles;

/// Products of one shape that are on the device at a time, and bytes of these unless one has more.
const TOGETHER: usize = 16;
const BYTES: usize = 256 << 20;
/// Columns of `a` with which no sum in a kernel overflows, and far more than any model has.
const COLUMNS: usize = 1 << 18;
/// Rows of `a` and columns of `b`: the kernels count them in 32 bits.
const ROWS: usize = 1 << 30;

/// A product: `c = a b`, `[m, k]` by `[k, n]`, as [`matmul_i2s`](bitnet_kernels::simple::matmul_i2s) defines it.
#[derive(Debug)]
pub struct BatchMatmulParams<'a> {
    /// Activations `[m, k]`.
    pub a: &'a [i8],
    /// Codes of weights `[k, n]`: 0 is -1, 1 is 0, 2 is +1, and 3 counts as 0.
    pub b: &'a [u8],
    /// Results `[m, n]`.
    pub c: &'a mut [f32],
    /// Rows of `a`.
    pub m: usize,
    /// Columns of `b`.
    pub n: usize,
    /// Columns of `a`.
    pub k: usize,
}

impl BatchMatmulParams<'_> {
    fn shape(&self) -> [usize; 3] {
        [self.m, self.n, self.k]
    }

    /// The weights as the device has them.
    fn packed(&self) -> Vec<u8> {
        let &BatchMatmulParams { b, n, k, .. } = self;
        let weight = |i: usize| match b[i % k * n + i / k] & 3 {
            3 => 0,
            code => code.cast_signed() - 1,
        };
        let weights: Vec<i8> = (0..n * k).map(weight).collect();
        let mut packed = vec![0; tiles::bytes(n, k)];
        tiles::pack(&weights, k, &mut packed);
        packed
    }
}

impl Gpu {
    /// One product: see [`BatchMatmulParams`] for what it takes.
    ///
    /// # Errors
    ///
    /// As [`Gpu::batch_matmul_i2s`].
    pub fn matmul_i2s(self: &Arc<Gpu>, product: BatchMatmulParams<'_>) -> Result<(), Error> {
        self.batch_matmul_i2s(&mut [product])
    }

    /// Several products, which stay in their order. Those of one shape are computed together, with the same memory, which is
    /// given back at the end: up to 16 at a time, which are copied there, computed and copied back.
    ///
    /// # Errors
    ///
    /// [`Error::Arguments`] where a slice does not have the elements of its matrix, and [`Error::Unsupported`] where one is too large; then
    /// nothing has been computed. [`Error::OutOfMemory`] and [`Error::Driver`], behind which some may have been.
    pub fn batch_matmul_i2s(
        self: &Arc<Gpu>,
        batch: &mut [BatchMatmulParams<'_>],
    ) -> Result<(), Error> {
        for product in &*batch {
            check_matmul([product.a.len(), product.b.len(), product.c.len()], product.shape())?;
            let [m, n, k] = product.shape();
            if k > COLUMNS || m.max(n) > ROWS {
                let what = format!(
                    "a product of m = {m}, n = {n}, k = {k}; there are those of up to {ROWS}, {ROWS} and {COLUMNS}"
                );
                return Err(Error::Unsupported { what });
            }
        }
        let mut order: Vec<_> = batch.iter_mut().filter(|product| !product.c.is_empty()).collect();
        order.sort_by_key(|product| product.shape());
        for group in order.chunk_by_mut(|a, b| a.shape() == b.shape()) {
            let [m, n, k] = group[0].shape();
            let each = Loader::matrix_bytes(n, k) + m * (tiles::width(k) + 4 * n);
            for some in group.chunks_mut((BYTES / each.max(1)).clamp(1, TOGETHER)) {
                self.multiply(some)?;
            }
        }
        Ok(())
    }

    /// Products of one shape.
    fn multiply(self: &Arc<Gpu>, products: &mut [&mut BatchMatmulParams<'_>]) -> Result<(), Error> {
        let [m, n, k] = products[0].shape();
        if k == 0 {
            products.iter_mut().for_each(|product| product.c.fill(0.0));
            return Ok(());
        }
        let mut loader = Loader::new(self, products.len() * Loader::matrix_bytes(n, k))?;
        let plan = Plan::new();
        let rooms: Vec<_> =
            products.iter().map(|_| (plan.quantized(m, k), plan.floats(m, n))).collect();
        let scratch = Scratch::new(self, &plan)?;
        let mut matrices = Vec::with_capacity(products.len());
        for (product, (x, _)) in products.iter().zip(&rooms) {
            matrices.push(loader.matrix(&product.packed(), (n, k), 1.0)?);
            scratch.write_bytes(self, x, product.a)?;
        }
        let mut queue = Queue::new(self, &scratch);
        for (matrix, (x, y)) in matrices.iter().zip(&rooms) {
            queue.linear((Input::Bytes(x), m), &[(matrix, y)], false)?;
        }
        for (product, (_, y)) in products.iter_mut().zip(&rooms) {
            product.c.copy_from_slice(&scratch.read(self, y, m)?);
        }
        Ok(())
    }
}
