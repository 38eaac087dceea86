//! What the tensors of a checkpoint hold, whatever they are stored as: for all that does not compute
//! with them.

use std::ops::Range;

use bitnet_kernels::format::{self, Encoding, FormatError};
use bitnet_kernels::ternarize::Ternarizer;
use bitnet_kernels::{Format, KernelManager};
use sha2::{Digest, Sha256};

use super::names::is_linear;
use super::ternary::{Ternarize, numbers, rows_together};
use super::{Checkpoint, ReadAs, StoredTensor, Weights};
use crate::{Error, sha256};

/// Reads what the tensors of a [`Checkpoint`] hold: each ternary matrix as weights and one scale, the
/// others as numbers. Two checkpoints hold the same model if these are the same, whatever their formats.
///
/// ```no_run
/// use bitnet_inference::{Checkpoint, Contents};
///
/// let checkpoint = Checkpoint::open("model.gguf")?;
/// let contents = Contents::new(&checkpoint, None)?;
/// for tensor in checkpoint.tensors() {
///     if contents.is_ternary(tensor)? {
///         let matrix = contents.matrix(tensor)?;
///         println!("{}: {} x {}, scale {}", tensor.name, matrix.rows, matrix.cols, matrix.scale);
///     }
/// }
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    checkpoint: &'a Checkpoint,
    read_as: Option<ReadAs>,
    ternarize: Ternarize,
    ternarizer: Ternarizer,
    /// Rows of a head, where GGUF has those of query and key matrices in another order than training.
    head_rows: Option<usize>,
    /// What the weights of norms are more in GGUF than in folders.
    norm_offset: f32,
}

/// A ternary matrix: the weight in row `i` and column `j` is `scale * weights[i * cols + j]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TernaryMatrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// `[rows, cols]`, row-major, each -1, 0 or 1; rows in the order of training.
    pub weights: Vec<i8>,
    /// What they are multiplied by.
    pub scale: f32,
    /// Of weights that were made ternary now: the root of the mean square of what that changed,
    /// relative to that of the weights.
    pub error: Option<f64>,
}

impl TernaryMatrix {
    /// SHA-256 of its scale, in four bytes, little end first, and of its weights plus one, one byte each,
    /// in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.scale.to_le_bytes());
        for weights in self.weights.chunks(1 << 16) {
            let codes: Vec<u8> = weights.iter().map(|w| (w + 1).cast_unsigned()).collect();
            digest.update(&codes);
        }
        sha256::finish(digest)
    }
}

/// What [`Contents::ternary_sha256`] is of matrices with these names and hashes.
#[must_use]
pub fn ternary_sha256(mut sums: Vec<(&str, String)>) -> String {
    sums.sort();
    let line = |(name, sum)| format!("{sum}  {name}\n");
    sha256::sha256(sums.into_iter().map(line).collect::<String>())
}

impl<'a> Contents<'a> {
    /// What a checkpoint holds, with ternary weights that lie as `read_as` says.
    ///
    /// # Errors
    ///
    /// Where the checkpoint is of architecture `llama`, whose rows may be in another order, and does not
    /// say how large heads are.
    pub fn new(checkpoint: &'a Checkpoint, read_as: Option<ReadAs>) -> Result<Contents<'a>, Error> {
        let architecture = checkpoint.architecture()?;
        let head_rows = match architecture {
            "llama" => Some(checkpoint.any_config()?.head_size),
            _ => None,
        };
        Ok(Contents {
            checkpoint,
            read_as,
            ternarize: Ternarize::Trained,
            ternarizer: Ternarizer::select(&KernelManager::new())?,
            head_rows,
            norm_offset: if architecture == "gemma3" { 1.0 } else { 0.0 },
        })
    }

    /// The same, with floating-point matrices of linear layers made ternary by the mean of their absolute
    /// values, whether or not they were trained for that.
    #[must_use]
    pub fn quantized(self) -> Contents<'a> {
        Contents { ternarize: Ternarize::All, ..self }
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// Whether a tensor is a ternary matrix, or would be made one when the model is loaded.
    ///
    /// # Errors
    ///
    /// Where its type is not known, or it is damaged.
    pub fn is_ternary(&self, tensor: &StoredTensor) -> Result<bool, Error> {
        let weights = self.checkpoint.weights(tensor)?;
        if Format::TERNARY.contains(&weights.format) {
            return Ok(true);
        }
        let plain = [Format::F32, Format::F16, Format::Bf16].contains(&weights.format);
        let candidate = plain && is_linear(&tensor.name) && tensor.dims.len() == 2;
        if !candidate || self.ternarize == Ternarize::All || self.checkpoint.trained() {
            return Ok(candidate);
        }
        // They may have been made ternary before they were written.
        self.checkpoint.is_exactly_ternary(tensor, &weights)
    }

    /// The matrix whose scale a tensor is, if it is one beside a ternary matrix: it is a part of that.
    #[must_use]
    pub fn scale_of(&self, tensor: &StoredTensor) -> Option<&'a StoredTensor> {
        let linear = tensor.name.strip_suffix(".scale")?;
        self.checkpoint.tensor(&format!("{linear}.weight"))
    }

    /// A ternary matrix.
    ///
    /// # Errors
    ///
    /// Where the tensor is not one, or is damaged.
    pub fn matrix(&self, tensor: &StoredTensor) -> Result<TernaryMatrix, Error> {
        let damaged = |error| self.checkpoint.damaged(tensor, error);
        let (weights, (rows, cols)) = (self.checkpoint.weights(tensor)?, self.shape(tensor)?);
        let name = linear_name(tensor);
        let side = self.checkpoint.side_scale(name, weights.format == Format::HfPacked)?;
        let encoding = self.encoding(weights.format);
        let found = (tensor, &weights);
        let ternary = (self.ternarizer, self.ternarize);
        let mut matrix = self.checkpoint.ternary(found, encoding, (rows, cols), ternary)?;
        if let Some(head_rows) = self.head_rows(name).filter(|_| self.checkpoint.is_gguf()) {
            matrix = matrix.apart((rows, cols), head_rows).map_err(damaged)?;
        }
        let scale = format::check(matrix.encoding, &matrix.bytes, rows, cols).map_err(damaged)?;
        let codes = format::decode(matrix.encoding, &matrix.bytes, rows, cols).map_err(damaged)?;
        weights.bytes.evict();
        Ok(TernaryMatrix {
            rows,
            cols,
            weights: codes,
            scale: scale * (side * matrix.scale),
            error: matrix.error,
        })
    }

    /// The rows of a tensor in pieces that [`Contents::numbers`] reads without filling the memory. A
    /// vector is one row.
    ///
    /// # Errors
    ///
    /// Where it is neither a vector nor a matrix.
    pub fn pieces(
        &self,
        tensor: &StoredTensor,
    ) -> Result<impl Iterator<Item = Range<usize>>, Error> {
        /// Numbers at a time, about: pages that only a part of a piece is on stay in memory.
        const PIECE: usize = 1 << 22;
        let (rows, cols) = self.shape(tensor)?;
        let step = (PIECE / cols.max(1)).max(1);
        Ok((0..rows).step_by(step).map(move |first| first..rows.min(first + step)))
    }

    /// The numbers of some rows of a tensor that is not ternary, as GGUF has them.
    ///
    /// # Errors
    ///
    /// Where its type is not known, it is damaged, does not have these rows, or a number is not finite.
    pub fn numbers(&self, tensor: &StoredTensor, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        let damaged = |error| self.checkpoint.damaged(tensor, error);
        let Weights { format, bytes } = self.checkpoint.float(tensor)?;
        let (all, cols) = self.shape(tensor)?;
        let row_bytes = row_bytes(format, cols).map_err(damaged)?;
        let expected = row_bytes.saturating_mul(all.max(rows.end));
        if bytes.len() != expected {
            return Err(damaged(FormatError::Length { format, expected, found: bytes.len() }));
        }
        let piece = bytes.slice(rows.start * row_bytes..rows.end * row_bytes);
        let mut numbers = numbers(format, &piece, rows.len() * cols).map_err(damaged)?;
        if !self.checkpoint.is_gguf() {
            let offset = self.norm_offset(tensor);
            // It could make a zero of another sign.
            if offset != 0.0 {
                numbers.iter_mut().for_each(|x| *x += offset);
            }
        }
        piece.evict();
        match numbers.iter().position(|x| !x.is_finite()) {
            None => Ok(numbers),
            Some(at) => {
                let index = rows.start * cols + at;
                Err(self.checkpoint.not_finite(tensor, index, numbers[at]))
            }
        }
    }

    /// SHA-256 of all ternary matrices, whatever they are stored as, in hexadecimal: that of a list of
    /// [`TernaryMatrix::sha256`] as `sha256sum` prints it, in the order of their names.
    ///
    /// # Errors
    ///
    /// As [`Contents::matrix`].
    pub fn ternary_sha256(&self) -> Result<String, Error> {
        let mut sums = Vec::new();
        for tensor in self.checkpoint.tensors() {
            if self.is_ternary(tensor)? {
                sums.push((&*tensor.name, self.matrix(tensor)?.sha256()));
            }
        }
        Ok(ternary_sha256(sums))
    }

    /// Rows of a head of query and key matrices in architecture `llama`, which GGUF has in another order
    /// than training.
    fn head_rows(&self, linear: &str) -> Option<usize> {
        self.head_rows.filter(|_| turned(linear))
    }

    /// Matrices as GGUF has them: with the rows of heads in its order.
    pub(crate) fn in_gguf(&self, tensor: &StoredTensor, matrix: TernaryMatrix) -> TernaryMatrix {
        match self.head_rows(linear_name(tensor)) {
            None => matrix,
            Some(head_rows) => TernaryMatrix {
                weights: rows_together(&matrix.weights, matrix.cols, head_rows),
                ..matrix
            },
        }
    }

    /// Whether it is known how GGUF has a tensor: under which name, and in which order.
    pub(crate) fn has_gguf_form(&self, tensor: &StoredTensor) -> bool {
        let linear = tensor.name.strip_suffix(".bias");
        let reordered = self.head_rows.is_some() && linear.is_some_and(turned);
        self.checkpoint.is_gguf() || tensor.name != tensor.stored && !reordered
    }

    /// What folders have less in the weights of a norm than GGUF.
    pub(crate) fn norm_offset(&self, tensor: &StoredTensor) -> f32 {
        if is_norm(tensor) { self.norm_offset } else { 0.0 }
    }

    fn encoding(&self, format: Format) -> Encoding {
        self.read_as.and_then(|layout| layout.encoding(format)).unwrap_or_else(|| format.into())
    }

    /// Rows and columns of a matrix; a vector is one row.
    fn shape(&self, tensor: &StoredTensor) -> Result<(usize, usize), Error> {
        let size = |dim: u64| usize::try_from(dim).ok();
        let shape = match tensor.dims[..] {
            [cols] => size(cols).map(|cols| (1, cols)),
            [cols, rows] => size(rows).zip(size(cols)),
            _ => None,
        };
        shape.ok_or_else(|| {
            let what = format!(
                "tensor `{}` at byte {} has shape {:?}; only vectors and matrices are known",
                tensor.stored, tensor.offset, tensor.dims
            );
            Error::Variant { file: self.checkpoint.file_of(tensor), what }
        })
    }
}

/// The name of a linear layer, of which a tensor is the weights.
fn linear_name(tensor: &StoredTensor) -> &str {
    tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name)
}

/// Whether positions turn what a linear layer gives.
pub(super) fn turned(linear: &str) -> bool {
    linear.ends_with("attn_q") || linear.ends_with("attn_k")
}

/// Whether a tensor is the weights of a norm of the architecture.
fn is_norm(tensor: &StoredTensor) -> bool {
    tensor.name.ends_with("_norm.weight")
}

/// Bytes of a row of numbers.
fn row_bytes(format: Format, cols: usize) -> Result<usize, FormatError> {
    let (numbers, bytes) = format.block();
    match format {
        // These have no blocks: rows of any length are whole.
        Format::F32 | Format::F16 | Format::Bf16 => Ok(cols.saturating_mul(bytes / numbers)),
        _ => format.row_bytes(cols),
    }
}
