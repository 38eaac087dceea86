//! Hyper-parameters from `config.json`, as transformers writes it.

use serde_json::{Map, Value};

use super::{
    ACTIVATION, Config, EPS, Key, LOCAL, LOCAL_ROPE_BASE, PATTERN, QUERY_SCALE, READ, ROPE_BASE,
    Settings, WINDOW,
};
use crate::Error;
use crate::source::Json;

/// Settings that are read elsewhere, and those that say nothing about what a model computes, or only
/// how it is trained.
const NEUTRAL: [&str; 39] = [
    "_name_or_path",
    "architectures",
    // A model with biases has tensors of them, which are refused.
    "attention_bias",
    "mlp_bias",
    "attention_dropout",
    "auto_map",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "dtype",
    "torch_dtype",
    "initializer_range",
    "is_bitnet_config",
    "model_type",
    "pretraining_tp",
    "quantization_config",
    "rope_parameters",
    "rope_scaling",
    "tie_word_embeddings",
    "transformers_version",
    "use_cache",
    "weight_bits",
    "input_bits",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "is_decoder",
    "id2label",
    "label2id",
    "problem_type",
    "_attn_implementation_autoset",
    "_sliding_window_pattern",
    "layer_types",
    // Where windows begin, which are not used.
    "max_window_layers",
    "use_sliding_window",
    "cache_implementation",
];

/// The names of architectures in GGUF, and of their classes in transformers.
const CLASSES: [(&str, &[&str]); 5] = [
    ("bitnet-b1.58", &["BitNetForCausalLM"]),
    // 1bitLLM's: the names differ in one letter.
    ("bitnet", &["BitnetForCausalLM"]),
    ("llama", &["LlamaForCausalLM"]),
    ("qwen3", &["Qwen3ForCausalLM", "Qwen3Model"]),
    ("gemma3", &["Gemma3ForCausalLM", "Gemma3TextModel"]),
];

/// Settings that change what a model computes.
const CHANGES: [&str; 11] = [
    "attention_multiplier",
    "attn_logit_softcapping",
    "embedding_multiplier",
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "num_experts",
    "num_local_experts",
    "partial_rotary_factor",
    "residual_multiplier",
    "use_bidirectional_attention",
];

impl Config {
    /// Reads and checks `config.json`.
    pub(crate) fn from_json(json: &Json) -> Result<Config, Error> {
        let architecture = Config::architecture_of(json)?;
        if Config::trained_ternary(json) {
            return Config::read(json, architecture);
        }
        let what = "these are floating-point weights that were not trained to be ternary: results \
                    would be noise; `bitnet quantize` makes them ternary nevertheless";
        Err(Error::Variant { file: json.file.clone(), what: what.to_owned() })
    }

    /// Reads and checks `config.json`, whether or not the model was trained to be ternary.
    pub(crate) fn from_any_json(json: &Json) -> Result<Config, Error> {
        Config::read(json, Config::architecture_of(json)?)
    }

    /// The name in GGUF of the architecture.
    pub(crate) fn architecture_of(json: &Json) -> Result<&'static str, Error> {
        let class = class(json);
        let known = CLASSES.iter().find(|(_, names)| names.iter().any(|name| class == Some(name)));
        known.map(|&(architecture, _)| architecture).ok_or_else(|| Error::Architecture {
            file: json.file.clone(),
            found: class.unwrap_or("of no name").to_owned(),
        })
    }

    /// Whether the model says that it has an output layer of its own. Models that embed texts have none
    /// at all.
    pub(crate) fn has_own_output(json: &Json) -> bool {
        let embeds = class(json).is_some_and(|class| class.ends_with("Model"));
        !embeds && json.get("tie_word_embeddings") == Some(&Value::Bool(false))
    }

    /// Whether the linear layers of the model were trained to be ternary.
    pub(crate) fn trained_ternary(json: &Json) -> bool {
        let settings = json.get("quantization_config");
        let method = settings.and_then(|settings| settings.get("quant_method"));
        method.is_some_and(|method| method == "bitnet")
            || Config::architecture_of(json).is_ok_and(|name| name.starts_with("bitnet"))
    }
}

impl Config {
    /// `config.json` of a model with packed weights and scales that multiply, without what tokenizers
    /// add.
    pub(crate) fn to_json(&self, tied: bool, norms: bool) -> Map<String, Value> {
        let mut json = Map::new();
        let class = CLASSES.iter().find(|(name, _)| *name == self.architecture);
        // bitnet-25 is another name of bitnet-b1.58.
        let class = class.map_or(CLASSES[0].1[0], |(_, names)| names[0]);
        let kind = match self.architecture.as_str() {
            "bitnet" | "llama" => "llama",
            "gemma3" => "gemma3_text",
            "qwen3" => "qwen3",
            _ => "bitnet",
        };
        json.insert("architectures".to_owned(), [class].as_slice().into());
        json.insert("model_type".to_owned(), kind.into());
        let gemma = self.architecture == "gemma3";
        json.insert(ACTIVATION[usize::from(gemma)].json.to_owned(), self.activation.json().into());
        if gemma {
            json.insert(QUERY_SCALE.json.to_owned(), self.head_size.into());
        }
        json.extend(self.counts().into_iter().map(|(key, n)| (key.json.to_owned(), n.into())));
        json.extend(self.numbers().into_iter().map(|(key, x)| (key.json.to_owned(), shortest(x))));
        json.insert("tie_word_embeddings".to_owned(), tied.into());
        let mut packed = packed();
        if norms {
            packed.insert("use_rms_norm".to_owned(), true.into());
            packed.insert(EPS.json.to_owned(), shortest(self.eps));
        }
        json.insert("quantization_config".to_owned(), packed.into());
        json
    }
}

/// The number with the fewest digits that is `x` in 32 bits.
fn shortest(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// `quantization_config` of packed weights with scales that multiply.
pub(crate) fn packed() -> Map<String, Value> {
    let settings = [
        ("quant_method", "bitnet"),
        ("linear_class", "autobitlinear"),
        ("quantization_mode", "offline"),
    ];
    settings.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// The name of the class in transformers.
fn class(json: &Json) -> Option<&str> {
    json.get("architectures")?.as_array()?.first()?.as_str()
}

impl Settings for Json {
    fn u32(&self, key: Key) -> Result<Option<u32>, Error> {
        // Models of older versions have this under the name of an attribute.
        let hidden = if key.json == PATTERN.json { "_sliding_window_pattern" } else { key.json };
        Ok(Json::u32(self, key.json)?.or(Json::u32(self, hidden)?))
    }

    fn f32(&self, key: Key) -> Result<Option<f32>, Error> {
        if let found @ Some(_) = Json::f32(self, key.json)? {
            return Ok(found);
        }
        // Newer versions have bases there, by the kind of layer if there are two.
        let rope = |json: &Json, part| {
            json.get(part).map(|value| Json { file: self.file.clone(), value: value.clone() })
        };
        let Some(all) = rope(self, "rope_parameters") else {
            return Ok(None);
        };
        let part = match key.json {
            base if base == ROPE_BASE.json => rope(&all, "full_attention").unwrap_or(all),
            base if base == LOCAL_ROPE_BASE.json => match rope(&all, "sliding_attention") {
                Some(part) => part,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Json::f32(&part, ROPE_BASE.json)
    }

    fn str(&self, key: Key) -> Result<Option<&str>, Error> {
        Json::str(self, key.json)
    }

    fn usual_query_scale(&self) -> Option<usize> {
        // That of transformers.
        Some(256)
    }

    fn missing(&self, key: Key) -> Error {
        self.error(key.json, "it must be there")
    }

    fn wrong(&self, key: Key, value: String, expected: String) -> Error {
        let (file, key) = (self.file.clone(), key.json.to_owned());
        Error::Config { file, key, value, expected }
    }

    fn check(&self, config: &Config) -> Result<(), Error> {
        for name in ["rope_scaling", "rope_parameters"] {
            let kind = |value: &Value| {
                let kind = value.get("rope_type").or_else(|| value.get("type"));
                kind.is_none_or(|kind| kind == "default")
            };
            let sound = |value: &Value| {
                let parts = ["full_attention", "sliding_attention"].map(|part| value.get(part));
                kind(value) && parts.into_iter().flatten().all(kind)
            };
            if self.get(name).is_some_and(|value| !sound(value)) {
                return Err(self.error(name, "scaled rotary positions are not supported"));
            }
        }
        self.check_layers(config)?;
        let set = |name: &&str| self.get(name).is_some_and(|value| *value != Value::Bool(false));
        match CHANGES.iter().find(|name| set(name)) {
            Some(name) => Err(self
                .error(name, "this setting is not supported, and changes what the model computes")),
            None => Ok(()),
        }
    }
}

impl Json {
    /// Whether layers look back as the architecture has them.
    fn check_layers(&self, config: &Config) -> Result<(), Error> {
        let used = self.bool("use_sliding_window")?.unwrap_or(true);
        if config.local.is_none() && used && self.get(WINDOW.json).is_some() {
            let expected = "windows are not supported in this architecture";
            return Err(self.error(WINDOW.json, expected));
        }
        let Some(kinds) = self.get("layer_types") else {
            return Ok(());
        };
        let kind = |layer| match config.is_local(layer) {
            true => "sliding_attention",
            false => "full_attention",
        };
        let as_known = |kinds: &Vec<Value>| {
            kinds.len() == config.layers && kinds.iter().enumerate().all(|(i, of)| of == kind(i))
        };
        match kinds.as_array().is_some_and(as_known) {
            true => Ok(()),
            false => Err(self.error("layer_types", "other layers must look back everywhere")),
        }
    }
}

impl Config {
    /// The settings of `config.json` of which nothing is known, and which do not say no.
    pub(crate) fn unknown(json: &Json) -> Vec<&str> {
        let known = |name: &str| {
            READ.iter().chain(&LOCAL).map(|key| key.json).chain(NEUTRAL).any(|known| known == name)
        };
        let says_no = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        let all = json.value.as_object().into_iter().flatten();
        let unknown = all.filter(|(name, value)| !known(name) && !says_no(value));
        let mut names: Vec<_> = unknown.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}
