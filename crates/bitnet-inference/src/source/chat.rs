//! The chat template of a model, and the tokens that templates call by name.

use std::path::Path;

use bitnet_gguf::{Array, Gguf};
use serde_json::Value;

use super::Metadata;
use super::json::{Json, read};
use crate::Error;

/// What a model says about chats.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    /// Its template and where that is.
    pub(crate) text: Option<(String, String)>,
    /// The template for conversations with tools, if that is another.
    pub(crate) with_tools: Option<String>,
    /// Texts of tokens by the names that templates have for them.
    pub(crate) special: Vec<(&'static str, String)>,
}

/// The names that templates and the files of a folder have for tokens, and those of GGUF.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "bos"),
    ("eos_token", "eos"),
    ("unk_token", "unknown"),
    ("pad_token", "padding"),
];

/// The name of the template for conversations with tools.
const TOOLS: &str = "tool_use";

/// Where templates lie in a folder.
pub(super) const FILE: &str = "chat_template.jinja";
pub(super) const TOOLS_FILE: &str = "additional_chat_templates/tool_use.jinja";

impl Chat {
    /// The metadata of GGUF that says the same. `ids` are those of tokens by their texts.
    pub(super) fn metadata(&self, id: impl Fn(&str) -> Option<u32>) -> Metadata {
        let mut metadata = Metadata::new();
        let key = "tokenizer.chat_template";
        metadata.extend(self.text.iter().map(|(_, text)| (key.to_owned(), text.as_str().into())));
        if let Some(text) = &self.with_tools {
            metadata.push((format!("{key}s"), [TOOLS].into_iter().collect::<Array>().into()));
            metadata.push((format!("{key}.{TOOLS}"), text.as_str().into()));
        }
        for (name, text) in &self.special {
            let role = SPECIAL.iter().find(|(known, _)| known == name).map(|(_, role)| role);
            if let (Some(role), Some(id)) = (role, id(text)) {
                metadata.push((format!("tokenizer.ggml.{role}_token_id"), id.into()));
            }
        }
        metadata
    }

    /// The files in a folder that say the same, and where they lie in it.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        let text = self.text.iter().map(|(_, text)| (FILE, text.clone()));
        text.chain(self.with_tools.iter().map(|text| (TOOLS_FILE, text.clone()))).collect()
    }
}

pub(super) fn of_gguf(gguf: &Gguf) -> Result<Chat, Error> {
    let key = "tokenizer.chat_template";
    let mut chat = Chat::default();
    if let Some(text) = gguf.str(key)? {
        chat.text = Some((format!("{}: {key}", gguf.name()), text.to_owned()));
    }
    chat.with_tools = gguf.str(&format!("{key}.{TOOLS}"))?.map(str::to_owned);
    for (name, role) in SPECIAL {
        let Some(id) = gguf.u32(&format!("tokenizer.ggml.{role}_token_id"))? else { continue };
        let mut tokens = gguf.require_strings("tokenizer.ggml.tokens")?;
        chat.special.extend(tokens.nth(id as usize).map(|text| (name, text.to_owned())));
    }
    Ok(chat)
}

pub(super) fn of_folder(path: &Path) -> Result<Chat, Error> {
    let mut chat = Chat::default();
    let config = Json::open(&path.join("tokenizer_config.json"))?;
    if let Some(config) = &config {
        chat = of_config(config)?;
    }
    let file = path.join(FILE);
    if let Some(text) = read(&file)? {
        chat.text = Some((file.display().to_string(), text));
        chat.with_tools = read(&path.join(TOOLS_FILE))?;
    }
    Ok(chat)
}

/// What `tokenizer_config.json` says: a template, or several with names.
fn of_config(config: &Json) -> Result<Chat, Error> {
    let mut chat = Chat::default();
    let origin = || format!("{}: chat_template", config.file);
    match config.get("chat_template") {
        None => {}
        Some(Value::String(text)) => chat.text = Some((origin(), text.clone())),
        Some(Value::Array(several)) => {
            let named = |name: &str| {
                let mut entries = several.iter().filter(|entry| entry["name"] == name);
                Some(entries.next()?["template"].as_str()?.to_owned())
            };
            chat.text = named("default").map(|text| (origin(), text));
            chat.with_tools = named(TOOLS);
        }
        Some(_) => {
            let expected = "it must be a template, or a list of such with their names";
            return Err(config.error("chat_template", expected));
        }
    }
    for (name, _) in SPECIAL {
        let Some(token) = config.get(name) else { continue };
        let text = token.as_str().or_else(|| token["content"].as_str());
        let expected = "it must be a token, or an object with its content";
        let text = text.ok_or_else(|| config.error(name, expected))?;
        chat.special.push((name, text.to_owned()));
    }
    Ok(chat)
}
