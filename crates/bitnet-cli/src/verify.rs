//! `bitnet verify`: whether a receipt can be true.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bitnet_inference::receipt::{Check, Receipt, verify};
use bitnet_inference::{Options, read_text};
use bitnet_kernels::Device;
use serde::Serialize;

use crate::exit::{self, End, Unreadable};
use crate::model::{self, How, Library};
use crate::output;

/// Flags of `bitnet verify`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The receipt, as `bitnet run --receipt` writes it.
    #[arg(value_name = "FILE")]
    receipt: PathBuf,
    /// The model (a file, a folder or `ORG/NAME[:FILE]` from the cache), to run it again; the demo model
    /// is inside this program.
    #[arg(short, long, value_name = "FILE", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    library: Library,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    verified: bool,
    /// Whether the model was there to run it again, and what gives the same result.
    rerun: bool,
    checks: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    what: &'static str,
    wrong: Option<String>,
}

/// Bytes of a receipt at most: a prompt has some for each token.
const LONGEST: u64 = 256 << 20;

pub(crate) fn run(args: &Args) -> Result<End> {
    let name = args.receipt.display();
    let text = File::open(&args.receipt).and_then(|file| read_text(file, LONGEST));
    let text = text.with_context(|| format!("cannot read {name}"))?;
    let receipt =
        Receipt::read(&text).map_err(|e| Unreadable(format!("{name} is no receipt: {e}")))?;
    let wanted = receipt.options().map_err(|e| Unreadable(format!("{name}: {e}")))?;
    let mut options = Options {
        kv: wanted.kv,
        context: wanted.context,
        dequantize: wanted.dequantize,
        device: wanted.device,
        gpu_precision: wanted.gpu_precision,
        gpu_passes: wanted.gpu_passes,
        threads: wanted.threads,
        library: args.library.path(),
        ..args.how.measured(None)
    };
    let on_gpu = matches!(wanted.device, Device::Cuda(_));
    if on_gpu {
        // These are choices among kernels of processors.
        (options.kernels, options.layout) = (wanted.kernels, wanted.layout);
    }
    // A library reads files only.
    let demo = args.model.is_none()
        && wanted.device != Device::Llama
        && receipt.model.sha256 == model::demo_sha256();
    let loaded = (demo || args.model.is_some())
        .then(|| model::load(args.model.as_deref(), &options))
        .transpose();
    // All that arithmetic finds is worth seeing where such a GPU is not here.
    let (engine, failed) = match loaded {
        Err(error) if on_gpu && model::is_of_device(&error) => (None, Some(error)),
        loaded => (loaded?, None),
    };
    if let Some(engine) = engine.as_ref().filter(|e| e.sha256() != receipt.model.sha256) {
        let what = format!(
            "the model has the hash {}, and {name} is of another: {}",
            engine.sha256(),
            receipt.model.sha256
        );
        return Err(Unreadable(what).into());
    }
    let verdict = verify(&receipt, engine.as_ref())?;
    let (verified, rerun) = (verdict.holds(), verdict.rerun);
    let line = |Check { what, wrong }: &Check| Line { what, wrong: wrong.clone() };
    let report = Report { verified, rerun, checks: verdict.checks.iter().map(line).collect() };
    output::report(&report, args.json, || verdict.to_string())?;
    if !verified {
        exit::say(&format!("{name} does not hold"));
        return Ok(End::Refuted);
    }
    if let Some(error) = failed {
        bail!("{name} can be true, and is not run again: {error:#}");
    }
    let said = match (rerun, &engine) {
        (true, _) => format!("{name} holds: the same run gave the same result"),
        (false, None) => format!("{name} can be true: give the model with -m to run it again"),
        (false, Some(_)) => bail!(
            "{name} can be true, and is not run again: what attention in {} gives is given again only by the same kernels on a GPU of \
             the same compute capability",
            wanted.gpu_precision
        ),
    };
    exit::say(&said);
    Ok(End::Done)
}
