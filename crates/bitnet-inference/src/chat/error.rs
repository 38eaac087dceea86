//! What can go wrong with a chat template.

use std::fmt::Display;
use std::io;

/// Why messages did not become a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The model has no template.
    #[error(
        "{file}: the model has no chat template: give one with --chat-template, as a file or as one of {names}"
    )]
    Missing {
        /// The model.
        file: String,
        /// Templates that are built in.
        names: String,
    },
    /// The template that was given is none.
    #[error(
        "--chat-template {given}: {source}; it is a file, the text of a template, or one of {names}"
    )]
    Given {
        /// What was given.
        given: String,
        /// Templates that are built in.
        names: String,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The template is damaged, or asks for something that is not there.
    #[error("{}: {what}; try another with --chat-template", place(template, *line))]
    Template {
        /// Where it comes from.
        template: String,
        /// The line in it, or 0 if it is not known.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The template does not take these messages.
    #[error("{}: the template refuses these messages: {message}", place(template, *line))]
    Raised {
        /// Where it comes from.
        template: String,
        /// The line in it, or 0 if it is not known.
        line: usize,
        /// What it says.
        message: String,
    },
    /// The template was stopped.
    #[error(
        "{}: the template was stopped, since it goes on without end or makes too much text; try another with \
         --chat-template", place(template, *line)
    )]
    Endless {
        /// Where it comes from.
        template: String,
        /// The line in it, or 0 if it is not known.
        line: usize,
    },
    /// Messages with all of some characters that mean nothing.
    #[error("the messages hold all of the noncharacters U+FDD0 to U+FDEF: leave one out")]
    Noncharacters,
}

/// A template, and the line in it where one is known.
fn place(template: &impl Display, line: usize) -> String {
    match line {
        0 => template.to_string(),
        line => format!("{template}, line {line}"),
    }
}
