//! Conversations on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use bitnet_inference::read_text;
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use crate::exit::{Unreadable, Usage};

/// Bytes of a conversation at most.
const LONGEST: u64 = 64 << 20;

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// SHA-256 of the model that it was held with.
    pub(super) model: String,
    /// What the model was told before all messages.
    pub(super) system: Option<String>,
    pub(super) messages: Vec<Message>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    /// `user` or `assistant`.
    pub(super) role: String,
    pub(super) content: String,
}

/// Where conversations and what was typed are kept: `bitnet` in the user's folder for state, if there is one.
pub(super) fn folder() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("bitnet"))
}

/// The file of a conversation.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    if name.is_empty() || name.starts_with('.') || name.len() > 200 || !name.chars().all(plain) {
        let what = format!("{name:?} is no name: use letters, digits, spaces, -, _ and .");
        return Err(Usage(what).into());
    }
    let folder = folder().context("there is no folder for conversations: HOME is not set")?;
    Ok(folder.join("chats").join(format!("{name}.json")))
}

impl Log {
    /// The conversation of this name, if there is one.
    pub(super) fn load(name: &str) -> Result<Option<Log>> {
        let path = path(name)?;
        let text = match File::open(&path).and_then(|file| read_text(file, LONGEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let damaged =
            |why: &str| Unreadable(format!("{}: {why}: it is damaged, delete it", path.display()));
        let log: Log = serde_json::from_str(&text).map_err(|error| damaged(&error.to_string()))?;
        let is_known = |message: &Message| ["user", "assistant"].contains(&&*message.role);
        if let Some(message) = log.messages.iter().find(|message| !is_known(message)) {
            return Err(damaged(&format!("nobody is {:?}", message.role)).into());
        }
        Ok(Some(log))
    }

    /// Keeps it, in place of one of the same name. Gives where.
    pub(super) fn save(&self, name: &str) -> Result<PathBuf> {
        let path = path(name)?;
        let write = || {
            let folder = path.parent().unwrap_or(&path);
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.persist(&path).map_err(|error| error.error)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
