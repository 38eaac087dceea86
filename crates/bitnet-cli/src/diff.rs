//! `bitnet diff`: whether two files hold the same model, and where they differ if not.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use bitnet_inference::{Contents, Difference};
use serde::Serialize;

use crate::exit::End;
use crate::{model, output};

/// Flags of `bitnet diff`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// A model: a GGUF file, a Hugging Face folder, or one of the cache by its name.
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Another.
    #[arg(value_name = "B")]
    second: PathBuf,
}

#[derive(Serialize)]
struct Report {
    same: bool,
    /// Settings that differ, and their values.
    settings: Vec<(&'static str, String, String)>,
    tokenizer: Option<String>,
    /// Whether the chat templates are others.
    templates: bool,
    /// The tensors that differ, in the order in which a model computes with them.
    tensors: Vec<String>,
    same_matrices: usize,
    same_numbers: usize,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let (first, second) = (model::open(Some(&args.first))?, model::open(Some(&args.second))?);
    let contents = (Contents::new(&first, None)?, Contents::new(&second, None)?);
    let found = Difference::of(&contents.0, &contents.1)?;
    let report = Report {
        same: found.is_none(),
        tensors: found.tensors.iter().map(ToString::to_string).collect(),
        settings: found.settings,
        tokenizer: found.tokenizer,
        templates: found.templates,
        same_matrices: found.same_matrices,
        same_numbers: found.same_numbers,
    };
    output::report(&report, args.json, || output::plain(&text(&report)))?;
    Ok(if report.same { End::Done } else { End::Refuted })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (name, a, b) in &report.settings {
        let _ = writeln!(text, "setting {name}: {a}, {b}");
    }
    if let Some(what) = &report.tokenizer {
        let _ = writeln!(text, "tokenizer: {what}");
    }
    if report.templates {
        text.push_str("chat templates: they are not the same text\n");
    }
    if let Some((first, others)) = report.tensors.split_first() {
        let _ = writeln!(text, "first difference in {first}");
        others.iter().for_each(|other| {
            let _ = writeln!(text, "{other}");
        });
    }
    let Report { same_matrices, same_numbers, .. } = report;
    let verdict = if report.same { "the same model" } else { "not the same model" };
    let _ = writeln!(
        text,
        "{verdict}: {same_matrices} ternary matrices and {same_numbers} other tensors are the same, {} \
         are not",
        report.tensors.len()
    );
    text
}
