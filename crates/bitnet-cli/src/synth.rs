//! `bitnet synth`: models of random weights.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use bitnet_inference::synth::{SHAPES, Shape, Synthetic};
use bitnet_kernels::Format;
use serde::Serialize;

use crate::exit::{self, End, Usage};
use crate::output;

/// Flags of `bitnet synth`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Shape of the model: bitnet-0.7b, bitnet-2b-4t, bitnet-3b or bitnet-8b. All have the
    /// architecture of 2B-4T: the norms inside its blocks, and the embeddings as output layer.
    /// The published 8B model has neither.
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    shape: Shape,
    /// Format of the ternary weights, by its name in ggml.
    #[arg(long, value_name = "FORMAT", default_value = "i2_s",
        value_parser = |name: &str| format(name, &Format::TERNARY))]
    format: Format,
    /// Format of the embeddings, which are the output layer too: f32, f16, bf16, q8_0 or q6_k.
    #[arg(long, value_name = "FORMAT", default_value = "f16",
        value_parser = |name: &str| format(name, &Format::FLOAT))]
    embedding: Format,
    /// Seed of the random numbers. The same seed gives the same file.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Tokens of context, if not those of the published model.
    #[arg(short, long, value_name = "N")]
    ctx_size: Option<usize>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
    /// Where to write the model (GGUF).
    #[arg(value_name = "FILE")]
    out: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    shape: &'static str,
    format: &'static str,
    embedding: &'static str,
    /// Tokens of context.
    context: usize,
    seed: u64,
    bytes: u64,
    seconds: f64,
}

/// The shape of this name, with or without `bitnet-`.
fn shape(name: &str) -> Result<Shape, String> {
    let known =
        |shape: &Shape| shape.name == name || shape.name.strip_prefix("bitnet-") == Some(name);
    let names = || SHAPES.map(|shape| shape.name).join(", ");
    SHAPES.into_iter().find(known).ok_or_else(|| format!("known shapes are {}", names()))
}

/// The one of `formats` that ggml calls by this name.
fn format(name: &str, formats: &[Format]) -> Result<Format, String> {
    let known = formats.iter().find(|format| format.ggml_name().eq_ignore_ascii_case(name));
    known.copied().ok_or_else(|| {
        let names: Vec<_> = formats.iter().map(|f| f.ggml_name().to_lowercase()).collect();
        format!("known formats are {}", names.join(", "))
    })
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let context = args.ctx_size.unwrap_or(args.shape.context);
    let model = Synthetic {
        shape: Shape { context, ..args.shape },
        seed: args.seed,
        weights: args.format,
        embedding: args.embedding,
    };
    let start = Instant::now();
    // What cannot be made leaves no empty file behind, and nothing that was there is lost for it.
    model.check()?;
    let file = create(&args.out, args.force)?;
    let bytes = write(&model, file).inspect_err(|_| {
        // Half a model is of no use. A link or a device is not ours to remove.
        if fs::symlink_metadata(&args.out).is_ok_and(|metadata| metadata.is_file()) {
            // That it cannot be removed is no news.
            let _ = fs::remove_file(&args.out);
        }
    })?;
    let report = Report {
        file: args.out.display().to_string(),
        shape: args.shape.name,
        format: args.format.ggml_name(),
        embedding: args.embedding.ggml_name(),
        context,
        seed: args.seed,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
    };
    match args.json {
        true => output::report(&report, true, String::new)?,
        false => exit::say(&report.text()),
    }
    Ok(End::Done)
}

impl Report {
    /// For people.
    fn text(&self) -> String {
        let Report { file, shape, format, embedding, seed, bytes, seconds, .. } = self;
        let size = *bytes as f64 / 1e6;
        format!(
            "{file}: {shape}, {format} with {embedding} embeddings, seed {seed}, {size:.1} MB in \
             {seconds:.1} s"
        )
    }
}

fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = File::options();
    let options = match force {
        true => options.write(true).create(true).truncate(true),
        false => options.write(true).create_new(true),
    };
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let what = format!("{} is there already: --force replaces it", path.display());
            Err(Usage(what).into())
        }
        opened => opened.with_context(|| format!("cannot write {}", path.display())),
    }
}

/// Writes the model and gives its size in bytes.
fn write(model: &Synthetic, file: File) -> Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    model.write_to(&mut out)?;
    out.flush().context("cannot write the model")?;
    Ok(out.get_ref().metadata().context("cannot tell the size of the model")?.len())
}
