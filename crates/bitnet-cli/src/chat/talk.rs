//! A conversation: what was said, and the model's answers to it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bitnet_gguf::Value;
use bitnet_inference::chat::{ChatTemplate, Conversation, Moment};
use bitnet_inference::{
    Capacity, Constraint, Engine, Error, Finish, Generation, Request, Scheduler, Usage, read_text,
};

use super::command::{Command, HELP, Topic};
use super::log::{Log, Message};
use super::{Args, message};
use crate::exit;
use crate::interrupt::Interrupt;
use crate::{memory, sampling};

/// Bytes of a file that is sent at most: more than any context holds.
const LONGEST: u64 = 64 << 20;

/// A conversation with a model.
pub(super) struct Talk<'a> {
    engine: &'a Engine,
    template: ChatTemplate,
    sampling: sampling::Args,
    json: bool,
    verbose: bool,
    wordwrap: bool,
    system: Option<String>,
    messages: Vec<Message>,
    /// Has the keys and values of what was said, but while an answer is generated.
    scheduler: Option<Scheduler<'a>>,
    /// Answers so far: each has another seed.
    answers: u64,
    /// Figures of the last answer.
    figures: String,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) figures: String,
    /// What the user should know.
    pub(super) note: Option<String>,
    /// Whether it was stopped.
    pub(super) interrupted: bool,
    /// Whether anybody reads on.
    pub(super) read_on: bool,
}

impl<'a> Talk<'a> {
    pub(super) fn new(engine: &'a Engine, args: &Args) -> Result<Talk<'a>> {
        let template = engine.checkpoint().chat_template_or_plain(args.chat_template.as_deref())?;
        message::announce(&template);
        let mut talk = Talk {
            engine,
            template,
            sampling: args.sampling.clone(),
            json: false,
            verbose: !args.quiet,
            wordwrap: true,
            system: args.system.clone(),
            messages: Vec::new(),
            scheduler: None,
            answers: 0,
            figures: String::new(),
        };
        if let Some(name) = &args.session
            && let Some(log) = Log::load(name)?
        {
            let note = talk.take_up(log);
            note.iter().for_each(|note| exit::say(note));
            if args.system.is_some() {
                talk.system.clone_from(&args.system);
            }
        }
        Ok(talk)
    }

    /// Messages so far.
    pub(super) fn turns(&self) -> usize {
        self.messages.len()
    }

    /// Whether figures are wanted.
    pub(super) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether no word is cut at the end of a line.
    pub(super) fn wraps_words(&self) -> bool {
        self.wordwrap
    }

    pub(super) fn say(&mut self, role: &str, content: &str) {
        let message = Message { role: role.to_owned(), content: content.to_owned() };
        self.messages.push(message);
    }

    /// Takes back a message that there is no answer to.
    pub(super) fn forget_question(&mut self) {
        self.messages.pop_if(|last| last.role == "user");
    }

    /// Whether the last message is an answer.
    pub(super) fn has_answer(&self) -> bool {
        self.messages.last().is_some_and(|last| last.role == "assistant")
    }

    /// Takes back the last answer.
    pub(super) fn forget_answer(&mut self) -> Result<Message> {
        let answer = self.messages.pop_if(|last| last.role == "assistant");
        answer.ok_or_else(|| exit::Usage("there is no answer yet".to_owned()).into())
    }

    /// Takes up an answer again, where there is no other.
    pub(super) fn restore_answer(&mut self, answer: Message) {
        if !self.has_answer() {
            self.messages.push(answer);
        }
    }

    /// A message with the text of a file.
    pub(super) fn read(&self, path: &Path, message: &str) -> Result<String> {
        let text = File::open(path).and_then(|file| read_text(file, LONGEST));
        let text =
            text.map_err(|error| exit::Usage(format!("cannot read {}: {error}", path.display())))?;
        Ok(match message {
            "" => text,
            message => format!("{message}\n\n{text}"),
        })
    }

    /// The tokens of all that was said.
    fn tokens(&self) -> Result<Vec<u32>, Error> {
        let tokenizer = self.engine.tokenizer()?;
        let system = self.system.iter().map(|text| Conversation::message("system", text));
        let said = self.messages.iter();
        let said = said.map(|message| Conversation::message(&message.role, &message.content));
        let conversation = Conversation::new(system.chain(said).collect(), Moment::now());
        Ok(self.template.render(&conversation, tokenizer)?.tokens(tokenizer))
    }

    /// Answers what was said last, piece by piece to `print`, which says whether anybody reads it. What
    /// there is of the answer is part of the conversation, whatever ended it.
    pub(super) fn answer(
        &mut self,
        interrupt: &Interrupt,
        mut print: impl FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let prompt = self.tokens()?;
        let context = self.engine.context();
        if prompt.len() >= context {
            let full = "the conversation does not fit the context";
            let error = Error::Context { tokens: prompt.len() + 1, context };
            return Err(anyhow::Error::new(error).context(format!("{full}: /clear, /undo")));
        }
        let mut request = self.sampling.request(prompt)?;
        request.sampling.seed = request.sampling.seed.wrapping_add(self.answers);
        if self.json {
            request.constraint = Some(Constraint::json_object());
        }
        let scheduler = match self.scheduler.take() {
            Some(scheduler) => scheduler,
            None => {
                let one = Capacity { sequences: 1, ..Capacity::default() };
                Scheduler::new(self.engine, one)?
            }
        };
        self.answers += 1;
        let mut generation = Generation::with(scheduler, request)?;
        let (mut text, mut read_on) = (String::new(), true);
        loop {
            match generation.next(|| !read_on || interrupt.take()) {
                Ok(Some(token)) => {
                    text.push_str(&token.text);
                    read_on = read_on && print(&token.text);
                }
                Ok(None) => break,
                Err(error) => {
                    if !text.is_empty() {
                        self.say("assistant", &text);
                    }
                    return Err(error.into());
                }
            }
        }
        let rest = generation.end().map_or("", |end| end.text.as_str());
        text.push_str(rest);
        read_on = read_on && print(rest);
        let finish = generation.finish().unwrap_or(Finish::Cancelled);
        let usage = generation.usage();
        self.scheduler = Some(generation.into_scheduler());
        self.figures = figures(usage);
        let interrupted = finish == Finish::Cancelled;
        if interrupted && text.is_empty() {
            // There is neither a question nor an answer.
            self.forget_question();
        } else {
            self.say("assistant", &text);
        }
        let full = usage.prompt + usage.generated > context;
        let note = "the context is full, and the answer ends here: /clear, or a larger one with -c";
        Ok(Answer {
            figures: self.figures.clone(),
            note: (finish == Finish::Length && full).then(|| note.to_owned()),
            interrupted,
            read_on,
        })
    }

    /// Keeps the conversation. Gives where.
    pub(super) fn save(&self, name: &str) -> Result<String> {
        let log = Log {
            model: self.engine.sha256().to_owned(),
            system: self.system.clone(),
            messages: self.messages.clone(),
        };
        Ok(log.save(name)?.display().to_string())
    }

    /// Goes on with another conversation. Gives what the user should know.
    fn take_up(&mut self, log: Log) -> Option<String> {
        let other = log.model != self.engine.sha256();
        (self.system, self.messages) = (log.system, log.messages);
        other.then(|| "note: the conversation was held with another model".to_owned())
    }

    /// Does what a command says. Gives what is to be said.
    pub(super) fn command(&mut self, command: Command) -> Result<String> {
        match command {
            Command::Help => return Ok(HELP.to_owned()),
            Command::Clear => self.messages.clear(),
            Command::Undo => {
                self.messages.pop_if(|last| last.role == "assistant");
                if self.messages.pop_if(|last| last.role == "user").is_none() {
                    return Err(exit::Usage("there is no message yet".to_owned()).into());
                }
            }
            Command::System(text) => self.system = text,
            Command::Parameter { name, value } => self.sampling.set(&name, &value)?,
            Command::Format { json } => self.json = json,
            Command::Verbose(verbose) => self.verbose = verbose,
            Command::WordWrap(wordwrap) => self.wordwrap = wordwrap,
            Command::Show(topic) => return self.show(topic),
            Command::Save(name) => return Ok(format!("kept in {}", self.save(&name)?)),
            Command::Load(name) => {
                let log = Log::load(&name)?.ok_or_else(|| {
                    exit::Usage(format!("there is no conversation called {name}"))
                })?;
                let note = self.take_up(log);
                let loaded = format!("{} messages", self.messages.len());
                return Ok(note.map_or(loaded.clone(), |note| format!("{loaded}\n{note}")));
            }
            Command::Copy => return self.copy(),
            Command::Stats => return Ok(self.figures.clone()),
            Command::Tokens => {
                let (tokens, context) = (self.tokens()?.len(), self.engine.context());
                return Ok(format!("{tokens} of {context} tokens of the context"));
            }
            Command::Exit
            | Command::Regenerate
            | Command::Read { .. }
            | Command::Edit
            | Command::History(_) => {}
        }
        Ok(String::new())
    }

    fn show(&self, topic: Topic) -> Result<String> {
        let engine = self.engine;
        Ok(match topic {
            Topic::Info => {
                let config = engine.config();
                format!(
                    "model      {}\narchitecture {}, {} layers, {} wide\nweights    {} as {}\ncontext    \
                     {} tokens, keys and values in {}\ntemplate   {}",
                    engine.checkpoint().name(),
                    config.architecture,
                    config.layers,
                    config.hidden,
                    engine.weight_formats().join("+"),
                    engine.layouts().join("+"),
                    engine.context(),
                    engine.kv(),
                    self.template.origin(),
                )
            }
            Topic::Parameters => {
                let Request { sampling, limit, stop, .. } = self.sampling.request(Vec::new())?;
                let mut out = serde_json::to_string_pretty(&sampling)?;
                if limit < usize::MAX {
                    let _ = write!(out, "\nnum_predict {limit}");
                }
                if !stop.is_empty() {
                    let _ = write!(out, "\nstop {stop:?}");
                }
                out
            }
            Topic::License => {
                let (metadata, _) = engine.checkpoint().metadata()?;
                let license = metadata.iter().find(|(key, _)| key == "general.license");
                match license {
                    Some((_, Value::String(license))) => license.clone(),
                    _ => "the model does not name one".to_owned(),
                }
            }
            Topic::System => self.system.clone().unwrap_or_else(|| "nothing".to_owned()),
            Topic::Template => self.template.text().to_owned(),
            Topic::History => {
                let lines = self.messages.iter();
                lines.map(|Message { role, content }| format!("{role}: {content}\n")).collect()
            }
        })
    }

    /// Puts the last answer where the terminal pastes from, by the escape sequence OSC 52.
    fn copy(&self) -> Result<String> {
        let answer = self.messages.iter().rev().find(|message| message.role == "assistant");
        let Some(answer) = answer else {
            return Err(exit::Usage("there is no answer yet".to_owned()).into());
        };
        let mut terminal = io::stderr();
        if !terminal.is_terminal() {
            return Err(exit::Usage("/copy needs a terminal".to_owned()).into());
        }
        let text = BASE64_STANDARD.encode(&answer.content);
        write!(terminal, "\x1b]52;c;{text}\x07").context("cannot write to the terminal")?;
        Ok("copied, if the terminal can".to_owned())
    }
}

/// `prompt 31 tok 412 t/s (24 cached) · gen 128 tok 38.2 t/s · TTFT 81 ms · 1.31 GB RSS`.
fn figures(usage: Usage) -> String {
    let Usage { prompt, cached, generated, timings, .. } = usage;
    let speed = |tokens: usize, seconds: f64| match tokens {
        1.. if seconds > 0.0 => format!("{:.1} t/s", tokens as f64 / seconds),
        _ => "- t/s".to_owned(),
    };
    let decoded = usage.positions.saturating_sub(prompt);
    let mut line = format!(
        "prompt {prompt} tok {} ({cached} cached) · gen {generated} tok {} · TTFT {:.0} ms",
        speed(prompt - cached, timings.prompt.as_secs_f64()),
        speed(decoded, timings.decode.as_secs_f64()),
        timings.first_token.as_secs_f64() * 1e3,
    );
    if usage.drafted > 0 {
        let _ = write!(line, " · {} of {} guesses right", usage.accepted, usage.drafted);
    }
    if let Some(bytes) = memory::peak() {
        let _ = write!(line, " · {:.2} GB RSS", bytes as f64 / 1e9);
    }
    line
}
