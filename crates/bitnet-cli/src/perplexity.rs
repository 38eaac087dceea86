//! `bitnet perplexity`: how well a model predicts a text.

mod divergence;

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use bitnet_inference::{Engine, Perplexity, Score, Windows};
use clap::value_parser;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::exit::{self, End, Usage};
use crate::interrupt::Interrupt;
use crate::output::print;
use crate::{input, model, output, progress};

/// Flags of `bitnet perplexity`. Names and defaults are those of llama-perplexity.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(mut_arg("ctx_size", |arg| arg.help(
    "Tokens of a window; 512 if not given, and with --all-tokens what the model was trained for, as 0 is"
)))]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Text to score; `-` is stdin. Control tokens in it are text.
    #[arg(short, long, value_name = "FILE", required_unless_present = "kl_divergence")]
    file: Option<PathBuf>,
    /// Tokens that are run at a time: 128 at most, which more is too. The result does not depend on it.
    #[arg(short, long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,
    /// Windows to run at most; -1 is all.
    #[arg(long, value_name = "N", default_value_t = -1, value_parser = value_parser!(i64).range(-1..))]
    chunks: i64,
    /// Windows that begin every N tokens, are N / 2 longer, and have their last N tokens scored; 0 is
    /// windows side by side, whose second half is scored.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "all_tokens")]
    ppl_stride: usize,
    /// Score every token, in windows side by side.
    #[arg(long)]
    all_tokens: bool,
    /// Write the log probabilities of all tokens here, for --kl-divergence; two bytes for each token of the
    /// vocabulary at each position. Files of llama-perplexity are the same.
    #[arg(long, alias = "save-all-logits", value_name = "FILE",
        conflicts_with_all = ["all_tokens", "ppl_stride"])]
    kl_divergence_base: Option<PathBuf>,
    /// Compare the model with the one that wrote --kl-divergence-base, on its text: the Kullback-Leibler
    /// divergence, and what else tells how far they are apart.
    #[arg(long, requires = "kl_divergence_base", conflicts_with = "file")]
    kl_divergence: bool,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    ppl: f64,
    /// The standard errors.
    ppl_error: Option<f64>,
    nats_per_token: f64,
    nats_per_token_error: Option<f64>,
    /// Where the tokens spell the text as it is.
    bits_per_byte: Option<f64>,
    /// Tokens that were predicted, and the bytes they stand for.
    scored_tokens: usize,
    scored_bytes: Option<usize>,
    /// Tokens of the whole text, that before it among them.
    text_tokens: usize,
    chunks: usize,
    n_ctx: usize,
    method: &'static str,
    stride: Option<usize>,
    model: model::Identity,
    seconds: f64,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let base = args.kl_divergence_base.as_deref();
    let (file, windows) = match (&args.file, base) {
        (Some(file), _) => (file, args.windows()),
        (None, Some(base)) => return divergence::run(args, base),
        (None, None) => return Err(Usage("no text: give one with -f FILE".to_owned()).into()),
    };
    let mut text = input::file(file)?;
    // As llama.cpp reads it.
    if windows != Windows::All && text.ends_with('\n') {
        text.pop();
    }
    let interrupt = Interrupt::listen();
    let engine = args.engine(windows)?;
    let perplexity = args.some(Perplexity::new(&engine, &text, windows)?)?;
    let start = Instant::now();
    let mut shown = Shown::new(&perplexity, args.json);
    let told = |score: &Score| !interrupt.pressed() && shown.update(score);
    let score = match base {
        Some(path) => perplexity.save(path, told),
        None => perplexity.score(told),
    };
    shown.bar.finish_and_clear();
    shown.line("\n");
    match score? {
        Some(score) => args.report((&engine, &perplexity), &score, start.elapsed()),
        // Nobody reads any more.
        None if shown.failed.is_none() && !interrupt.pressed() => Ok(End::Done),
        None => shown.failed.map_or(Ok(End::Interrupted), Err),
    }
}

impl Args {
    fn windows(&self) -> Windows {
        match self.ppl_stride {
            _ if self.all_tokens => Windows::All,
            0 => Windows::Halves,
            stride => Windows::Strided(stride),
        }
    }

    /// The model, with windows as its context.
    fn engine(&self, windows: Windows) -> Result<Engine> {
        /// What llama-perplexity takes.
        const WINDOW: usize = 512;
        let window = match (windows, self.model.ctx_size) {
            (Windows::All, asked) => asked.unwrap_or(0),
            (_, asked) => asked.unwrap_or(WINDOW),
        };
        self.model.load_with(|options| {
            options.context = (window > 0).then_some(window + self.ppl_stride / 2);
        })
    }

    /// As much of a text as is asked for, as it is to be run.
    fn some<'a>(&self, all: Perplexity<'a>) -> Result<Perplexity<'a>> {
        if self.chunks == 0 {
            return Err(Usage("no windows to run: --chunks is 0".to_owned()).into());
        }
        let some = all.limit(usize::try_from(self.chunks).unwrap_or(usize::MAX));
        Ok(some.batch(self.batch_size.map_or(usize::MAX, NonZeroUsize::get)))
    }

    /// Prints what was found.
    fn report(
        &self,
        (engine, perplexity): (&Engine, &Perplexity<'_>),
        score: &Score,
        time: Duration,
    ) -> Result<End> {
        if self.json {
            output::report(&self.figures((engine, perplexity), score, time), true, String::new)?;
        } else {
            let (ppl, error) = (score.perplexity(), score.standard_error());
            let error = error.map_or(String::new(), |error| format!(" +/- {:.5}", error * ppl));
            print(&mut io::stdout(), &format!("Final estimate: PPL = {ppl:.4}{error}\n"))?;
        }
        let bits = score.bits_per_byte().map_or(String::new(), |b| format!(", {b:.4} bits a byte"));
        exit::say(&format!(
            "{} tokens scored in {} windows of {}: {:.4} nats a token{bits}; {} tokens in {:.1} s",
            score.tokens,
            score.windows,
            perplexity.window(),
            score.nats_per_token(),
            score.run,
            time.as_secs_f64(),
        ));
        Ok(End::Done)
    }

    /// What was found, for programs.
    fn figures(
        &self,
        (engine, perplexity): (&Engine, &Perplexity<'_>),
        score: &Score,
        time: Duration,
    ) -> Report {
        let (ppl, error) = (score.perplexity(), score.standard_error());
        Report {
            ppl,
            ppl_error: error.map(|error| error * ppl),
            nats_per_token: score.nats_per_token(),
            nats_per_token_error: error,
            bits_per_byte: score.bits_per_byte(),
            scored_tokens: score.tokens,
            scored_bytes: score.bytes,
            text_tokens: perplexity.tokens().len(),
            chunks: score.windows,
            n_ctx: perplexity.window(),
            method: match self.windows() {
                Windows::Halves => "halves",
                Windows::Strided(_) => "strided",
                Windows::All => "all-tokens",
            },
            stride: Some(self.ppl_stride).filter(|&stride| stride > 0),
            model: model::Identity::new(engine),
            seconds: time.as_secs_f64(),
        }
    }
}

/// What is shown while it runs.
struct Shown {
    bar: ProgressBar,
    /// Windows shown; nothing where they are not.
    windows: Option<usize>,
    failed: Option<anyhow::Error>,
}

impl Shown {
    /// Figures on stdout, unless it is for a program, and a bar on stderr, unless figures come between.
    fn new(perplexity: &Perplexity<'_>, json: bool) -> Shown {
        let bar = match !json && io::stdout().is_terminal() {
            true => ProgressBar::hidden(),
            false => progress::tokens("scoring", perplexity.to_run() as u64),
        };
        Shown { bar, windows: (!json).then_some(0), failed: None }
    }

    /// Shows how far it is; false if that is of no use any more.
    fn update(&mut self, score: &Score) -> bool {
        self.bar.set_position(score.run as u64);
        if self.windows.is_none_or(|shown| shown == score.windows) {
            return true;
        }
        self.windows = Some(score.windows);
        self.line(&format!("[{}]{:.4},", score.windows, score.perplexity()))
    }

    /// Prints on stdout, if figures are shown.
    fn line(&mut self, text: &str) -> bool {
        let printed = match self.windows {
            Some(windows) if windows > 0 => print(&mut io::stdout(), text),
            _ => Ok(true),
        };
        printed.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }
}
