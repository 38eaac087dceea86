//! `bitnet template`: the chat template of a model, or what it makes of messages.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bitnet_inference::chat::{Conversation, Data, Moment};
use bitnet_inference::{Error, read_text};
use serde::Serialize;

use crate::exit::{End, Usage};
use crate::{chat, model, output};

/// Flags of `bitnet template`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Model: a GGUF file, a Hugging Face folder, or one of the cache by its name; the demo model inside
    /// this program if not given.
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
    /// Another template instead of that of the model: a file, its text, or one of bitnet, chatml, falcon3
    /// and llama3.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
    /// Print the prompt for these messages instead: a file with an array in JSON, of objects with `role`
    /// and `content`; or an object with `messages`, and if wanted `tools`, `documents`,
    /// `add_generation_prompt` and other variables. `-` is stdin.
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
    /// Print one JSON object: where the template is from, its text, and of messages the prompt and its
    /// tokens.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    origin: &'a str,
    template: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<u32>>,
}

/// Bytes of messages at most.
const LONGEST: u64 = 64 << 20;

pub(crate) fn run(args: &Args) -> Result<End> {
    let conversation = args.messages.as_deref().map(read).transpose()?;
    let checkpoint = model::open(args.model.as_deref())?;
    let template = checkpoint.chat_template(args.chat_template.as_deref())?;
    chat::announce(&template);
    let (mut prompt, mut tokens) = (None, None);
    if let Some(conversation) = conversation {
        let tokenizer = checkpoint.read_tokenizer()?;
        let rendered = template.render(&conversation, &tokenizer).map_err(Error::from)?;
        (prompt, tokens) = (Some(rendered.text()), Some(rendered.tokens(&tokenizer)));
    }
    let (origin, text) = (template.origin(), template.text());
    let report = Report { origin, template: text, prompt, tokens };
    output::report(&report, args.json, || {
        format!("{}\n", report.prompt.as_deref().unwrap_or(text))
    })?;
    Ok(End::Done)
}

/// The conversation of a file.
fn read(path: &Path) -> Result<Conversation> {
    let name = path.display();
    let text = match path.to_str() {
        Some("-") => read_text(io::stdin().lock(), LONGEST),
        _ => File::open(path).and_then(|file| read_text(file, LONGEST)),
    };
    let text = text.with_context(|| format!("cannot read messages from {name}"))?;
    let wrong = |what: &str| Usage(format!("{name}: {what}"));
    let data: Data = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    Conversation::from_data(data, Moment::now()).map_err(|what| wrong(what).into())
}
