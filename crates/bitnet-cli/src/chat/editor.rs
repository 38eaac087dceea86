//! Where messages come from: a line editor on a terminal, lines elsewhere.

use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use rustyline::completion::Completer;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Helper};

use super::command;
use super::log;
use crate::exit;

/// What is typed between these is one message, whatever lines it has.
const QUOTES: &str = "\"\"\"";

/// Lines kept for the next time.
const HISTORY: usize = 1000;

/// A message or a command, or the end.
#[derive(Debug)]
pub(super) enum Line {
    Text(String),
    End,
}

pub(super) enum Editor {
    Terminal(Box<Terminal>),
    Pipe,
}

pub(super) struct Terminal {
    editor: rustyline::Editor<Commands, DefaultHistory>,
    history: Option<PathBuf>,
}

impl Editor {
    /// A line editor, with what was typed before if `history`.
    pub(super) fn terminal(history: bool) -> Result<Editor> {
        // The terminal itself, wherever stdout goes.
        let config = Config::builder()
            .behavior(Behavior::PreferTerm)
            .max_history_size(HISTORY)?
            .auto_add_history(true)
            .build();
        let mut editor = rustyline::Editor::with_config(config).context("no line editor")?;
        editor.set_helper(Some(Commands));
        let history = if history { self::history() } else { None };
        if let Some(path) = history.as_deref().filter(|path| path.exists()) {
            // Without what was typed before one can talk as well.
            let _ = editor.load_history(path);
        }
        Ok(Editor::Terminal(Box::new(Terminal { editor, history })))
    }

    pub(super) fn pipe() -> Editor {
        Editor::Pipe
    }

    /// The next message.
    pub(super) fn read(&mut self) -> Result<Line> {
        match self {
            Editor::Terminal(terminal) => terminal.read(),
            Editor::Pipe => read_lines(io::stdin().lock()),
        }
    }

    /// Keeps what is typed for the next time, or no more.
    pub(super) fn keep_history(&mut self, kept: bool) {
        if let Editor::Terminal(terminal) = self {
            terminal.history = if kept { history() } else { None };
        }
    }

    /// A message written with the editor that the user prefers.
    pub(super) fn edit(&mut self) -> Result<Option<Line>> {
        let Editor::Terminal(terminal) = self else {
            return Err(exit::Usage("/edit needs a terminal".to_owned()).into());
        };
        let file = tempfile::Builder::new().prefix("bitnet-").suffix(".md").tempfile()?;
        let set = ["VISUAL", "EDITOR"].into_iter().find_map(std::env::var_os);
        let program = set.unwrap_or_else(|| "vi".into());
        // Flags may come with it.
        let words = program.to_str().map(|text| text.split_whitespace().collect::<Vec<_>>());
        let mut command = match words.as_deref() {
            Some([name, flags @ ..]) if !Path::new(&program).exists() => {
                let mut command = process::Command::new(name);
                command.args(flags);
                command
            }
            _ => process::Command::new(&program),
        };
        let status = command.arg(file.path()).status();
        let status = status.with_context(|| format!("cannot start {}", program.display()))?;
        let text = fs::read_to_string(file.path()).context("cannot read what was written")?;
        if !status.success() || text.trim().is_empty() {
            exit::say("nothing to send");
            return Ok(None);
        }
        let text = text.trim_end().to_owned();
        terminal.editor.add_history_entry(text.as_str())?;
        exit::say(&text);
        Ok(Some(Line::Text(text)))
    }
}

/// Where what was typed is kept.
fn history() -> Option<PathBuf> {
    log::folder().map(|folder| folder.join("history"))
}

impl Terminal {
    fn read(&mut self) -> Result<Line> {
        let mut interrupted = false;
        loop {
            match self.editor.readline(">>> ") {
                Ok(line) => {
                    self.keep();
                    return Ok(Line::Text(unquoted(&line)));
                }
                Err(ReadlineError::Eof) => return Ok(Line::End),
                Err(ReadlineError::Interrupted) if interrupted => return Ok(Line::End),
                Err(ReadlineError::Interrupted) => {
                    interrupted = true;
                    exit::say("Ctrl-C again or Ctrl-D ends");
                }
                Err(ReadlineError::Signal(_)) => {}
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    exit::say("that is not UTF-8 text: nothing was taken");
                }
                Err(error) => return Err(error).context("cannot read from the terminal"),
            }
        }
    }

    /// Keeps what was typed. That it cannot be kept is no reason to end.
    fn keep(&mut self) {
        if let Some(path) = &self.history
            && let Some(folder) = path.parent()
            && fs::create_dir_all(folder).is_ok()
        {
            let _ = self.editor.save_history(path);
        }
    }
}

/// A message from lines: one, or all between quotes. An unclosed one ends with the input.
fn read_lines(mut from: impl BufRead) -> Result<Line> {
    let mut text = String::new();
    loop {
        let mut bytes = Vec::new();
        let read = { &mut from }.read_until(b'\n', &mut bytes).context("cannot read stdin")?;
        if read == 0 && text.is_empty() {
            return Ok(Line::End);
        }
        let line = String::from_utf8(bytes).map_err(|_| {
            let what = "stdin is not UTF-8 text: convert it, or leave out what is no text";
            exit::Usage(what.to_owned())
        })?;
        text.push_str(&line);
        if read == 0 || is_whole(&text) {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            return Ok(Line::Text(unquoted(text.strip_suffix('\r').unwrap_or(text))));
        }
    }
}

/// Whether quotes that were opened are closed.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    !text.starts_with(QUOTES) || text.len() >= 2 * QUOTES.len() && text.ends_with(QUOTES)
}

/// The text between quotes.
fn unquoted(text: &str) -> String {
    let inner = text.trim().strip_prefix(QUOTES);
    let Some(inner) = inner else {
        return text.to_owned();
    };
    let inner = inner.strip_suffix(QUOTES).unwrap_or(inner);
    inner.trim_matches(['\r', '\n']).to_owned()
}

/// Completes commands, and asks for more lines where quotes are open.
pub(super) struct Commands;

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..pos];
        let names = command::NAMES.iter().filter(|name| name.starts_with(typed));
        let names = names.map(|name| format!("{name} ")).collect();
        Ok((0, if typed.starts_with('/') { names } else { Vec::new() }))
    }
}

impl Validator for Commands {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_whole(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Commands {
    type Hint = String;
}

impl Highlighter for Commands {}

impl Helper for Commands {}

#[cfg(test)]
mod tests {
    use super::*;

    /// All messages of an input.
    fn messages(mut input: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        while let Line::Text(text) = read_lines(&mut input).unwrap() {
            all.push(text);
        }
        all
    }

    #[test]
    fn messages_are_lines_or_stand_between_quotes() {
        assert_eq!(messages(b"one\r\n\ntwo"), ["one", "", "two"]);
        assert_eq!(messages(b"\"\"\"one\ntwo\n\"\"\"\nthree\n"), ["one\ntwo", "three"]);
        assert_eq!(messages(b"\"\"\"one\"\"\"\n"), ["one"]);
        assert_eq!(messages(b"\"\"\"\none\n\ntwo\n"), ["one\n\ntwo"]);
        assert_eq!(messages(b"say \"\"\"\n"), ["say \"\"\""]);
        assert!(read_lines(&b"\xff\n"[..]).is_err());
    }
}
