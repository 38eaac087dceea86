//! `bitnet chat`: a conversation with a model.
//!
//! stdout has the answers alone; what is asked, figures and all else goes to the terminal or to stderr.

mod command;
mod editor;
mod log;
pub(crate) mod message;
mod talk;
mod wrap;

use std::io::{self, IsTerminal};

use anyhow::Result;
use bitnet_inference::{Engine, Error};

use crate::exit::{self, End};
use crate::interrupt::Interrupt;
use crate::{model, output, sampling};
use command::Command;
use editor::{Editor, Line};
use talk::Talk;
use wrap::Wrap;

pub(crate) use message::announce;

/// Flags of `bitnet chat`. Names and defaults are those of llama.cpp.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// The first message.
    #[arg(value_name = "MESSAGE")]
    text: Option<String>,
    /// The first message.
    #[arg(
        short,
        long,
        value_name = "MESSAGE",
        conflicts_with = "text",
        allow_hyphen_values = true
    )]
    prompt: Option<String>,
    /// What the model is told before all messages; -sys is the same.
    #[arg(long, alias = "system-prompt", value_name = "TEXT", env = "BITNET_SYSTEM")]
    system: Option<String>,
    /// Chat template instead of that of the model: a file, its text, or one of bitnet, chatml, falcon3, llama3
    /// and plain.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
    /// End after one answer; -st is the same.
    #[arg(long)]
    single_turn: bool,
    /// Go on with the conversation of this name, if there is one, and keep it after each answer.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Neither read nor keep what was typed.
    #[arg(long)]
    no_history: bool,
    /// Known from llama.cpp: this is always one.
    #[arg(long = "conversation", hide = true)]
    _conversation: bool,
    /// No figures after answers.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    sampling: sampling::Args,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    if let Some(name) = &args.session {
        log::path(name)?;
    }
    // Asked once, so that what is wrong with a flag is said before the model is loaded.
    args.sampling.request(Vec::new())?;
    let engine = args.model.load()?;
    let interrupt = Interrupt::listen();
    let mut talk = Talk::new(&engine, args)?;
    let terminal = io::stdin().is_terminal();
    let mut editor = match terminal {
        true => Editor::terminal(!args.no_history)?,
        false => Editor::pipe(),
    };
    if terminal && args.first().is_none() {
        exit::say(&greeting(&engine, &talk));
    }
    let mut next = args.first().map(|text| Line::Text(text.to_owned()));
    let mut chat = Chat { talk: &mut talk, interrupt: &interrupt, args, terminal };
    loop {
        let line = match next.take() {
            Some(line) => line,
            None => editor.read()?,
        };
        let text = match line {
            Line::Text(text) => text,
            Line::End => return Ok(End::Done),
        };
        if text.trim().is_empty() {
            continue;
        }
        match chat.take(&text) {
            Ok(After::Answered) if args.single_turn => return Ok(End::Done),
            Ok(After::Answered | After::Ask) => {}
            Ok(After::Edit) => match editor.edit() {
                Ok(line) => next = line,
                Err(error) if terminal => complain(&error),
                Err(error) => return Err(error),
            },
            Ok(After::History(kept)) => editor.keep_history(kept),
            Ok(After::Broken(error)) => return Err(error),
            Ok(After::End) => return Ok(End::Done),
            Ok(After::Interrupted) if !terminal || args.single_turn => {
                return Ok(End::Interrupted);
            }
            Ok(After::Interrupted) => {}
            // People can say it otherwise, programs must know.
            Err(error) if terminal && is_of_message(&error) => {
                complain(&error);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Args {
    /// The first message, if it is given.
    fn first(&self) -> Option<&str> {
        self.text.as_deref().or(self.prompt.as_deref())
    }
}

/// A conversation, and where it is held.
struct Chat<'c, 'a> {
    talk: &'c mut Talk<'a>,
    interrupt: &'c Interrupt,
    args: &'c Args,
    terminal: bool,
}

/// What comes after a line.
enum After {
    /// The next line.
    Ask,
    /// The next line, after an answer.
    Answered,
    /// The same after part of one.
    Interrupted,
    /// A message from an editor.
    Edit,
    /// The next line, and whether it is kept for the next time.
    History(bool),
    /// Nothing.
    End,
    /// Nothing: there is no stdout any more.
    Broken(anyhow::Error),
}

impl Chat<'_, '_> {
    /// Does what a line says.
    fn take(&mut self, line: &str) -> Result<After> {
        // A program that asks may begin with a slash: commands are for people, and for those who know.
        let Some(command) = Command::parse(line)? else {
            self.talk.say("user", line);
            return self.answer(true);
        };
        match command {
            Command::Exit => return Ok(After::End),
            Command::Edit => return Ok(After::Edit),
            Command::History(kept) => return Ok(After::History(kept)),
            Command::Regenerate => {
                let old = self.talk.forget_answer()?;
                let answered = self.answer(false);
                if answered.is_err() {
                    self.talk.restore_answer(old);
                }
                return answered;
            }
            Command::Read { path, message } => {
                let text = self.talk.read(&path, &message)?;
                self.talk.say("user", &text);
                return self.answer(true);
            }
            other => {
                let said = self.talk.command(other)?;
                if !said.is_empty() {
                    exit::say(said.trim_end());
                }
            }
        }
        Ok(After::Ask)
    }

    /// Prints an answer to what was said last. `new` says that this is not kept where there is none.
    fn answer(&mut self, new: bool) -> Result<After> {
        let mut out = io::stdout().lock();
        let mut broken = None;
        let mut wrap = Wrap::stdout().filter(|_| self.talk.wraps_words());
        let mut print = |text: &str| {
            let wrapped = wrap.as_mut().map(|wrap| wrap.push(text));
            output::print(&mut out, wrapped.as_deref().unwrap_or(text)).unwrap_or_else(|error| {
                broken = Some(error);
                false
            })
        };
        let answered = self.talk.answer(self.interrupt, &mut print);
        match answered {
            Ok(answer) => {
                if !answer.read_on || !print("\n") {
                    return Ok(broken.map_or(After::End, After::Broken));
                }
                if self.talk.is_verbose() {
                    exit::dim(&answer.figures);
                }
                if let Some(note) = &answer.note {
                    exit::say(&format!("note: {note}"));
                }
                if let Some(name) = &self.args.session {
                    self.talk.save(name)?;
                }
                Ok(if answer.interrupted { After::Interrupted } else { After::Answered })
            }
            Err(error) => {
                // What there is of an answer stays.
                if self.terminal && !self.talk.has_answer() {
                    if new {
                        self.talk.forget_question();
                    }
                } else if self.terminal
                    && print("\n")
                    && let Some(name) = &self.args.session
                {
                    self.talk.save(name)?;
                }
                Err(error)
            }
        }
    }
}

/// Whether an error is of what was said, or of files that it names, and not of the model or the machine.
fn is_of_message(error: &anyhow::Error) -> bool {
    !matches!(
        error.downcast_ref::<Error>(),
        Some(Error::NotFinite | Error::Memory { .. } | Error::Threads { .. })
    )
}

/// Says what went wrong, to go on.
fn complain(error: &anyhow::Error) {
    exit::say(&format!("error: {error:#}"));
}

fn greeting(engine: &Engine, talk: &Talk<'_>) -> String {
    format!(
        "{}, {} tokens of context{}. /help tells what else can be typed; Ctrl-D ends.",
        engine.checkpoint().name(),
        engine.context(),
        match talk.turns() {
            0 => String::new(),
            turns => format!(", {turns} messages so far"),
        },
    )
}
