//! Files of JSON in a model's folder.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::{Error, read_text};

/// Bytes of a file of JSON at most: tokenizers are the largest, with some ten million.
const LONGEST: u64 = 1 << 28;

/// A file of JSON, and its name for messages.
#[derive(Clone, Debug)]
pub(crate) struct Json {
    /// The path.
    pub(crate) file: String,
    /// What it says.
    pub(crate) value: Value,
}

impl Json {
    /// Reads a file; nothing if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Json>, Error> {
        let Some(text) = read(path)? else {
            return Ok(None);
        };
        let file = path.display().to_string();
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Some(Json { file, value })),
            Err(source) => Err(Error::Json { file, source }),
        }
    }

    /// The value of a key, if there is one that is not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// An error about a key, which has a value that makes no sense.
    pub(crate) fn error(&self, key: &str, expected: impl Into<String>) -> Error {
        let value = self.value.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        Error::Config {
            file: self.file.clone(),
            key: key.to_owned(),
            value,
            expected: expected.into(),
        }
    }

    /// A string; nothing if there is none.
    pub(crate) fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        let string = |value: &Value| value.is_string();
        match self.get(key) {
            Some(value) if !string(value) => Err(self.error(key, "it must be a string")),
            value => Ok(value.and_then(Value::as_str)),
        }
    }

    /// A boolean; nothing if there is none.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.error(key, "it must be true or false")),
        }
    }

    /// A whole number; nothing if there is none.
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.get(key) {
            None => Ok(None),
            Some(value) => match number(value) {
                Some(n) => Ok(Some(n)),
                None => Err(self.error(key, "it must be a whole number of 32 bits")),
            },
        }
    }

    /// A number; nothing if there is none.
    pub(crate) fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(x) => Ok(Some(x as f32)),
                None => Err(self.error(key, "it must be a number")),
            },
        }
    }
}

/// The text of a regular file of sensible length; nothing if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let fail = |source| Error::File { file: path.display().to_string(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(fail(io::Error::other("it is not a file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    }
    let text = File::open(path).and_then(|file| read_text(file, LONGEST));
    text.map(Some).map_err(fail)
}
