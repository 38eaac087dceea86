//! Weights from a checkpoint, checked and bound to the kernels that compute with them.
//!
//! Matrices of floating-point numbers stay in the mapped file; every byte of a ternary one is checked
//! here, once. Tensors that the architecture does not have are refused: leaving them out would give
//! other results.

use std::collections::HashSet;

use bitnet_gguf::Bytes;
use bitnet_kernels::format::{self, Encoding, FormatError};
use bitnet_kernels::op::HeadFn;
use bitnet_kernels::shortlist::ShortlistError;
use bitnet_kernels::ternarize::Ternarizer;
use bitnet_kernels::{Bound, Device, Format, KernelManager, Pool};

use super::contents::turned;
use super::ternary::{Ternarize, Ternary, numbers, rows_apart};
use super::{Checkpoint, ReadAs, StoredTensor, Weights};
use crate::gpu::Sink;
use crate::linear::{DequantizedLinear, GROUPED, Linear, QuantizedLinear};
use crate::matrix::FloatMatrix;
use crate::{Config, Error, Notice};

/// Takes the tensors of a model out of a checkpoint.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    /// The kernel of linear layers that are dequantised.
    dequantize: Option<Bound<HeadFn>>,
    /// The layout that the user has said, and whether there were such weights.
    read_as: Option<(ReadAs, bool)>,
    /// Whether tiles were taken that nobody has said.
    tiles: bool,
    ternarizer: Ternarizer,
    manager: &'a KernelManager,
    pool: &'a Pool,
    used: HashSet<&'a str>,
    /// Where ternary matrices go, if a GPU computes.
    gpu: Option<&'a mut Sink>,
}

impl<'a> Loader<'a> {
    /// Takes nothing yet. Linear layers get kernels for floating-point weights if they are to be
    /// dequantised.
    ///
    /// # Errors
    ///
    /// Where there are no kernels.
    pub(crate) fn new(
        (checkpoint, config): (&'a Checkpoint, &'a Config),
        (dequantize, read_as): (bool, Option<ReadAs>),
        (manager, pool): (&'a KernelManager, &'a Pool),
        gpu: Option<&'a mut Sink>,
    ) -> Result<Loader<'a>, Error> {
        let dequantize = dequantize.then(|| manager.select(Some(Format::F16))).transpose()?;
        Ok(Loader {
            checkpoint,
            config,
            dequantize,
            read_as: read_as.map(|layout| (layout, false)),
            tiles: false,
            ternarizer: Ternarizer::select(manager)?,
            manager,
            pool,
            used: HashSet::new(),
            gpu,
        })
    }

    /// Hyper-parameters of the model.
    pub(crate) fn config(&self) -> &'a Config {
        self.config
    }

    /// The model, as messages have it.
    pub(crate) fn file(&self) -> &'a str {
        self.checkpoint.name()
    }

    /// A linear layer `[rows, cols]`, of which this is the name without `.weight`.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        (rows, cols): (usize, usize),
    ) -> Result<Linear, Error> {
        let tensor = self.find(&format!("{name}.weight"), &[cols as u64, rows as u64])?;
        let weights = self.checkpoint.weights(tensor)?;
        if GROUPED.contains(&weights.format) {
            // A scale beside it has no place here, and is refused like all that is not taken.
            return self.grouped(tensor, weights, (rows, cols), self.interleaved(name));
        }
        let side = self.side_scale(name, weights.format == Format::HfPacked)?;
        let encoding = self.encoding(weights.format);
        let stored = encoding.format;
        let shape = (rows, cols);
        let ternarize = (self.ternarizer, Ternarize::Trained);
        let mut ternary =
            self.checkpoint.ternary((tensor, &weights), encoding, shape, ternarize)?;
        let damaged = |error| self.checkpoint.damaged(tensor, error);
        if let Some(head_size) = self.interleaved(name) {
            ternary = ternary.apart(shape, head_size).map_err(damaged)?;
        }
        let Ternary { encoding, bytes, scale, .. } = ternary;
        let side = side * scale;
        let linear = match self.dequantize {
            Some(head) => {
                let linear = DequantizedLinear::new(encoding, &bytes, (rows, cols), (side, head));
                Linear::Dequantized(linear.map_err(damaged)?)
            }
            None if let Some(gpu) = &mut self.gpu => {
                let linear = gpu.put((encoding, &bytes), shape, side)?;
                Linear::OnGpu(linear.map_err(damaged)?)
            }
            None => {
                let linear = QuantizedLinear::new(
                    cols,
                    rows,
                    Some(encoding.format),
                    Device::Cpu,
                    self.manager,
                )?
                .load_tiled(&bytes, encoding.tiling, self.pool)
                .and_then(|linear| linear.scaled(side))
                .map_err(damaged)?;
                Linear::Quantized(linear)
            }
        };
        weights.bytes.evict();
        Ok(linear.stored(stored))
    }

    /// Rows of a head, if its even ones are the first half and its odd ones the second. Of what positions
    /// turn, GGUF has them so in architecture `llama`.
    fn interleaved(&self, name: &str) -> Option<usize> {
        let llama = self.checkpoint.is_gguf() && self.config().architecture == "llama";
        (turned(name) && llama).then_some(self.config().head_size)
    }

    /// A linear layer whose weights have a scale for each group.
    fn grouped(
        &self,
        tensor: &StoredTensor,
        weights: Weights,
        (rows, cols): (usize, usize),
        interleaved: Option<usize>,
    ) -> Result<Linear, Error> {
        let Weights { format, mut bytes } = weights;
        let damaged = |source| self.checkpoint.damaged(tensor, source);
        format::check(format, &bytes, rows, cols).map_err(damaged)?;
        let row_bytes = format.row_bytes(cols).map_err(damaged)?;
        if let Some(offset) = bad_scale(format, &bytes) {
            let value = half::f16::from_le_bytes([bytes[offset], bytes[offset + 1]]).to_f32();
            return Err(damaged(FormatError::Scale { offset, value }));
        }
        if let Some(head_size) = interleaved {
            bytes = Bytes::from(rows_apart(&bytes, row_bytes, head_size));
        }
        self.bind(tensor, Weights { format, bytes }, (rows, cols), false).map(Linear::Grouped)
    }

    /// Binds a matrix of numbers to its kernels; an output layer to those that find the greatest
    /// products, too.
    fn bind(
        &self,
        tensor: &StoredTensor,
        Weights { format, bytes }: Weights,
        shape: (usize, usize),
        output: bool,
    ) -> Result<FloatMatrix, Error> {
        let kernels = (self.manager, self.pool, output);
        FloatMatrix::new(bytes, shape, format, kernels).map_err(|error| match error {
            ShortlistError::Kernel(missing) => missing.into(),
            ShortlistError::Format(source) => self.checkpoint.damaged(tensor, source),
        })
    }

    /// How weights lie that the file has as `format`.
    fn encoding(&mut self, format: Format) -> Encoding {
        if let Some((read_as, found)) = &mut self.read_as
            && let Some(encoding) = read_as.encoding(format)
        {
            *found = true;
            return encoding;
        }
        self.tiles |= matches!(format, Format::Tl1 | Format::Tl2);
        format.into()
    }

    /// What all weights of a linear layer are multiplied by besides, which is `needed` where the format
    /// has no scale.
    fn side_scale(&mut self, name: &str, needed: bool) -> Result<f32, Error> {
        if let Some(tensor) = self.checkpoint.tensor(&format!("{name}.scale")) {
            self.used.insert(&tensor.name);
        }
        self.checkpoint.side_scale(name, needed)
    }

    /// Whether the model has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some()
    }

    /// The embeddings `[vocabulary, hidden]` of a model whose output layer is another matrix.
    pub(crate) fn embedding(&mut self) -> Result<FloatMatrix, Error> {
        self.table("token_embd.weight", false)
    }

    /// An output layer `[vocabulary, hidden]`.
    pub(crate) fn output(&mut self, name: &str) -> Result<FloatMatrix, Error> {
        self.table(name, true)
    }

    fn table(&mut self, name: &str, output: bool) -> Result<FloatMatrix, Error> {
        let c = self.config();
        let found = self.checkpoint.tensor(name).and_then(|t| t.dims.get(1).copied()).unwrap_or(1);
        let rows = c.vocabulary.map_or(found, |rows| rows as u64);
        let tensor = self.find(name, &[c.hidden as u64, rows])?;
        let weights = self.checkpoint.float(tensor)?;
        let (shape, bytes) = ((rows as usize, c.hidden), weights.bytes.clone());
        format::check(weights.format, &bytes, shape.0, shape.1)
            .map_err(|e| self.checkpoint.damaged(tensor, e))?;
        let matrix = self.bind(tensor, weights, shape, output);
        bytes.evict();
        matrix
    }

    /// An output layer beside embeddings that are the output layer must be the same again.
    pub(crate) fn tied(&mut self, embedding: &FloatMatrix) -> Result<(), Error> {
        let Some(output) = self.checkpoint.tensor("output.weight") else {
            let file = || self.file().to_owned();
            let missing = || Error::MissingTensor { file: file(), tensor: "lm_head.weight".into() };
            return if self.checkpoint.has_own_output() { Err(missing()) } else { Ok(()) };
        };
        self.used.insert(&output.name);
        let shape = [embedding.cols as u64, embedding.rows as u64];
        let same = output.dims == shape && {
            let Weights { format, bytes } = self.checkpoint.weights(output)?;
            format == embedding.format && bytes[..] == *embedding.weights(0..embedding.rows)
        };
        if same {
            return Ok(());
        }
        Err(Error::Variant {
            file: self.checkpoint.file_of(output),
            what: format!(
                "tensor `{}` at byte {} differs from the embeddings; this architecture uses one table \
                 for both: convert the model again",
                output.stored, output.offset
            ),
        })
    }

    /// The weights of a norm of the architecture. Checkpoints of Gemma have them less one, as they are
    /// trained.
    pub(crate) fn norm(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let mut weights = self.vector(name, len)?;
        let offset = self.checkpoint.norm_offset(&self.config().architecture);
        if offset != 0.0 {
            weights.iter_mut().for_each(|weight| *weight += offset);
        }
        Ok(weights)
    }

    /// A tensor of one dimension, widened. Its numbers must be finite.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.find(name, &[len as u64])?;
        let Weights { format, bytes } = self.checkpoint.float(tensor)?;
        let out = numbers(format, &bytes, len).map_err(|e| self.checkpoint.damaged(tensor, e))?;
        match out.iter().position(|x| !x.is_finite()) {
            None => Ok(out),
            Some(index) => Err(self.checkpoint.not_finite(tensor, index, out[index])),
        }
    }

    /// `base^(-2i / size)` for each pair of a head, divided by the model's factors if it has some.
    pub(crate) fn frequencies(&mut self, base: f32) -> Result<Vec<f32>, Error> {
        let size = self.config().head_size;
        let exponent = |i: usize| f64::from((2 * i) as f32 / size as f32);
        let power = |i| libm::pow(f64::from(base), exponent(i)) as f32;
        let mut frequencies: Vec<f32> = (0..size / 2).map(|i| 1.0 / power(i)).collect();
        if self.checkpoint.tensor("rope_freqs.weight").is_some() {
            let factors = self.vector("rope_freqs.weight", size / 2)?;
            frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
        }
        if frequencies.iter().all(|f| f.is_finite()) {
            return Ok(frequencies);
        }
        Err(Error::Variant {
            file: self.checkpoint.name().to_owned(),
            what: format!("rotary frequencies of base {base} are not finite; the file is damaged"),
        })
    }

    /// The tensor `name`, which must have the dimensions `dims`, fastest first.
    fn find(&mut self, name: &str, dims: &[u64]) -> Result<&'a StoredTensor, Error> {
        let Some(tensor) = self.checkpoint.tensor(name) else {
            let file = self.checkpoint.name().to_owned();
            return Err(Error::MissingTensor { file, tensor: name.to_owned() });
        };
        if tensor.dims != dims {
            return Err(self.checkpoint.wrong_shape(tensor, dims));
        }
        self.used.insert(&tensor.name);
        Ok(tensor)
    }

    /// Ends the loading: what has not been taken is refused. Says what the user should know about the
    /// weights.
    pub(crate) fn finish(self) -> Result<Vec<Notice>, Error> {
        let tensors = self.checkpoint.tensors();
        match tensors.iter().find(|tensor| !self.used.contains(&*tensor.name)) {
            None => {
                let file = || self.file().to_owned();
                let tiles = self.tiles.then(|| Notice::Tiles { file: file() });
                let unused = self.read_as.filter(|(_, found)| !found);
                let unused = unused.map(|(layout, _)| Notice::ReadAs { layout });
                Ok(tiles.into_iter().chain(unused).collect())
            }
            Some(tensor) => Err(Error::UnknownTensor {
                file: self.checkpoint.file_of(tensor),
                tensor: tensor.stored.clone(),
                offset: tensor.offset,
                architecture: self.config().architecture.clone(),
            }),
        }
    }
}

/// Where a scale is that is no finite number: each group starts with its own.
fn bad_scale(format: Format, bytes: &[u8]) -> Option<usize> {
    let (_, size) = format.block();
    let bad = |group: &[u8]| !half::f16::from_le_bytes([group[0], group[1]]).is_finite();
    bytes.chunks_exact(size).position(bad).map(|group| group * size)
}
