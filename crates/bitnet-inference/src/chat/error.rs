//! What can go wrong with a chat template.

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
    #[error("{template}, line {line}: {what}; try another with --chat-template")]
    Template {
        /// Where it comes from.
        template: String,
        /// The line in it, or 0 if it is not known.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The template does not take these messages.
    #[error("{template}, line {line}: the template refuses these messages: {message}")]
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
        "{template}, line {line}: the template was stopped, since it goes on without end or makes too much \
         text; try another with --chat-template"
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
