//! Ternary matrices of a checkpoint, whatever they are stored as.

use std::borrow::Cow;

use bitnet_kernels::Format;
use bitnet_kernels::format::{self, Encoding, FormatError};
use bitnet_kernels::ternarize::Ternarizer;

use super::{Checkpoint, StoredTensor, Weights};
use crate::Error;

/// Which matrices of floating-point numbers are made ternary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ternarize {
    /// Those that were trained to be, or are already.
    Trained,
    /// All.
    All,
}

/// A matrix in a ternary format.
pub(super) struct Ternary<'a> {
    pub(super) encoding: Encoding,
    pub(super) bytes: Cow<'a, [u8]>,
    /// What its weights are multiplied by besides.
    pub(super) scale: f32,
    /// Where all are made ternary: what that changed in this one, relative to its weights.
    pub(super) error: Option<f64>,
}

impl Checkpoint {
    /// A matrix `[rows, cols]` in a ternary format: as it is stored, or made ternary as training does it
    /// if it is of floating-point numbers.
    ///
    /// # Errors
    ///
    /// Where it is of another type, damaged, or of numbers that were not trained to be ternary.
    pub(super) fn ternary<'w>(
        &self,
        (tensor, weights): (&StoredTensor, &'w Weights),
        encoding: Encoding,
        shape: (usize, usize),
        (ternarizer, which): (Ternarizer, Ternarize),
    ) -> Result<Ternary<'w>, Error> {
        let Weights { format, bytes } = weights;
        if Format::TERNARY.contains(format) {
            return Ok(Ternary { encoding, bytes: Cow::Borrowed(bytes), scale: 1.0, error: None });
        }
        if ![Format::F32, Format::F16, Format::Bf16].contains(format) {
            let expected = "I2_S, TQ1_0, TQ2_0 and other ternary types, and F32, F16 and BF16, which \
                            are made ternary";
            return Err(self.wrong_type(tensor, *format, expected));
        }
        let damaged = |source| self.damaged(tensor, source);
        let numbers = numbers(*format, bytes, shape.0.saturating_mul(shape.1)).map_err(damaged)?;
        let gguf = self.is_gguf();
        if let Some((weights, scale)) = gguf.then(|| exactly_ternary(&numbers)).flatten() {
            return Ternary::new(&weights, shape, scale).map_err(damaged);
        }
        if which == Ternarize::Trained && !self.trained() {
            let what = format!(
                "tensor `{}` at byte {} has floating-point weights that are not ternary, in an \
                 architecture that need not be: results would be noise unless it was trained for that",
                tensor.stored, tensor.offset
            );
            return Err(Error::Variant { file: self.file_of(tensor), what });
        }
        let scale = ternarizer.scale(&numbers).map_err(damaged)?;
        let mut codes = vec![0; numbers.len()];
        ternarizer.codes(&numbers, scale, &mut codes);
        let weights: Vec<i8> = codes.into_iter().map(|code| code.cast_signed() - 1).collect();
        let mut ternary = Ternary::new(&weights, shape, scale.d()).map_err(damaged)?;
        ternary.error =
            (which == Ternarize::All).then(|| relative_error(&numbers, &weights, scale.d()));
        Ok(ternary)
    }

    /// Whether a matrix of floating-point numbers has no values but zero and plus and minus one other.
    pub(super) fn is_exactly_ternary(
        &self,
        tensor: &StoredTensor,
        Weights { format, bytes }: &Weights,
    ) -> Result<bool, Error> {
        let len = usize::try_from(tensor.elements()).unwrap_or(usize::MAX);
        let numbers = numbers(*format, bytes, len).map_err(|e| self.damaged(tensor, e))?;
        Ok(exactly_ternary(&numbers).is_some())
    }

    /// What all weights of a linear layer are multiplied by besides, which is `needed` where the format
    /// has no scale.
    pub(super) fn side_scale(&self, linear: &str, needed: bool) -> Result<f32, Error> {
        let name = format!("{linear}.scale");
        let Some(tensor) = self.tensor(&name) else {
            let weights = self.tensor(&format!("{linear}.weight")).filter(|_| needed);
            return match weights {
                Some(weights) => Err(Error::MissingTensor {
                    file: self.file_of(weights),
                    tensor: format!("{}_scale", weights.stored),
                }),
                None => Ok(1.0),
            };
        };
        if tensor.dims != [1] {
            return Err(self.wrong_shape(tensor, &[1]));
        }
        let Weights { format, bytes } = self.float(tensor)?;
        let found = numbers(format, &bytes, 1).map_err(|e| self.damaged(tensor, e))?[0];
        let scale = if self.scales_divide() { 1.0 / found } else { found };
        match scale.is_finite() {
            true => Ok(scale),
            false => Err(self.not_finite(tensor, 0, found)),
        }
    }

    /// The format and the bytes of a floating-point tensor.
    pub(super) fn float(&self, tensor: &StoredTensor) -> Result<Weights, Error> {
        let weights = self.weights(tensor)?;
        if Format::FLOAT.contains(&weights.format) {
            return Ok(weights);
        }
        let expected = "types of floating-point numbers, such as F16";
        Err(self.wrong_type(tensor, weights.format, expected))
    }

    pub(super) fn wrong_shape(&self, tensor: &StoredTensor, expected: &[u64]) -> Error {
        Error::Shape {
            file: self.file_of(tensor),
            tensor: tensor.stored.clone(),
            offset: tensor.offset,
            found: tensor.dims.clone(),
            expected: expected.to_vec(),
        }
    }

    pub(super) fn not_finite(&self, tensor: &StoredTensor, index: usize, value: f32) -> Error {
        Error::NotFiniteWeight {
            file: self.file_of(tensor),
            tensor: tensor.stored.clone(),
            offset: tensor.offset,
            index,
            value,
        }
    }

    pub(super) fn wrong_type(
        &self,
        tensor: &StoredTensor,
        found: Format,
        expected: &'static str,
    ) -> Error {
        Error::TensorType {
            file: self.file_of(tensor),
            tensor: tensor.stored.clone(),
            offset: tensor.offset,
            found: found.ggml_name().to_owned(),
            expected,
        }
    }

    pub(super) fn damaged(&self, tensor: &StoredTensor, source: FormatError) -> Error {
        Error::Tensor {
            file: self.file_of(tensor),
            tensor: tensor.stored.clone(),
            offset: tensor.offset,
            source,
        }
    }
}

impl Ternary<'_> {
    /// A matrix of these weights.
    fn new(
        weights: &[i8],
        (rows, cols): (usize, usize),
        scale: f32,
    ) -> Result<Ternary<'static>, FormatError> {
        // It suits the most shapes.
        let format = Format::HfPacked;
        let bytes = format::encode(format, weights, rows, cols, 1.0)?.into();
        Ok(Ternary { encoding: format.into(), bytes, scale, error: None })
    }

    /// The same with the odd rows of each head behind the even ones.
    pub(super) fn apart(
        &self,
        (rows, cols): (usize, usize),
        head_size: usize,
    ) -> Result<Ternary<'static>, FormatError> {
        let scale = format::check(self.encoding, &self.bytes, rows, cols)?;
        let weights = format::decode(self.encoding, &self.bytes, rows, cols)?;
        let apart = rows_apart(&weights, cols, head_size);
        let apart = Ternary::new(&apart, (rows, cols), self.scale * scale)?;
        Ok(Ternary { error: self.error, ..apart })
    }
}

/// Rows of `len` items, with the odd rows of each head behind the even ones.
pub(super) fn rows_apart<T: Copy>(rows: &[T], len: usize, head_size: usize) -> Vec<T> {
    let mut apart = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(head_size * len) {
        for half in [0, 1] {
            head.chunks_exact(len).skip(half).step_by(2).for_each(|row| apart.extend(row));
        }
    }
    apart
}

/// Rows of `len` items in the order they had before [`rows_apart`].
pub(crate) fn rows_together<T: Copy>(rows: &[T], len: usize, head_size: usize) -> Vec<T> {
    let mut together = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact(head_size * len) {
        let (even, odd) = head.split_at(head_size / 2 * len);
        for pair in even.chunks_exact(len).zip(odd.chunks_exact(len)) {
            together.extend(pair.0);
            together.extend(pair.1);
        }
    }
    together
}

/// Numbers of a vector in a floating-point format.
pub(super) fn numbers(format: Format, bytes: &[u8], len: usize) -> Result<Vec<f32>, FormatError> {
    let (numbers, block) = format.block();
    // These have no blocks: a vector of any length is whole.
    let size = match format {
        Format::F32 | Format::F16 | Format::Bf16 => block / numbers,
        _ => {
            format::check(format, bytes, 1, len)?;
            let mut out = vec![0.0; len];
            format::widen(format, bytes, &mut out);
            return Ok(out);
        }
    };
    let expected = len.saturating_mul(size);
    if bytes.len() != expected {
        return Err(FormatError::Length { format, expected, found: bytes.len() });
    }
    Ok(bytes
        .chunks_exact(size)
        .map(|x| match *x {
            [a, b] if format == Format::F16 => half::f16::from_le_bytes([a, b]).to_f32(),
            [a, b] => half::bf16::from_le_bytes([a, b]).to_f32(),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            _ => f32::NAN,
        })
        .collect())
}

/// The root of the mean square of what making weights ternary changed, relative to theirs.
fn relative_error(numbers: &[f32], weights: &[i8], scale: f32) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let change: f64 =
        numbers.iter().zip(weights).map(|(&x, &w)| square(x - scale * f32::from(w))).sum();
    let all: f64 = numbers.iter().map(|&x| square(x)).sum();
    if all > 0.0 { (change / all).sqrt() } else { 0.0 }
}

/// The weights and the scale of a matrix of numbers that are all zero, or plus or minus one other.
fn exactly_ternary(numbers: &[f32]) -> Option<(Vec<i8>, f32)> {
    let scale = numbers.iter().find(|x| **x != 0.0)?.abs();
    let weight = |x: &f32| match *x / scale {
        0.0 => Some(0),
        1.0 => Some(1),
        -1.0 => Some(-1),
        _ => None,
    };
    Some((numbers.iter().map(weight).collect::<Option<_>>()?, scale))
}
