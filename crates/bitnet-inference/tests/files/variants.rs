//! The demo model in other types, versions and dialects of GGUF gives the same logits, or close
//! ones where the type cannot hold the same numbers.

use bitnet_gguf::TensorType;
use bitnet_inference::{Error, Finish, Generation, Notice, Options, Request, Sampling};
use bitnet_kernels::Format;
use bitnet_kernels::format::narrow;
use half::bf16;

use crate::common::{DEMO, load, logits};
use crate::parts::Parts;

const IDS: [u32; 12] = [2040, 1450, 326, 638, 258, 516, 437, 309, 258, 414, 394, 342];

fn run(parts: Parts) -> Vec<f32> {
    logits(&parts.load().unwrap(), &IDS)
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn what_holds_the_same_numbers_gives_the_same_bits() {
    let demo = bits(&run(Parts::demo()));
    let to_f32 = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let to_bf16 = |x: &[f32]| x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let mut version_2 = Parts::demo();
    version_2.version = 2;
    let ones = [1.0_f32; 32].iter().flat_map(|x| x.to_le_bytes()).collect();
    let table = Parts::demo().tensors.remove(0).data;
    let mut dirty = Parts::demo();
    for t in dirty.tensors.iter_mut().filter(|t| t.type_id == TensorType::I2S.id()) {
        // What the C++ writer leaves behind the scale is whatever was in memory.
        let end = t.data.len();
        t.data[end - 28..].fill(0xA5);
    }
    for (what, parts) in [
        ("TQ1_0", Parts::demo().ternary(Format::Tq1_0, TensorType::Tq1_0.id())),
        ("TQ2_0", Parts::demo().ternary(Format::Tq2_0, TensorType::Tq2_0.id())),
        ("F32 embeddings", Parts::demo().embedding(TensorType::F32.id(), to_f32)),
        ("BF16 embeddings", Parts::demo().embedding(TensorType::Bf16.id(), to_bf16)),
        ("bitnet-25", Parts::demo().architecture("bitnet-25")),
        ("GGUF version 2", version_2),
        ("bytes behind the scales", dirty),
        ("no size of the vocabulary", Parts::demo().without("bitnet-b1.58.vocab_size")),
        ("rotary factors of 1", Parts::demo().add("rope_freqs.weight", &[32], 0, ones)),
        ("the table as output", Parts::demo().add("output.weight", &[256, 2048], 1, table)),
    ] {
        assert_eq!(bits(&run(parts)), demo, "{what}");
    }
}

#[test]
fn coarser_embeddings_give_close_logits() {
    let demo = run(Parts::demo());
    let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
    let kinds = [(TensorType::Q8_0, Format::Q8_0, 0.03), (TensorType::Q6K, Format::Q6K, 0.08)];
    for (kind, format, bound) in kinds {
        let encode = |x: &[f32]| narrow(format, x, 256).unwrap();
        let got = run(Parts::demo().embedding(kind.id(), encode));
        let difference: Vec<f32> = got.iter().zip(&demo).map(|(a, b)| a - b).collect();
        let share = norm(&difference) / norm(&demo);
        println!("{kind:?}: difference is {share} of the logits");
        assert!(share > 0.0 && share < bound, "{kind:?}: {share}");
    }
}

#[test]
fn a_missing_splitter_is_said_and_changes_nothing() {
    let demo = load(DEMO, &Options::default());
    assert_eq!(demo.notices(), []);
    let engine = Parts::demo().without("tokenizer.ggml.pre").load().unwrap();
    let file = "variant.gguf".to_owned();
    assert_eq!(engine.notices(), [Notice::NoSplitter { file, used: "llama-bpe" }]);
    let text = "It's 12345 o'clock,\n\n  isn't it?";
    assert_eq!(engine.encode(text).unwrap(), demo.encode(text).unwrap());
}

#[test]
fn an_output_layer_of_its_own_is_refused() {
    let mut table = Parts::demo().tensors.remove(0).data;
    table[77] ^= 1;
    let parts = Parts::demo().add("output.weight", &[256, 2048], 1, table);
    let error = parts.load().unwrap_err();
    assert!(matches!(error, Error::Variant { .. }), "{error}");
    assert!(error.to_string().contains("output.weight"), "{error}");
}

/// Factors divide the frequencies `base^(-2i/64)`: those of `2^(2i/64)` are a base of 20,000.
#[test]
fn rotary_factors_divide() {
    let factors = (0..32).flat_map(|i| 2.0_f32.powf(2.0 * i as f32 / 64.0).to_le_bytes());
    let factors = Parts::demo().add("rope_freqs.weight", &[32], 0, factors.collect());
    let mut base = Parts::demo().without("bitnet-b1.58.rope.freq_base");
    base.metadata.push(("bitnet-b1.58.rope.freq_base".to_owned(), 20_000.0_f32.into()));
    let (factors, base, demo) = (run(factors), run(base), run(Parts::demo()));
    let distance =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    let (near, far) = (distance(&factors, &base), distance(&factors, &demo));
    assert!(near < far / 4.0, "{near} from the other base, {far} from no factors");
}

#[test]
fn the_text_ends_where_the_model_says() {
    // The greedy story goes 437, 1024, 258, 530, ...: its third token becomes the end.
    let mut parts = Parts::demo().without("tokenizer.ggml.eos_token_id");
    parts.metadata.push(("tokenizer.ggml.eos_token_id".to_owned(), 258_u32.into()));
    let engine = parts.load().unwrap();
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let prompt = engine.encode("Once upon a time").unwrap();
    let mut text = Generation::new(&engine, Request::new(prompt, greedy, 64)).unwrap();
    while text.next(|| false).unwrap().is_some() {}
    assert_eq!(text.generated(), [437, 1024]);
    assert_eq!(text.finish(), Some(Finish::Stop));
    assert_eq!(text.next(|| false).unwrap(), None);
}

#[test]
fn generation_stops_when_asked() {
    let engine = load(DEMO, &Options::default());
    let mut text =
        Generation::new(&engine, Request::new(vec![2040; 4], Sampling::default(), 64)).unwrap();
    assert!(text.next(|| false).unwrap().is_some());
    assert_eq!(text.next(|| true).unwrap(), None);
    assert_eq!(text.finish(), Some(Finish::Cancelled));
    assert_eq!(text.generated().len(), 1);
}

#[test]
fn a_file_may_leave_out_what_is_usual() {
    let engine = Parts::demo().without("tokenizer.ggml.add_bos_token").load().unwrap();
    assert_eq!(engine.encode("Once").unwrap()[0], 2040);
    let base = Parts::demo().without("bitnet-b1.58.rope.freq_base");
    assert_eq!(bits(&run(base)), bits(&run(Parts::demo())));
}
