//! Models in folders as Hugging Face has them: `config.json`, and weights in safetensors.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bitnet_gguf::Bytes;
use bitnet_kernels::Format;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use super::json::{Json, read};
use super::names::gguf_name;
use super::{StoredTensor, Weights, base_name};
use crate::tokenizer::{TokenizerFiles, Vocabulary};
use crate::{Config, Error, Notice};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Bytes of a header at most, as the format has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// A folder whose files have been found and whose headers have been read.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    config: Json,
    /// `config.json` as it is: what it says is a part of what the model computes.
    config_bytes: Bytes,
    shards: Vec<Shard>,
    scales_divide: bool,
}

/// A file of weights.
#[derive(Debug)]
struct Shard {
    file: String,
    bytes: Bytes,
    /// In the order of their data.
    tensors: Vec<Described>,
}

/// A tensor as the header of its file describes it.
#[derive(Debug)]
struct Described {
    name: String,
    dtype: Dtype,
    /// Slowest first.
    shape: Vec<usize>,
    /// Bytes in the file.
    range: Range<usize>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Folder, Error> {
        let Some(config) = Json::open(&path.join("config.json"))? else {
            return Err(not_a_model(path));
        };
        let scales_divide = scales_divide(&config)?;
        let files = match Json::open(&path.join(INDEX))? {
            Some(index) => listed(&index)?,
            None if path.join(WEIGHTS).exists() => BTreeSet::from([WEIGHTS.to_owned()]),
            None => return Err(not_a_model(path)),
        };
        let shards = files.iter().map(|file| Shard::open(&path.join(file)));
        let shards = shards.collect::<Result<_, _>>()?;
        let config_bytes = Bytes::open(&path.join("config.json"))?;
        Ok(Folder { path: path.to_owned(), config, config_bytes, shards, scales_divide })
    }

    /// Its name, without the folders it is in.
    pub(super) fn base_name(&self) -> String {
        let whole = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        base_name(&whole.display().to_string())
    }

    /// The files beside the weights that say how text becomes tokens and back, as they are.
    pub(crate) fn beside(&self) -> Result<Vec<(&'static str, String)>, Error> {
        let names = [
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "generation_config.json",
            super::chat::FILE,
            super::chat::TOOLS_FILE,
        ];
        let all =
            names.into_iter().map(|name| Ok(read(&self.path.join(name))?.map(|text| (name, text))));
        all.filter_map(Result::transpose).collect()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> &Json {
        &self.config
    }

    /// Settings of which nothing is known.
    pub(super) fn notices(&self) -> Vec<Notice> {
        let names: Vec<_> = Config::unknown(&self.config).into_iter().map(str::to_owned).collect();
        match names.is_empty() {
            true => Vec::new(),
            false => vec![Notice::Settings { file: self.config.file.clone(), names }],
        }
    }

    /// The tensors of all shards.
    pub(super) fn tensors(&self) -> Result<Vec<StoredTensor>, Error> {
        let kind = self.config.str("model_type")?.unwrap_or_default();
        let mut tensors = Vec::new();
        for (file, shard) in self.shards.iter().enumerate() {
            for (place, stored) in shard.tensors.iter().enumerate() {
                let mut dims: Vec<_> = stored.shape.iter().rev().map(|&dim| dim as u64).collect();
                // Four rows of weights are in one of bytes.
                if let (Dtype::U8, [_, rows]) = (stored.dtype, &mut dims[..]) {
                    *rows = rows.saturating_mul(4);
                }
                tensors.push(StoredTensor {
                    name: gguf_name(kind, &stored.name).into_owned(),
                    stored: stored.name.clone(),
                    dims,
                    offset: stored.range.start as u64,
                    file,
                    place,
                });
            }
        }
        Ok(tensors)
    }

    /// The files that say what the model computes, by their names.
    pub(super) fn files(&self) -> Vec<(String, &Bytes)> {
        let shards = self.shards.iter().map(|shard| (base_name(&shard.file), &shard.bytes));
        shards.chain([("config.json".to_owned(), &self.config_bytes)]).collect()
    }

    pub(super) fn shard_name(&self, shard: usize) -> String {
        self.shards[shard].file.clone()
    }

    pub(super) fn scales_divide(&self) -> bool {
        self.scales_divide
    }

    pub(super) fn weights(&self, tensor: &StoredTensor) -> Result<Weights, Error> {
        let shard = &self.shards[tensor.file];
        let Described { dtype, shape, range, .. } = &shard.tensors[tensor.place];
        let format = match dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::Bf16,
            Dtype::U8 if shape.len() == 2 => Format::HfPacked,
            other => {
                return Err(Error::TensorType {
                    file: shard.file.clone(),
                    tensor: tensor.stored.clone(),
                    offset: tensor.offset,
                    found: format!("{other:?} of {} dimensions", shape.len()),
                    expected: "matrices of U8 (four ternary weights a byte), F32, F16 and BF16",
                });
            }
        };
        Ok(Weights { format, bytes: shard.bytes.slice(range.clone()) })
    }

    /// The vocabulary of `tokenizer.json`, if there is one.
    /// Embedding tables can have more `rows` than there are tokens.
    pub(super) fn vocabulary(&self, rows: usize) -> Result<Option<Vocabulary>, Error> {
        let read = |name: &str| read(&self.path.join(name));
        let Some(tokenizer) = read("tokenizer.json")? else {
            return Ok(None);
        };
        let beside = ["tokenizer_config.json", "generation_config.json", "config.json"];
        let [tokenizer_config, generation_config, config] = beside.map(read);
        let beside = [tokenizer_config?, generation_config?, config?];
        let [tokenizer_config, generation_config, config] =
            beside.each_ref().map(|text| text.as_ref().map(String::as_bytes));
        let files = TokenizerFiles {
            tokenizer: tokenizer.as_bytes(),
            tokenizer_config,
            generation_config,
            config,
        };
        let fail = |source| Error::Tokenizer { file: self.path.display().to_string(), source };
        let mut vocabulary = Vocabulary::from_json(&files).map_err(fail)?;
        vocabulary.pad(rows).map_err(fail)?;
        Ok(Some(vocabulary))
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Shard, Error> {
        let file = path.display().to_string();
        let bytes = Bytes::open(path)?;
        let (data, header) = match header(&bytes) {
            Ok(read) => read,
            Err(what) => return Err(Error::Safetensors { file, what }),
        };
        let describe = |name: String| {
            let info = header.info(&name)?;
            let (start, end) = info.data_offsets;
            let (dtype, shape) = (info.dtype, info.shape.clone());
            Some(Described { name, dtype, shape, range: data + start..data + end })
        };
        let tensors = header.offset_keys().into_iter().filter_map(describe).collect();
        Ok(Shard { file, bytes, tensors })
    }
}

/// Where the data of a safetensors file starts, and what the header says: the length of the header in
/// eight bytes, the header in JSON, then the data, and nothing else.
fn header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let cut = || "the file is cut off: download it again".to_owned();
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = u64::from_le_bytes(*length);
    if length > LONGEST_HEADER {
        return Err(format!("a header of {length} bytes: this is not a safetensors file"));
    }
    let header = rest.get(..length as usize).ok_or_else(cut)?;
    let header: Metadata = serde_json::from_slice(header)
        .map_err(|error| format!("the header is damaged: {error}; download the file again"))?;
    let (expected, found) = (header.data_len(), rest.len() - length as usize);
    match expected == found {
        true => Ok((8 + length as usize, header)),
        false => Err(format!(
            "{found} bytes of data, and the header describes {expected}: download the file again"
        )),
    }
}

/// The files that an index lists. They are beside it, whatever else their names say.
fn listed(index: &Json) -> Result<BTreeSet<String>, Error> {
    let key = "weight_map";
    let wrong = |expected: &str| index.error(key, expected);
    let Some(Value::Object(map)) = index.get(key) else {
        return Err(wrong("it must name the file of each tensor"));
    };
    let mut files = BTreeSet::new();
    for file in map.values() {
        let name = file.as_str().ok_or_else(|| wrong("files must be strings"))?;
        let plain = Path::new(name).file_name().is_some_and(|last| last == name);
        if !plain || !name.ends_with(".safetensors") || name.contains(['/', '\\', ':']) {
            let expected = format!("`{name}` must be the name of a .safetensors file beside it");
            return Err(wrong(&expected));
        }
        files.insert(name.to_owned());
    }
    match files.is_empty() {
        true => Err(wrong("it must name some file")),
        false => Ok(files),
    }
}

/// Whether `weight_scale` divides: in `bitlinear`, the default of transformers, it is one over the
/// scale of the weights, in `autobitlinear` that scale.
fn scales_divide(config: &Json) -> Result<bool, Error> {
    let Some(quantization) = config.get("quantization_config") else {
        return Ok(true);
    };
    let quantization = Json { file: config.file.clone(), value: quantization.clone() };
    match quantization.str("quant_method")? {
        Some("bitnet") => {}
        _ => return Err(quantization.error("quant_method", "only bitnet is supported")),
    }
    if let Some(kept) = quantization.get("modules_to_not_convert") {
        let head = |module: &Value| module.as_str().is_some_and(|name| name == "lm_head");
        if !kept.as_array().is_some_and(|kept| kept.iter().all(head)) {
            let expected = "only lm_head can be left as it is";
            return Err(quantization.error("modules_to_not_convert", expected));
        }
    }
    let norms = quantization.bool("use_rms_norm")?.unwrap_or(false);
    let eps = quantization.f32("rms_norm_eps")?.unwrap_or(1e-6);
    if norms && config.f32("rms_norm_eps")? != Some(eps) {
        let expected = "norms before linear layers must have the rms_norm_eps of the others";
        return Err(quantization.error("rms_norm_eps", expected));
    }
    match quantization.str("linear_class")? {
        None | Some("bitlinear") => Ok(true),
        Some("autobitlinear") => Ok(false),
        Some(_) => {
            let expected = "only bitlinear and autobitlinear are supported";
            Err(quantization.error("linear_class", expected))
        }
    }
}

/// What is in a folder that is not a model, and what to do.
fn not_a_model(path: &Path) -> Error {
    let names = fs::read_dir(path).into_iter().flatten().flatten();
    let names: BTreeSet<_> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let ending = |end: &str| names.iter().find(|name| name.ends_with(end));
    let what = if let Some(gguf) = ending(".gguf") {
        format!("name the file {gguf} in it")
    } else if let Some(pickle) = ending(".bin").or_else(|| ending(".pt")) {
        format!("{pickle} is not read: save the model as safetensors")
    } else {
        format!("a Hugging Face model has config.json and {WEIGHTS}, or {INDEX} and what it lists")
    };
    Error::Folder { path: path.to_owned(), what }
}
