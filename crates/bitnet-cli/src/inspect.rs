//! `bitnet inspect`: what a model is, and what is in it.

mod text;
mod values;
mod warnings;

use std::path::PathBuf;

use anyhow::Result;
use bitnet_inference::{
    Checkpoint, Config, Contents, Error, Metadata, ReadAs, TernaryStatistics, ternary_sha256,
};
use bitnet_kernels::Format;
use serde::Serialize;

use crate::doctor::{Chosen, chosen};
use crate::exit::End;
use crate::model::{self, How};
use crate::output;

/// Flags of `bitnet inspect`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// List all tensors.
    #[arg(long)]
    tensors: bool,
    /// Look into the ternary matrices: how many weights are -1, 0 and 1. Reads all of them.
    #[arg(long)]
    ternary: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Read ternary weights in a layout that the file does not tell, as `bitnet run` does.
    #[arg(long, value_name = "LAYOUT", env = "BITNET_READ_AS")]
    read_as: Option<ReadAs>,
    #[command(flatten)]
    how: How,
    /// Model: a GGUF file, a Hugging Face folder, or one of the cache by its name; the demo model if not
    /// given.
    #[arg(value_name = "MODEL", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
}

/// What is known of a model.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    container: &'static str,
    /// Files, and their bytes.
    files: Vec<(String, u64)>,
    architecture: Option<String>,
    /// Hyper-parameters, if the architecture is supported.
    config: Option<Settings>,
    parameters: u64,
    /// The types of tensors, how many have each, and their bytes.
    types: Vec<Type>,
    /// What would compute with the ternary matrices here.
    runs_on: Vec<Chosen>,
    /// SHA-256 of all ternary weights and scales, whatever they are stored as.
    #[serde(skip_serializing_if = "Option::is_none")]
    ternary_sha256: Option<String>,
    #[serde(serialize_with = "values::to_json")]
    metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<Tensor>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ternary: Option<Vec<Matrix>>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Settings {
    layers: usize,
    hidden: usize,
    ffn: usize,
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    context: usize,
    activation: String,
    rope_base: f32,
    eps: f32,
}

impl From<Config> for Settings {
    fn from(config: Config) -> Settings {
        Settings {
            layers: config.layers,
            hidden: config.hidden,
            ffn: config.ffn,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_size: config.head_size,
            context: config.context,
            activation: config.activation.to_string(),
            rope_base: config.rope_base,
            eps: config.eps,
        }
    }
}

#[derive(Debug, Serialize)]
struct Type {
    name: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    /// What the file calls it, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<String>,
    dims: Vec<u64>,
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    bytes: Option<u64>,
    file: String,
    offset: u64,
}

/// A ternary matrix.
#[derive(Debug, Serialize)]
struct Matrix {
    name: String,
    rows: usize,
    cols: usize,
    scale: f32,
    /// Of weights that are -1, 0 and 1.
    shares: [f64; 3],
    /// Bits.
    entropy: f64,
    zero_rows: usize,
    duplicate_rows: usize,
}

impl Matrix {
    fn new(name: &str, of: &TernaryStatistics) -> Matrix {
        Matrix {
            name: name.to_owned(),
            rows: of.rows,
            cols: of.cols,
            scale: of.scale,
            shares: of.shares(),
            entropy: of.entropy(),
            zero_rows: of.zero_rows,
            duplicate_rows: of.duplicate_rows,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let checkpoint = model::open(args.model.as_deref())?;
    let manager = args.how.options()?.manager()?;
    let mut warnings = warnings::of(&checkpoint);
    let (types, formats) = types(&checkpoint, &mut warnings);
    let runs_on = formats.into_iter().map(|format| chosen(format, &manager));
    let runs_on = runs_on.collect::<Result<_>>()?;
    let ternary = match args.ternary {
        true => Some(matrices(&checkpoint, args.read_as, &mut warnings)?),
        false => None,
    };
    let metadata = checkpoint.metadata().map(|(metadata, _)| metadata).unwrap_or_default();
    let report = Report {
        name: checkpoint.name().to_owned(),
        container: if checkpoint.is_gguf() { "GGUF" } else { "Hugging Face folder" },
        files: checkpoint.file_sizes(),
        architecture: checkpoint.architecture().ok().map(str::to_owned),
        config: checkpoint.config().ok().map(Settings::from),
        parameters: checkpoint.parameters(),
        types,
        runs_on,
        ternary_sha256: ternary.as_ref().map(|(sha256, _)| sha256.clone()),
        metadata,
        tensors: args.tensors.then(|| tensors(&checkpoint)),
        ternary: ternary.map(|(_, matrices)| matrices),
        warnings,
    };
    output::report(&report, args.json, || report.text())?;
    Ok(End::Done)
}

/// The types of tensors, and the formats of ternary matrices among them.
fn types(checkpoint: &Checkpoint, warnings: &mut Vec<String>) -> (Vec<Type>, Vec<Format>) {
    let (mut types, mut formats): (Vec<Type>, Vec<Format>) = Default::default();
    for tensor in checkpoint.tensors() {
        let (format, bytes) = match checkpoint.stored(tensor) {
            Ok(stored) => stored,
            Err(error) => {
                warnings.push(error.to_string());
                continue;
            }
        };
        if Format::TERNARY.contains(&format) && !formats.contains(&format) {
            formats.push(format);
        }
        let name = format.ggml_name();
        let place = types.iter().position(|found| found.name == name).unwrap_or_else(|| {
            types.push(Type { name, tensors: 0, parameters: 0, bytes: 0 });
            types.len() - 1
        });
        types[place].tensors += 1;
        types[place].parameters += tensor.elements();
        types[place].bytes += bytes;
    }
    (types, formats)
}

fn tensors(checkpoint: &Checkpoint) -> Vec<Tensor> {
    let tensor = |tensor: &bitnet_inference::StoredTensor| {
        let stored = checkpoint.stored(tensor).ok();
        Tensor {
            name: tensor.name.clone(),
            stored: Some(tensor.stored.clone()).filter(|stored| *stored != tensor.name),
            dims: tensor.dims.clone(),
            kind: stored.map(|(format, _)| format.ggml_name()),
            bytes: stored.map(|(_, bytes)| bytes),
            file: checkpoint.file_of(tensor),
            offset: tensor.offset,
        }
    };
    checkpoint.tensors().iter().map(tensor).collect()
}

/// What all ternary matrices are like, and their hash.
fn matrices(
    checkpoint: &Checkpoint,
    read_as: Option<ReadAs>,
    warnings: &mut Vec<String>,
) -> Result<(String, Vec<Matrix>), Error> {
    let contents = Contents::new(checkpoint, read_as)?;
    let (mut matrices, mut sums) = (Vec::new(), Vec::new());
    for tensor in checkpoint.tensors() {
        if contents.is_ternary(tensor)? {
            let matrix = contents.matrix(tensor)?;
            let statistics = TernaryStatistics::of(&matrix);
            warnings::of_matrix(&tensor.name, &statistics, warnings);
            matrices.push(Matrix::new(&tensor.name, &statistics));
            sums.push((&*tensor.name, matrix.sha256()));
        }
    }
    Ok((ternary_sha256(sums), matrices))
}
