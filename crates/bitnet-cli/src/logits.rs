//! `bitnet logits`: the raw output of a model.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use bitnet_inference::{CHUNK, Error, Input, sha256};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use crate::exit::{self, End, Usage};
use crate::{model, output};

/// Flags of `bitnet logits`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Token ids, separated by commas. Nothing is added to them.
    #[arg(long, value_name = "ID,ID,...", required = true, value_delimiter = ',')]
    ids: Vec<u32>,
    /// Where to write the tensor `logits`, f32 [tokens, vocabulary] (safetensors).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    /// Tokens, vocabulary.
    shape: [usize; 2],
    /// Of the numbers in the file.
    sha256: String,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    if args.ids.is_empty() {
        return Err(Usage("no token ids: give some, such as --ids 1,2,3".to_owned()).into());
    }
    let engine = args.model.load()?;
    let mut session = engine.session(1)?;
    let mut bytes = Vec::new();
    for chunk in args.ids.chunks(CHUNK) {
        let inputs: Vec<_> =
            chunk.iter().map(|&token| Input { sequence: 0, token, logits: true }).collect();
        let logits = session.run(&inputs)?;
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::NotFinite.into());
        }
        bytes.extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
    }
    let shape = vec![args.ids.len(), engine.vocabulary()];
    let digest = sha256(&bytes);
    let tensor = TensorView::new(Dtype::F32, shape.clone(), &bytes)?;
    let file = safetensors::serialize([("logits", tensor)], None)?;
    // In place: the path may be a link or a device.
    fs::write(&args.out, file).with_context(|| format!("cannot write {}", args.out.display()))?;
    let (file, shape) = (args.out.display().to_string(), [shape[0], shape[1]]);
    let report = Report { file, shape, sha256: digest };
    if args.json {
        output::report(&report, true, String::new)?;
    } else {
        let Report { file, shape: [tokens, vocabulary], sha256 } = report;
        exit::say(&format!(
            "{file}: logits f32 [{tokens}, {vocabulary}], sha256 of the numbers {sha256}"
        ));
    }
    Ok(End::Done)
}
