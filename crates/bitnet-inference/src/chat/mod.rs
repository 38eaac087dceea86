//! From messages to a prompt, by the template of the model.
//!
//! A template is a program in Jinja that comes with the model (`source.rs` says from where), and what it prints depends on messages, tools and time alone ([`Conversation`]). It is run
//! where it can do no harm (`sandbox/`).
//!
//! What people write stays text. Where a control token is spelled in a message, a mark is put into it
//! before the template runs, a character that Unicode has set aside for such ends. Then the prompt is
//! tokenized with the control tokens that the template wrote, and the marks go out of the text between
//! them.

mod data;
mod error;
mod moment;
mod sandbox;
mod source;

use std::collections::BTreeSet;

use crate::Notice;
use crate::tokenizer::Tokenizer;

pub use data::Data;
pub use error::ChatError;
pub use moment::Moment;

use sandbox::Why;

/// The characters that marks are taken from.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// What a template makes a prompt of.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// The messages, objects with `role` and `content` as a rule.
    pub messages: Vec<Data>,
    /// Functions that the model can call.
    pub tools: Vec<Data>,
    /// Texts that it can look things up in.
    pub documents: Vec<Data>,
    /// Other variables that the template knows, such as `enable_thinking`.
    pub variables: Vec<(String, Data)>,
    /// Whether the prompt ends with the beginning of an answer.
    pub answer: bool,
    /// What the template takes for now.
    pub now: Moment,
}

impl Conversation {
    /// Some messages, to be answered.
    #[must_use]
    pub fn new(messages: Vec<Data>, now: Moment) -> Conversation {
        let (tools, documents, variables) = (Vec::new(), Vec::new(), Vec::new());
        Conversation { messages, tools, documents, variables, answer: true, now }
    }

    /// What an array of messages says, or an object with `messages` and whatever else the template is to
    /// know, by the names that transformers has.
    ///
    /// # Errors
    ///
    /// What is not as it should be.
    pub fn from_data(data: Data, now: Moment) -> Result<Conversation, &'static str> {
        let mut conversation = Conversation::new(Vec::new(), now);
        let entries = match data {
            Data::List(messages) => vec![("messages".to_owned(), Data::List(messages))],
            Data::Map(entries) => entries,
            _ => return Err("it must be an array of messages, or an object with `messages`"),
        };
        for (name, value) in entries {
            match (name.as_str(), value) {
                ("messages", Data::List(list)) => conversation.messages = list,
                ("tools", Data::List(list)) => conversation.tools = list,
                ("documents", Data::List(list)) => conversation.documents = list,
                ("tools" | "documents", Data::Null) => {}
                ("messages" | "tools" | "documents", _) => {
                    return Err("`messages`, `tools` and `documents` must be arrays");
                }
                ("add_generation_prompt", Data::Bool(answer)) => conversation.answer = answer,
                ("add_generation_prompt", _) => {
                    return Err("`add_generation_prompt` must be true or false");
                }
                (_, value) => conversation.variables.push((name, value)),
            }
        }
        Ok(conversation)
    }

    /// A message with this text.
    #[must_use]
    pub fn message(role: &str, content: &str) -> Data {
        let entry = |key: &str, text: &str| (key.to_owned(), Data::from(text));
        Data::Map(vec![entry("role", role), entry("content", content)])
    }
}

/// A chat template.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatTemplate {
    /// Where it comes from.
    origin: String,
    text: String,
    /// The one for conversations with tools, if that is another.
    with_tools: Option<String>,
    /// Texts of tokens by the names that templates have for them.
    special: Vec<(&'static str, String)>,
    notice: Option<Notice>,
}

/// A prompt that a template made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// With marks in it.
    marked: String,
    mark: char,
}

impl ChatTemplate {
    /// A template that comes from `origin`, in which tokens have these names.
    #[must_use]
    pub fn new(
        origin: impl Into<String>,
        text: impl Into<String>,
        special: Vec<(&'static str, String)>,
    ) -> ChatTemplate {
        let (origin, text) = (origin.into(), text.into());
        ChatTemplate { origin, text, with_tools: None, special, notice: None }
    }

    /// Where it comes from: a file and, in GGUF, a key.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the user should know about it.
    #[must_use]
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// The prompt for a conversation. Control tokens of `tokenizer` that are spelled in it stay text;
    /// one of a single character cannot be told apart.
    ///
    /// # Errors
    ///
    /// Where the template is damaged, refuses the messages, uses what is not there, or does not end.
    pub fn render(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
    ) -> Result<Prompt, ChatError> {
        let Conversation { messages, tools, documents, variables, answer, now } = conversation;
        let text = match &self.with_tools {
            Some(text) if !tools.is_empty() => text,
            _ => &self.text,
        };
        let or_none = |list: &[Data]| match list {
            [] => Data::Null,
            list => Data::List(list.to_vec()),
        };
        let given = [
            ("messages", Data::List(messages.clone())),
            ("tools", or_none(tools)),
            ("documents", or_none(documents)),
            ("add_generation_prompt", Data::Bool(*answer)),
        ];
        let written = variables.iter().map(|(name, data)| (name.as_str(), data.clone()));
        let written: Vec<_> = written.chain(given).collect();
        let mark = mark(text, &written)?;
        let special = self.special.iter().map(|(name, text)| (*name, Data::from(text.as_str())));
        let marked = written
            .iter()
            .map(|(name, data)| (*name, data.map(&|text| tokenizer.mark(text, mark))));
        let variables: Vec<_> = special.chain(marked).collect();
        let marked = sandbox::render(text, &variables, *now);
        let marked = marked.map_err(|failure| {
            let (template, line) = (self.origin.clone(), failure.line);
            match failure.why {
                Why::Wrong(what) => ChatError::Template { template, line, what },
                Why::Raised(message) => ChatError::Raised { template, line, message },
                Why::Endless => ChatError::Endless { template, line },
            }
        })?;
        Ok(Prompt { marked, mark })
    }
}

/// A mark that is nowhere yet.
fn mark(template: &str, written: &[(&str, Data)]) -> Result<char, ChatError> {
    let mut seen = BTreeSet::new();
    let mut look = |text: &str| seen.extend(text.chars().filter(|c| MARKS.contains(c)));
    look(template);
    written.iter().for_each(|(_, data)| data.strings(&mut look));
    MARKS.into_iter().find(|mark| !seen.contains(mark)).ok_or(ChatError::Noncharacters)
}

impl Prompt {
    /// The text of the prompt.
    #[must_use]
    pub fn text(&self) -> String {
        self.marked.replace(self.mark, "")
    }

    /// Its tokens: the control tokens that the template wrote and no others. The first is the one that
    /// the model wants a text to begin with, once.
    #[must_use]
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        tokenizer.encode_marked(&self.marked, self.mark)
    }
}
