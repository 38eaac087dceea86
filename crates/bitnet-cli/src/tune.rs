//! `bitnet tune`: measures what runs fastest on this machine, and keeps it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bitnet_inference::Checkpoint;
use bitnet_inference::tuning::{self, Best, Found, Measured, Shape, Tuning};
use bitnet_kernels::KernelManager;
use bitnet_kernels::shapes::BITNET_2B_4T;

use crate::exit::{self, End, Usage};
use crate::hub;
use crate::model::Source;
use crate::output;

/// Flags of `bitnet tune`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Model (GGUF file, Hugging Face folder or `ORG/NAME[:FILE]` from the cache) whose matrices are measured; those of BitNet b1.58 2B-4T if not given.
    #[arg(short, long, value_name = "FILE", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
    /// Where to keep what was measured: in the user's folder for configuration if not given.
    #[arg(long, value_name = "FILE", env = "BITNET_TUNING")]
    tuning: Option<Source>,
    /// Print what is written instead of a summary.
    #[arg(long)]
    json: bool,
}

/// Layers of BitNet b1.58 2B-4T, and how many matrices of each shape one has.
const LAYERS: usize = 30;
const COUNTS: [usize; 4] = [2, 2, 2, 1];

pub(crate) fn run(args: &Args) -> Result<End> {
    let path = match &args.tuning {
        Some(Source::File(path)) => path.clone(),
        Some(Source::Nowhere) => {
            let what = "`none` is no file to keep measurements in: give --tuning FILE";
            return Err(Usage(what.to_owned()).into());
        }
        Some(Source::Auto) | None => {
            Tuning::path().context("there is no folder for configuration: give --tuning FILE")?
        }
    };
    let shapes = match &args.model {
        Some(model) => Shape::of(&Checkpoint::open(hub::find(model)?)?.config()?),
        None => {
            let known = BITNET_2B_4T.iter().zip(COUNTS);
            known
                .map(|(shape, count)| Shape {
                    rows: shape.rows,
                    cols: shape.cols,
                    count: count * LAYERS,
                })
                .collect()
        }
    };
    // All that the processor has: what is measured holds for runs that do not say otherwise.
    let manager = KernelManager::new();
    let tuning =
        tuning::measure(&manager, &shapes, |what| exit::say(&format!("measuring {what}")))?;
    // What is there for other models stays, if it is for this machine. What is damaged goes.
    let tuning = match Tuning::load(&path) {
        Ok(Found::Tuning(older)) => tuning.and(older, &shapes),
        _ => tuning,
    };
    tuning.save(&path)?;
    output::report(&tuning, args.json, || summary(&tuning, &path))?;
    Ok(End::Done)
}

/// What was measured, for people.
fn summary(tuning: &Tuning, path: &Path) -> String {
    // The first is what was measured now.
    let best: String = tuning.models.iter().take(1).map(lines).collect();
    best + &format!("written to {}\n", path.display())
}

/// What is best for a model.
pub(crate) fn lines(best: &Best) -> String {
    let Best { threads, tile, shapes } = best;
    let first = format!("{threads} threads, tiles of {tile} multiply-adds\n");
    first + &shapes.iter().map(line).collect::<String>()
}

/// A shape: its fastest kernel, and how much slower the next is.
fn line(shape: &Measured) -> String {
    let Measured { operation, rows, cols, kernels } = shape;
    let size = format!("{rows} x {cols}");
    let mut out = format!("{operation} {size:>13}  ");
    if let Some(first) = kernels.first() {
        out += &format!("{} {:.0} µs", first.id, first.nanoseconds as f64 / 1e3);
        if let Some(next) = kernels.get(1) {
            let ratio = next.nanoseconds as f64 / first.nanoseconds.max(1) as f64;
            out += &format!(", {} takes {ratio:.2} times that", next.id);
        }
    }
    out + "\n"
}
