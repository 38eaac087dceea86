//! `bitnet tokenize` and `bitnet detokenize`: text to token ids and back. No weights are read.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bitnet_inference::Error;
use bitnet_inference::tokenizer::{Special, Tokenizer};
use serde::Serialize;

use crate::exit::{self, End, Usage};
use crate::{input, model, output};

/// Flags of `bitnet tokenize`. Names and output are those of llama-tokenize.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Model: a GGUF file, a Hugging Face folder, or one of the cache by its name; the demo model inside
    /// this program if not given.
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
    /// Text; `-` or nothing reads it from stdin. It is taken as it is, ends of lines too.
    #[arg(value_name = "TEXT", group = "source")]
    text: Option<String>,
    /// Text.
    #[arg(short, long, value_name = "TEXT", group = "source", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// File with the text; `-` is stdin.
    #[arg(short, long, value_name = "FILE", group = "source")]
    file: Option<PathBuf>,
    /// Print the ids alone, as a list.
    #[arg(long)]
    ids: bool,
    /// Add no tokens before and behind the text, even if the model wants them.
    #[arg(long)]
    no_bos: bool,
    /// Take control tokens that are spelled in the text as text.
    #[arg(long)]
    no_parse_special: bool,
    /// Print how many tokens there are, too.
    #[arg(long)]
    show_count: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Flags of `bitnet detokenize`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct BackArgs {
    /// Model, as `bitnet tokenize` has it.
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
    /// Token ids; `-` or nothing reads them from stdin. Commas and brackets may be around them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Show control tokens, which stand for no text.
    #[arg(long)]
    special: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints, as the server of llama.cpp does; with the number of tokens.
#[derive(Debug, Serialize)]
struct Report<'a> {
    tokens: Tokens<'a>,
    count: usize,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Tokens<'a> {
    Ids(&'a [u32]),
    Pieces(Vec<Token<'a>>),
}

#[derive(Debug, Serialize)]
struct Token<'a> {
    id: u32,
    piece: Piece<'a>,
}

/// A text, or bytes that are none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Piece<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// What `bitnet detokenize --json` prints.
#[derive(Debug, Serialize)]
struct Text<'a> {
    text: &'a str,
    tokens: &'a [u32],
}

/// The tokenizer of a model. Says on stderr what the user should know about it.
fn tokenizer(model: Option<&Path>) -> Result<Tokenizer> {
    let (tokenizer, notices) = model::open(model)?.open_tokenizer()?;
    for notice in notices {
        exit::say(&format!("note: {notice}"));
    }
    Ok(tokenizer)
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let text = args.read()?;
    let tokenizer = tokenizer(args.model.as_deref())?;
    let around = !args.no_bos;
    let special = Special { bos: around, suffix: around, parse: !args.no_parse_special };
    let ids = tokenizer.encode(&text, special);
    let text = if args.json {
        let tokens = match args.ids {
            true => Tokens::Ids(&ids),
            false => Tokens::Pieces(ids.iter().map(|&id| Token::new(&tokenizer, id)).collect()),
        };
        serde_json::to_string(&Report { tokens, count: ids.len() })? + "\n"
    } else {
        args.text(&tokenizer, &ids)
    };
    output::print(&mut io::stdout(), &text)?;
    Ok(End::Done)
}

impl Args {
    fn read(&self) -> Result<String> {
        if let Some(text) = &self.prompt {
            return Ok(text.clone());
        }
        match (&self.file, &self.text) {
            (Some(file), _) => input::file(file),
            (None, Some(text)) if text != "-" => Ok(text.clone()),
            (None, Some(_)) => input::stdin(),
            _ => input::piped("no text: give some as an argument, with -f FILE, or on stdin"),
        }
    }

    /// For people.
    fn text(&self, tokenizer: &Tokenizer, ids: &[u32]) -> String {
        let mut text = String::new();
        if self.ids {
            // As Python has lists.
            let _ = writeln!(text, "{ids:?}");
        } else {
            for &id in ids {
                let piece = shown(tokenizer.piece(id).unwrap_or_default());
                let _ = writeln!(text, "{id:>6} -> '{piece}'");
            }
        }
        if self.show_count {
            let _ = writeln!(text, "Total number of tokens: {}", ids.len());
        }
        text
    }
}

impl<'a> Token<'a> {
    fn new(tokenizer: &'a Tokenizer, id: u32) -> Token<'a> {
        let bytes = tokenizer.piece(id).unwrap_or_default();
        Token { id, piece: str::from_utf8(bytes).map_or(Piece::Bytes(bytes), Piece::Text) }
    }
}

/// A piece on one line: what is not text and what moves the cursor as escapes, and so the backslash.
fn shown(piece: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in piece.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                _ if c.is_control() => shown.extend(c.escape_default()),
                _ => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

pub(crate) fn back(args: &BackArgs) -> Result<End> {
    let ids = match args.ids.first().map(String::as_str) {
        None => input::piped("no token ids: give some as arguments, or on stdin")?,
        Some("-") if args.ids.len() == 1 => input::stdin()?,
        Some(_) => args.ids.join(" "),
    };
    let ids = numbers(&ids)?;
    let tokenizer = tokenizer(args.model.as_deref())?;
    let vocabulary = tokenizer.len();
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
        return Err(Error::Token { id, vocabulary }.into());
    }
    let text = match args.special {
        true => {
            let pieces = ids.iter().filter_map(|&id| tokenizer.piece(id)).flatten();
            String::from_utf8_lossy(&pieces.copied().collect::<Vec<_>>()).into_owned()
        }
        false => tokenizer.decode(&ids),
    };
    output::report(&Text { text: &text, tokens: &ids }, args.json, || format!("{text}\n"))?;
    Ok(End::Done)
}

/// The numbers of a text, with commas, spaces or ends of lines between them, in brackets or not.
fn numbers(text: &str) -> Result<Vec<u32>> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let words =
        inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let number = |word: &str| {
        word.parse().map_err(|_| {
            let what = format!("`{word}` is no token id: write numbers, as 1 2 3 or [1, 2, 3]");
            Usage(what).into()
        })
    };
    words.map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_on_their_lines() {
        assert_eq!(shown("a b'\"é漢".as_bytes()), "a b'\"é漢");
        assert_eq!(shown(b"\n\t\\n\x1b\x00"), "\\n\\t\\\\n\\u{1b}\\u{0}");
        assert_eq!(shown(b"\xe6\xbc"), "\\xe6\\xbc");
    }

    #[test]
    fn lists_of_numbers() {
        for text in ["1 2 3", "[1, 2, 3]", "1,2,3\n", " [1,2\n3] "] {
            assert_eq!(numbers(text).unwrap(), [1, 2, 3], "{text:?}");
        }
        assert_eq!(numbers("[]").unwrap(), [0_u32; 0]);
        for text in ["x", "-1", "1;2", "[1", "1.5", "4294967296", "{\"tokens\": [1]}"] {
            assert!(numbers(text).unwrap_err().is::<Usage>(), "{text:?}");
        }
    }
}
