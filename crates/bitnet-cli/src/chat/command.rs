//! What begins with a slash: the commands of ollama and llama.cpp.

use std::path::PathBuf;

use anyhow::Result;

use crate::exit::Usage;

/// All names, for completion.
pub(super) const NAMES: [&str; 19] = [
    "/help", "/exit", "/bye", "/quit", "/clear", "/regen", "/undo", "/system", "/set", "/show",
    "/save", "/load", "/read", "/edit", "/copy", "/stats", "/tokens", "/history", "/?",
];

/// What `/help` says.
pub(super) const HELP: &str = "\
/help, /?              this
/exit, /bye, /quit     end (Ctrl-D)
/clear                 forget all messages
/regen                 another answer to the last message
/undo                  forget the last message and its answer
/system [TEXT]         tell the model TEXT before all messages; nothing is no such text
/set parameter NAME X  temperature, top_k, top_p, min_p, typical_p, repeat_penalty, repeat_last_n,
                       presence_penalty, frequency_penalty, num_predict, seed, stop
/set format json       answers are JSON objects; /set noformat
/set verbose           figures after answers; /set quiet
/set nowordwrap        cut words at the end of lines; /set wordwrap
/set nohistory         keep no more of what is typed; /set history
/show [WHAT]           info, license, parameters, system, template, history
/save NAME, /load NAME keep this conversation, go on with another one
/read FILE [MESSAGE]   send a message with what is in a file
/edit                  write a message with $VISUAL or $EDITOR
/copy                  the last answer to the clipboard of the terminal
/stats                 figures of the last answer
/tokens                how full the context is
\"\"\"                    begins and ends a message of several lines
Ctrl-C                 stops an answer; what there is of it stays";

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Exit,
    Clear,
    Regenerate,
    Undo,
    System(Option<String>),
    Parameter {
        name: String,
        value: String,
    },
    Format {
        json: bool,
    },
    Verbose(bool),
    WordWrap(bool),
    /// Whether what is typed is kept for the next time.
    History(bool),
    Show(Topic),
    Save(String),
    Load(String),
    Read {
        path: PathBuf,
        message: String,
    },
    Edit,
    Copy,
    Stats,
    Tokens,
}

/// What `/show` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Info,
    License,
    Parameters,
    System,
    Template,
    History,
}

impl Command {
    /// The command of a line; nothing if it is a message.
    ///
    /// # Errors
    ///
    /// [`Usage`] where there is no such command, or it lacks something.
    pub(super) fn parse(line: &str) -> Result<Option<Command>> {
        let line = line.trim();
        if !line.starts_with('/') {
            return Ok(None);
        }
        let (name, rest) = split(line);
        let wants = |what: &str| Usage(format!("{name} wants {what}: see /help"));
        let needed = |what: &str| match rest {
            "" => Err(wants(what)),
            rest => Ok(rest.to_owned()),
        };
        Ok(Some(match name {
            "/help" | "/?" => Command::Help,
            "/exit" | "/bye" | "/quit" => Command::Exit,
            "/clear" => Command::Clear,
            "/regen" | "/regenerate" => Command::Regenerate,
            "/undo" => Command::Undo,
            "/system" => Command::System(Some(rest.to_owned()).filter(|text| !text.is_empty())),
            "/set" => set(rest)?,
            "/show" => Command::Show(topic(rest)?),
            "/history" => Command::Show(Topic::History),
            "/save" => Command::Save(needed("a name")?),
            "/load" => Command::Load(needed("a name")?),
            "/read" => {
                let (path, message) = split(rest);
                needed("a file")?;
                Command::Read { path: path.into(), message: message.to_owned() }
            }
            "/edit" => Command::Edit,
            "/copy" => Command::Copy,
            "/stats" => Command::Stats,
            "/tokens" => Command::Tokens,
            _ => return Err(Usage(format!("there is no command {name}: see /help")).into()),
        }))
    }
}

/// The first word, and what comes after it.
fn split(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (first, rest.trim())
}

fn set(rest: &str) -> Result<Command> {
    let (what, rest) = split(rest);
    Ok(match (what, rest) {
        ("parameter", rest) => {
            let (name, value) = split(rest);
            if value.is_empty() {
                let what = "/set parameter wants a name and a value: see /help";
                return Err(Usage(what.to_owned()).into());
            }
            Command::Parameter { name: name.to_owned(), value: value.to_owned() }
        }
        ("system", text) => {
            let text = text.trim_matches('"');
            Command::System(Some(text.to_owned()).filter(|text| !text.is_empty()))
        }
        ("format", "json") => Command::Format { json: true },
        ("noformat", "") => Command::Format { json: false },
        ("verbose", "") => Command::Verbose(true),
        ("quiet", "") => Command::Verbose(false),
        ("wordwrap", "") => Command::WordWrap(true),
        ("nowordwrap", "") => Command::WordWrap(false),
        ("history", "") => Command::History(true),
        ("nohistory", "") => Command::History(false),
        _ => {
            let what = format!("/set {what} {rest}: there is no such setting: see /help");
            return Err(Usage(what).into());
        }
    })
}

fn topic(rest: &str) -> Result<Topic> {
    Ok(match rest {
        "" | "info" => Topic::Info,
        "license" => Topic::License,
        "parameters" => Topic::Parameters,
        "system" => Topic::System,
        "template" => Topic::Template,
        "history" => Topic::History,
        _ => {
            let what = "/show info, license, parameters, system, template or history";
            return Err(Usage(what.to_owned()).into());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_both_worlds() {
        let parse = |line| Command::parse(line).unwrap();
        assert_eq!(parse("hello /help"), None);
        for exit in ["/exit", "/bye", " /quit "] {
            assert_eq!(parse(exit), Some(Command::Exit));
        }
        let parameter = Command::Parameter { name: "top_k".to_owned(), value: "5".to_owned() };
        assert_eq!(parse("/set parameter top_k 5"), Some(parameter));
        let system = Command::System(Some("Be  brief.".to_owned()));
        assert_eq!(parse("/set system \"Be  brief.\""), Some(system));
        assert_eq!(parse("/system"), Some(Command::System(None)));
        let read = Command::Read { path: "a.txt".into(), message: "sum it up".to_owned() };
        assert_eq!(parse("/read a.txt sum it up"), Some(read));
        for name in NAMES {
            // Some want more.
            let known = Command::parse(&format!("{name} info")).is_ok();
            assert!(known || name == "/set", "{name}");
        }
        for wrong in
            ["/nothing", "/save", "/set", "/set parameter x", "/set mood", "/show all", "/read"]
        {
            assert!(Command::parse(wrong).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }
}
