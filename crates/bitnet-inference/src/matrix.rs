//! The floating-point matrix of a model, bound to the kernels that multiply by it.

use std::ops::Range;

use bitnet_gguf::Bytes;
use bitnet_kernels::op::{HeadArgs, HeadFn};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::shortlist::{Shortlist, ShortlistError};
use bitnet_kernels::{Bound, Format, Kernel, KernelManager, Pool};

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
    /// Binds a matrix to the best kernel, and condenses it where it is an output layer and that suits.
    pub(crate) fn new(
        bytes: Bytes,
        (rows, cols): (usize, usize),
        format: Format,
        (manager, pool, output): (&KernelManager, &Pool, bool),
    ) -> Result<FloatMatrix, ShortlistError> {
        let condensed = || Shortlist::new((format, &bytes), (rows, cols), manager, pool);
        let suits = output && Shortlist::suits(rows, cols);
        let shortlist = suits.then(condensed).transpose()?;
        Ok(FloatMatrix {
            bytes,
            rows,
            cols,
            format,
            head: manager.select(Some(format))?,
            shortlist,
        })
    }

    /// The kernels that multiply by it, or look for its greatest products.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = &'static Kernel> {
        let shortlist = self.shortlist.iter().flat_map(Shortlist::kernels);
        shortlist.chain([self.head.kernel])
    }

    /// A tile of the product with rows of numbers `x`.
    pub(crate) fn tile(&self, x: &[f32], y: Tile<'_, f32>) {
        (self.head.run)(HeadArgs { weights: self.weights(y.cols()), x, cols: self.cols, y });
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
