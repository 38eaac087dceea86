//! Linear layers of ternary weights, bound to the kernels that multiply by them.

use std::ops::RangeInclusive;

use bitnet_kernels::format::{Encoding, FormatError, Tiling};
use bitnet_kernels::manager::{Matrix, Product};
use bitnet_kernels::op::{
    GemmArgs, GemvArgs, HeadArgs, HeadFn, QuantizeArgs, QuantizeFn, interleave,
};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::{
    Bound, Calls, DataType, Device, Format, Kernel, KernelManager, Operation, Packed, Pool, format,
    packed,
};

use crate::Error;
use crate::gpu::GpuLinear;
use crate::matrix::FloatMatrix;
use crate::state::Quantized;

/// Matrix rows of a tile at least.
const TILE_ROWS: usize = 2 * packed::PAIR;

/// How outputs are cut into tiles: about as many multiply-adds each. What comes out does not depend on
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiles(pub(crate) usize);

impl Default for Tiles {
    /// Some microseconds, against which handing a tile to a thread is cheap.
    fn default() -> Tiles {
        Tiles(1 << 18)
    }
}

impl Tiles {
    /// What makes sense on any machine.
    pub(crate) const RANGE: RangeInclusive<usize> = 1 << 12..=1 << 26;

    /// Matrix rows of a tile whose rows cost `work` multiply-adds each; at least some panels, so that
    /// what a call costs in any case is little.
    pub(crate) fn rows(self, work: usize) -> usize {
        (self.0 / work.max(1)).max(TILE_ROWS).next_multiple_of(packed::PAIR)
    }
}

/// A linear layer of ternary weights and 8-bit activations, bound to kernels. `W` is what it holds
/// of weights: nothing yet, or all of them.
///
/// ```
/// use bitnet_inference::QuantizedLinear;
/// use bitnet_kernels::{Device, Format, KernelManager, Pool, format};
///
/// let manager = KernelManager::new();
/// // 128 features in, 2 out.
/// let layer = QuantizedLinear::new(128, 2, Some(Format::I2S), Device::Cpu, &manager)?;
/// // All +1 and all -1, times 0.5.
/// let weights = [[1; 128], [-1; 128]].concat();
/// let bytes = format::encode(Format::I2S, &weights, 2, 128, 0.5)?;
/// let layer = layer.load(&bytes, &Pool::alone())?;
///
/// let mut y = [0.0; 2];
/// layer.forward(&[1.0; 128], &mut y, &Pool::alone())?;
/// assert_eq!(y, [64.0, -64.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct QuantizedLinear<W = Packed> {
    /// The format of the weights in their file.
    format: Format,
    rows: usize,
    cols: usize,
    /// The layout in memory, and the kernels for it.
    product: Product,
    quantize: Bound<QuantizeFn>,
    weights: W,
}

impl QuantizedLinear<()> {
    /// Binds a layer with weights in `format`, of which nothing is unknown, to the best kernels.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedKernelConfiguration`] where `device` has none for such weights: the
    /// reasons are in it.
    pub fn new(
        in_features: usize,
        out_features: usize,
        format: Option<Format>,
        device: Device,
        manager: &KernelManager,
    ) -> Result<QuantizedLinear<()>, Error> {
        let bind = || {
            if device != Device::Cpu {
                // It has reasons of its own.
                manager.kernel_for(device, format, Operation::Gemv, DataType::Q8)?;
            }
            let matrix = Matrix { format, rows: out_features, cols: in_features };
            Ok((manager.product(matrix)?, manager.select(None)?))
        };
        let (product, quantize) = bind().map_err(Error::UnsupportedKernelConfiguration)?;
        // Without a format there is no product.
        let format = format.unwrap_or(product.layout);
        let (rows, cols) = (out_features, in_features);
        Ok(QuantizedLinear { format, rows, cols, product, quantize, weights: () })
    }

    /// Checks every byte of the weights `[out features, in features]`, and packs them for the
    /// kernels.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where the bytes are not such a matrix, or there is no memory for it.
    pub fn load(self, bytes: &[u8], pool: &Pool) -> Result<QuantizedLinear, FormatError> {
        self.load_tiled(bytes, None, pool)
    }

    /// [`QuantizedLinear::load`] for TL1 and TL2 whose tiles are not those of their shape.
    ///
    /// # Errors
    ///
    /// As there, and where the format has no tiles.
    pub fn load_tiled(
        self,
        bytes: &[u8],
        tiling: Option<Tiling>,
        pool: &Pool,
    ) -> Result<QuantizedLinear, FormatError> {
        let QuantizedLinear { format, rows, cols, product, quantize, .. } = self;
        let encoding = Encoding { format, tiling };
        let weights = Packed::new(encoding, bytes, (rows, cols), product.layout, pool)?;
        Ok(QuantizedLinear { format, rows, cols, product, quantize, weights })
    }
}

impl<W> QuantizedLinear<W> {
    /// The kernels, and the layout that they read.
    #[must_use]
    pub fn kernels(&self) -> &Product {
        &self.product
    }
}

impl QuantizedLinear {
    /// The same layer, with all weights multiplied by `side`.
    ///
    /// # Errors
    ///
    /// [`FormatError::Unscalable`] where they would not be finite, or vanish.
    pub fn scaled(self, side: f32) -> Result<QuantizedLinear, FormatError> {
        Ok(QuantizedLinear { weights: self.weights.scaled(side)?, ..self })
    }

    /// `y = x W^T` for activations `x` `[tokens, in features]`, which are quantised to 8 bits, row
    /// by row; `y` is `[tokens, out features]`.
    ///
    /// # Errors
    ///
    /// [`Error::Activations`] where the lengths of `x` and `y` are not those of as many rows,
    /// [`Error::Memory`].
    pub fn forward(&self, x: &[f32], y: &mut [f32], pool: &Pool) -> Result<(), Error> {
        let tokens = x.len() / self.cols;
        let (x_len, y_len) = (tokens * self.cols, tokens * self.rows);
        if (x.len(), y.len()) != (x_len, y_len) || tokens == 0 {
            let (inputs, outputs) = (self.cols, self.rows);
            return Err(Error::Activations { x: x.len(), y: y.len(), inputs, outputs });
        }
        self.product((&self.quantize(x)?, tokens), y, (pool, Tiles::default()));
        Ok(())
    }

    /// Rows of activations to 8 bits.
    pub(crate) fn quantize(&self, x: &[f32]) -> Result<Quantized, Error> {
        let mut q = Quantized::new(x.len() / self.cols, self.cols)?;
        let rows = x.chunks(self.cols).zip(q.data.chunks_mut(q.width)).zip(&mut q.scales[..]);
        for ((x, q), scale) in rows {
            (self.quantize.run)(QuantizeArgs { x, q: &mut q[..self.cols], scale });
        }
        interleave(&q.data, q.width, &mut q.fours);
        Ok(q)
    }

    /// The product with the first rows of `x`, as many as are given with it.
    pub(crate) fn product(
        &self,
        (x, tokens): (&Quantized, usize),
        y: &mut [f32],
        (pool, tiles): (&Pool, Tiles),
    ) {
        let grain = (tokens, tiles.rows(self.cols * tokens));
        let y = &mut y[..tokens * self.rows];
        pool.tiles(y, self.rows, grain, |tile| self.tile(x, tokens, tile));
    }

    /// Takes other kernels for the weights as they are packed.
    ///
    /// # Panics
    ///
    /// If they are for another layout.
    pub(crate) fn bind(&mut self, product: Product) {
        assert_eq!(product.layout, self.product.layout, "kernels of another layout");
        self.product = product;
    }

    /// Bytes of the weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// A tile of the product with the first `rows` rows of `x`.
    fn tile(&self, x: &Quantized, rows: usize, mut y: Tile<'_, f32>) {
        let (panels, scale) = (self.weights.panels(y.cols()), self.weights.scale());
        if rows == 1 {
            let (x_row, x_scale) = (x.data[..x.width].as_chunks().0, x.scales[0]);
            (self.product.gemv.run)(GemvArgs { panels, scale, x: x_row, x_scale, y: y.row(0) });
        } else {
            let fours = &x.fours[..rows.div_ceil(4) * x.width / 4];
            let x_scales = &x.scales[..rows];
            (self.product.gemm.run)(GemmArgs { panels, scale, x: fours, x_scales, y });
        }
    }
}

/// Formats whose weights have a scale for each group.
pub(crate) const GROUPED: [Format; 2] = [Format::Q2_0, Format::Q2_0G128];

/// A linear layer of a model.
#[derive(Debug)]
pub(crate) enum Linear {
    /// By kernels for ternary weights.
    Quantized(QuantizedLinear),
    /// The same on a GPU, which has the weights.
    OnGpu(GpuLinear),
    /// By a kernel for floating-point weights, because the user asked for it.
    Dequantized(DequantizedLinear),
    /// Weights of two bits with a scale for each group, and activations as numbers: models that were
    /// trained without 8-bit activations.
    Grouped(FloatMatrix),
}

/// The weights -1, 0 and 1 as numbers `[rows, cols]`, with activations as numbers too. Sums are
/// whole numbers that are exact up to 132,104 columns, so results are those of the ternary kernels.
#[derive(Debug)]
pub(crate) struct DequantizedLinear {
    format: Format,
    rows: usize,
    cols: usize,
    /// In half precision.
    weights: Vec<u8>,
    /// The scale of all weights.
    scale: f32,
    head: Bound<HeadFn>,
}

impl DequantizedLinear {
    /// Checks every byte of a ternary matrix in the format of a file, and widens it. All weights are
    /// multiplied by `side` besides.
    pub(crate) fn new(
        encoding: Encoding,
        bytes: &[u8],
        (rows, cols): (usize, usize),
        (side, head): (f32, Bound<HeadFn>),
    ) -> Result<DequantizedLinear, FormatError> {
        let scale = format::check(encoding, bytes, rows, cols)? * side;
        Format::F16.row_bytes(cols)?;
        let number = |t| half::f16::from_f32(f32::from(t)).to_le_bytes();
        let weights = format::decode(encoding, bytes, rows, cols)?.into_iter().flat_map(number);
        let format = encoding.format;
        Ok(DequantizedLinear { format, rows, cols, weights: weights.collect(), scale, head })
    }

    /// A tile of the product with the first `rows` rows of `x`.
    fn tile(&self, x: &Quantized, rows: usize, mut y: Tile<'_, f32>) {
        let (cols, bytes) = (self.cols, 2 * self.cols);
        let weights = &self.weights[y.cols().start * bytes..y.cols().end * bytes];
        (self.head.run)(HeadArgs { weights, x: &x.normed[..rows * cols], cols, y: y.reborrow() });
        for row in y.rows() {
            let scale = x.scales[row].scale;
            y.row(row).iter_mut().for_each(|y| *y = *y / scale * self.scale);
        }
    }
}

impl Linear {
    /// The same layer, whose weights have this format in their file.
    pub(crate) fn stored(mut self, format: Format) -> Linear {
        match &mut self {
            Linear::Quantized(linear) => linear.format = format,
            Linear::OnGpu(linear) => linear.set_format(format),
            Linear::Dequantized(linear) => linear.format = format,
            // It is computed with as it is stored.
            Linear::Grouped(_) => {}
        }
        self
    }

    /// Whether weights have a scale for each group.
    pub(crate) fn is_grouped(&self) -> bool {
        matches!(self, Linear::Grouped(_))
    }

    /// Output and input features.
    pub(crate) fn shape(&self) -> (usize, usize) {
        match self {
            Linear::Quantized(linear) => (linear.rows, linear.cols),
            Linear::OnGpu(linear) => linear.shape(),
            Linear::Dequantized(linear) => (linear.rows, linear.cols),
            Linear::Grouped(matrix) => (matrix.rows, matrix.cols),
        }
    }

    /// The format in the file.
    pub(crate) fn format(&self) -> Format {
        match self {
            Linear::Quantized(linear) => linear.format,
            Linear::OnGpu(linear) => linear.format(),
            Linear::Dequantized(linear) => linear.format,
            Linear::Grouped(matrix) => matrix.format,
        }
    }

    /// The name of the layout in memory.
    pub(crate) fn layout(&self) -> &'static str {
        match self {
            Linear::Quantized(linear) => linear.product.layout.name(),
            Linear::OnGpu(linear) => linear.layout(),
            Linear::Dequantized(_) => Format::F16.name(),
            Linear::Grouped(matrix) => matrix.format.name(),
        }
    }

    /// The kernels for one row and for several.
    pub(crate) fn kernels(&self) -> Option<[&'static Kernel; 2]> {
        match self {
            Linear::Quantized(linear) => {
                Some([linear.product.gemv.kernel, linear.product.gemm.kernel])
            }
            Linear::OnGpu(_) => None,
            Linear::Dequantized(linear) => Some([linear.head.kernel; 2]),
            Linear::Grouped(matrix) => Some([matrix.head.kernel; 2]),
        }
    }

    /// Their ids, on the device of this place among those that have the model.
    pub(crate) fn kernel_ids(&self, replica: usize) -> [String; 2] {
        match self {
            Linear::OnGpu(linear) => linear.kernels(replica).map(str::to_owned),
            _ => self.kernels().map(|kernels| kernels.map(ToString::to_string)).unwrap_or_default(),
        }
    }

    /// A tile of the product with the first `rows` rows of `x`.
    pub(crate) fn tile(&self, x: &Quantized, rows: usize, y: Tile<'_, f32>) {
        match self {
            Linear::Quantized(linear) => linear.tile(x, rows, y),
            Linear::OnGpu(_) => unreachable!("the processor has no weights of it"),
            Linear::Dequantized(linear) => linear.tile(x, rows, y),
            Linear::Grouped(matrix) => matrix.tile(&x.normed[..rows * x.cols], y),
        }
    }

    /// Bytes of the weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Linear::Quantized(linear) => linear.bytes(),
            Linear::OnGpu(linear) => linear.bytes(),
            Linear::Dequantized(linear) => linear.weights.len(),
            Linear::Grouped(matrix) => matrix.weights(0..matrix.rows).len(),
        }
    }

    /// Counts a product with some rows.
    pub(crate) fn count(&self, calls: &mut Calls, rows: usize) {
        match self {
            Linear::Quantized(linear) if rows == 1 => calls.add(&linear.product.gemv, 1),
            Linear::Quantized(linear) => calls.add(&linear.product.gemm, 1),
            // Launches are counted where they are enqueued.
            Linear::OnGpu(_) => {}
            Linear::Dequantized(linear) => calls.add(&linear.head, 1),
            Linear::Grouped(matrix) => calls.add(&matrix.head, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_have_rows_however_wide_they_are() {
        let usual = Tiles::default();
        assert_eq!(usual.rows(256), 1024);
        assert_eq!(usual.rows(2560), 128);
        assert_eq!(usual.rows(2560 * 128), 128);
        assert_eq!(usual.rows(usize::MAX), 128);
        for tile in [*Tiles::RANGE.start(), *Tiles::RANGE.end()] {
            let rows = Tiles(tile).rows(2560);
            assert!(rows >= TILE_ROWS && rows.is_multiple_of(packed::PAIR), "{tile}");
        }
    }
}
