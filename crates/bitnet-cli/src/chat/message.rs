//! A prompt as one message of a chat.

use anyhow::Result;
use bitnet_inference::chat::{ChatTemplate, Conversation, Moment};
use bitnet_inference::{Engine, Error};

use crate::exit;

/// Flags of chats.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Take the prompt as a message of a user, by the chat template of the model.
    #[arg(long, alias = "conversation")]
    chat: bool,
    /// The same, and what the model is told before the message; -sys is the same.
    #[arg(long, alias = "system-prompt", value_name = "TEXT")]
    system: Option<String>,
    /// The same, by another chat template than that of the model: a file, its text, or one of bitnet, chatml, falcon3,
    /// llama3 and plain.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
}

/// Says on stderr what the user should know about a chat template.
pub(crate) fn announce(template: &ChatTemplate) {
    if let Some(notice) = template.notice() {
        exit::say(&format!("note: {notice}"));
    }
}

impl Args {
    /// The tokens of a prompt for this message; nothing if it is no message.
    pub(crate) fn prompt(&self, engine: &Engine, message: &str) -> Result<Option<Vec<u32>>> {
        if !self.chat && self.system.is_none() && self.chat_template.is_none() {
            return Ok(None);
        }
        if message.is_empty() {
            return Err(Error::EmptyPrompt.into());
        }
        let tokenizer = engine.tokenizer()?;
        let template = engine.chat_template(self.chat_template.as_deref())?;
        announce(&template);
        let system = self.system.iter().map(|text| Conversation::message("system", text));
        let messages = system.chain([Conversation::message("user", message)]).collect();
        let prompt = template.render(&Conversation::new(messages, Moment::now()), tokenizer);
        Ok(Some(prompt.map_err(Error::from)?.tokens(tokenizer)))
    }
}
