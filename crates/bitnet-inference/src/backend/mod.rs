//! What an architecture asks of whatever computes it.

use crate::linear::Linear;
use crate::matrix::FloatMatrix;

pub(crate) mod cpu;
pub(crate) mod kernels;

/// One token of one sequence in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The sequence it belongs to.
    pub(crate) sequence: usize,
    /// Its place in the sequence, from 0.
    pub(crate) position: usize,
    /// Its id.
    pub(crate) token: u32,
}

/// The operations of a forward pass, each on all rows at once.
///
/// Shapes are `[rows, cols]`, row-major; the first `rows` rows of a buffer are used.
pub(crate) trait Backend {
    /// Rows of floats.
    type Floats;
    /// Rows of quantised activations.
    type Quantized;

    /// The embedding of each row's token, times `scale`.
    fn embed(&mut self, table: &FloatMatrix, rows: &[Row], scale: f32, out: &mut Self::Floats);

    /// Cosines and sines of `position * frequency`.
    fn angles(&mut self, frequencies: &[f32], rows: &[Row], out: &mut (Self::Floats, Self::Floats));

    /// RMSNorm of the first `rows` rows, or of each head of them where the norm has as many weights as
    /// a head.
    fn norm(&mut self, x: &Self::Floats, norm: Norm<'_>, rows: usize, out: &mut Self::Floats);

    /// `sum += x`, of the first `rows` rows.
    fn add(&mut self, x: &Self::Floats, rows: usize, sum: &mut Self::Floats);

    /// RMSNorm of the first `rows` rows, then to 8 bits.
    fn norm_quantize(
        &mut self,
        x: &Self::Floats,
        norm: Norm<'_>,
        rows: usize,
        out: &mut Self::Quantized,
    );

    /// The first `rows` rows to 8 bits.
    fn quantize(&mut self, x: &Self::Floats, rows: usize, out: &mut Self::Quantized);

    /// `out = x W^T`, for each of some matrices on the same input.
    fn linear<const N: usize>(
        &mut self,
        x: &Self::Quantized,
        rows: usize,
        outputs: [(&Linear, &mut Self::Floats); N],
    );

    /// `sum += x W^T`, with a buffer for the product.
    fn linear_add(
        &mut self,
        x: &Self::Quantized,
        rows: usize,
        linear: &Linear,
        sum: (&mut Self::Floats, &mut Self::Floats),
    );

    /// `gate = activation(x G^T) * x U^T`, where `outputs` are `G` and `gate`, then `U` and a buffer.
    /// The activation is that of the model.
    fn gate(
        &mut self,
        x: &Self::Quantized,
        rows: usize,
        outputs: [(&Linear, &mut Self::Floats); 2],
    );

    /// `gate = activation(gate) * up`, of the first `rows` rows.
    fn activate(&mut self, gate: &mut Self::Floats, up: &Self::Floats, rows: usize);

    /// Turns the heads of queries and keys by their angles, and stores keys and values of all rows in the cache.
    fn place(
        &mut self,
        layer: usize,
        rows: &[Row],
        angles: &(Self::Floats, Self::Floats),
        qkv: (&mut Self::Floats, &mut Self::Floats, &Self::Floats),
    );

    /// Attention of each row over its sequence up to and including itself.
    fn attend(
        &mut self,
        layer: usize,
        rows: &[Row],
        heads: Heads,
        q: &Self::Floats,
        out: &mut Self::Floats,
    );

    /// RMSNorm of some rows of `x`, one after another into `out`.
    fn norm_rows(
        &mut self,
        x: &Self::Floats,
        norm: Norm<'_>,
        which: &[usize],
        out: &mut Self::Floats,
    );
}

/// The cosine and the sine of an angle, as the reference implementation has them: the angle is rounded to `f32`, and both to
/// `f32`. They are computed in `f64` by code that is the same on every platform.
pub(crate) fn turn(angle: f32) -> (f32, f32) {
    let angle = f64::from(angle);
    (libm::cos(angle) as f32, libm::sin(angle) as f32)
}

/// The weights of an RMSNorm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm<'a> {
    /// One for each column.
    pub(crate) weight: &'a [f32],
    /// Added to the mean of squares.
    pub(crate) eps: f32,
}

/// How attention is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Numbers of a head.
    pub(crate) size: usize,
    /// Query heads that share a key and value head.
    pub(crate) group: usize,
}
