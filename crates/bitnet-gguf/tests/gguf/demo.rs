//! The demo model, made by another program.

use std::path::PathBuf;

use bitnet_gguf::{Gguf, TensorType, Writer};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/bitnet-tales-i2_s.gguf")
}

#[test]
fn every_tensor_resolves() {
    let gguf = Gguf::open(path()).unwrap();
    let mut found = Vec::new();
    for tensor in gguf.tensors() {
        let kind = gguf.tensor_type(tensor).unwrap();
        let data = gguf.data(tensor).unwrap();
        assert_eq!(Some(data.len() as u64), kind.payload(&tensor.dims), "{}", tensor.name);
        // A map starts at a page, so the data are aligned in memory as in the file.
        assert_eq!(data.as_ptr() as usize % 32, 0, "{}", tensor.name);
        found.push(kind);
    }
    let count = |kind| found.iter().filter(|&&other| other == kind).count();
    assert_eq!(found.len(), 46);
    assert_eq!(count(TensorType::I2S), 28);
    assert_eq!(count(TensorType::F32), 17);
    assert_eq!(count(TensorType::F16), 1);
    let embedding = gguf.tensor("token_embd.weight").unwrap();
    assert_eq!(embedding.dims, [256, 2048]);
    assert_eq!(gguf.tensor("blk.4.attn_q.weight"), None);
}

#[test]
fn the_metadata_are_those_of_the_model_card() {
    let gguf = Gguf::open(path()).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.architecture().unwrap(), "bitnet-b1.58");
    assert_eq!(gguf.require_u32("bitnet-b1.58.block_count").unwrap(), 4);
    assert_eq!(gguf.require_f32("bitnet-b1.58.attention.layer_norm_rms_epsilon").unwrap(), 1e-5);
    assert_eq!(gguf.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    let tokens = gguf.require_strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.len(), 2048);
    assert_eq!(tokens.clone().next(), Some("!"));
    assert_eq!(tokens.clone().nth(2040), Some("<|begin_of_text|>"));
    assert_eq!(tokens.count(), 2048);
    let merges = gguf.require_strings("tokenizer.ggml.merges").unwrap();
    assert_eq!(merges.clone().next(), Some("Ġ t"));
    assert_eq!(merges.count(), 1784);
    let types = gguf.i32s("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(types.len(), 2048);
}

/// Reading and writing again gives the same file.
#[test]
fn copies_byte_for_byte() {
    let gguf = Gguf::open(path()).unwrap();
    let mut writer = Writer::new().version(gguf.version());
    for (key, value) in gguf.metadata() {
        writer = writer.metadata(key, value.clone());
    }
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor).unwrap();
        writer = writer.tensor(&tensor.name, &tensor.dims, tensor.type_id, data);
    }
    let mut copy = Vec::new();
    writer.write_to(&mut copy).unwrap();
    assert!(copy == gguf.bytes()[..], "the copy differs");
}
