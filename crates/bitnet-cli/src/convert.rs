//! `bitnet convert` and `bitnet quantize`: the same model in another format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use bitnet_inference::convert::{Conversion, EMBEDDING, Planned, Proof, Target};
use bitnet_inference::{Contents, Error, ReadAs};
use bitnet_kernels::Format;
use serde::Serialize;

use crate::exit::{self, End};
use crate::interrupt::Interrupt;
use crate::{model, output, progress};

/// Flags of `bitnet convert` and `bitnet quantize`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Format of the ternary weights in GGUF: i2_s, tl1, tl2, tq1_0, tq2_0, iq1_bn, iq2_bn, iq2_bn_r4 or
    /// bitnet32f16; or hf, a Hugging Face folder.
    #[arg(long, value_name = "FORMAT", default_value = "i2_s")]
    to: Target,
    /// Format of the embeddings and the output layer, if not their own: f32, f16, bf16, q8_0 or q6_k. In
    /// folders it is that of all tensors that are not ternary: f32, f16 or bf16.
    #[arg(long, value_name = "FORMAT", value_parser = embedding)]
    embed: Option<Format>,
    /// Read ternary weights in a layout that the file does not tell, as `bitnet run` does.
    #[arg(long, value_name = "LAYOUT", env = "BITNET_READ_AS")]
    read_as: Option<ReadAs>,
    /// Replace a file that is there. Folders are not replaced.
    #[arg(long)]
    force: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
    /// Model: a GGUF file, a Hugging Face folder, or one of the cache by its name.
    #[arg(value_name = "IN")]
    model: PathBuf,
    /// Where to write it: a file, or a folder that is not there yet.
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

fn embedding(name: &str) -> Result<Format, String> {
    let known = |format: &&Format| format.ggml_name().eq_ignore_ascii_case(name);
    let names = || EMBEDDING.map(|format| format.ggml_name().to_lowercase()).join(", ");
    EMBEDDING.iter().find(known).copied().ok_or_else(|| format!("there are {}", names()))
}

/// What was done.
#[derive(Serialize)]
struct Report {
    /// The model that was read.
    from: String,
    /// What was written.
    to: String,
    /// What that is.
    target: String,
    seconds: f64,
    /// Bytes of tensors before and after.
    bytes: [u64; 2],
    /// SHA-256 of all ternary weights and scales, before and after, as `bitnet inspect` has it.
    ternary_sha256: [String; 2],
    tensors: Vec<Tensor>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    from: &'static str,
    to: &'static str,
    /// Of a ternary matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f32>,
    /// Whether the scale is beside the matrix.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    scale_beside: bool,
    /// What making the weights ternary changed, relative to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
}

impl From<&Planned<'_>> for Tensor {
    fn from(planned: &Planned<'_>) -> Tensor {
        Tensor {
            name: planned.tensor.name.clone(),
            dims: planned.tensor.dims.clone(),
            from: planned.from.ggml_name(),
            to: planned.to.ggml_name(),
            scale: planned.ternary.as_ref().map(|ternary| ternary.scale),
            scale_beside: planned.ternary.as_ref().is_some_and(|ternary| ternary.beside),
            error: planned.ternary.as_ref().and_then(|ternary| ternary.error),
        }
    }
}

/// Converts; with `quantize`, floating-point weights become ternary whatever they were trained for.
pub(crate) fn run(args: &Args, quantize: bool) -> Result<End> {
    let interrupt = Interrupt::listen();
    let start = Instant::now();
    // Before reading all of a model for nothing.
    args.to.check_place(&args.out, args.force)?;
    let checkpoint = model::open(Some(&args.model))?;
    let contents = Contents::new(&checkpoint, args.read_as)?;
    let contents = if quantize { contents.quantized() } else { contents };
    let conversion = Conversion::plan(contents, args.to, args.embed)?;
    for notice in conversion.notices() {
        exit::say(&format!("note: {notice}"));
    }
    // Everything is written, and read again.
    let bar = progress::bytes("converting", 2 * conversion.size());
    let written = conversion.write(&args.out, args.force, &|bytes| {
        bar.inc(bytes);
        !interrupt.pressed()
    });
    bar.finish_and_clear();
    let proof = match written {
        Err(Error::Stopped) => return Ok(End::Interrupted),
        written => written?,
    };
    let report = Report {
        from: args.model.display().to_string(),
        to: args.out.display().to_string(),
        target: args.to.to_string(),
        seconds: start.elapsed().as_secs_f64(),
        bytes: [checkpoint.size()?, conversion.size()],
        ternary_sha256: [proof.before.clone(), proof.after.clone()],
        tensors: conversion.tensors().iter().map(Tensor::from).collect(),
    };
    if args.json {
        output::report(&report, true, String::new)?;
    } else {
        exit::say(text(&report, &proof).trim_end());
    }
    Ok(End::Done)
}

/// What was done, for people.
fn text(report: &Report, proof: &Proof) -> String {
    let mut text = format!("{} -> {}: {}\n", report.from, report.to, report.target);
    let mut kinds: BTreeMap<(&str, &str), Vec<&Tensor>> = BTreeMap::new();
    for tensor in &report.tensors {
        kinds.entry((tensor.from, tensor.to)).or_default().push(tensor);
    }
    // Writing to a string cannot fail.
    for ((from, to), tensors) in kinds {
        let what = match &tensors[..] {
            [one] => one.name.clone(),
            several => format!("{} tensors", several.len()),
        };
        let _ = match from == to {
            true => writeln!(text, "  {what}: {from}, as before"),
            false => writeln!(text, "  {what}: {from} -> {to}"),
        };
    }
    let beside = report.tensors.iter().filter(|tensor| tensor.scale_beside).count();
    if beside > 0 {
        let _ = writeln!(text, "  {beside} scales are tensors of their own, in full precision");
    }
    for tensor in &report.tensors {
        if let Some(error) = tensor.error {
            let name = &tensor.name;
            let _ = writeln!(text, "  {name}: made ternary, error {:.1} %", 100.0 * error);
        }
    }
    let Proof { matrices, numbers, rounded, .. } = proof;
    let _ = writeln!(
        text,
        "  read again: {matrices} ternary matrices with the same weights and scales (sha256 {} before \
         and after), {numbers} other tensors with the same numbers, {rounded} rounded",
        proof.after.get(..16).unwrap_or_default(),
    );
    let [before, after] = report.bytes.map(|bytes| bytes as f64 / 1e6);
    let _ = writeln!(text, "  {before:.1} MB -> {after:.1} MB in {:.1} s", report.seconds);
    text
}
