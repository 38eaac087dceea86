//! Products whose results are known, computed when a device is opened: one that computes wrong is not used.

use std::sync::Arc;

use super::buffers::{Loader, Plan, Scratch};
use super::error::Error;
use super::gpu::{Gpu, Launches};
use super::products::Input;
use super::queue::{Activation, Queue};
use super::step::Recorded;
use crate::kernels::{GpuPasses, KernelId};
use crate::tiles;

/// Rows of the matrices: two tiles.
const ROWS: usize = 2 * tiles::ROWS;
/// Their columns: a step more than are under way at once.
const COLS: usize = 5 * tiles::COLS;
/// Tokens, so that every kernel that can multiply by ternary weights does it.
const TOKENS: [usize; 5] = [1, 16, 32, 48, 64];

/// Numbers that are the same everywhere, and look like none in particular: those of Knuth's multiplicative hash.
fn number(of: usize) -> u32 {
    (of as u32).wrapping_mul(2_654_435_761) >> 16
}

/// Runs the products that a forward pass enqueues, behind a norm and without, and compares each number of their results.
///
/// # Errors
///
/// [`Error::Wrong`], and those of the driver.
pub(crate) fn check(gpu: &Arc<Gpu>) -> Result<(), Error> {
    let weights = [0, 1].map(|which| -> Vec<i8> {
        (0..ROWS * COLS).map(|i| (number(2 * i + which) % 3) as i8 - 1).collect()
    });
    let most = TOKENS[TOKENS.len() - 1];
    // The first of each row is the greatest: so they are all multiplied by 1 to make them bytes.
    let value =
        |i: usize| if i.is_multiple_of(COLS) { 127.0 } else { (number(i) % 255) as f32 - 127.0 };
    let x: Vec<f32> = (0..most * COLS).map(value).collect();
    let products = weights.each_ref().map(|weights| products(weights, &x));
    let bytes = 2 * Loader::matrix_bytes(ROWS, COLS) + Loader::other_bytes(4 * COLS);
    let mut loader = Loader::new(gpu, bytes)?;
    let mut put = |weights: &[i8]| {
        let mut packed = vec![0; tiles::bytes(ROWS, COLS)];
        tiles::pack(weights, COLS, &mut packed);
        loader.matrix(&packed, (ROWS, COLS), 1.0)
    };
    let (gate, up) = (put(&weights[0])?, put(&weights[1])?);
    // Of ones the norm leaves its weights.
    let norm = (&loader.vector(&x[..COLS])?, 0.0);
    let plan = Plan::new();
    let (floats, ones) = (plan.floats(most, COLS), plan.floats(1, COLS));
    let (bytes, out) = (plan.quantized(most, COLS), plan.floats(most, ROWS));
    let other = plan.floats(1, ROWS);
    let scratch = Scratch::new(gpu, &plan)?;
    scratch.write(gpu, &floats, &x)?;
    scratch.write(gpu, &ones, &[1.0; COLS])?;
    let gated = |(gate, up): (&f32, &f32)| {
        let positive = gate.max(0.0);
        positive * positive * up
    };
    let gates: Vec<f32> = products[0].iter().zip(&products[1]).map(gated).collect();
    let both = |input: Input<'_>, tokens| -> Result<(), Error> {
        let mut queue = Queue::new(gpu, &scratch);
        queue.linear((input, tokens), &[(&up, &out)], false)?;
        same(gpu, queue.launches(), (&scratch.read(gpu, &out, tokens)?, &products[1]))?;
        queue.gate((input, tokens), (&gate, &up), Activation::Relu2, &out)?;
        same(gpu, queue.launches(), (&scratch.read(gpu, &out, tokens)?, &gates))
    };
    for tokens in TOKENS {
        Queue::new(gpu, &scratch).quantize((&floats, tokens), &bytes)?;
        both(Input::Bytes(&bytes), tokens)?;
    }
    both(Input::Floats(&floats, None, &bytes), 1)?;
    both(Input::Floats(&ones, Some(norm), &bytes), 1)?;
    if !gpu.has(KernelId::MegaDecode) || !gpu.info().cooperative_launch {
        return Ok(());
    }
    let mut launches = Launches::default();
    let mut pass = Recorded::new((gpu, &scratch), GpuPasses::Kernel, |queue| {
        let input = Input::Floats(&ones, Some(norm), &bytes);
        queue.gate((input, 1), (&gate, &up), Activation::Relu2, &out)?;
        queue.linear((input, 1), &[(&up, &other)], false)
    })?;
    pass.replay(gpu, &mut launches)?;
    same(gpu, &launches, (&scratch.read(gpu, &out, 1)?, &gates))?;
    same(gpu, &launches, (&scratch.read(gpu, &other, 1)?, &products[1]))
}

/// The product of whole numbers with a matrix: exact, as all sums are far below 2^24.
fn products(weights: &[i8], x: &[f32]) -> Vec<f32> {
    let row = |x: &[f32], weights: &[i8]| {
        weights.iter().zip(x).map(|(w, x)| f32::from(*w) * x).sum::<f32>()
    };
    x.chunks(COLS).flat_map(|x| weights.chunks(COLS).map(move |weights| row(x, weights))).collect()
}

fn same(gpu: &Gpu, launches: &Launches, (found, expected): (&[f32], &[f32])) -> Result<(), Error> {
    let mut pairs = found.iter().zip(expected).enumerate();
    match pairs.find(|(_, (found, expected))| found.to_bits() != expected.to_bits()) {
        None => Ok(()),
        Some((at, (found, expected))) => {
            let kernels: Vec<_> = launches.iter().map(|(kernel, _)| kernel.name()).collect();
            let what = format!(
                "number {at} is {found} and must be {expected}, after {}",
                kernels.join(", ")
            );
            Err(Error::Wrong { device: gpu.info().name.clone(), what })
        }
    }
}
