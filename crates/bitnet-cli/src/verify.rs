//! `bitnet verify`: whether a receipt can be true.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use bitnet_inference::Options;
use bitnet_inference::receipt::{Receipt, verify};
use serde::Serialize;

use crate::exit::{self, End, Unreadable};
use crate::model::{self, How};
use crate::run::print;

/// Flags of `bitnet verify`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The receipt, as `bitnet run --receipt` writes it.
    #[arg(value_name = "FILE")]
    receipt: PathBuf,
    /// The model (GGUF), to run it again; the demo model is inside this program.
    #[arg(short, long, value_name = "FILE", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    verified: bool,
    /// Whether the model was there to run it again.
    rerun: bool,
    checks: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    what: &'static str,
    wrong: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let name = args.receipt.display();
    let text = fs::read_to_string(&args.receipt).with_context(|| format!("cannot read {name}"))?;
    let receipt: Receipt = serde_json::from_str(&text)
        .map_err(|e| Unreadable(format!("{name} is no receipt of this version: {e}")))?;
    let wanted = receipt.options().map_err(|e| Unreadable(format!("{name}: {e}")))?;
    let options = Options {
        kv: wanted.kv,
        context: wanted.context,
        dequantize: wanted.dequantize,
        ..args.how.options()?
    };
    let demo = args.model.is_none() && receipt.model.sha256 == model::demo_sha256();
    let engine = (demo || args.model.is_some())
        .then(|| model::load(args.model.as_deref(), &options))
        .transpose()?;
    let verdict = verify(&receipt, engine.as_ref())?;
    let (holds, rerun) = (verdict.holds(), verdict.rerun);
    let text = match args.json {
        true => {
            let line = |check: bitnet_inference::receipt::Check| Line {
                what: check.what,
                wrong: check.wrong,
            };
            let checks = verdict.checks.into_iter().map(line).collect();
            serde_json::to_string(&Report { verified: holds, rerun, checks })? + "\n"
        }
        false => verdict.to_string(),
    };
    print(&mut io::stdout(), &text)?;
    if !holds {
        exit::say(&format!("{name} does not hold"));
        return Ok(End::Refuted);
    }
    exit::say(&match rerun {
        true => format!("{name} holds: the same run gave the same result"),
        false => format!("{name} can be true: give the model with -m to run it again"),
    });
    Ok(End::Done)
}
