//! The `bitnet` command.
//!
//! stdout is what was asked for and nothing else; everything else goes to stderr.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod bench;
mod chat;
mod check;
mod convert;
#[cfg(feature = "ffi")]
mod crossval;
mod devices;
mod diff;
mod doctor;
mod embed;
mod exit;
mod hub;
mod input;
mod inspect;
mod interrupt;
mod kernels;
mod logits;
mod memory;
mod model;
mod output;
mod pages;
mod perplexity;
mod progress;
mod run;
mod sampling;
mod serve;
mod synth;
mod template;
mod tokenize;
mod tune;
mod verify;

/// Runs ternary (BitNet b1.58) language models.
#[derive(Debug, Parser)]
#[command(name = "bitnet", version, after_help = exit::CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Continue a text. The continuation goes to stdout, figures to stderr.
    #[command(allow_negative_numbers = true)]
    Run(Box<run::Args>),
    /// Talk with a model. Answers go to stdout, all else to the terminal and stderr.
    #[command(allow_negative_numbers = true)]
    Chat(Box<chat::Args>),
    /// Answer requests over HTTP, as the clients of OpenAI and Anthropic send them.
    #[command(allow_negative_numbers = true)]
    Serve(Box<serve::Args>),
    /// Write the logits after each token, to compare with other engines.
    #[command(allow_negative_numbers = true)]
    Logits(logits::Args),
    /// Measure how well a model predicts a text: its perplexity, as llama-perplexity does.
    #[command(allow_negative_numbers = true)]
    Perplexity(perplexity::Args),
    /// Turn texts into embeddings: vectors that are alike where the texts are.
    ///
    /// The models for it are those of BitNet on Qwen3 and Gemma 3. Others give their state after the last
    /// token, and it is said.
    Embed(embed::Args),
    /// Print the tokens of a text.
    Tokenize(tokenize::Args),
    /// Print the text of some tokens.
    Detokenize(tokenize::BackArgs),
    /// Print the chat template of a model, or what it makes of messages.
    Template(template::Args),
    /// Measure speed: prompts and generation, in tokens per second.
    Bench(bench::Args),
    /// Tell what this machine has, what would run on it, and what would make it faster.
    Doctor(doctor::Args),
    /// Hold what computes on a device to its definition: every kernel of the processor, or a GPU.
    Check(check::Args),
    /// List what a model can run on: the processor, GPUs, libraries; and why not elsewhere.
    Devices(devices::Args),
    /// List all kernels: which run here, why others do not, and what each is used for.
    Kernels(kernels::Args),
    /// Measure which kernels, threads and tiles are fastest here, and use them from now on.
    Tune(tune::Args),
    /// Check a receipt: by arithmetic, and by running it again where the model is there.
    Verify(verify::Args),
    /// Tell what a model is, what would run it, and what is in it.
    Inspect(inspect::Args),
    /// Tell whether two files hold the same model, and where they first differ.
    Diff(diff::Args),
    /// Compare this engine with a C++ one, on the same model: tokens, logits, kernels and times.
    #[cfg(feature = "ffi")]
    Crossval(Box<crossval::Args>),
    /// Open a library for another process of this program.
    #[cfg(feature = "ffi")]
    #[command(hide = true)]
    FfiHost,
    /// Write a model in another format: GGUF with other types, or a Hugging Face folder.
    Convert(convert::Args),
    /// Make floating-point weights ternary, by the mean of their absolute values, and write the model.
    Quantize(convert::Args),
    /// Write a model of random weights, to measure speed with.
    Synth(synth::Args),
    /// Download a model from the Hugging Face hub into the cache. Its path goes to stdout.
    Pull(hub::pull::Args),
    /// List the models in the cache.
    List(hub::list::Args),
    /// Remove a model from the cache.
    Rm(hub::rm::Args),
    /// Print completions for a shell.
    Completions(pages::CompletionsArgs),
    /// Print the manual page, or write those of all commands.
    Man(pages::ManArgs),
}

fn main() -> ExitCode {
    // A variable that is set to nothing is as good as not set.
    let command = Cli::command().mut_subcommands(|command| {
        // Of a flag that is given twice the last counts, as in llama.cpp.
        command.args_override_self(true).mut_args(|arg| match arg.get_env().and_then(env::var_os) {
            Some(value) if value.is_empty() => arg.env(None::<&'static str>),
            _ => arg,
        })
    });
    let matches = command.get_matches_from(args());
    let parsed = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(error) = interrupt::install() {
        return exit::code(Err(error));
    }
    let result = match parsed.command {
        Command::Run(args) => run::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Serve(args) => serve::run(*args),
        Command::Logits(args) => logits::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Detokenize(args) => tokenize::back(&args),
        Command::Template(args) => template::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Diff(args) => diff::run(&args),
        #[cfg(feature = "ffi")]
        Command::Crossval(args) => crossval::run(&args),
        #[cfg(feature = "ffi")]
        Command::FfiHost => bitnet_ffi::host::serve().map(|()| exit::End::Done).map_err(Into::into),
        Command::Convert(args) => convert::run(&args, false),
        Command::Quantize(args) => convert::run(&args, true),
        Command::Synth(args) => synth::run(&args),
        Command::Pull(args) => hub::pull::run(&args),
        Command::List(args) => hub::list::run(&args),
        Command::Rm(args) => hub::rm::run(&args),
        Command::Completions(args) => pages::completions(&args, Cli::command()),
        Command::Man(args) => pages::man(&args, Cli::command()),
    };
    exit::code(result)
}

/// The arguments, with the flags of llama.cpp that have one dash and several letters written as our parser
/// takes them.
fn args() -> Vec<OsString> {
    /// Theirs and ours.
    type Flags = &'static [(&'static str, &'static str)];
    const BENCH: Flags = &[
        ("-pg", "--pg"),
        ("-ub", "--ubatch-size"),
        ("-npl", "--n-parallel"),
        ("-oe", "--output-err"),
    ];
    const TALK: Flags = &[
        ("-sys", "--system"),
        ("-st", "--single-turn"),
        ("-temp", "--temp"),
        ("-np", "--parallel"),
        ("-ub", "--ubatch-size"),
        ("-jf", "--json-schema-file"),
        ("-cnv", "--conversation"),
    ];
    const MODEL: Flags = &[
        ("-ngl", "--gpu-layers"),
        ("-hf", "--model"),
        ("--hf-repo", "--model"),
        ("-ctk", "--cache-type-k"),
        ("-ctv", "--cache-type-v"),
    ];
    let mut args: Vec<_> = env::args_os().collect();
    let flags = match args.get(1).and_then(|command| command.to_str()) {
        Some("bench") => BENCH,
        Some("chat" | "run" | "serve") => TALK,
        _ => &[],
    };
    let flags = [flags, MODEL].concat();
    // What comes behind two dashes is no flag.
    for arg in args.iter_mut().take_while(|arg| *arg != "--") {
        if let Some((_, ours)) = flags.iter().find(|(theirs, _)| arg == theirs) {
            *arg = (*ours).into();
        }
    }
    args
}
