//! Hyper-parameters of a model, from the metadata of GGUF or from `config.json`.

mod gguf;
mod json;

use std::fmt;
use std::str::FromStr;

use bitnet_kernels::Operation;

use crate::Error;
pub(crate) use json::packed;

/// What a model says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture, as `general.architecture` of GGUF names it.
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
    /// Tokens the model can look back: as many as it was trained for, and no more than the window of
    /// local layers, if it has any.
    pub context: usize,
    /// Added to the mean of squares in RMSNorm.
    pub eps: f32,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
    /// What gates the feed-forward network.
    pub activation: Activation,
    /// Tokens of the vocabulary, if that is said.
    pub vocabulary: Option<usize>,
    /// The layers that look back no further than a window, if there are any.
    pub local: Option<Local>,
}

/// Layers that look back no further than a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Local {
    /// Tokens that they look back.
    pub window: usize,
    /// Base of their rotary frequencies.
    pub rope_base: f32,
    /// All layers are such but each of this number.
    pub every: usize,
    /// Tokens that the model was trained for.
    pub trained: usize,
}

/// What gates a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)^2`.
    Relu2,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
    Gelu,
}

impl Activation {
    const ALL: [Activation; 3] = [Activation::Relu2, Activation::Silu, Activation::Gelu];

    /// Its name in `config.json`.
    fn json(self) -> &'static str {
        match self {
            Activation::Relu2 => "relu2",
            Activation::Silu => "silu",
            Activation::Gelu => "gelu_pytorch_tanh",
        }
    }

    /// What a kernel for it computes.
    pub(crate) fn operation(self) -> Operation {
        match self {
            Activation::Relu2 => Operation::Relu2,
            Activation::Silu => Operation::Silu,
            Activation::Gelu => Operation::Gelu,
        }
    }
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(name: &str) -> Result<Activation, String> {
        let known = Activation::ALL.into_iter().find(|one| one.operation().name() == name);
        known.ok_or_else(|| format!("activation {name} is unknown"))
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation().name())
    }
}

/// Hidden size, layers and vocabulary of the 1bitLLM reproductions, which gate with SiLU although
/// newer converters label them `bitnet-b1.58` and do not say so.
const ONE_BIT_LLM: [(usize, usize, usize); 3] =
    [(1536, 24, 32002), (2048, 24, 32002), (3200, 26, 32002)];

/// The name of a setting.
#[derive(Clone, Copy, Debug)]
struct Key {
    /// Behind the architecture in the metadata of GGUF.
    gguf: &'static str,
    /// In `config.json`.
    json: &'static str,
}

const fn key(gguf: &'static str, json: &'static str) -> Key {
    Key { gguf, json }
}

const LAYERS: Key = key("block_count", "num_hidden_layers");
const HIDDEN: Key = key("embedding_length", "hidden_size");
const FFN: Key = key("feed_forward_length", "intermediate_size");
const HEADS: Key = key("attention.head_count", "num_attention_heads");
const KV_HEADS: Key = key("attention.head_count_kv", "num_key_value_heads");
const HEAD_SIZE: Key = key("attention.key_length", "head_dim");
const CONTEXT: Key = key("context_length", "max_position_embeddings");
const EPS: Key = key("attention.layer_norm_rms_epsilon", "rms_norm_eps");
const ROPE_BASE: Key = key("rope.freq_base", "rope_theta");
const WINDOW: Key = key("attention.sliding_window", "sliding_window");
const LOCAL_ROPE_BASE: Key = key("rope.freq_base_swa", "rope_local_base_freq");
const PATTERN: Key = key("attention.sliding_window_pattern", "sliding_window_pattern");
const QUERY_SCALE: Key = key("attention.query_pre_attn_scalar", "query_pre_attn_scalar");
const VOCABULARY: Key = key("vocab_size", "vocab_size");
const ACTIVATION: [Key; 2] =
    [key("hidden_act", "hidden_act"), key("hidden_activation", "hidden_activation")];

/// Settings that are read.
const READ: [Key; 12] = [
    LAYERS,
    HIDDEN,
    FFN,
    HEADS,
    KV_HEADS,
    HEAD_SIZE,
    CONTEXT,
    EPS,
    ROPE_BASE,
    VOCABULARY,
    ACTIVATION[0],
    ACTIVATION[1],
];

/// Settings of local layers.
const LOCAL: [Key; 4] = [WINDOW, LOCAL_ROPE_BASE, PATTERN, QUERY_SCALE];

/// Settings, wherever they are written down.
trait Settings {
    /// A whole number; nothing if there is none.
    fn u32(&self, key: Key) -> Result<Option<u32>, Error>;

    /// A number; nothing if there is none.
    fn f32(&self, key: Key) -> Result<Option<f32>, Error>;

    /// A string; nothing if there is none.
    fn str(&self, key: Key) -> Result<Option<&str>, Error>;

    /// What the products of queries and keys are divided by the root of, if that is not said and is not
    /// the head size.
    fn usual_query_scale(&self) -> Option<usize>;

    /// The error where a setting is not there.
    fn missing(&self, key: Key) -> Error;

    /// The error where a setting makes no sense.
    fn wrong(&self, key: Key, value: String, expected: String) -> Error;

    /// Settings that are read elsewhere, or not at all.
    fn check(&self, config: &Config) -> Result<(), Error>;

    /// A number that is not zero.
    fn count(&self, key: Key) -> Result<Option<usize>, Error> {
        match self.u32(key)? {
            Some(0) => Err(self.wrong(key, "0".to_owned(), "it must not be zero".to_owned())),
            n => Ok(n.map(|n| n as usize)),
        }
    }

    /// A number that is not zero and must be there.
    fn need(&self, key: Key) -> Result<usize, Error> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    /// A positive number, if it is there.
    fn positive(&self, key: Key) -> Result<Option<f32>, Error> {
        match self.f32(key)? {
            Some(x) if !(x.is_finite() && x > 0.0) => {
                Err(self.wrong(key, x.to_string(), "it must be a positive number".to_owned()))
            }
            x => Ok(x),
        }
    }
}

impl Config {
    /// The architectures of which it is.
    pub const ARCHITECTURES: [&str; 6] =
        ["bitnet-b1.58", "bitnet-25", "bitnet", "llama", "qwen3", "gemma3"];

    /// Reads and checks the settings of an architecture.
    fn read(settings: &impl Settings, architecture: &str) -> Result<Config, Error> {
        let s = settings;
        let (layers, hidden, heads) = (s.need(LAYERS)?, s.need(HIDDEN)?, s.need(HEADS)?);
        let mut config = Config {
            architecture: architecture.to_owned(),
            layers,
            hidden,
            ffn: s.need(FFN)?,
            heads,
            kv_heads: s.count(KV_HEADS)?.unwrap_or(heads),
            head_size: s.count(HEAD_SIZE)?.unwrap_or(hidden / heads),
            context: s.need(CONTEXT)?,
            eps: s.positive(EPS)?.ok_or_else(|| s.missing(EPS))?,
            rope_base: s.positive(ROPE_BASE)?.unwrap_or(10_000.0),
            activation: Activation::Relu2,
            vocabulary: s.count(VOCABULARY)?,
            local: None,
        };
        config.fit(settings)?;
        config.activation = config.activation(settings)?;
        if architecture == "gemma3" {
            config.read_local(settings)?;
        }
        settings.check(&config)?;
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

    /// Tokens that the model was trained for.
    fn trained_context(&self) -> usize {
        self.local.map_or(self.context, |local| local.trained)
    }

    /// The settings that are whole numbers.
    fn counts(&self) -> Vec<(Key, usize)> {
        let mut counts = vec![
            (CONTEXT, self.trained_context()),
            (HIDDEN, self.hidden),
            (LAYERS, self.layers),
            (FFN, self.ffn),
            (HEADS, self.heads),
            (KV_HEADS, self.kv_heads),
            (HEAD_SIZE, self.head_size),
        ];
        counts.extend(self.vocabulary.map(|rows| (VOCABULARY, rows)));
        let local = self.local.map(|local| [(WINDOW, local.window), (PATTERN, local.every)]);
        counts.extend(local.into_iter().flatten());
        counts
    }

    /// The other numbers.
    fn numbers(&self) -> Vec<(Key, f32)> {
        let local = self.local.map(|local| (LOCAL_ROPE_BASE, local.rope_base));
        [(EPS, self.eps), (ROPE_BASE, self.rope_base)].into_iter().chain(local).collect()
    }

    /// What multiplies embeddings.
    pub(crate) fn embedding_scale(&self) -> f32 {
        match self.architecture.as_str() {
            "gemma3" => (self.hidden as f32).sqrt(),
            _ => 1.0,
        }
    }

    /// Whether a layer looks back no further than a window.
    pub(crate) fn is_local(&self, layer: usize) -> bool {
        self.local.is_some_and(|local| !(layer + 1).is_multiple_of(local.every))
    }

    /// The settings of local layers, with what Gemma 3 has where it does not say.
    fn read_local(&mut self, settings: &impl Settings) -> Result<(), Error> {
        let usual = settings.usual_query_scale().unwrap_or(self.head_size);
        let scale = settings.count(QUERY_SCALE)?.unwrap_or(usual);
        if scale != self.head_size {
            let expected = format!("it must be the head size {}", self.head_size);
            return Err(settings.wrong(QUERY_SCALE, scale.to_string(), expected));
        }
        if let Some(window) = settings.count(WINDOW)? {
            let rope_base = settings.positive(LOCAL_ROPE_BASE)?.unwrap_or(10_000.0);
            let every = settings.count(PATTERN)?.unwrap_or(6);
            self.local = Some(Local { window, rope_base, every, trained: self.context });
            // Up to there all layers see all tokens.
            self.context = self.context.min(window);
        }
        Ok(())
    }

    /// Numbers that must fit each other.
    fn fit(&self, settings: &impl Settings) -> Result<(), Error> {
        let Config { hidden, heads, kv_heads, head_size, .. } = *self;
        let wrong = |key, value: usize, expected: String| {
            Err(settings.wrong(key, value.to_string(), expected))
        };
        if !heads.is_multiple_of(kv_heads) {
            return wrong(KV_HEADS, kv_heads, format!("it must divide the {heads} heads"));
        }
        if head_size == 0 || !head_size.is_multiple_of(2) || head_size.checked_mul(heads).is_none()
        {
            return wrong(HEAD_SIZE, head_size, "it must be even, and not zero".to_owned());
        }
        // In others heads can make more or less.
        let exact = self.architecture.starts_with("bitnet");
        if exact && !hidden.is_multiple_of(heads) {
            return wrong(HEADS, heads, format!("it must divide the embedding length {hidden}"));
        }
        if exact && head_size * heads != hidden {
            return wrong(HEAD_SIZE, head_size, format!("{heads} heads of it must make {hidden}"));
        }
        Ok(())
    }

    /// The gate: what the model says, or what its architecture means.
    fn activation(&self, settings: &impl Settings) -> Result<Activation, Error> {
        let mut stated = None;
        for key in ACTIVATION {
            stated = match (settings.str(key)?, stated) {
                (None, stated) => stated,
                (Some("relu2"), None | Some(Activation::Relu2)) => Some(Activation::Relu2),
                (Some("silu" | "swish"), None | Some(Activation::Silu)) => Some(Activation::Silu),
                (Some("gelu_pytorch_tanh"), None | Some(Activation::Gelu)) => {
                    Some(Activation::Gelu)
                }
                (Some(found), _) => {
                    let expected = "only relu2, silu and gelu_pytorch_tanh are supported, and one of \
                                    them";
                    return Err(settings.wrong(key, found.to_owned(), expected.to_owned()));
                }
            };
        }
        let shape = (self.hidden, self.layers, self.vocabulary.unwrap_or(0));
        Ok(stated.unwrap_or(match self.architecture.as_str() {
            "bitnet" | "llama" | "qwen3" => Activation::Silu,
            "gemma3" => Activation::Gelu,
            _ if ONE_BIT_LLM.contains(&shape) => Activation::Silu,
            _ => Activation::Relu2,
        }))
    }
}
