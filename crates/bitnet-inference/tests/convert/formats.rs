//! Every format and container, there and back.

use std::fs;
use std::path::Path;

use bitnet_gguf::{Gguf, TensorType, Value};
use bitnet_inference::convert::{Conversion, EMBEDDING, Target};
use bitnet_inference::{Checkpoint, Contents, Options};
use bitnet_kernels::Format;
use safetensors::Dtype;
use safetensors::serialize_to_file;
use safetensors::tensor::TensorView;

use super::{bits, change, convert, convert_read_as, demo, models, open, rewritten};
use crate::common::{DEMO, load};

#[test]
fn every_format_keeps_the_bits() {
    let folder = tempfile::tempdir().unwrap();
    let expected = bits(&load(DEMO, &Options::default()));
    let i2s = folder.path().join("i2_s.gguf");
    convert(&demo(), &i2s, "i2_s", None).unwrap();
    let mut tested = 0;
    for format in Target::formats() {
        let name = format.ggml_name();
        let path = folder.path().join(name);
        let proof = convert(&demo(), &path, name, None).unwrap();
        assert_eq!(proof.before, proof.after);
        assert_eq!((proof.matrices, proof.rounded), (28, 0), "{name}");
        let engine = open(&path);
        assert_eq!(engine.weight_formats(), [name]);
        assert!(bits(&engine) == expected, "{name}");
        // And back: the same file to the byte.
        let back = folder.path().join(format!("{name}-i2_s"));
        convert(&path, &back, "i2_s", None).unwrap();
        assert!(fs::read(&back).unwrap() == fs::read(&i2s).unwrap(), "{name}");
        tested += 1;
    }
    assert_eq!(tested, 9);
}

#[test]
fn a_folder_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let [hf, again, gguf] = ["hf", "again", "gguf"].map(|name| folder.path().join(name));
    let expected = bits(&load(DEMO, &Options::default()));
    let proof = convert(&demo(), &hf, "hf", None).unwrap();
    assert_eq!((proof.matrices, proof.rounded), (28, 0));
    assert!(bits(&open(&hf)) == expected);
    convert(&hf, &again, "hf", None).unwrap();
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&hf) == weights(&again));
    convert(&hf, &gguf, "tq2_0", None).unwrap();
    let engine = open(&gguf);
    assert!(bits(&engine) == expected);
    assert_eq!(engine.config(), load(DEMO, &Options::default()).config());
    let file = Gguf::open(&gguf).unwrap();
    assert_eq!(file.value("general.file_type"), Some(&Value::U32(37)));
}

#[test]
fn every_architecture_keeps_the_bits() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["1bitllm", "llama", "qwen3", "qwen3-embedding", "gemma3-embedding"] {
        let from = models::folder(name);
        let engine = open(&from);
        let expected = bits(&engine);
        let [gguf, hf] = ["gguf", "hf"].map(|end| folder.path().join(format!("{name}.{end}")));
        // No type of GGUF holds matrices of 80 by 212.
        if name == "1bitllm" {
            convert(&from, &hf, "hf", None).unwrap();
            assert!(bits(&open(&hf)) == expected);
            continue;
        }
        let proof = convert(&from, &gguf, "i2_s", None).unwrap();
        assert!(proof.matrices > 0 && proof.rounded == 0, "{name}: {proof:?}");
        let converted = open(&gguf);
        assert!(bits(&converted) == expected, "{name}");
        assert_eq!(converted.config(), engine.config());
        convert(&gguf, &hf, "hf", None).unwrap();
        let back = open(&hf);
        assert!(bits(&back) == expected, "{name} and back");
        let config = fs::read_to_string(hf.join("config.json")).unwrap();
        // Without it transformers takes 256 for Gemma, and so do we.
        let scale = "\"query_pre_attn_scalar\": 32,";
        assert_eq!(config.contains(scale), name.starts_with("gemma3"), "{config}");
        if name.starts_with("gemma3") {
            fs::write(hf.join("config.json"), config.replace(scale, "")).unwrap();
            let error = Checkpoint::open(&hf).unwrap().config().unwrap_err().to_string();
            assert!(error.contains("query_pre_attn_scalar` is 256"), "{error}");
        }
        assert_eq!(back.config(), engine.config());
    }
}

/// The scales of these models are no numbers of half precision.
#[test]
fn scales_that_a_format_cannot_hold_are_beside_the_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let from = models::folder("llama");
    let expected = bits(&open(&from));
    for name in ["tq2_0", "tq1_0", "iq1_bn"] {
        let checkpoint = Checkpoint::open(&from).unwrap();
        let contents = Contents::new(&checkpoint, None).unwrap();
        let planned = Conversion::plan(contents, name.parse().unwrap(), None);
        // The rows of this model may be no whole number of blocks.
        let Ok(conversion) = planned else {
            let error = planned.err().unwrap().to_string();
            assert!(
                error.contains("columns") && error.contains("choose another format"),
                "{error}"
            );
            continue;
        };
        assert!(conversion.tensors().iter().any(|t| t.ternary.as_ref().is_some_and(|t| t.beside)));
        let path = folder.path().join(name);
        conversion.write(&path, false, &|_| true).unwrap();
        assert!(Checkpoint::open(&path).unwrap().tensor("blk.0.attn_q.scale").is_some());
        assert!(bits(&open(&path)) == expected, "{name}");
    }
}

#[test]
fn embeddings_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let expected = bits(&load(DEMO, &Options::default()));
    for format in EMBEDDING {
        let path = folder.path().join(format.name());
        let proof = convert(&demo(), &path, "i2_s", Some(format)).unwrap();
        let same = matches!(format, Format::F32 | Format::F16);
        // Those of the demo model are in half precision, with no more digits than bfloat16 has.
        let exact = same || format == Format::Bf16;
        assert_eq!(proof.rounded, usize::from(!exact), "{format}");
        let engine = open(&path);
        let table = engine.checkpoint().tensor("token_embd.weight").unwrap();
        assert_eq!(table.dims, [256, 2048]);
        let found = Gguf::open(&path).unwrap();
        let kind = found.tensor_type(found.tensor("token_embd.weight").unwrap()).unwrap();
        assert_eq!(kind, TensorType::named(format.ggml_name()).unwrap());
        let found = bits(&engine);
        assert_eq!(found == expected, exact, "{format}");
        // Q6_K is the least precise, with steps of a sixty-fourth of the greatest number of sixteen.
        assert!(change(&found, &expected) < 0.02, "{format}");
    }
}

#[test]
fn layouts_that_are_said_are_made_canonical() {
    let folder = tempfile::tempdir().unwrap();
    let expected = bits(&load(DEMO, &Options::default()));
    for format in [Format::I2SArm, Format::I2SR4] {
        let [from, to] = ["from", "to"].map(|name| folder.path().join(format!("{format}-{name}")));
        fs::write(&from, rewritten(format)).unwrap();
        let read_as = Some(format.name().parse().unwrap());
        convert_read_as(&from, &to, ("i2_s", None), read_as).unwrap();
        assert!(bits(&open(&to)) == expected, "{format}");
    }
}

/// A model of architecture `llama` with a layer of floating-point weights.
fn write_numbers(folder: &Path) {
    let mut state = 1_u64;
    let mut number = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.1
    };
    let (hidden, ffn, kv, rows) = (128, 256, 64, 96);
    let mut tensors = vec![("embed_tokens".to_owned(), vec![rows, hidden])];
    for (name, shape) in [
        ("input_layernorm", vec![hidden]),
        ("post_attention_layernorm", vec![hidden]),
        ("self_attn.q_proj", vec![hidden, hidden]),
        ("self_attn.k_proj", vec![kv, hidden]),
        ("self_attn.v_proj", vec![kv, hidden]),
        ("self_attn.o_proj", vec![hidden, hidden]),
        ("mlp.gate_proj", vec![ffn, hidden]),
        ("mlp.up_proj", vec![ffn, hidden]),
        ("mlp.down_proj", vec![hidden, ffn]),
    ] {
        tensors.push((format!("layers.0.{name}"), shape));
    }
    tensors.push(("norm".to_owned(), vec![hidden]));
    let data: Vec<_> = tensors
        .into_iter()
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let bytes: Vec<u8> = (0..n).flat_map(|_| number().to_le_bytes()).collect();
            (format!("model.{name}.weight"), shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": hidden, "intermediate_size": ffn, "max_position_embeddings": 256,
        "num_attention_heads": 4, "num_hidden_layers": 1, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "vocab_size": rows, "tie_word_embeddings": true,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn weights_without_training_are_made_ternary_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let quantized = folder.path().join("quantized");
    write_numbers(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let contents = Contents::new(&checkpoint, None).unwrap();
    let target = Target::Gguf(Format::I2S);
    let error = Conversion::plan(contents, target, None).err().unwrap().to_string();
    assert!(error.contains("bitnet quantize"), "{error}");
    let conversion = Conversion::plan(contents.quantized(), target, None).unwrap();
    let errors = conversion.tensors().iter().filter_map(|planned| planned.ternary.as_ref()?.error);
    let errors: Vec<_> = errors.collect();
    assert_eq!(errors.len(), 7);
    // By integration, of numbers that are evenly spread about zero.
    let expected = (5.0_f64 / 32.0).sqrt();
    assert!(errors.iter().all(|error| (error - expected).abs() < 0.01), "{errors:?}");
    conversion.write(&quantized, false, &|_| true).unwrap();
    assert_eq!(open(&quantized).weight_formats(), ["I2_S"]);
    // The definition: round and clip what is divided by the mean of the absolute values.
    let written = Checkpoint::open(&quantized).unwrap();
    let written = Contents::new(&written, None).unwrap();
    let name = "blk.0.ffn_up.weight";
    let matrix = written.matrix(written.checkpoint().tensor(name).unwrap()).unwrap();
    let numbers = contents.numbers(checkpoint.tensor(name).unwrap(), 0..matrix.rows).unwrap();
    let mean = numbers.iter().map(|x| f64::from(x.abs())).sum::<f64>() / numbers.len() as f64;
    assert!((f64::from(matrix.scale) / mean - 1.0).abs() < 1e-6);
    for (x, weight) in numbers.iter().zip(&matrix.weights) {
        let ratio = f64::from(*x) / mean;
        // Halves are a matter of the last bit of the mean.
        if (ratio.abs() - 0.5).abs() > 1e-5 {
            assert_eq!(ratio.round().clamp(-1.0, 1.0) as i8, *weight, "{x}");
        }
    }
}
