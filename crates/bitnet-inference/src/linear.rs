//! Matrices, bound to the kernels that multiply by them.

use std::ops::Range;

use bitnet_gguf::Bytes;
use bitnet_kernels::op::{GemmFn, GemvFn, HeadFn};
use bitnet_kernels::shortlist::{Shortlist, ShortlistError};
use bitnet_kernels::{Bound, Cpu, Format, NoKernel, Packed, Pool, select};

/// A ternary weight matrix `[rows, cols]`, packed for the kernels it is bound to.
#[derive(Debug)]
pub(crate) struct QuantizedLinear {
    /// The weights.
    pub(crate) packed: Packed,
    /// The layout they had in the file.
    pub(crate) format: Format,
    /// For one row of activations.
    pub(crate) gemv: Bound<GemvFn>,
    /// For several.
    pub(crate) gemm: Bound<GemmFn>,
}

impl QuantizedLinear {
    /// Binds a matrix to the best kernels of `cpu`.
    pub(crate) fn new(
        packed: Packed,
        format: Format,
        cpu: &Cpu,
    ) -> Result<QuantizedLinear, NoKernel> {
        let layout = Some(packed.layout());
        Ok(QuantizedLinear {
            packed,
            format,
            gemv: select(layout, cpu)?,
            gemm: select(layout, cpu)?,
        })
    }
}

/// A floating-point matrix `[rows, cols]`, in the bytes of the file: embeddings and output layer.
#[derive(Debug)]
pub(crate) struct FloatMatrix {
    bytes: Bytes,
    /// Rows: tokens of the vocabulary.
    pub(crate) rows: usize,
    /// Numbers of a row.
    pub(crate) cols: usize,
    /// The layout of the bytes.
    pub(crate) format: Format,
    /// Multiplies by it.
    pub(crate) head: Bound<HeadFn>,
    /// Finds its greatest products, where it is large.
    pub(crate) shortlist: Option<Shortlist>,
}

impl FloatMatrix {
    /// Binds a matrix to the best kernel of `cpu`, and condenses it where that suits.
    pub(crate) fn new(
        bytes: Bytes,
        (rows, cols): (usize, usize),
        format: Format,
        (cpu, pool): (&Cpu, &Pool),
    ) -> Result<FloatMatrix, ShortlistError> {
        let condensed = || Shortlist::new((format, &bytes), (rows, cols), cpu, pool);
        let shortlist = Shortlist::suits(rows, cols).then(condensed).transpose()?;
        Ok(FloatMatrix { bytes, rows, cols, format, head: select(Some(format), cpu)?, shortlist })
    }

    /// The bytes of some rows.
    pub(crate) fn weights(&self, rows: Range<usize>) -> &[u8] {
        slice_rows(&self.bytes, self.format, self.cols, rows)
    }
}

fn slice_rows(bytes: &[u8], format: Format, cols: usize, rows: Range<usize>) -> &[u8] {
    let (weights, size) = format.block();
    let row = cols / weights * size;
    &bytes[rows.start * row..rows.end * row]
}
