//! `bitnet crossval`: this engine beside a C++ one, on the same model.

mod engines;
mod report;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use bitnet_ffi::compare::Verdict;
use bitnet_ffi::contract::Contract;
use bitnet_ffi::discover::{Discovery, resolve};
use bitnet_ffi::{Host, LibraryInfo, Patience, Reference, parity};
use bitnet_gguf::{Gguf, Writer};
use bitnet_inference::convert::{Conversion, Target};
use bitnet_inference::{Activation, Contents, Options};
use bitnet_kernels::Device;
use serde::Serialize;

use crate::exit::{self, End, Unreadable, Usage};
use crate::{model, output};
use engines::{Engines, Found};
use report::Line;

/// Texts that are tried where none are given.
const TEXTS: [&str; 6] = [
    "Once upon a time there was a king who had three sons, and the youngest of them was called Simpleton.",
    "The old woman went into the forest to gather wood. \"Who are you?\" asked the fox.",
    "In 1812 there were 86 volumes; 3.14159 is not 22/7, and 10:30 is no time for it.",
    "fn main() {\n    let x = vec![1, 2, 3];\n    println!(\"{}\", x.len()); // 3\n}",
    "Es war einmal ein König, der hatte eine Tochter. C'était une fois à Paris: naïve façade.",
    "  two  spaces, a\ttab,\n\n日本語 and 🙂 at the end ",
];

/// Flags of `bitnet crossval`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Convert the model before, to a format of ternary weights that the library knows: tq1_0 and tq2_0 for
    /// llama.cpp, which has `bitnet` for `bitnet-b1.58` with SiLU. tq2_0 for the demo model if not given.
    #[arg(long = "as", value_name = "FORMAT")]
    format: Option<Target>,
    /// Texts to compare on, one in each line.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Tokens to generate behind each text, the likeliest each time.
    #[arg(
        short = 'n',
        long = "predict",
        alias = "n-predict",
        value_name = "N",
        default_value_t = 16
    )]
    tokens: usize,
    /// Times to measure, of which the fastest counts.
    #[arg(short, long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..))]
    repetitions: u64,
    /// Compare formats and kernels only.
    #[arg(long)]
    no_model: bool,
    /// Compare on the model only.
    #[arg(long, conflicts_with = "no_model")]
    no_kernels: bool,
    /// Seconds that the library may take for one answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
        value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    library: LibraryInfo,
    verdict: Verdict,
    /// What was compared, with both times.
    table: Vec<Line>,
    /// Of the model.
    model: Option<Found>,
    /// Why there is nothing of it.
    error: Option<String>,
    kernels: Vec<parity::Parity>,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let call = std::time::Duration::from_secs(args.patience);
    let patience = Patience { open: call.min(Patience::default().open), call };
    let mut reference = open(args.model.library.path().as_deref(), patience)?;
    let kernels = if args.no_kernels { Vec::new() } else { parity::check(&mut reference)? };
    let info = reference.info().clone();
    let (model, failed) = match args.no_model {
        true if kernels.is_empty() => {
            let what = format!(
                "{} has none of the functions of ggml: there is nothing to compare",
                info.path
            );
            return Err(Unreadable(what).into());
        }
        true => (None, None),
        false => match compare(args, reference) {
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(error)),
        },
    };
    let held = kernels.iter().all(parity::Parity::holds);
    let of_model = model.as_ref().map_or(Verdict::Same, |found| found.verdict);
    let verdict = if held { of_model } else { Verdict::Different };
    let lines = kernels.iter().map(Line::of_kernel);
    let lines = lines.chain(model.iter().flat_map(Found::lines));
    let error = failed.as_ref().map(ToString::to_string);
    let report = Report { library: info, verdict, table: lines.collect(), model, error, kernels };
    // What there is of kernels is worth seeing all the same.
    if failed.is_none() || !report.kernels.is_empty() {
        output::report(&report, args.json, || report.text())?;
    }
    if let Some(failed) = failed {
        if args.format.is_none() && failed.is::<bitnet_ffi::Error>() {
            exit::say("note: --as tq2_0 writes the model before in a format that llama.cpp reads");
        }
        return Err(failed);
    }
    Ok(if report.holds() { End::Done } else { End::Refuted })
}

/// Opens a library; the first that is found, if none is named.
fn open(library: Option<&Path>, patience: Patience) -> Result<Reference> {
    let library = match library {
        Some(path) => resolve(path)?,
        None => Discovery::find().backend()?.path.clone(),
    };
    let reference = Reference::open(&library, Host::this_program()?, patience)?;
    exit::say(&format!("FFI library validated: {}", report::library(reference.info())));
    Ok(reference)
}

/// Compares the demo model on a device, on one text.
pub(crate) fn demo(device: Device, library: &Path) -> Result<Report> {
    let reference = open(Some(library), Patience::default())?;
    let info = reference.info().clone();
    let folder = folder()?;
    let file = file((None, None), (info.contract, folder.path()))?;
    let engine = model::load(Some(&file), &Options { device, ..Options::default() })?;
    let found = Engines::new(&engine, reference, &file)?.compare(&[TEXTS[0].to_owned()], (4, 1))?;
    Ok(Report {
        library: info,
        verdict: found.verdict,
        table: found.lines(),
        model: Some(found),
        error: None,
        kernels: Vec::new(),
    })
}

/// Where models are written for a library.
fn folder() -> Result<tempfile::TempDir> {
    tempfile::tempdir().context("cannot make a folder for the model")
}

/// Compares on a model.
fn compare(args: &Args, reference: Reference) -> Result<Found> {
    let texts: Vec<String> = match &args.prompts {
        Some(path) => {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
        }
        None => TEXTS.map(str::to_owned).to_vec(),
    };
    if texts.is_empty() {
        return Err(Usage("there is no text to compare on".to_owned()).into());
    }
    let folder = folder()?;
    let source = (args.model.file()?, args.format);
    let file = file(source, (reference.info().contract, folder.path()))?;
    let engine = args.model.load_file(&file)?;
    Engines::new(&engine, reference, &file)?
        .compare(&texts, (args.tokens, args.repetitions as usize))
}

/// A model as a file that both engines read, in a format if it is named; the demo model if none is given.
fn file(
    (path, format): (Option<PathBuf>, Option<Target>),
    (contract, folder): (Contract, &Path),
) -> Result<PathBuf> {
    let target = match (&path, format) {
        (_, Some(target)) => target,
        (Some(path), None) if path.is_file() => return Ok(path.clone()),
        (Some(_), None) => {
            let what = "libraries read GGUF files: --as tq2_0 makes one of the folder";
            return Err(Usage(what.to_owned()).into());
        }
        (None, None) => Target::from_str("tq2_0").map_err(Usage)?,
    };
    let file = folder.join("model.gguf");
    let checkpoint = model::open(path.as_deref())?;
    let config = checkpoint.config()?;
    let conversion = Conversion::plan(Contents::new(&checkpoint, None)?, target, None)?;
    for notice in conversion.notices() {
        exit::say(&format!("note: {notice}"));
    }
    conversion.write(&file, false, &|_| true)?;
    // llama.cpp has its own name for these, and computes them with SiLU.
    if contract == Contract::Bitnet || config.architecture != OURS {
        return Ok(file);
    }
    let renamed = folder.join("renamed.gguf");
    rename(&file, &renamed).context("cannot write the model for the library")?;
    let (own, here) = (config.activation, model::open(Some(&renamed))?.config()?.activation);
    if own != Activation::Silu {
        exit::say(&match here {
            Activation::Silu => format!(
                "note: both compute it with silu, as llama.cpp does with {THEIRS}, and not with its own {own}: \
                 they can be compared, but it predicts nothing"
            ),
            _ => format!(
                "note: llama.cpp computes {THEIRS} with silu, and not with {own}: they will differ"
            ),
        });
    }
    Ok(renamed)
}

/// What models with ReLU squared, and their family, are called.
const OURS: &str = "bitnet-b1.58";
/// What llama.cpp calls them.
const THEIRS: &str = "bitnet";

/// Writes a model again, under the name that llama.cpp has for its architecture.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let gguf = Gguf::open(from)?;
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        writer = match key.strip_prefix(OURS) {
            Some(rest) => writer.metadata(&format!("{THEIRS}{rest}"), value.clone()),
            None if key == "general.architecture" => writer.metadata(key, THEIRS.to_owned()),
            None => writer.metadata(key, value.clone()),
        };
    }
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor)?;
        writer = writer.tensor(&tensor.name, &tensor.dims, tensor.type_id, data);
    }
    writer.write_to(&mut BufWriter::new(File::create(to)?))?;
    Ok(())
}
