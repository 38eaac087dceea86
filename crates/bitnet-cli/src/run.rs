//! `bitnet run`: a prompt in, its continuation out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitnet_inference::receipt::{self, Around, Receipt};
use bitnet_inference::{
    Capacity, Engine, Finish, Generation, Request, Scheduler, Usage, read_text,
};
use bitnet_kernels::Device;
use serde::Serialize;

use crate::exit::{self, End};
use crate::interrupt::Interrupt;
use crate::output::{self, print};
use crate::{chat, memory, model, sampling};

/// Flags of `bitnet run`. Names and defaults are those of llama.cpp.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Text to continue; `-` or nothing reads it from stdin.
    #[arg(value_name = "PROMPT", group = "source")]
    text: Option<String>,
    /// Text to continue.
    #[arg(short, long, value_name = "PROMPT", group = "source", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// File with the text to continue.
    #[arg(short, long, value_name = "FILE", group = "source")]
    file: Option<PathBuf>,
    #[command(flatten)]
    sampling: sampling::Args,
    #[command(flatten)]
    chat: chat::message::Args,
    /// Known from llama.cpp; the prompt is never part of the output.
    #[arg(long)]
    no_display_prompt: bool,
    /// Print one JSON object instead of the text.
    #[arg(long)]
    json: bool,
    /// Keep what was computed of the prompt in this file, and take from it what was computed before.
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,
    /// Keep what was computed of the text behind the prompt, too.
    #[arg(long, requires = "prompt_cache")]
    prompt_cache_all: bool,
    /// Only read the file of --prompt-cache.
    #[arg(long, requires = "prompt_cache", conflicts_with = "prompt_cache_all")]
    prompt_cache_ro: bool,
    /// Write a receipt: what computed the text, for `bitnet verify`.
    #[arg(long, value_name = "FILE", env = "BITNET_RECEIPT")]
    receipt: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    text: &'a str,
    tokens: &'a [u32],
    prompt_tokens: &'a [u32],
    seed: u64,
    finish_reason: &'static str,
    timings: Figures,
    kernels: BTreeMap<String, u64>,
    model: ModelReport,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    sha256: String,
    architecture: String,
    #[serde(rename = "type")]
    weights: String,
}

/// Durations in milliseconds, speeds in tokens per second, memory in bytes.
#[derive(Debug, Serialize)]
struct Figures {
    cached_tokens: usize,
    load_ms: f64,
    prompt_ms: f64,
    first_token_ms: f64,
    decode_ms: f64,
    prompt_per_second: Option<f64>,
    decode_per_second: Option<f64>,
    peak_memory_bytes: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let prompt = args.read_prompt()?;
    let request = args.sampling.request(Vec::new())?;
    args.check(&request)?;
    // Only now: while the prompt is typed, Ctrl-C ends the process as everywhere.
    let interrupt = Interrupt::listen();
    let start = Instant::now();
    let engine = args.model.load()?;
    let load = start.elapsed();

    let prompt = match args.chat.prompt(&engine, &prompt)? {
        Some(tokens) => tokens,
        None => engine.encode(&prompt)?,
    };
    let seed = request.sampling.seed;
    let request = Request { prompt, ..request };
    let mut generation = match &args.prompt_cache {
        None => Generation::new(&engine, request)?,
        Some(path) => Generation::with(args.restore(&engine, path)?, request)?,
    };
    let Some(text) = write_text(&mut generation, &interrupt, args.json)? else {
        return Ok(End::Done);
    };

    let figures = Figures::new(load, generation.usage());
    if let Some(path) = &args.receipt {
        // Where there is no memory for it, the receipt does without; so it does where weights are not in it.
        let here = !matches!(engine.device(), Device::Cuda(_));
        let bandwidth = here.then(|| receipt::bandwidth(&engine).ok()).flatten();
        let around = Around { load, peak_memory: figures.peak_memory_bytes, bandwidth };
        let receipt = Receipt::new(&engine, &mut generation, around)?;
        let json = serde_json::to_string_pretty(&receipt)? + "\n";
        let failed = || format!("cannot write the receipt to {}", path.display());
        fs::write(path, json).with_context(failed)?;
    }
    let finish = generation.finish().unwrap_or(Finish::Cancelled);
    let usage = generation.usage();
    if args.json {
        let report = Report {
            text: &text,
            tokens: generation.generated(),
            prompt_tokens: &generation.request().prompt,
            seed,
            finish_reason: finish.name(),
            kernels: receipt::kernels(&generation),
            model: ModelReport::new(&engine),
            timings: figures,
        };
        let json = serde_json::to_string(&report)?;
        if !print(&mut io::stdout(), &format!("{json}\n"))? {
            return Ok(End::Done);
        }
        show(&report.timings, usage, seed);
    } else {
        show(&figures, usage, seed);
    }
    args.save(generation)?;
    Ok(if finish == Finish::Cancelled { End::Interrupted } else { End::Done })
}

impl Args {
    /// Finds out now what would be in the way at the end.
    fn check(&self, request: &Request) -> Result<()> {
        if let Some(path) = &self.receipt {
            receipt::check(request)?;
            output::can_write(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = self.prompt_cache.as_deref().filter(|_| !self.prompt_cache_ro) {
            output::can_write(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// A scheduler with what the file has, if there is one.
    fn restore<'a>(&self, engine: &'a Engine, path: &Path) -> Result<Scheduler<'a>> {
        let capacity = Capacity { sequences: 1, ..Capacity::default() };
        let mut scheduler = Scheduler::new(engine, capacity)?;
        if path.exists() {
            scheduler.restore(path)?;
        }
        Ok(scheduler)
    }

    /// Keeps what was computed, if that was asked for.
    fn save(&self, generation: Generation<'_>) -> Result<()> {
        let Some(path) = self.prompt_cache.as_deref().filter(|_| !self.prompt_cache_ro) else {
            return Ok(());
        };
        let mut tokens = generation.request().prompt.clone();
        if self.prompt_cache_all {
            tokens.extend(generation.generated());
        }
        // A link stays one, to what is written.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        generation.into_scheduler().save(&path, &tokens)?;
        Ok(())
    }

    /// The text to continue, from wherever it comes.
    fn read_prompt(&self) -> Result<String> {
        if let Some(prompt) = &self.prompt {
            return Ok(prompt.clone());
        }
        if let Some(path) = &self.file {
            return File::open(path)
                .and_then(read_prompt)
                .with_context(|| format!("cannot read the prompt from {}", path.display()));
        }
        match &self.text {
            Some(text) if text != "-" => Ok(text.clone()),
            None if io::stdin().is_terminal() => {
                let what = "no prompt: give one as an argument, with -f FILE, or on stdin";
                Err(exit::Usage(what.to_owned()).into())
            }
            _ => read_prompt(io::stdin().lock()).context("cannot read the prompt from stdin"),
        }
    }
}

/// Bytes of a prompt at most: more than any context holds.
const LONGEST_PROMPT: u64 = 64 << 20;

/// All of a prompt, without the newline that editors put at the end of files.
fn read_prompt(from: impl Read) -> io::Result<String> {
    let mut text = read_text(from, LONGEST_PROMPT)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Generates and prints the text as it comes, or keeps it if `quiet`. Nothing if the reader of
/// stdout went away.
fn write_text(
    generation: &mut Generation<'_>,
    interrupt: &Interrupt,
    quiet: bool,
) -> Result<Option<String>> {
    let mut out = io::stdout().lock();
    let mut text = String::new();
    while let Some(token) = generation.next(|| interrupt.pressed())? {
        if quiet {
            text.push_str(&token.text);
        } else if !print(&mut out, &token.text)? {
            return Ok(None);
        }
    }
    let rest = generation.end().map_or("", |end| &end.text);
    if quiet {
        text.push_str(rest);
    } else if !print(&mut out, &format!("{rest}\n"))? {
        return Ok(None);
    }
    Ok(Some(text))
}

impl ModelReport {
    fn new(engine: &Engine) -> ModelReport {
        ModelReport {
            sha256: engine.sha256().to_owned(),
            architecture: engine.config().architecture.clone(),
            weights: engine.weight_formats().join("+"),
        }
    }
}

impl Figures {
    fn new(load: Duration, usage: Usage) -> Figures {
        let Usage { timings, .. } = usage;
        let (prompt, decoded) =
            (usage.prompt - usage.cached, usage.positions.saturating_sub(usage.prompt));
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        let speed = |tokens: usize, duration: Duration| {
            (tokens > 0 && !duration.is_zero()).then(|| tokens as f64 / duration.as_secs_f64())
        };
        Figures {
            cached_tokens: usage.cached,
            load_ms: milliseconds(load),
            prompt_ms: milliseconds(timings.prompt),
            first_token_ms: milliseconds(timings.first_token),
            decode_ms: milliseconds(timings.decode),
            prompt_per_second: speed(prompt, timings.prompt),
            decode_per_second: speed(decoded, timings.decode),
            peak_memory_bytes: memory::peak(),
        }
    }
}

/// The line of figures that ends stderr.
fn show(figures: &Figures, usage: Usage, seed: u64) {
    let Usage { prompt, generated, .. } = usage;
    let speed =
        |speed: Option<f64>| speed.map_or("- tok/s".to_owned(), |s| format!("{s:.1} tok/s"));
    let memory = figures.peak_memory_bytes.map_or("unknown".to_owned(), |bytes| {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    });
    let cached = match usage.cached {
        0 => String::new(),
        cached => format!(" ({cached} cached)"),
    };
    let guessed = match usage.drafted {
        0 => String::new(),
        drafted => format!(", {} of {drafted} guesses right", usage.accepted),
    };
    exit::say(&format!(
        "prompt {prompt} tok{cached} {}, generated {generated} tok {}{guessed}, first token {:.1} ms, \
         peak memory {memory}, seed {seed}",
        speed(figures.prompt_per_second),
        speed(figures.decode_per_second),
        figures.first_token_ms,
    ));
}
