//! Hyper-parameters of a model, from GGUF metadata.

use bitnet_gguf::{Gguf, Value};

use crate::Error;

/// What the metadata says about a BitNet b1.58 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `general.architecture`, `bitnet-b1.58` or `bitnet-25`.
    pub architecture: String,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward network.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Tokens the model was trained to look back.
    pub context: usize,
    /// Added to the mean of squares in RMSNorm.
    pub eps: f32,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
}

/// Settings of the architecture that [`Config`] reads.
const READ: [&str; 13] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "hidden_act",
    "hidden_activation",
    "rope.dimension_count",
    "rope.freq_base",
    "vocab_size",
];

/// Hidden size, layers and vocabulary of the 1bitLLM reproductions, which gate with SiLU although
/// a newer converter labels them `bitnet-b1.58` and does not say so.
const ONE_BIT_LLM: [(usize, usize, u64); 3] =
    [(1536, 24, 32002), (2048, 24, 32002), (3200, 26, 32002)];

impl Config {
    /// The architectures of which it is.
    pub const ARCHITECTURES: [&str; 2] = ["bitnet-b1.58", "bitnet-25"];

    /// Reads and checks the metadata.
    ///
    /// # Errors
    ///
    /// Where a key is missing or of another type, a number makes no sense, or the architecture is
    /// not one of those supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Config, Error> {
        let architecture = gguf.architecture()?.to_owned();
        if !Config::ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(Error::Architecture { file: gguf.name().to_owned(), found: architecture });
        }
        let keys = Keys { gguf, architecture: &architecture };
        let (layers, hidden) = (keys.count("block_count")?, keys.count("embedding_length")?);
        let heads = keys.count("attention.head_count")?;
        let head_size = keys.count_or("attention.key_length", hidden / heads)?;
        let config = Config {
            layers,
            hidden,
            ffn: keys.count("feed_forward_length")?,
            heads,
            kv_heads: keys.count_or("attention.head_count_kv", heads)?,
            head_size,
            context: keys.count("context_length")?,
            eps: keys.positive("attention.layer_norm_rms_epsilon", None)?,
            rope_base: keys.positive("rope.freq_base", Some(10_000.0))?,
            architecture: architecture.clone(),
        };
        keys.check(&config)?;
        Ok(config)
    }

    /// Width of all query heads.
    #[must_use]
    pub fn q_size(&self) -> usize {
        self.heads * self.head_size
    }

    /// Width of all key heads, and of all value heads.
    #[must_use]
    pub fn kv_size(&self) -> usize {
        self.kv_heads * self.head_size
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

    fn error(&self, key: &str, value: impl ToString, expected: impl Into<String>) -> Error {
        Error::Config {
            file: self.gguf.name().to_owned(),
            key: self.name(key),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    fn nonzero(&self, key: &str, value: u32) -> Result<usize, Error> {
        match value {
            0 => Err(self.error(key, 0, "it must not be zero")),
            n => Ok(n as usize),
        }
    }

    fn count(&self, key: &str) -> Result<usize, Error> {
        self.nonzero(key, self.gguf.require_u32(&self.name(key))?)
    }

    fn count_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        match self.gguf.u32(&self.name(key))? {
            Some(value) => self.nonzero(key, value),
            None => Ok(default),
        }
    }

    fn positive(&self, key: &str, default: Option<f32>) -> Result<f32, Error> {
        let name = self.name(key);
        let value = match (self.gguf.f32(&name)?, default) {
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => self.gguf.require_f32(&name)?,
        };
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        Err(self.error(key, value, "it must be a positive number"))
    }

    /// Numbers that must fit each other.
    fn check(&self, c: &Config) -> Result<(), Error> {
        if !c.hidden.is_multiple_of(c.heads) {
            let expected = format!("it must divide the embedding length {}", c.hidden);
            return Err(self.error("attention.head_count", c.heads, expected));
        }
        if !c.heads.is_multiple_of(c.kv_heads) {
            let expected = format!("it must divide the {} heads", c.heads);
            return Err(self.error("attention.head_count_kv", c.kv_heads, expected));
        }
        if !c.head_size.is_multiple_of(2) || c.head_size.checked_mul(c.heads) != Some(c.hidden) {
            let expected = format!("{} heads of it must make {}", c.heads, c.hidden);
            return Err(self.error("attention.key_length", c.head_size, expected));
        }
        let turned = self.count_or("rope.dimension_count", c.head_size)?;
        if turned != c.head_size {
            let expected = format!("it must be the head size {}", c.head_size);
            return Err(self.error("rope.dimension_count", turned, expected));
        }
        let values = self.count_or("attention.value_length", c.head_size)?;
        if values != c.head_size {
            let expected = format!("it must be the head size {}", c.head_size);
            return Err(self.error("attention.value_length", values, expected));
        }
        self.check_activation(c)?;
        self.refuse_unread()
    }

    /// Settings that would have to be ignored change the result, unless they say that there is
    /// nothing to change.
    fn refuse_unread(&self) -> Result<(), Error> {
        for (key, value) in self.gguf.metadata() {
            let Some(key) = key.strip_prefix(self.architecture).and_then(|k| k.strip_prefix('.'))
            else {
                continue;
            };
            let neutral = match (key, value) {
                ("attention.value_length", _) => true,
                ("rope.scaling.type", Value::String(kind)) => &**kind == "none",
                ("expert_count" | "expert_used_count" | "attention.sliding_window", n) => {
                    *n == Value::U32(0)
                }
                ("attention.causal", causal) => *causal == Value::Bool(true),
                _ => READ.contains(&key),
            };
            if !neutral {
                let expected = "this setting is not supported, and changes what the model computes";
                return Err(self.error(key, format!("{value:?}"), expected));
            }
        }
        Ok(())
    }

    /// Squared ReLU is what the architecture means; some files say or are something else.
    fn check_activation(&self, c: &Config) -> Result<(), Error> {
        let mut stated = false;
        for key in ["hidden_act", "hidden_activation"] {
            match self.gguf.str(&self.name(key))? {
                None => {}
                Some("relu2") => stated = true,
                Some(found) => return Err(self.error(key, found, "only relu2 is supported")),
            }
        }
        if stated {
            return Ok(());
        }
        let embedding = self.gguf.tensor("token_embd.weight");
        let vocabulary = embedding.and_then(|t| t.dims.get(1).copied()).unwrap_or(0);
        if ONE_BIT_LLM.contains(&(c.hidden, c.layers, vocabulary)) {
            let what = "this is a 1bitLLM reproduction, which gates with SiLU: not supported yet";
            return Err(Error::Variant {
                file: self.gguf.name().to_owned(),
                what: what.to_owned(),
            });
        }
        Ok(())
    }
}
