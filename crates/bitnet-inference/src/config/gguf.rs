//! Hyper-parameters from the metadata of GGUF.

use bitnet_gguf::{Gguf, Value};

use super::{ACTIVATION, Config, Key, LOCAL, READ, Settings, VOCABULARY, key};
use crate::Error;
use crate::source::Metadata;

/// Numbers of a head that are turned, and numbers of a value: as many as a head has.
const SAME: [Key; 2] = [key("rope.dimension_count", ""), key("attention.value_length", "")];

impl Config {
    /// Reads and checks the metadata.
    ///
    /// # Errors
    ///
    /// Where a key is missing or of another type, a number makes no sense, or the architecture is
    /// not one of those supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Config, Error> {
        let architecture = gguf.architecture()?;
        if !Config::ARCHITECTURES.contains(&architecture) {
            let (file, found) = (gguf.name().to_owned(), architecture.to_owned());
            return Err(Error::Architecture { file, found });
        }
        Config::read(&Keys { gguf, architecture }, architecture)
    }

    /// The metadata that [`Config::from_gguf`] reads.
    pub(crate) fn metadata(&self) -> Metadata {
        let same = SAME.map(|key| (key, self.head_size));
        let counts = self.counts().into_iter().chain(same);
        // They were read from 32 bits.
        let counts = counts.map(|(key, n)| (key.gguf, Value::U32(n as u32)));
        let numbers = self.numbers().into_iter().map(|(key, x)| (key.gguf, Value::F32(x)));
        let act = (ACTIVATION[0].gguf, Value::String(self.activation.json().into()));
        let named = |(key, value)| (format!("{}.{key}", self.architecture), value);
        counts.chain(numbers).chain([act]).map(named).collect()
    }
}

/// The metadata of an architecture, whose keys start with its name.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }
}

impl Settings for Keys<'_> {
    fn u32(&self, key: Key) -> Result<Option<u32>, Error> {
        let stated = self.gguf.u32(&self.name(key.gguf))?;
        if stated.is_some() || key.gguf != VOCABULARY.gguf {
            return Ok(stated);
        }
        let embedding = self.gguf.tensor("token_embd.weight");
        let rows = embedding.and_then(|tensor| tensor.dims.get(1).copied());
        Ok(rows.and_then(|rows| rows.try_into().ok()))
    }

    fn f32(&self, key: Key) -> Result<Option<f32>, Error> {
        Ok(self.gguf.f32(&self.name(key.gguf))?)
    }

    fn str(&self, key: Key) -> Result<Option<&str>, Error> {
        Ok(self.gguf.str(&self.name(key.gguf))?)
    }

    fn usual_query_scale(&self) -> Option<usize> {
        None
    }

    fn missing(&self, key: Key) -> Error {
        let (file, key) = (self.gguf.name().to_owned(), self.name(key.gguf));
        bitnet_gguf::Error::MissingKey { file, key }.into()
    }

    fn wrong(&self, key: Key, value: String, expected: String) -> Error {
        let (file, key) = (self.gguf.name().to_owned(), self.name(key.gguf));
        Error::Config { file, key, value, expected }
    }

    /// Settings that would have to be ignored change the result, unless they say that there is
    /// nothing to change.
    fn check(&self, config: &Config) -> Result<(), Error> {
        for key in SAME {
            let size = config.head_size;
            if let Some(found) = self.count(key)?.filter(|&found| found != size) {
                let expected = format!("it must be the head size {size}");
                return Err(self.wrong(key, found.to_string(), expected));
            }
        }
        for (name, value) in self.gguf.metadata() {
            let own = name.strip_prefix(self.architecture).and_then(|name| name.strip_prefix('.'));
            let Some(name) = own else { continue };
            let neutral = match (name, value) {
                ("rope.scaling.type", Value::String(kind)) => &**kind == "none",
                ("expert_count" | "expert_used_count" | "attention.sliding_window", n)
                    if config.local.is_none() =>
                {
                    *n == Value::U32(0)
                }
                _ if config.local.is_some() && LOCAL.iter().any(|key| key.gguf == name) => true,
                ("attention.causal", causal) => *causal == Value::Bool(true),
                _ => READ.iter().chain(&SAME).any(|key| key.gguf == name),
            };
            if !neutral {
                let expected = "this setting is not supported, and changes what the model computes";
                let (file, key) = (self.gguf.name().to_owned(), self.name(name));
                let value = format!("{value:?}");
                return Err(Error::Config { file, key, value, expected: expected.to_owned() });
            }
        }
        Ok(())
    }
}
