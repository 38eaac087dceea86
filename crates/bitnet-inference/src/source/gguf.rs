//! A BitNet b1.58 model from a GGUF file.
//!
//! Matrices stay in the mapped file; every byte of a ternary one is checked here, once. Tensors
//! that the architecture does not have are refused: leaving them out would give other results.

use std::collections::HashSet;

use bitnet_gguf::{Bytes, Gguf, Tensor, TensorType};
use bitnet_kernels::format::{self, FormatError};
use bitnet_kernels::op::HeadFn;
use bitnet_kernels::shortlist::ShortlistError;
use bitnet_kernels::{Bound, Device, Format, KernelManager, Pool};

use crate::arch::{BitNet, Layer};
use crate::linear::{DequantizedLinear, Linear, QuantizedLinear};
use crate::matrix::FloatMatrix;
use crate::tokenizer::{Splitter, TokenType, Tokenizer, Vocabulary};
use crate::{Config, Error, Notice};

/// Reads the weights of a model of these hyper-parameters and binds them to the best kernels; those
/// of linear layers to kernels for floating-point weights, if they are to be dequantised.
///
/// # Errors
///
/// Where the file is not a complete and sound model of a supported architecture.
pub(crate) fn model(
    gguf: &Gguf,
    config: Config,
    dequantize: bool,
    (manager, pool): (&KernelManager, &Pool),
) -> Result<BitNet, Error> {
    let dequantize = dequantize.then(|| manager.select(Some(Format::F16))).transpose()?;
    let mut source = Source { gguf, dequantize, manager, pool, used: HashSet::new() };
    let (hidden, head_size) = (config.hidden, config.head_size);
    let model = BitNet {
        embedding: source.embedding(&config)?,
        layers: (0..config.layers).map(|i| source.layer(i, &config)).collect::<Result<_, _>>()?,
        output_norm: source.vector("output_norm.weight", hidden)?,
        frequencies: source.frequencies(head_size, config.rope_base)?,
        config,
    };
    source.refuse_unused(&model.config)?;
    Ok(model)
}

struct Source<'a> {
    gguf: &'a Gguf,
    /// The kernel of linear layers that are dequantised.
    dequantize: Option<Bound<HeadFn>>,
    manager: &'a KernelManager,
    pool: &'a Pool,
    used: HashSet<String>,
}

impl<'a> Source<'a> {
    fn layer(&mut self, index: usize, c: &Config) -> Result<Layer, Error> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (hidden, ffn, q, kv) = (c.hidden, c.ffn, c.q_size(), c.kv_size());
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm"), hidden)?,
            attn_q: self.linear(&name("attn_q"), q, hidden)?,
            attn_k: self.linear(&name("attn_k"), kv, hidden)?,
            attn_v: self.linear(&name("attn_v"), kv, hidden)?,
            attn_sub_norm: self.vector(&name("attn_sub_norm"), q)?,
            attn_output: self.linear(&name("attn_output"), hidden, q)?,
            ffn_norm: self.vector(&name("ffn_norm"), hidden)?,
            ffn_gate: self.linear(&name("ffn_gate"), ffn, hidden)?,
            ffn_up: self.linear(&name("ffn_up"), ffn, hidden)?,
            ffn_sub_norm: self.vector(&name("ffn_sub_norm"), ffn)?,
            ffn_down: self.linear(&name("ffn_down"), hidden, ffn)?,
        })
    }

    /// A ternary matrix `[rows, cols]`.
    fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear, Error> {
        let tensor = self.find(name, &[cols as u64, rows as u64])?;
        let format = match self.gguf.tensor_type(tensor)? {
            TensorType::I2S => Format::I2S,
            TensorType::Tq1_0 => Format::Tq1_0,
            TensorType::Tq2_0 => Format::Tq2_0,
            other => return Err(self.wrong_type(tensor, other, "I2_S, TQ1_0 and TQ2_0")),
        };
        let bytes = self.gguf.data(tensor)?;
        let linear = match self.dequantize {
            Some(head) => {
                DequantizedLinear::new(format, &bytes, (rows, cols), head).map(Linear::Dequantized)
            }
            None => {
                let format = Some(format);
                QuantizedLinear::new(cols, rows, format, Device::Cpu, self.manager)?
                    .load(&bytes, self.pool)
                    .map(Linear::Quantized)
            }
        };
        let linear = linear.map_err(|e| self.damaged(tensor, e))?;
        bytes.evict();
        Ok(linear)
    }

    /// The embedding table, which is the output layer too.
    fn embedding(&mut self, config: &Config) -> Result<FloatMatrix, Error> {
        let (name, hidden) = ("token_embd.weight", config.hidden);
        let stated = self.gguf.u32(&format!("{}.vocab_size", config.architecture))?;
        let found = self.gguf.tensor(name).and_then(|t| t.dims.get(1).copied()).unwrap_or(1);
        let rows = stated.map_or(found, u64::from);
        let tensor = self.find(name, &[hidden as u64, rows])?;
        let (format, bytes) = self.float(tensor)?;
        self.tied(tensor, &bytes)?;
        let shape = (rows as usize, hidden);
        format::check(format, &bytes, shape.0, shape.1).map_err(|e| self.damaged(tensor, e))?;
        let matrix = FloatMatrix::new(bytes.clone(), shape, format, (self.manager, self.pool));
        bytes.evict();
        matrix.map_err(|error| match error {
            ShortlistError::Kernel(missing) => missing.into(),
            ShortlistError::Format(source) => self.damaged(tensor, source),
        })
    }

    /// An output layer in the file must be the embedding table again.
    fn tied(&mut self, embedding: &Tensor, bytes: &Bytes) -> Result<(), Error> {
        let Some(output) = self.gguf.tensor("output.weight") else {
            return Ok(());
        };
        self.used.insert(output.name.clone());
        if output.dims == embedding.dims && self.gguf.data(output)?[..] == bytes[..] {
            return Ok(());
        }
        Err(Error::Variant {
            file: self.gguf.name().to_owned(),
            what: format!(
                "tensor `output.weight` at byte {} differs from token_embd.weight; this \
                 architecture uses one table for both: convert the model again",
                output.offset
            ),
        })
    }

    /// A tensor of one dimension, widened. Its numbers must be finite.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.find(name, &[len as u64])?;
        let (format, bytes) = self.float(tensor)?;
        let checked = format::check(format, &bytes, 1, len);
        checked.map_err(|e| self.damaged(tensor, e))?;
        let mut out = vec![0.0; len];
        format::widen(format, &bytes, &mut out);
        match out.iter().position(|x| !x.is_finite()) {
            None => Ok(out),
            Some(index) => Err(Error::NotFiniteWeight {
                file: self.gguf.name().to_owned(),
                tensor: name.to_owned(),
                offset: tensor.offset,
                index,
                value: out[index],
            }),
        }
    }

    /// `base^(-2i / size)` for each pair, divided by the file's factors if it has some.
    fn frequencies(&mut self, size: usize, base: f32) -> Result<Vec<f32>, Error> {
        let exponent = |i: usize| f64::from((2 * i) as f32 / size as f32);
        let power = |i| libm::pow(f64::from(base), exponent(i)) as f32;
        let mut frequencies: Vec<f32> = (0..size / 2).map(|i| 1.0 / power(i)).collect();
        if self.gguf.tensor("rope_freqs.weight").is_some() {
            let factors = self.vector("rope_freqs.weight", size / 2)?;
            frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
        }
        if frequencies.iter().all(|f| f.is_finite()) {
            return Ok(frequencies);
        }
        Err(Error::Variant {
            file: self.gguf.name().to_owned(),
            what: format!("rotary frequencies of base {base} are not finite; the file is damaged"),
        })
    }

    /// The format and the bytes of a floating-point tensor.
    fn float(&self, tensor: &Tensor) -> Result<(Format, Bytes), Error> {
        let format = match self.gguf.tensor_type(tensor)? {
            TensorType::F32 => Format::F32,
            TensorType::F16 => Format::F16,
            TensorType::Bf16 => Format::Bf16,
            TensorType::Q8_0 => Format::Q8_0,
            TensorType::Q6K => Format::Q6K,
            other => return Err(self.wrong_type(tensor, other, "F32, F16, BF16, Q8_0 and Q6_K")),
        };
        Ok((format, self.gguf.data(tensor)?))
    }

    /// The tensor `name`, which must have the dimensions `dims`, fastest first.
    fn find(&mut self, name: &str, dims: &[u64]) -> Result<&'a Tensor, Error> {
        let file = || self.gguf.name().to_owned();
        let Some(tensor) = self.gguf.tensor(name) else {
            return Err(Error::MissingTensor { file: file(), tensor: name.to_owned() });
        };
        if tensor.dims != dims {
            return Err(Error::Shape {
                file: file(),
                tensor: name.to_owned(),
                offset: tensor.offset,
                found: tensor.dims.clone(),
                expected: dims.to_vec(),
            });
        }
        self.used.insert(name.to_owned());
        Ok(tensor)
    }

    fn refuse_unused(&self, config: &Config) -> Result<(), Error> {
        match self.gguf.tensors().iter().find(|tensor| !self.used.contains(&tensor.name)) {
            None => Ok(()),
            Some(tensor) => Err(Error::UnknownTensor {
                file: self.gguf.name().to_owned(),
                tensor: tensor.name.clone(),
                offset: tensor.offset,
                architecture: config.architecture.clone(),
            }),
        }
    }

    fn wrong_type(&self, tensor: &Tensor, found: TensorType, expected: &'static str) -> Error {
        Error::TensorType {
            file: self.gguf.name().to_owned(),
            tensor: tensor.name.clone(),
            offset: tensor.offset,
            found: found.name().to_owned(),
            expected,
        }
    }

    fn damaged(&self, tensor: &Tensor, source: FormatError) -> Error {
        Error::Tensor {
            file: self.gguf.name().to_owned(),
            tensor: tensor.name.clone(),
            offset: tensor.offset,
            source,
        }
    }
}

/// The tokenizer of a GGUF file if it has one, and what the user should know about it.
///
/// # Errors
///
/// Where the metadata has no byte-level BPE vocabulary, or one that contradicts itself.
pub(crate) fn tokenizer(gguf: &Gguf) -> Result<(Option<Tokenizer>, Vec<Notice>), Error> {
    let file = || gguf.name().to_owned();
    let fail = |source| Error::Tokenizer { file: file(), source };
    let Some(kind) = gguf.str("tokenizer.ggml.model")? else {
        return Ok((None, Vec::new()));
    };
    if kind != "gpt2" {
        let what =
            format!("tokenizer `{kind}` is not supported yet; supported is gpt2 (byte-level BPE)");
        return Err(Error::Variant { file: file(), what });
    }
    let mut notices = Vec::new();
    let splitter = match gguf.str("tokenizer.ggml.pre")? {
        Some(name) => name.parse().map_err(fail)?,
        None => {
            notices.push(Notice::NoSplitter { file: file() });
            Splitter::Llama3
        }
    };
    let types = gguf.i32s("tokenizer.ggml.token_type")?.unwrap_or_default();
    let types = types.into_iter().map(TokenType::try_from).collect::<Result<_, _>>();
    let vocabulary = Vocabulary {
        tokens: gguf.require_strings("tokenizer.ggml.tokens")?.map(str::to_owned).collect(),
        types: types.map_err(fail)?,
        merges: gguf.require_strings("tokenizer.ggml.merges")?.map(str::to_owned).collect(),
        splitter,
        bos: gguf.u32("tokenizer.ggml.bos_token_id")?,
        eos: gguf.u32("tokenizer.ggml.eos_token_id")?,
        eot: gguf.u32("tokenizer.ggml.eot_token_id")?,
        add_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(true),
    };
    Ok((Some(Tokenizer::new(vocabulary).map_err(fail)?), notices))
}
