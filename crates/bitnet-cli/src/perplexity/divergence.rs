//! `bitnet perplexity --kl-divergence`: a model against another, as llama-perplexity has it.

use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::{Error, Result};
use bitnet_inference::{Base, Divergence, Engine, Estimate, Perplexity, quantile};
use serde::Serialize;

use super::Args;
use crate::exit::{self, End};
use crate::interrupt::Interrupt;
use crate::output::{self, print};
use crate::{model, progress};

/// Shares of the numbers below those that are shown.
const SHARES: [f64; 11] = [1.0, 0.999, 0.99, 0.95, 0.9, 0.5, 0.1, 0.05, 0.01, 0.001, 0.0];

/// What `--json` prints. Divergences are in nats.
#[derive(Debug, Serialize)]
struct Report {
    ppl: f64,
    ppl_of_base: f64,
    log_ppl_ratio: Number,
    log_ppl_correlation: f64,
    kl_divergence: Number,
    kl_divergence_quantiles: Vec<(f64, f64)>,
    /// Of the tokens that follow.
    probability_difference: Number,
    probability_difference_rms: Number,
    probability_difference_quantiles: Vec<(f64, f64)>,
    /// Share of positions.
    same_top: Number,
    scored_tokens: usize,
    chunks: usize,
    n_ctx: usize,
    model: model::Identity,
    seconds: f64,
}

/// A value and its standard error.
#[derive(Debug, Serialize)]
struct Number {
    value: f64,
    error: f64,
}

impl From<Estimate> for Number {
    fn from(Estimate { value, error }: Estimate) -> Number {
        Number { value, error }
    }
}

/// Compares the model with the base in a file.
pub(super) fn run(args: &Args, path: &Path) -> Result<End> {
    let base = Base::open(path)?;
    let interrupt = Interrupt::listen();
    // Another context than that of the base is refused below.
    let context = args.model.ctx_size.filter(|&n| n > 0).unwrap_or(base.window());
    let engine = args.model.load_with(|options| options.context = Some(context))?;
    let perplexity = args.some(Perplexity::of_base(&engine, &base)?)?;
    let start = Instant::now();
    let bar = progress::tokens("comparing", perplexity.to_run() as u64);
    let mut shown = Shown { windows: 0, failed: None, quiet: args.json };
    let found = perplexity.compare(base, |found| {
        bar.set_position(found.run as u64);
        !interrupt.pressed() && bar.suspend(|| shown.update(found))
    });
    bar.finish_and_clear();
    let Some(found) = found? else {
        return match shown.failed {
            Some(error) => Err(error),
            None if interrupt.pressed() => Ok(End::Interrupted),
            None => Ok(End::Done),
        };
    };
    if args.json {
        let seconds = start.elapsed().as_secs_f64();
        output::report(&Report::new(&found, &engine, seconds), true, String::new)?;
    } else {
        print(&mut io::stdout(), &summary(&found))?;
    }
    let (count, seconds) = (found.divergences.len(), start.elapsed().as_secs_f64());
    exit::say(&format!("{count} tokens compared in {} windows, {seconds:.1} s", found.windows));
    Ok(End::Done)
}

/// What is shown while it runs.
struct Shown {
    windows: usize,
    failed: Option<Error>,
    quiet: bool,
}

impl Shown {
    /// A line for each window, with what was found so far; false if nobody reads it.
    fn update(&mut self, found: &Divergence) -> bool {
        if self.quiet || self.windows == found.windows {
            return true;
        }
        let head = if self.windows == 0 { HEAD } else { "" };
        self.windows = found.windows;
        let line = format!("{head}{:>4}  {}\n", found.windows, line(found));
        print(&mut io::stdout(), &line).unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }
}

/// The columns of [`line()`].
const HEAD: &str = concat!(
    "chunk             PPL               ln(PPL(Q)/PPL(base))",
    "          KL Divergence              Δp RMS            Same top p\n"
);

/// What was found so far, with standard errors.
fn line(found: &Divergence) -> String {
    let both = |Estimate { value, error }: Estimate, digits: usize, width: usize| {
        format!("{value:>width$.digits$} ± {error:>width$.digits$}")
    };
    [
        both(ppl(found.nats_per_token()[0]), 4, 9),
        both(found.log_ratio(), 5, 10),
        both(found.divergence(), 5, 10),
        both(percent(found.root_mean_square()), 3, 6) + " %",
        both(percent(found.same_top()), 3, 6) + " %",
    ]
    .join("    ")
}

/// The perplexity of nats a token.
fn ppl(Estimate { value, error }: Estimate) -> Estimate {
    let value = value.exp();
    Estimate { value, error: value * error }
}

fn percent(Estimate { value, error }: Estimate) -> Estimate {
    Estimate { value: 100.0 * value, error: 100.0 * error }
}

/// All that was found, for people.
fn summary(found: &Divergence) -> String {
    let row = |name: &str, Estimate { value, error }: Estimate, unit: &str| {
        format!("{name:<30}: {value:>11.6} ± {error:>10.6}{unit}\n")
    };
    let one = |name: &str, value: f64, unit: &str| format!("{name:<30}: {value:>11.6}{unit}\n");
    let [ours, theirs] = found.nats_per_token().map(ppl);
    let mut text = "\n====== Perplexity statistics ======\n".to_owned();
    text += &row("Mean PPL(Q)", ours, "");
    text += &row("Mean PPL(base)", theirs, "");
    text += &one("Cor(ln(PPL(Q)), ln(PPL(base)))", 100.0 * found.correlation(), "%");
    text += &row("Mean ln(PPL(Q)/PPL(base))", found.log_ratio(), "");
    text += &row("Mean PPL(Q)/PPL(base)", ppl(found.log_ratio()), "");
    text += "\n====== KL divergence statistics ======\n";
    text += &row("Mean    KLD", found.divergence(), "");
    for (name, value) in quantiles(&found.divergences) {
        text += &one(&format!("{name:<7} KLD"), value, "");
    }
    text += "\n====== Token probability statistics ======\n";
    text += &row("Mean    Δp", percent(found.difference()), " %");
    for (name, value) in quantiles(&found.differences) {
        text += &one(&format!("{name:<7} Δp"), 100.0 * value, " %");
    }
    text += &row("RMS Δp", percent(found.root_mean_square()), " %");
    text + &row("Same top p", percent(found.same_top()), " %")
}

/// The quantiles that are shown, and their names.
fn quantiles(numbers: &[f64]) -> Vec<(String, f64)> {
    let name = |share: f64| match share {
        1.0 => "Maximum".to_owned(),
        0.5 => "Median".to_owned(),
        0.0 => "Minimum".to_owned(),
        share => format!("{:.1}%", 100.0 * share),
    };
    shares(numbers).into_iter().map(|(share, value)| (name(share), value)).collect()
}

fn shares(numbers: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    SHARES.map(|share| (share, quantile(&sorted, share))).to_vec()
}

impl Report {
    fn new(found: &Divergence, engine: &Engine, seconds: f64) -> Report {
        let [ours, theirs] = found.nats_per_token();
        Report {
            ppl: ours.value.exp(),
            ppl_of_base: theirs.value.exp(),
            log_ppl_ratio: found.log_ratio().into(),
            log_ppl_correlation: found.correlation(),
            kl_divergence: found.divergence().into(),
            kl_divergence_quantiles: shares(&found.divergences),
            probability_difference: found.difference().into(),
            probability_difference_rms: found.root_mean_square().into(),
            probability_difference_quantiles: shares(&found.differences),
            same_top: found.same_top().into(),
            scored_tokens: found.divergences.len(),
            chunks: found.windows,
            n_ctx: engine.context(),
            model: model::Identity::new(engine),
            seconds,
        }
    }
}
