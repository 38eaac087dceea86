//! Where chat templates come from: the user, or the model.

use std::fs::File;
use std::io;

use super::{ChatError, ChatTemplate};
use crate::{Checkpoint, Engine, Error, Notice, read_text};

/// Templates by their names.
const BUILT_IN: [(&str, &str); 5] = [
    ("bitnet", include_str!("templates/bitnet.jinja")),
    ("chatml", include_str!("templates/chatml.jinja")),
    ("falcon3", include_str!("templates/falcon3.jinja")),
    ("llama3", include_str!("templates/llama3.jinja")),
    ("plain", include_str!("templates/plain.jinja")),
];

/// What the template has that is in the GGUF file of BitNet b1.58 2B-4T, and which the model was not
/// trained with.
const BROKEN: &str = "BITNETAssistant";

/// Bytes of a file with a template at most.
const LONGEST: u64 = 1 << 20;

impl Engine {
    /// The chat template of the model; see [`Checkpoint::chat_template`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn chat_template(&self, asked: Option<&str>) -> Result<ChatTemplate, Error> {
        self.checkpoint().chat_template(asked)
    }
}

impl Checkpoint {
    /// The chat template that is `asked` for: one of those built in (`bitnet`, `chatml`, `falcon3`,
    /// `llama3`, and `plain` for models that only go on with a text), the text of one, or a file. If none is, that of the model: in GGUF the one in its
    /// metadata, in a folder `chat_template.jinja`, or the one in `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// Where there is none, or the file that has it cannot be read.
    pub fn chat_template(&self, asked: Option<&str>) -> Result<ChatTemplate, Error> {
        let chat = self.chat()?;
        let (special, names) = (chat.special, names());
        let plain = |origin: String, text: String| ChatTemplate::new(origin, text, special.clone());
        let Some(asked) = asked else {
            let Some((origin, text)) = chat.text else {
                return Err(ChatError::Missing { file: self.name().to_owned(), names }.into());
            };
            let template = plain(origin, text);
            if template.text.contains(BROKEN) {
                let notice = Some(Notice::ChatTemplate { file: self.name().to_owned() });
                let text = BUILT_IN[0].1.to_owned();
                return Ok(ChatTemplate { text, notice, ..template });
            }
            return Ok(ChatTemplate { with_tools: chat.with_tools, ..template });
        };
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == asked) {
            return Ok(plain(format!("the template {name}"), (*text).to_owned()));
        }
        if asked.contains('{') {
            return Ok(plain("the template that was given".to_owned(), asked.to_owned()));
        }
        match File::open(asked).and_then(|file| read_text(file, LONGEST)) {
            Ok(text) => Ok(plain(asked.to_owned(), text)),
            Err(source) => Err(given(asked, names, source)),
        }
    }

    /// As [`Checkpoint::chat_template`]; where the model has none, `plain`, which says so in its notice.
    ///
    /// # Errors
    ///
    /// As there, but for a model without one.
    pub fn chat_template_or_plain(&self, asked: Option<&str>) -> Result<ChatTemplate, Error> {
        match self.chat_template(asked) {
            Err(Error::Chat(ChatError::Missing { .. })) => {
                let template = self.chat_template(Some("plain"))?;
                Ok(ChatTemplate { notice: Some(Notice::NoChatTemplate), ..template })
            }
            found => found,
        }
    }
}

fn given(given: &str, names: String, source: io::Error) -> Error {
    ChatError::Given { given: given.to_owned(), names, source }.into()
}

/// The names of those built in.
fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}
