//! `bitnet embed`: texts as vectors.

mod print;

use std::path::PathBuf;

use anyhow::{Context, Result};
use bitnet_inference::{Checkpoint, Engine, Error};

use crate::exit::{self, End, Usage};
use crate::interrupt::Interrupt;
use crate::{input, model};
use print::{Embeddings, Format};

/// Flags of `bitnet embed`. Names and output are those of llama-embedding.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Texts; `-` or nothing reads them from stdin.
    #[arg(value_name = "TEXT", group = "source")]
    texts: Vec<String>,
    /// File with texts; `-` is stdin.
    #[arg(short, long, value_name = "FILE", group = "source")]
    file: Option<PathBuf>,
    /// Token ids instead of a text, separated by commas. Nothing is added to them.
    #[arg(long, value_name = "ID,ID,...", group = "source", value_delimiter = ',')]
    ids: Vec<u32>,
    /// What separates the texts in a file and on stdin; the end of a line if not given. `\n` is the end of
    /// a line, `\t` a tab.
    #[arg(
        long,
        alias = "embd-separator",
        value_name = "TEXT",
        default_value = "\\n",
        allow_hyphen_values = true
    )]
    separator: String,
    /// What to print.
    #[arg(long = "embd-output-format", value_name = "FORMAT", value_enum, default_value_t,
        conflicts_with_all = ["json", "raw"])]
    format: Format,
    /// How vectors are scaled: 2 to length 1, 1 to a sum of absolute values of 1, other numbers to a p-norm
    /// of 1, 0 to whole numbers up to 32760. As they are (-1 of llama-embedding) is not to be had.
    #[arg(long, value_name = "P", default_value_t = 2, value_parser = clap::value_parser!(i32).range(-1..),
        allow_negative_numbers = true)]
    embd_normalize: i32,
    /// The same as --embd-output-format json.
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// The same as --embd-output-format raw.
    #[arg(long)]
    raw: bool,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    if args.embd_normalize < 0 {
        let what = "--embd-normalize -1 needs the state before it is scaled, and embeddings here are of \
                    length 1: give 2, 1, 0 or another p";
        return Err(Usage(what.to_owned()).into());
    }
    let texts = args.texts()?;
    let interrupt = Interrupt::listen();
    let engine = args.model.load()?;
    if !trained_for_it(engine.checkpoint()) {
        exit::say(
            "note: this model was trained to continue text, not for embeddings: these are its states after the \
             last token",
        );
    }
    let rows = args.tokens(&engine, &texts)?;
    let mut embeddings = Embeddings { p: args.embd_normalize, ..Embeddings::default() };
    let mut session = engine.session(1)?;
    for (index, tokens) in rows.iter().enumerate() {
        if interrupt.pressed() {
            return Ok(End::Interrupted);
        }
        session.truncate(0, 0);
        let embedding = session.embed(0, tokens).with_context(|| name(index))?;
        embeddings.rows.push(scaled(&embedding, args.embd_normalize));
        embeddings.tokens += tokens.len();
    }
    embeddings.model = engine.checkpoint().name().to_owned();
    embeddings.texts = texts;
    embeddings.print(args.format())
}

/// Whether the model is one of embeddings: those on Qwen3 and Gemma 3 have norms of their own before linear
/// layers, as no others do.
fn trained_for_it(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors().iter().any(|tensor| tensor.name.ends_with("_norm_in.weight"))
}

/// A text, as messages have it.
fn name(index: usize) -> String {
    format!("text {}", index + 1)
}

impl Args {
    fn format(&self) -> Format {
        match (self.json, self.raw) {
            (true, _) => Format::Json,
            (_, true) => Format::Raw,
            _ => self.format,
        }
    }

    /// The texts, from wherever they come; none of ids.
    fn texts(&self) -> Result<Vec<String>> {
        if !self.ids.is_empty() {
            return Ok(Vec::new());
        }
        let all = match (&self.file, &self.texts[..]) {
            (Some(file), _) => input::file(file)?,
            (None, [one]) if one == "-" => input::stdin()?,
            (None, []) => {
                input::piped("no texts: give some as arguments, with -f FILE, or on stdin")?
            }
            (None, texts) => return Ok(texts.to_vec()),
        };
        let separator = self.separator.replace("\\n", "\n").replace("\\t", "\t");
        if separator.is_empty() {
            return Err(
                Usage("--separator is empty: nothing would separate texts".to_owned()).into()
            );
        }
        // The end of a line at the end of a file begins no other text.
        let all = all.strip_suffix('\n').unwrap_or(&all);
        let all = all.strip_suffix(&separator).unwrap_or(all);
        let text = |text: &str| text.strip_suffix('\r').unwrap_or(text).to_owned();
        Ok(all.split(&separator).map(text).collect())
    }

    /// The tokens of each text.
    fn tokens(&self, engine: &Engine, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        let context = engine.context();
        let rows: Vec<Vec<u32>> = match &self.ids[..] {
            [] => texts.iter().map(|text| engine.encode(text)).collect::<Result<_, _>>()?,
            ids => vec![ids.to_vec()],
        };
        // Before the first is run.
        for (index, row) in rows.iter().enumerate() {
            if row.is_empty() {
                return Err(Usage(format!(
                    "{} is empty: an embedding needs some text",
                    name(index)
                ))
                .into());
            }
            if row.len() > context {
                return Err(Error::Context { tokens: row.len(), context })
                    .with_context(|| name(index));
            }
        }
        Ok(rows)
    }
}

/// An embedding in another norm: `p` is 0 for the greatest, which becomes 32760 as in llama.cpp.
fn scaled(embedding: &[f32], p: i32) -> Vec<f32> {
    let sizes = embedding.iter().map(|x| f64::from(x.abs()));
    let norm = match p {
        2 => return embedding.to_vec(),
        0 => sizes.fold(0.0, f64::max) / 32760.0,
        p => sizes.map(|x| x.powi(p)).sum::<f64>().powf(1.0 / f64::from(p)),
    };
    let scale = |x: &f32| (f64::from(*x) / norm) as f32;
    embedding.iter().map(scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms() {
        let x = [0.6_f32, -0.8, 0.0];
        assert_eq!(scaled(&x, 2), x);
        let close = |p, want: [f32; 3]| {
            let found = scaled(&x, p);
            assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-3), "{p}: {found:?}");
        };
        close(0, [24570.0, -32760.0, 0.0]);
        close(1, [0.6 / 1.4, -0.8 / 1.4, 0.0]);
        let cube = (0.216_f32 + 0.512).cbrt();
        close(3, [0.6 / cube, -0.8 / cube, 0.0]);
    }
}
