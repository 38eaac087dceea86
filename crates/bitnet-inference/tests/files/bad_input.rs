//! Whatever is wrong with a file or a request is a typed error that names it; nothing panics.

use std::sync::LazyLock;

use bitnet_gguf::{Gguf, TensorType};
use bitnet_inference::{
    Activation, Config, Engine, Error, Generation, Input, Notice, Options, Request, Sampling,
};
use bitnet_kernels::format::FormatError;
use bitnet_kernels::{Cpu, Isa};
use proptest::prelude::*;

use crate::common::{DEMO, load};
use crate::parts::Parts;

static TINY: &[u8] = include_bytes!("../data/tiny-i2_s.gguf");

fn refused(parts: Parts) -> Error {
    let error = parts.load().expect_err("a broken file");
    assert!(error.to_string().contains("variant.gguf"), "{error} does not name the file");
    error
}

fn set(key: &str, value: impl Into<bitnet_gguf::Value>) -> Parts {
    let mut parts = Parts::demo();
    let found = parts.metadata.iter_mut().find(|(k, _)| k == key).expect("a key of the demo");
    found.1 = value.into();
    parts
}

/// The demo with one tensor changed.
fn change(name: &str, f: impl FnOnce(&mut crate::parts::Tensor)) -> Parts {
    let mut parts = Parts::demo();
    f(parts.tensors.iter_mut().find(|t| t.name == name).expect("a tensor of the demo"));
    parts
}

#[test]
fn architectures_other_than_bitnet_are_refused_by_name() {
    for name in ["falcon", "bitnet2", "BitNet-b1.58", ""] {
        let error = refused(Parts::demo().architecture(name));
        assert!(matches!(&error, Error::Architecture { found, .. } if found == name), "{error}");
    }
}

#[test]
fn missing_keys_are_named() {
    for key in [
        "general.architecture",
        "bitnet-b1.58.block_count",
        "bitnet-b1.58.embedding_length",
        "bitnet-b1.58.feed_forward_length",
        "bitnet-b1.58.attention.head_count",
        "bitnet-b1.58.attention.layer_norm_rms_epsilon",
        "bitnet-b1.58.context_length",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        let error = refused(Parts::demo().without(key));
        assert!(error.to_string().contains(key), "{error} does not name {key}");
        assert!(matches!(error, Error::Gguf(bitnet_gguf::Error::MissingKey { .. })), "{error}");
    }
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let key = |name: &str| format!("bitnet-b1.58.{name}");
    for (name, value) in [
        ("block_count", 0_u32),
        ("embedding_length", 0),
        ("attention.head_count", 0),
        ("attention.head_count", 3),
        ("attention.head_count", u32::MAX),
        ("attention.head_count_kv", 3),
        ("attention.head_count_kv", 0),
        ("rope.dimension_count", 32),
        ("context_length", 0),
    ] {
        let error = refused(set(&key(name), value));
        assert!(matches!(&error, Error::Config { .. }), "{name} = {value}: {error}");
    }
    for (name, value) in [
        ("attention.layer_norm_rms_epsilon", f32::NAN),
        ("attention.layer_norm_rms_epsilon", -1.0),
        ("rope.freq_base", 0.0),
        ("rope.freq_base", f32::INFINITY),
    ] {
        let error = refused(set(&key(name), value));
        assert!(matches!(&error, Error::Config { .. }), "{name} = {value}: {error}");
    }
    // Numbers that only the tensors contradict.
    for (name, value) in [("feed_forward_length", u32::MAX), ("vocab_size", 2047)] {
        let error = refused(set(&key(name), value));
        assert!(matches!(&error, Error::Shape { .. }), "{name} = {value}: {error}");
    }
    let error = refused(set(&key("block_count"), 5_u32));
    assert!(matches!(&error, Error::MissingTensor { tensor, .. } if tensor.starts_with("blk.4.")));
    let error = refused(set(&key("block_count"), 3_u32));
    assert!(matches!(&error, Error::UnknownTensor { tensor, .. } if tensor.starts_with("blk.3.")));
    let error = refused(set(&key("block_count"), "four"));
    assert!(matches!(error, Error::Gguf(bitnet_gguf::Error::WrongType { .. })), "{error}");
}

#[test]
fn settings_that_would_be_ignored_are_refused() {
    let with = |key: &str, value: bitnet_gguf::Value| {
        let mut parts = Parts::demo();
        parts.metadata.push((format!("bitnet-b1.58.{key}"), value));
        parts
    };
    for (key, value) in [
        ("hidden_act", "tanh".into()),
        ("rope.scaling.type", "linear".into()),
        ("rope.scaling.factor", 8.0_f32.into()),
        ("attention.value_length", 32_u32.into()),
        ("attention.sliding_window", 128_u32.into()),
        ("final_logit_softcapping", 30.0_f32.into()),
        ("expert_count", 8_u32.into()),
        ("something_new", true.into()),
    ] {
        let error = refused(with(key, value));
        assert!(matches!(&error, Error::Config { .. }), "{key}: {error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    for (key, value) in [
        ("hidden_act", "relu2".into()),
        ("rope.scaling.type", "none".into()),
        ("attention.value_length", 64_u32.into()),
        ("expert_count", 0_u32.into()),
    ] {
        assert!(with(key, value).load().is_ok(), "{key} says nothing new");
    }
}

/// Wide and shallow as the 1bitLLM reproductions are; no data is needed to see it.
#[test]
fn models_that_gate_with_silu_are_known_by_their_shape() {
    let header = |vocabulary: u64, activation: Option<&str>| {
        let key = |name: &str| format!("bitnet-b1.58.{name}");
        let mut file = Vec::new();
        let mut writer = bitnet_gguf::Writer::new();
        if let Some(name) = activation {
            writer = writer.metadata(&key("hidden_act"), name);
        }
        writer
            .metadata("general.architecture", "bitnet-b1.58")
            .metadata(&key("block_count"), 24_u32)
            .metadata(&key("embedding_length"), 1536_u32)
            .metadata(&key("feed_forward_length"), 4096_u32)
            .metadata(&key("context_length"), 2048_u32)
            .metadata(&key("attention.head_count"), 16_u32)
            .metadata(&key("attention.layer_norm_rms_epsilon"), 1e-5_f32)
            .tensor("token_embd.weight", &[1536, vocabulary], 13, [0; 32])
            .write_to(&mut file)
            .unwrap();
        Config::from_gguf(&Gguf::from_vec("large.gguf", file).unwrap())
    };
    let gate = |vocabulary, activation| header(vocabulary, activation).unwrap().activation;
    assert_eq!(gate(32002, None), Activation::Silu);
    assert_eq!(gate(32002, Some("relu2")), Activation::Relu2);
    assert_eq!(gate(32003, Some("silu")), Activation::Silu);
    let config = header(32003, None).unwrap();
    assert_eq!(config.activation, Activation::Relu2);
    // What a file may leave out.
    assert_eq!((config.kv_heads, config.head_size, config.rope_base), (16, 96, 10_000.0));
}

#[test]
fn a_tokenizer_of_another_size_is_refused() {
    let mut parts = Parts::demo().without("bitnet-b1.58.vocab_size");
    parts.tensors[0].dims[1] = 2047;
    parts.tensors[0].data.truncate(2047 * 512);
    let error = refused(parts);
    assert!(error.to_string().contains("2048 tokens"), "{error}");
}

#[test]
fn tensors_must_be_there_and_fit() {
    for name in ["blk.2.ffn_sub_norm.weight", "token_embd.weight", "output_norm.weight"] {
        let mut parts = Parts::demo();
        parts.tensors.retain(|t| t.name != name);
        let error = refused(parts);
        assert!(matches!(&error, Error::MissingTensor { tensor, .. } if tensor == name), "{error}");
    }
    let bias = Parts::demo().add("blk.0.attn_q.bias", &[256], 0, vec![0; 1024]);
    let error = refused(bias);
    assert!(matches!(&error, Error::UnknownTensor { tensor, .. } if tensor == "blk.0.attn_q.bias"));

    let error = refused(change("blk.1.attn_k.weight", |t| t.dims = vec![128, 256]));
    let Error::Shape { tensor, found, expected, offset, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (tensor.as_str(), &found[..], &expected[..]),
        ("blk.1.attn_k.weight", &[128, 256][..], &[256, 128][..])
    );
    assert!(*offset > 0);
}

#[test]
fn tensors_of_other_types_are_refused() {
    let coarse = change("blk.1.attn_k.weight", |t| {
        t.type_id = TensorType::Q8_0.id();
        t.data = vec![0; 34 * 8 * 128];
    });
    let error = refused(coarse);
    assert!(matches!(&error, Error::TensorType { tensor, .. } if tensor == "blk.1.attn_k.weight"));
    let message = error.to_string();
    assert!(message.contains("Q8_0") && message.contains("I2_S"), "{message}");

    let ternary_norm = change("output_norm.weight", |t| {
        t.type_id = TensorType::I2S.id();
        t.data = vec![0x55; 64 + 32];
    });
    assert!(matches!(refused(ternary_norm), Error::TensorType { .. }));

    // Type 36 of another size is another format; type 13 is Q5_K.
    for (id, bytes, name) in [(36, 256 * 128 / 32 * 18, "IQ4_NL_4_4"), (13, 176 * 128, "Q5_K")] {
        let error = refused(change("blk.1.attn_k.weight", |t| {
            t.type_id = id;
            t.data = vec![0; bytes];
        }));
        let message = error.to_string();
        assert!(matches!(error, Error::Gguf(_)), "{message}");
        assert!(message.contains("blk.1.attn_k.weight") && message.contains(name), "{message}");
    }
}

#[test]
fn damaged_weights_are_found_and_placed() {
    let error = refused(change("blk.3.ffn_down.weight", |t| t.data[12345] = 0b1101_0101));
    let Error::Tensor { tensor, offset, source, .. } = &error else { panic!("{error}") };
    assert_eq!(tensor, "blk.3.ffn_down.weight");
    assert_eq!(*source, FormatError::Code { offset: 12345 });
    assert!(*offset > 1 << 20, "{offset}");

    let error = refused(change("blk.0.attn_q.weight", |t| {
        let end = t.data.len();
        t.data[end - 32..end - 28].copy_from_slice(&f32::INFINITY.to_le_bytes());
    }));
    assert!(matches!(&error, Error::Tensor { source: FormatError::Scale { .. }, .. }), "{error}");
}

#[test]
fn norms_that_are_not_numbers_are_found_and_placed() {
    let error = refused(change("blk.2.ffn_sub_norm.weight", |t| {
        t.data[4 * 77..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    }));
    let Error::NotFiniteWeight { tensor, index, .. } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), *index), ("blk.2.ffn_sub_norm.weight", 77));
}

/// Finite weights can overflow on the way. What comes of that must not pass for a result, on any
/// instruction set.
#[test]
fn weights_that_overflow_end_generation() {
    let nan_row = |parts: &mut Parts| {
        // The embedding of the first token.
        parts.tensors[0].data[2040 * 512..][..2].copy_from_slice(&[0xFF, 0x7F]);
    };
    for (name, scale) in [("ffn_gate", 1e20_f32), ("attn_q", 3e38), ("attn_v", 3e38)] {
        let changed = change(&format!("blk.0.{name}.weight"), |t| {
            let end = t.data.len();
            t.data[end - 32..end - 28].copy_from_slice(&scale.to_le_bytes());
        });
        not_finite(changed, name);
    }
    let mut changed = Parts::demo();
    nan_row(&mut changed);
    not_finite(changed, "embedding");
}

fn not_finite(parts: Parts, what: &str) {
    let file = parts.write();
    for &isa in Cpu::detect().isas() {
        let gguf = Gguf::from_vec("overflow.gguf", file.clone()).unwrap();
        let options = Options { isa: Some(isa), ..Options::default() };
        let engine = Engine::load(gguf, &options).unwrap();
        let prompt = vec![2040, 1450, 326];
        let mut text =
            Generation::new(&engine, Request::new(prompt, Sampling::default(), 4)).unwrap();
        let result = text.next(|| false);
        assert!(matches!(result, Err(Error::NotFinite)), "{what} on {isa}: {result:?}");
    }
}

#[test]
fn tokenizers_that_contradict_themselves_are_refused() {
    let error = refused(set("tokenizer.ggml.model", "rwkv"));
    assert!(error.to_string().contains("rwkv"), "{error}");
    let error = refused(set("tokenizer.ggml.pre", "viking"));
    assert!(matches!(&error, Error::Tokenizer { .. }), "{error}");
    assert!(error.to_string().contains("viking"), "{error}");
    let error = refused(set("tokenizer.ggml.eos_token_id", 2048_u32));
    assert!(matches!(&error, Error::Tokenizer { .. }), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let header = 4096.min(TINY.len());
    for len in (0..header).chain((header..TINY.len()).step_by(9973)) {
        let result = Gguf::from_vec("cut.gguf", TINY[..len].to_vec()).map_err(Error::from);
        let error = result.and_then(|gguf| Engine::load(gguf, &Options::default()));
        let error = error.expect_err("a file cut off");
        assert!(error.to_string().contains("cut.gguf"), "{len} bytes: {error}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let missing = Engine::open("no/such/model.gguf", &Options::default()).unwrap_err();
    assert!(missing.to_string().contains("no/such/model.gguf"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let error = Engine::open(folder.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Folder { .. }), "{error}");
    let text = folder.path().join("text.gguf");
    for content in ["", "GGU", "once upon a time there was a text"] {
        std::fs::write(&text, content).unwrap();
        assert!(matches!(Engine::open(&text, &Options::default()), Err(Error::Gguf(_))));
    }
}

#[test]
fn requests_that_cannot_be_met_are_refused() {
    let options = |threads, isa| Options { isa, threads, ..Options::default() };
    let gguf = || Gguf::from_static("demo.gguf", DEMO).unwrap();
    for n in [0, 1025, usize::MAX] {
        let error = Engine::load(gguf(), &options(Some(n), None)).unwrap_err();
        assert!(matches!(error, Error::Threads { threads, .. } if threads == n), "{error}");
        assert!(error.to_string().contains("1 to 1024"), "{error}");
    }
    for isa in Isa::ALL.into_iter().filter(|&isa| !Cpu::detect().has(isa)) {
        let error = Engine::load(gguf(), &options(None, Some(isa))).unwrap_err();
        assert!(matches!(error, Error::Isa(_)), "{error}");
        assert!(error.to_string().contains("scalar"), "{error} does not say what there is");
    }

    let engine = load(DEMO, &Options { context: Some(100_000), ..Options::default() });
    assert_eq!(engine.context(), 512);
    assert_eq!(engine.notices(), [Notice::Context { asked: 100_000, used: 512 }]);
    let engine = load(DEMO, &Options { context: Some(8), ..Options::default() });
    assert_eq!((engine.context(), engine.session(1).unwrap().context()), (8, 8));
    let new =
        |prompt, sampling| Generation::new(&engine, Request::new(prompt, sampling, 4)).map(|_| ());
    let usual = Sampling::default();
    assert!(matches!(new(vec![], usual.clone()), Err(Error::EmptyPrompt)));
    assert!(matches!(
        new(vec![1; 9], usual.clone()),
        Err(Error::Context { tokens: 9, context: 8 })
    ));
    let silly = Sampling { top_p: 2.0, ..usual };
    assert!(matches!(new(vec![1], silly), Err(Error::Sampling { name: "top-p", .. })));
    assert!(engine.encode("").unwrap().is_empty());

    let mut session = engine.session(2).unwrap();
    let input = Input { sequence: 1, token: 5, logits: false };
    let strange = session.run(&[Input { token: u32::MAX, ..input }]).unwrap_err();
    assert!(matches!(strange, Error::Token { id: u32::MAX, vocabulary: 2048 }), "{strange}");
    assert!(session.run(&[]).unwrap().is_empty());
    assert!(session.run(&[input; 8]).unwrap().is_empty());
    assert!(matches!(session.run(&[input]), Err(Error::Context { tokens: 9, context: 8 })));
    assert_eq!((session.len(0), session.len(1)), (0, 8));
}

#[test]
fn a_full_context_ends_generation() {
    let engine = load(DEMO, &Options { context: Some(8), ..Options::default() });
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let mut text =
        Generation::new(&engine, Request::new(vec![2040; 6], greedy, usize::MAX)).unwrap();
    let mut tokens = 0;
    while text.next(|| false).unwrap().is_some() {
        tokens += 1;
    }
    // Two fit, and the one after them needs no place.
    assert_eq!(tokens, 3);
    assert_eq!(text.finish(), Some(bitnet_inference::Finish::Length));
}

/// Where the tensor data of the tiny model starts.
static HEADER: LazyLock<usize> = LazyLock::new(|| {
    let gguf = Gguf::from_static("tiny.gguf", TINY).expect("the tiny model");
    gguf.tensors().iter().map(|t| t.offset as usize).min().expect("tensors")
});

proptest! {
    /// A header with any bytes changed loads, or is refused with its name; what loads also runs.
    #[test]
    fn a_changed_header_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = TINY.to_vec();
        for (at, value) in changes {
            bytes[at.index(*HEADER)] = value;
        }
        let result = Gguf::from_vec("changed.gguf", bytes).map_err(Error::from);
        match result.and_then(|gguf| Engine::load(gguf, &Options::default())) {
            Err(error) => prop_assert!(error.to_string().contains("changed.gguf"), "{error}"),
            Ok(engine) => {
                let mut session = engine.session(1).unwrap();
                let input = Input { sequence: 0, token: 7, logits: true };
                prop_assert_eq!(session.run(&[input]).unwrap().len(), 512);
            }
        }
    }

    /// Eight bytes that are a count, a length, an offset or a dimension become any number.
    #[test]
    fn absurd_numbers_never_panic(
        at in any::<prop::sample::Index>(),
        value in prop_oneof![any::<u64>(), Just(u64::MAX), Just(1 << 62), 0..4096_u64],
    ) {
        let mut bytes = TINY.to_vec();
        let at = at.index(*HEADER - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let result = Gguf::from_vec("changed.gguf", bytes).map_err(Error::from);
        if let Err(error) = result.and_then(|gguf| Engine::load(gguf, &Options::default())) {
            prop_assert!(error.to_string().contains("changed.gguf"), "{error}");
        }
    }
}
