//! Floating-point weights to ternary matrices, as training does it.

use crate::format::{self, Encoding, Format, FormatError};
use crate::manager::{KernelManager, NoKernel};
use crate::op::{ABSMEAN_BLOCK, AbsmeanArgs, AbsmeanFn, TernarizeArgs, TernarizeFn, TernaryScale};
use crate::registry::Bound;

/// The kernels that make weights ternary, on one thread.
///
/// ```
/// use bitnet_kernels::{Format, KernelManager, format, ternarize::Ternarizer};
///
/// let weights = [0.5, -0.3, 0.8, -0.1].repeat(32);
/// let bytes = Ternarizer::select(&KernelManager::new())?.encode(Format::I2S, &weights, 1, 128)?;
/// // The scale is the mean of the absolute values, and -0.1 is nearest to zero.
/// assert!((format::check(Format::I2S, &bytes, 1, 128)? - 0.425).abs() < 1e-6);
/// assert_eq!(format::decode(Format::I2S, &bytes, 1, 128)?[..4], [1, -1, 1, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Ternarizer {
    absmean: Bound<AbsmeanFn>,
    codes: Bound<TernarizeFn>,
    i2s: Bound<TernarizeFn>,
}

impl Ternarizer {
    /// The best kernels that `cpu` can run.
    ///
    /// # Errors
    ///
    /// None on the processors there are: every one has these rows of the table.
    pub fn select(manager: &KernelManager) -> Result<Ternarizer, NoKernel> {
        Ok(Ternarizer {
            absmean: manager.select(None)?,
            codes: manager.select(None)?,
            i2s: manager.select(Some(Format::I2S))?,
        })
    }

    /// The scale of a whole matrix.
    ///
    /// # Errors
    ///
    /// [`FormatError::Number`] where a weight is not finite, or some are so great that the sum of
    /// 4096 is not.
    pub fn scale(&self, weights: &[f32]) -> Result<TernaryScale, FormatError> {
        let mut sums = vec![0.0; weights.len().div_ceil(ABSMEAN_BLOCK)];
        (self.absmean.run)(AbsmeanArgs { x: weights, sums: &mut sums });
        TernaryScale::new(&sums, weights.len()).ok_or_else(|| {
            let greatest = |a: usize, b: usize| match weights[b].abs() > weights[a].abs() {
                true => b,
                false => a,
            };
            let bad = weights.iter().position(|x| !x.is_finite());
            let index = bad.unwrap_or_else(|| (0..weights.len()).fold(0, greatest));
            FormatError::Number { index, value: weights[index] }
        })
    }

    /// The codes `t + 1`, one a byte, into `codes`, which is as long as `weights`.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn codes(&self, weights: &[f32], scale: TernaryScale, codes: &mut [u8]) {
        assert_eq!(weights.len(), codes.len(), "a code for each weight");
        (self.codes.run)(TernarizeArgs { x: weights, scale, codes });
    }

    /// Weights `[rows, cols]`, row-major, as the bytes of a ternary format.
    ///
    /// # Errors
    ///
    /// As [`Ternarizer::scale`] and [`format::encode`].
    ///
    /// # Panics
    ///
    /// If the format is not a ternary one.
    pub fn encode(
        &self,
        encoding: impl Into<Encoding>,
        weights: &[f32],
        rows: usize,
        cols: usize,
    ) -> Result<Vec<u8>, FormatError> {
        let encoding = encoding.into();
        let payload = format::payload(encoding, rows, cols)?;
        let (expected, found) = (rows.saturating_mul(cols), weights.len());
        if found != expected {
            return Err(FormatError::Weights { expected, found });
        }
        let scale = self.scale(weights)?;
        if encoding == Format::I2S.into() {
            let mut bytes = vec![0; payload];
            let (codes, tail) = bytes.split_at_mut(weights.len() / 4);
            (self.i2s.run)(TernarizeArgs { x: weights, scale, codes });
            tail[..4].copy_from_slice(&scale.d().to_le_bytes());
            return Ok(bytes);
        }
        let mut codes = vec![0; weights.len()];
        self.codes(weights, scale, &mut codes);
        // In place: the vector is used again.
        let ternary: Vec<i8> = codes.into_iter().map(|code| code.cast_signed() - 1).collect();
        format::encode(encoding, &ternary, rows, cols, scale.d())
    }
}
