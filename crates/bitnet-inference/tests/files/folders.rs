//! Hugging Face folders: the demo model as one, and what is refused.

use std::fs;
use std::path::Path;

use bitnet_gguf::TensorType;
use bitnet_inference::{Notice, Options};
use bitnet_kernels::{Format, format};
use half::bf16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};

use crate::common::{DEMO, load};
use crate::formats::{demo, numbers, open, run, ternary};
use crate::parts::Parts;

/// Writes the demo model as a folder, in one shard or in several; `master` with matrices of numbers.
fn write_folder(path: &Path, shards: usize, master: bool) {
    let parts = Parts::demo();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for t in &parts.tensors {
        let name = stored_name(&t.name);
        let mut shape: Vec<_> = t.dims.iter().rev().map(|&dim| dim as usize).collect();
        if t.type_id == TensorType::I2S.id() && !master {
            let (weights, scale) = ternary(t);
            let packed = format::encode(Format::HfPacked, &weights, shape[0], shape[1], 1.0);
            shape[0] /= 4;
            tensors.push((name.clone(), Dtype::U8, shape, packed.unwrap()));
            let scale = bf16::from_f32(scale).to_le_bytes().to_vec();
            tensors.push((format!("{name}_scale"), Dtype::BF16, vec![1], scale));
        } else if t.type_id == TensorType::I2S.id() {
            let data = numbers(t, |x| x.to_le_bytes().to_vec());
            tensors.push((name, Dtype::F32, shape, data));
        } else {
            let dtype = if t.type_id == TensorType::F16.id() { Dtype::F16 } else { Dtype::F32 };
            tensors.push((name, dtype, shape, t.data.clone()));
        }
    }
    let mut map = serde_json::Map::new();
    for (i, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
        let file = match shards {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", i + 1),
        };
        let views = part.iter().map(|(name, dtype, shape, data)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        serialize_to_file(views, None, &path.join(&file)).unwrap();
        map.extend(part.iter().map(|(name, ..)| (name.clone(), file.clone().into())));
    }
    if shards > 1 {
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        fs::write(path.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
    fs::write(path.join("config.json"), config(|_| ()).to_string()).unwrap();
    fs::write(path.join("tokenizer.json"), include_str!("../data/tokenizer.json")).unwrap();
}

/// `config.json` of the demo model, changed.
fn config(change: impl FnOnce(&mut serde_json::Value)) -> serde_json::Value {
    let mut config = serde_json::json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "bos_token_id": 2040,
        "eos_token_id": 2041, "hidden_act": "relu2", "hidden_size": 256, "intermediate_size": 512,
        "max_position_embeddings": 512, "num_attention_heads": 4, "num_hidden_layers": 4,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "vocab_size": 2048,
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline",
        },
    });
    change(&mut config);
    config
}

/// The name that transformers has for a tensor.
pub(crate) fn stored_name(name: &str) -> String {
    let parts = [
        ("token_embd", "embed_tokens"),
        ("output_norm", "norm"),
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("attn_sub_norm", "self_attn.attn_sub_norm"),
        ("ffn_sub_norm", "mlp.ffn_sub_norm"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    let pieces = name.split('.').map(|piece| {
        let known = parts.iter().find(|(ours, _)| *ours == piece);
        known.map_or(piece, |(_, theirs)| theirs)
    });
    let name = pieces.collect::<Vec<_>>().join(".");
    format!("model.{}", name.replace("blk.", "layers."))
}

#[test]
fn folders_give_the_same_bits() {
    let (demo, plain) = (demo(), load(DEMO, &Options::default()));
    for shards in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), shards, false);
        let engine = open(folder.path()).unwrap();
        assert_eq!((engine.notices(), engine.weight_formats()), (&[][..], vec!["HF_PACKED"]));
        assert!(run(&engine) == demo, "{shards} shards");
        let text = "It's 12345 o'clock,\n\n  isn't it? <|eot_id|>";
        assert_eq!(engine.encode(text).unwrap(), plain.encode(text).unwrap());
        assert_eq!(engine.sha256().len(), 64);
        let tensors = engine.checkpoint().tensors();
        assert_eq!(tensors.iter().filter(|t| t.name.ends_with(".scale")).count(), 28);
    }
}

/// Scales of `bitlinear` are one over those of the weights: halves and doubles are exact.
#[test]
fn scales_divide_where_they_should() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), 1, false);
    let scale = |class: &str| {
        let config = config(|config| config["quantization_config"]["linear_class"] = class.into());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        run(&open(folder.path()).unwrap())
    };
    let hash = || open(folder.path()).unwrap().sha256().to_owned();
    let before = hash();
    let multiplied = scale("autobitlinear");
    assert_eq!(multiplied, demo());
    assert_ne!(scale("bitlinear"), multiplied);
    // The same weights, and another model.
    assert_ne!(hash(), before);
}

/// A model of numbers is ternarised by the mean of their absolute values, whatever they are.
#[test]
fn master_weights_are_made_ternary() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), 1, true);
    let engine = open(folder.path()).unwrap();
    assert_eq!(engine.weight_formats(), ["F32"]);
    // The mean counts zeros, so that scales are smaller here; sub-norms take most of that away again.
    assert_ne!(run(&engine), demo());
}

#[test]
fn folders_that_are_no_models_are_refused() {
    let refused = |break_it: &dyn Fn(&Path), words: &str| {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), 2, false);
        break_it(folder.path());
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    };
    let rename = |path: &Path, from: &str, to: &str| {
        fs::rename(path.join(from), path.join(to)).unwrap();
    };
    let index = |path: &Path, from: &str, to: &str| {
        let file = path.join("model.safetensors.index.json");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(file, text.replace(from, to)).unwrap();
    };
    let set = |key: &'static str, value: serde_json::Value| {
        move |path: &Path| {
            let config = config(|config| config[key] = value.clone());
            fs::write(path.join("config.json"), config.to_string()).unwrap();
        }
    };
    let second = "model-00002-of-00002.safetensors";
    refused(&|path| fs::remove_file(path.join("config.json")).unwrap(), "config.json");
    refused(&|path| rename(path, "config.json", "model.gguf"), "name the file model.gguf");
    refused(&|path| fs::write(path.join("config.json"), "{\"a\": 1,").unwrap(), "line 1");
    refused(&|path| fs::remove_file(path.join(second)).unwrap(), second);
    refused(&|path| index(path, second, "../secret.safetensors"), "beside it");
    refused(&|path| index(path, second, "/etc/secret.safetensors"), "beside it");
    refused(&|path| index(path, second, "model-00001-of-00002.safetensors"), "missing");
    refused(&|path| index(path, "weight_map", "weights"), "weight_map");
    refused(&|path| fs::write(path.join(second), "no").unwrap(), "cut off");
    refused(&|path| fs::write(path.join(second), [0xFF; 64]).unwrap(), "not a safetensors file");
    refused(
        &|path| {
            let bytes = fs::read(path.join(second)).unwrap();
            fs::write(path.join(second), &bytes[..bytes.len() - 1]).unwrap();
        },
        "download the file again",
    );
    refused(&set("architectures", serde_json::json!(["FalconForCausalLM"])), "FalconForCausalLM");
    refused(&set("hidden_size", 0.into()), "hidden_size");
    refused(&set("hidden_size", "256".into()), "hidden_size");
    refused(&set("hidden_size", 512.into()), "embed_tokens");
    refused(&set("num_experts", 8.into()), "num_experts");
    refused(&set("tie_word_embeddings", false.into()), "lm_head.weight");
    refused(&set("rope_scaling", serde_json::json!({ "type": "yarn", "factor": 4.0 })), "rotary");
    refused(&set("quantization_config", serde_json::json!({ "quant_method": "gptq" })), "gptq");
    refused(
        &set(
            "quantization_config",
            serde_json::json!({ "quant_method": "bitnet", "linear_class": "x" }),
        ),
        "linear_class",
    );
    refused(&|path| fs::write(path.join("tokenizer.json"), "{}").unwrap(), "tokenizer");
    let llama = serde_json::json!(["LlamaForCausalLM"]);
    refused(
        &|path| {
            let config = config(|config| {
                config["architectures"] = llama.clone();
                config["quantization_config"] = serde_json::Value::Null;
            });
            fs::write(path.join("config.json"), config.to_string()).unwrap();
        },
        "not trained to be ternary",
    );
}

#[test]
fn unknown_settings_are_said() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), 1, false);
    let config = config(|config| {
        config["unsloth_version"] = "2026.1".into();
        config["something_new"] = true.into();
        config["something_off"] = false.into();
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let engine = open(folder.path()).unwrap();
    let [Notice::Settings { names, .. }] = engine.notices() else { panic!() };
    assert_eq!(names, &["something_new", "unsloth_version"]);
}

#[test]
fn packed_weights_need_their_scales() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), 1, false);
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let key = b"model.layers.1.mlp.up_proj.weight_scale";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    let mut renamed = bytes.clone();
    renamed[at + key.len() - 5..at + key.len()].copy_from_slice(b"SCALE");
    fs::write(&file, renamed).unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`model.layers.1.mlp.up_proj.weight_scale` is missing"), "{error}");
}

/// Norms before linear layers have an epsilon of their own, which must be that of the others.
#[test]
fn norms_of_another_epsilon_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), 1, false);
    let config = config(|config| config["quantization_config"]["use_rms_norm"] = true.into());
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("rms_norm_eps"), "{error}");
}
