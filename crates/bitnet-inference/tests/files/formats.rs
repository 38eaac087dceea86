//! One model in every format and container that holds it gives the same bits.

use std::fs;
use std::path::Path;

use bitnet_gguf::TensorType;
use bitnet_inference::{Checkpoint, Engine, Error, Notice, Options, ReadAs};
use bitnet_kernels::Format;
use bitnet_kernels::format::{self, Encoding, FormatError, Tiling};
use half::bf16;
use safetensors::Dtype;

use crate::common::{DEMO, load, logits};
use crate::exact::exact;
use crate::folders::stored_name;
use crate::parts::{Parts, Tensor};

const IDS: [u32; 12] = [2040, 1450, 326, 638, 258, 516, 437, 309, 258, 414, 394, 342];

pub(crate) fn run(engine: &Engine) -> Vec<u32> {
    logits(engine, &IDS).iter().map(|x| x.to_bits()).collect()
}

pub(crate) fn demo() -> Vec<u32> {
    run(&load(DEMO, &exact()))
}

pub(crate) fn open(path: &Path) -> Result<Engine, Error> {
    Engine::open(path, &exact())
}

/// The ternary matrices of the demo model by another encoding, under the id of `kind`.
fn encoded(encoding: impl Into<Encoding>, kind: TensorType) -> Parts {
    let (encoding, mut parts) = (encoding.into(), Parts::demo());
    for t in parts.tensors.iter_mut().filter(|t| t.type_id == TensorType::I2S.id()) {
        let (weights, scale) = ternary(t);
        let (cols, rows) = (t.dims[0] as usize, t.dims[1] as usize);
        t.data = format::encode(encoding, &weights, rows, cols, scale).unwrap();
        t.type_id = kind.id();
    }
    parts
}

/// Weights and scale of a matrix in I2_S.
pub(crate) fn ternary(t: &Tensor) -> (Vec<i8>, f32) {
    let (cols, rows) = (t.dims[0] as usize, t.dims[1] as usize);
    let scale = format::check(Format::I2S, &t.data, rows, cols).unwrap();
    (format::decode(Format::I2S, &t.data, rows, cols).unwrap(), scale)
}

#[test]
fn every_ternary_type_of_gguf_gives_the_same_bits() {
    let demo = demo();
    let mut tested = 0;
    for ternary in Format::TERNARY {
        // Those without a type are no formats of GGUF.
        let Some(kind) = TensorType::named(ternary.ggml_name()) else { continue };
        let engine = encoded(ternary, kind).load().unwrap();
        assert_eq!(engine.weight_formats(), [ternary.ggml_name()]);
        assert!(run(&engine) == demo, "{ternary}");
        let tiles = matches!(ternary, Format::Tl1 | Format::Tl2);
        assert_eq!(engine.notices().len(), usize::from(tiles), "{:?}", engine.notices());
        tested += 1;
    }
    assert_eq!(tested, 9);
}

#[test]
fn layouts_that_a_file_does_not_tell_can_be_said() {
    let demo = demo();
    let tiling = Some(Tiling { rows: 64, cols: 32, strip: 64 });
    let cases = [
        (Encoding::from(Format::I2SArm), TensorType::I2S, "i2s_arm"),
        (Encoding::from(Format::I2SR4), TensorType::I2S, "i2s_r4"),
        (Encoding { format: Format::Tl1, tiling }, TensorType::Tl1, "tl1:64,32,64"),
    ];
    for (encoding, kind, name) in cases {
        let read_as: Option<ReadAs> = Some(name.parse().unwrap());
        let file = || {
            let file = encoded(encoding, kind).write();
            bitnet_gguf::Gguf::from_vec("variant.gguf", file).unwrap()
        };
        let said = Engine::load(file(), &Options { read_as, ..exact() }).unwrap();
        assert_eq!(said.notices(), []);
        assert!(run(&said) == demo, "{name}");
        let unsaid = Engine::load(file(), &exact());
        assert!(unsaid.is_err() || run(&unsaid.unwrap()) != demo, "{name}");
    }
    let layout: ReadAs = "tl2:32,96,32".parse().unwrap();
    let engine = load(DEMO, &Options { read_as: Some(layout), ..exact() });
    assert_eq!(engine.notices(), [Notice::ReadAs { layout }]);
    for wrong in ["i2s", "tl1", "tl1:1,2", "tl1:0,8,32", "tl3:32,96,32", "i2s_arm:1,2,3", ""] {
        assert!(wrong.parse::<ReadAs>().is_err(), "{wrong}");
    }
}

/// bf16 holds the scales of this model.
pub(crate) fn numbers(t: &Tensor, mut write: impl FnMut(f32) -> Vec<u8>) -> Vec<u8> {
    let (weights, scale) = ternary(t);
    weights.into_iter().flat_map(|w| write(f32::from(w) * scale)).collect()
}

#[test]
fn numbers_that_were_made_ternary_are_known_again() {
    let demo = demo();
    for kind in [TensorType::F32, TensorType::Bf16] {
        let mut parts = Parts::demo();
        for t in parts.tensors.iter_mut().filter(|t| t.type_id == TensorType::I2S.id()) {
            t.data = numbers(t, |x| match kind {
                TensorType::F32 => x.to_le_bytes().to_vec(),
                _ => bf16::from_f32(x).to_le_bytes().to_vec(),
            });
            t.type_id = kind.id();
        }
        let engine = parts.load().unwrap();
        assert_eq!(engine.weight_formats(), [kind.name()]);
        assert!(run(&engine) == demo, "{kind}");
    }
}

/// Scales beside matrices, as ik_llama.cpp's converter writes them.
#[test]
fn scales_beside_matrices_multiply() {
    let mut parts = Parts::demo();
    let mut scales = Vec::new();
    for t in parts.tensors.iter_mut().filter(|t| t.type_id == TensorType::I2S.id()) {
        let (_, scale) = ternary(t);
        let end = t.data.len();
        t.data[end - 32..end - 28].copy_from_slice(&1.0_f32.to_le_bytes());
        scales.push((t.name.replace(".weight", ".scale"), scale));
    }
    for (name, scale) in &scales {
        parts = parts.add(name, &[1], TensorType::F32.id(), scale.to_le_bytes().to_vec());
    }
    assert!(run(&parts.load().unwrap()) == demo());
}

/// The demo model as `parts` files.
fn split(folder: &Path, parts: u32) -> Vec<std::path::PathBuf> {
    let whole = Parts::demo();
    let each = whole.tensors.len().div_ceil(parts as usize);
    let (count, mut tensors) = (whole.tensors.len(), whole.tensors.into_iter());
    let mut paths = Vec::new();
    for part in 0..parts {
        let mut metadata = vec![
            ("split.no".to_owned(), part.into()),
            ("split.count".to_owned(), parts.into()),
            ("split.tensors.count".to_owned(), (count as u32).into()),
        ];
        let all = whole.metadata.iter().cloned();
        metadata.extend(all.filter(|(key, _)| part == 0 || key == "general.architecture"));
        let tensors = tensors.by_ref().take(each).collect();
        let path = folder.join(format!("tales-{:05}-of-{parts:05}.gguf", part + 1));
        fs::write(&path, Parts { version: 3, metadata, tensors }.write()).unwrap();
        paths.push(path);
    }
    paths
}

#[test]
fn split_files_give_the_same_bits_whichever_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), 3);
    let demo = demo();
    let mut hashes = Vec::new();
    for path in &paths {
        let engine = open(path).unwrap();
        assert!(run(&engine) == demo, "{}", path.display());
        assert_eq!(engine.encode("Once").unwrap()[0], 2040);
        hashes.push(engine.sha256().to_owned());
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1);

    let refused = |path: &Path, words: &str| {
        let error = open(path).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    };
    let part = bitnet_gguf::Gguf::open(&paths[0]).unwrap();
    let error = Checkpoint::from_gguf(part).unwrap_err().to_string();
    assert!(error.contains("part 1 of 3"), "{error}");
    let renamed = folder.path().join("second.gguf");
    fs::copy(&paths[1], &renamed).unwrap();
    refused(&renamed, "-00002-of-00003.gguf");
    fs::copy(&paths[1], &paths[2]).unwrap();
    refused(&paths[0], "not part 3 of 3");
    fs::remove_file(&paths[2]).unwrap();
    refused(&paths[0], "tales-00003-of-00003.gguf");
}

/// Architecture `llama` in GGUF has the two halves of each head interleaved.
#[test]
fn heads_of_llama_in_gguf_are_put_back() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/llama");
    let folder = open(&path).unwrap();
    let ids = [5, 17, 60, 33, 9];
    let want = logits(&folder, &ids);
    let c = folder.config();
    let mut parts = Parts { version: 3, metadata: Vec::new(), tensors: Vec::new() };
    let key = |name: &str| format!("llama.{name}");
    for (name, value) in [
        ("block_count", c.layers),
        ("embedding_length", c.hidden),
        ("feed_forward_length", c.ffn),
        ("attention.head_count", c.heads),
        ("attention.head_count_kv", c.kv_heads),
        ("context_length", c.context),
    ] {
        parts.metadata.push((key(name), (value as u32).into()));
    }
    parts.metadata.push((key("attention.layer_norm_rms_epsilon"), c.eps.into()));
    parts.metadata.push((key("rope.freq_base"), c.rope_base.into()));
    parts.metadata.push(("general.architecture".to_owned(), "llama".into()));

    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for stored in folder.checkpoint().tensors() {
        if stored.name.ends_with(".scale") {
            continue;
        }
        let data = file.tensor(&stored.stored).unwrap().data().to_vec();
        let (cols, rows) = (stored.dims[0] as usize, stored.dims.get(1).map_or(1, |&n| n as usize));
        if !stored.name.contains("attn_") && !stored.name.contains("ffn_")
            || stored.name.contains("norm")
        {
            parts = parts.add(&stored.name, &stored.dims, TensorType::Bf16.id(), data);
            continue;
        }
        let scale = file.tensor(&format!("{}_scale", stored.stored)).unwrap().data().to_vec();
        let scale = 1.0 / bf16::from_le_bytes([scale[0], scale[1]]).to_f32();
        let mut weights = format::decode(Format::HfPacked, &data, rows, cols).unwrap();
        if stored.name.contains("attn_q") || stored.name.contains("attn_k") {
            let half = c.head_size / 2;
            let row = |r: usize| {
                let (head, within) = (r / c.head_size, r % c.head_size);
                head * c.head_size + within % 2 * half + within / 2
            };
            let rows = (0..rows).flat_map(|r| weights[row(r) * cols..][..cols].to_vec());
            weights = rows.collect();
        }
        let data = format::encode(Format::I2S, &weights, rows, cols, scale).unwrap();
        parts = parts.add(&stored.name, &stored.dims, TensorType::I2S.id(), data);
    }
    let got = logits(&parts.load().unwrap(), &ids);
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()));
}

/// In architectures that need not be ternary, numbers that are not are no such model.
#[test]
fn models_of_numbers_are_not_made_ternary_silently() {
    let parts = Parts::demo().architecture("llama");
    let mut parts = Parts {
        tensors: parts.tensors.into_iter().filter(|t| !t.name.contains("sub_norm")).collect(),
        ..parts
    };
    for t in parts.tensors.iter_mut().filter(|t| t.name == "blk.0.attn_q.weight") {
        let mut number = 0.0_f32;
        t.data = numbers(t, |x| {
            number += 0.001;
            (x * number).to_le_bytes().to_vec()
        });
        t.type_id = TensorType::F32.id();
    }
    let error = parts.load().unwrap_err();
    assert!(
        matches!(&error, Error::Variant { what, .. } if what.contains("not ternary")),
        "{error}"
    );
}

/// Formats that hold a scale for each row or block, which must be one.
#[test]
fn matrices_of_several_scales_are_refused() {
    let mut parts = encoded(Format::Iq2Bn, TensorType::Iq2Bn);
    let t = parts.tensors.iter_mut().find(|t| t.name == "blk.1.ffn_up.weight").unwrap();
    t.data[..4].copy_from_slice(&7.5_f32.to_le_bytes());
    let error = parts.load().unwrap_err();
    assert!(matches!(error, Error::Tensor { source: FormatError::Scales { .. }, .. }), "{error}");
}

/// Qwen3 with a scale for each group of weights, of `references/make.py`, whose folder has the bytes of
/// Q2_0, which safetensors has no type for.
fn grouped() -> Parts {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references/qwen3-q2_0");
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let mut parts = Parts { version: 3, metadata: Vec::new(), tensors: Vec::new() };
    parts.metadata.push(("general.architecture".to_owned(), "qwen3".into()));
    for (name, theirs) in [
        ("block_count", "num_hidden_layers"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("context_length", "max_position_embeddings"),
    ] {
        let value = config[theirs].as_u64().unwrap() as u32;
        parts.metadata.push((format!("qwen3.{name}"), value.into()));
    }
    for (name, value) in [("attention.layer_norm_rms_epsilon", 1e-6_f32), ("rope.freq_base", 1e6)] {
        parts.metadata.push((format!("qwen3.{name}"), value.into()));
    }
    let blocks = (0..2).flat_map(|block| {
        let parts = "attn_norm attn_q attn_k attn_v attn_q_norm attn_k_norm attn_output ffn_norm \
                     ffn_gate ffn_up ffn_down";
        parts.split(' ').map(move |part| format!("blk.{block}.{part}.weight"))
    });
    let once = ["token_embd.weight", "output_norm.weight"].map(str::to_owned);
    for name in once.into_iter().chain(blocks) {
        let tensor = file.tensor(&stored_name(&name)).unwrap();
        let data = tensor.data().to_vec();
        let shape: Vec<_> = tensor.shape().iter().rev().map(|&dim| dim as u64).collect();
        if tensor.dtype() != Dtype::U8 {
            parts = parts.add(&name, &shape, TensorType::Bf16.id(), data);
            continue;
        }
        let cols = match name.rsplit('.').nth(1).unwrap() {
            "ffn_down" => 192,
            "attn_output" => 128,
            _ => 64,
        };
        let rows = shape[1] * 64 / cols;
        parts = parts.add(&name, &[cols, rows], TensorType::Q2_0.id(), data);
    }
    let head = file.tensor("lm_head.weight").unwrap().data().to_vec();
    parts.add("output.weight", &[64, 96], TensorType::Bf16.id(), head)
}

#[test]
fn weights_with_a_scale_for_each_group_are_computed_with_as_numbers() {
    let engine = grouped().load().unwrap();
    assert_eq!(engine.weight_formats(), ["Q2_0"]);
    let references = include_bytes!("../references/references.safetensors");
    let references = safetensors::SafeTensors::deserialize(references).unwrap();
    for prompt in 0..3 {
        let words = |part: &str| {
            let tensor = references.tensor(&format!("qwen3-q2_0.{prompt}.{part}")).unwrap();
            let data = tensor.data().to_vec();
            data.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<_>>()
        };
        let got = logits(&engine, &words("ids"));
        let want: Vec<_> = words("out").into_iter().map(f32::from_bits).collect();
        assert_eq!(got.len(), want.len());
        let greatest = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("prompt {prompt}: greatest difference {greatest:e}");
        assert!(greatest < 1e-4, "prompt {prompt}: {greatest:e}");
    }
}

#[test]
fn a_scale_beside_scales_of_groups_is_refused() {
    let scale = 0.5_f32.to_le_bytes().to_vec();
    let parts = grouped().add("blk.1.ffn_up.scale", &[1], TensorType::F32.id(), scale);
    let error = parts.load().unwrap_err();
    assert!(
        matches!(&error, Error::UnknownTensor { tensor, .. } if tensor == "blk.1.ffn_up.scale"),
        "{error}"
    );
}
