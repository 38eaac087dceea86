//! Receipts hold, wherever they are checked, and do not when they are forged.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;
#[path = "common/reference.rs"]
mod models;

use std::cell::Cell;
use std::time::Duration;

use bitnet_inference::receipt::{Around, MatrixUsed, Receipt, Verdict, verify};
use bitnet_inference::{Engine, Finish, Generation, KvType, Layout, Options, Request, Sampling};
use bitnet_kernels::{Cpu, Format, packed};
use common::{DEMO, load, logits};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const AROUND: Around =
    Around { load: Duration::from_millis(7), peak_memory: Some(1 << 20), bandwidth: Some(10.0) };

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|i| (i * i * 7 + i * 131) % 2040).collect()
}

fn small() -> Options {
    Options { threads: Some(1), ..Options::default() }
}

/// The receipt of a run that is stopped when it has asked `passes` times whether to go on.
fn receipt_of(
    engine: &Engine,
    prompt: Vec<u32>,
    (sampling, limit): (Sampling, usize),
    passes: usize,
) -> (Receipt, Finish) {
    let mut generation = Generation::new(engine, Request::new(prompt, sampling, limit)).unwrap();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > passes
    };
    while generation.next(stop).unwrap().is_some() {}
    let receipt = Receipt::new(engine, &mut generation, AROUND).unwrap();
    (receipt, generation.finish().unwrap())
}

fn plain(engine: &Engine, tokens: usize, limit: usize) -> Receipt {
    receipt_of(engine, prompt(tokens), (Sampling::default(), limit), usize::MAX).0
}

/// The verdict with the model, which is loaded as the receipt says but for `with`.
fn again(receipt: &Receipt, with: impl Fn(Options) -> Options) -> Verdict {
    let engine = load(DEMO, &with(receipt.options().unwrap()));
    verify(receipt, Some(&engine)).unwrap()
}

fn holds(receipt: &Receipt) {
    let without = verify(receipt, None).unwrap();
    assert!(without.holds() && !without.rerun, "{without}");
    let with = again(receipt, |options| options);
    assert!(with.holds() && with.rerun, "{with}");
}

#[test]
fn receipts_of_all_kinds_of_runs_hold() {
    let engine = load(DEMO, &small());
    for (tokens, limit) in [(1, 5), (7, 0), (7, 1), (128, 2), (129, 2), (300, 3)] {
        holds(&plain(&engine, tokens, limit));
    }
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let free = Sampling { top_p: 1.0, min_p: 0.0, top_k: 0, ..Sampling::default() };
    let shy = Sampling { repeat_penalty: 1.3, seed: u64::MAX, ..Sampling::default() };
    for sampling in [greedy, free, shy] {
        holds(&receipt_of(&engine, prompt(9), (sampling, 6), usize::MAX).0);
    }
}

#[test]
fn receipts_of_other_architectures_hold() {
    for name in ["1bitllm", "llama", "qwen3"] {
        let open = |options: &Options| Engine::open(models::folder(name), options).unwrap();
        let engine = open(&small());
        let ids = prompt(9).into_iter().map(|id| id % 96).collect();
        let receipt = receipt_of(&engine, ids, (Sampling::default(), 5), usize::MAX).0;
        let without = verify(&receipt, None).unwrap();
        assert!(without.holds(), "{name}: {without}");
        let with = verify(&receipt, Some(&open(&receipt.options().unwrap()))).unwrap();
        assert!(with.holds() && with.rerun, "{name}: {with}");

        let mut forged = receipt.clone();
        forged.model.activation = "relu2".to_owned();
        let forged = verify(&forged, None).unwrap();
        assert!(!forged.holds(), "{name}: {forged}");
    }
}

#[test]
fn the_hashes_are_those_of_the_tokens_and_of_the_logits_after_the_last_that_was_run() {
    let engine = load(DEMO, &small());
    let mut run =
        Generation::new(&engine, Request::new(prompt(9), Sampling::default(), 6)).unwrap();
    while run.next(|| false).unwrap().is_some() {}
    let tokens = [&run.request().prompt[..], run.generated()].concat();
    let receipt = Receipt::new(&engine, &mut run, AROUND).unwrap();
    let hash = |bytes: Vec<u8>| {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let generated = tokens[9..].iter().flat_map(|id| id.to_le_bytes()).collect();
    assert_eq!(receipt.result.tokens_sha256, hash(generated));
    let all = logits(&engine, &tokens[..14]);
    let last = all[13 * engine.vocabulary()..].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(receipt.result.logits_sha256, Some(hash(last)));
}

#[test]
fn receipts_of_runs_that_end_early_hold() {
    let engine = load(DEMO, &small());
    let ask = || (Sampling::default(), usize::MAX);
    for (tokens, passes) in [(300, 0), (300, 1), (300, 2), (300, 3), (300, 4), (5, 1), (5, 7)] {
        let (receipt, finish) = receipt_of(&engine, prompt(tokens), ask(), passes);
        assert_eq!(finish, Finish::Cancelled);
        holds(&receipt);
    }
    // To the end of the context.
    let engine = load(DEMO, &Options { context: Some(20), ..small() });
    let (receipt, finish) = receipt_of(&engine, prompt(15), ask(), usize::MAX);
    assert_eq!((finish, receipt.result.positions), (Finish::Length, 20));
    holds(&receipt);
    // To a token that ends the text.
    let engine = load(DEMO, &small());
    let story = engine.encode("And they lived happily ever after.").unwrap();
    let ended = (0..40).find_map(|seed| {
        let ask = (Sampling { seed, ..Sampling::default() }, 120);
        let (receipt, finish) = receipt_of(&engine, story.clone(), ask, usize::MAX);
        (finish == Finish::Stop).then_some(receipt)
    });
    holds(&ended.expect("some story that ends"));
}

#[test]
fn receipts_hold_on_every_instruction_set_layout_and_number_of_threads() {
    let engine = load(DEMO, &Options { kv: KvType::Q8_0, ..small() });
    let receipt = plain(&engine, 150, 4);
    for &isa in Cpu::detect().isas() {
        for (layout, threads) in [(Layout::I2SR32, 2), (Layout::Tl2R32, 1)] {
            let (isa, layout, threads) = (Some(isa), Some(layout), Some(threads));
            let verdict = again(&receipt, |options| Options { isa, layout, threads, ..options });
            assert!(verdict.holds(), "{isa:?}, {layout:?}: {verdict}");
            let engine = load(DEMO, &Options { isa, layout, threads, kv: KvType::Q8_0, ..small() });
            let other = plain(&engine, 150, 4);
            assert_eq!(other.result, receipt.result);
            holds(&other);
        }
    }
}

/// One that was made on x86-64 with AVX-512, whatever this is.
#[test]
fn a_receipt_of_another_machine_holds_here() {
    let receipt: Receipt = serde_json::from_str(include_str!("data/receipt.json")).unwrap();
    assert_eq!(receipt.machine.isas.last().unwrap(), "avx512vnni");
    holds(&receipt);
}

#[test]
fn floating_point_weights_are_said_and_hold() {
    let engine = load(DEMO, &Options { dequantize: true, ..small() });
    let floats = plain(&engine, 9, 3);
    assert!(floats.dequantized);
    assert!(!floats.kernels.keys().any(|id| id.starts_with("gem")));
    holds(&floats);
    let plain = plain(&load(DEMO, &small()), 9, 3);
    assert_eq!(floats.result, plain.result);
    for (receipt, dequantized) in [(floats, false), (plain, true)] {
        let forged = sealed(Receipt { dequantized, ..receipt });
        assert!(!verify(&forged, None).unwrap().holds());
    }
}

/// With the hash that a forger would give it.
fn sealed(mut receipt: Receipt) -> Receipt {
    receipt.sha256 = receipt.digest();
    receipt
}

/// The paths of all numbers, texts and truths in a value.
fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| leaves(value, &format!("{path}/{key}"), out));
        }
        Value::Array(list) => {
            let all = list.iter().enumerate();
            all.for_each(|(i, value)| leaves(value, &format!("{path}/{i}"), out));
        }
        _ => out.push(path.to_owned()),
    }
}

/// Other values that a forger might write.
fn forgeries(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(value) => vec![json!(!value)],
        Value::String(text) => {
            let first = if text.starts_with('0') { "1" } else { "0" };
            vec![json!(format!("{first}{}", &text[1..])), json!(format!("{text}0")), json!("")]
        }
        Value::Number(number) => match number.as_u64() {
            Some(n) => vec![json!(n + 1), json!(n.saturating_sub(1)), json!(0), json!(u64::MAX)],
            None => {
                let x = number.as_f64().unwrap();
                vec![json!(x * 1.5), json!(-x), json!(x * 1e-9)]
            }
        },
        Value::Null => vec![json!("ab".repeat(32)), json!("")],
        other => panic!("{other} is no leaf"),
    }
}

/// What a forger who knows how to make the hash may claim, because nothing contradicts it: on what and
/// how fast, never what.
const CLAIMS: [&str; 9] = [
    "/engine/version",
    "/engine/commit",
    "/machine/cpu",
    "/machine/threads",
    "/machine/tuning",
    "/timings/load_ms",
    "/timings/prompt_ms",
    "/timings/first_token_ms",
    "/peak_memory_bytes",
];

#[test]
fn a_forged_field_is_found() {
    let engine = load(DEMO, &small());
    let receipt = plain(&engine, 150, 4);
    let honest = serde_json::to_value(&receipt).unwrap();
    let mut paths = Vec::new();
    leaves(&honest, "", &mut paths);
    assert!(paths.len() > 100);
    let mut claims = Vec::new();
    for path in &paths {
        for value in forgeries(honest.pointer(path).unwrap()) {
            if value == *honest.pointer(path).unwrap() {
                continue;
            }
            let mut forged = honest.clone();
            *forged.pointer_mut(path).unwrap() = value.clone();
            let Ok(forged) = serde_json::from_value::<Receipt>(forged) else { continue };
            let verdict = verify(&forged, None).unwrap();
            assert!(!verdict.holds(), "{path} = {value}, without a new hash");
            if path == "/sha256" {
                continue;
            }
            let forged = sealed(forged);
            // Read with as many tokens of context and the type of keys that it claims.
            let Ok(options) = forged.options() else { continue };
            let engine = load(DEMO, &Options { threads: Some(1), ..options });
            if verify(&forged, Some(&engine)).unwrap().holds() {
                claims.push(path.clone());
            }
        }
    }
    claims.dedup();
    // Other settings can give the same text: then it is true of them as well.
    claims.retain(|path| !path.starts_with("/request/"));
    let unexpected: Vec<_> =
        claims.iter().filter(|path| !CLAIMS.contains(&path.as_str())).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[test]
fn fields_that_lack_or_are_unknown_are_refused() {
    let engine = load(DEMO, &small());
    // As it is in a file, where numbers have as many digits as they need.
    let file = serde_json::to_string(&plain(&engine, 5, 2)).unwrap();
    let honest: Value = serde_json::from_str(&file).unwrap();
    let objects = ["", "/engine", "/model", "/machine", "/request", "/result", "/read", "/timings"];
    let object = |value: &'_ mut Value, path: &str| -> Map<String, Value> {
        value.pointer_mut(path).and_then(Value::as_object_mut).unwrap().clone()
    };
    for path in objects {
        for (key, value) in object(&mut honest.clone(), path) {
            let mut less = honest.clone();
            less.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(&key);
            // What may be nothing may be left out, if it is nothing.
            if let Ok(less) = serde_json::from_value::<Receipt>(less) {
                let holds = verify(&less, None).unwrap().holds();
                assert_eq!(holds, value.is_null(), "{path} without {key}");
            }
        }
        let mut more = honest.clone();
        more.pointer_mut(path).unwrap()["more"] = json!(1);
        assert!(serde_json::from_value::<Receipt>(more).is_err(), "{path} with more");
    }
    let text = honest.to_string();
    assert!(Receipt::read(&text).is_ok());
    let twice = text.replacen(
        "\"kernels\":{",
        "\"kernels\":{\"add_f32_scalar\":7,\"add_f32_scalar\":8,",
        1,
    );
    assert!(Receipt::read(&twice).unwrap_err().contains("add_f32_scalar is there twice"));
    let list = Value::Array(honest["engine"].as_object().unwrap().values().cloned().collect());
    let mut other = honest.clone();
    other["engine"] = list;
    assert!(Receipt::read(&other.to_string()).is_err());
    assert!(Receipt::read("{\"schema\":2,\"new\":1}").unwrap_err().contains("of version 2"));
}

#[test]
fn kernels_that_were_not_called_or_do_not_exist_are_found() {
    let engine = load(DEMO, &small());
    let receipt = plain(&engine, 5, 2);
    let isa = receipt.machine.isas.last().unwrap().clone();
    let forge = |change: &dyn Fn(&mut Receipt)| {
        let mut forged = receipt.clone();
        change(&mut forged);
        let verdict = verify(&sealed(forged), None).unwrap();
        assert!(!verdict.holds(), "{verdict}");
        verdict.to_string()
    };
    for id in receipt.kernels.keys() {
        forge(&|r| {
            r.kernels.remove(id);
        });
    }
    // The same number of calls, of kernels that no matrix has.
    let gemv = format!("gemv_i2s_r32_q8_{isa}");
    let rename = |from: &str, to: &str, calls: u64| {
        let (from, to) = (from.to_owned(), to.to_owned());
        forge(&move |r| {
            let all = r.kernels[&from];
            r.kernels.insert(from.clone(), all - calls.min(all));
            r.kernels.retain(|_, calls| *calls > 0);
            r.kernels.insert(to.clone(), calls.min(all));
        })
    };
    rename(&gemv, &gemv.replace("i2s", "tl2"), u64::MAX);
    rename(&gemv, "gemv_tl2_r32_q8_scalar", 3);
    let norm = receipt.kernels.keys().find(|id| id.starts_with("norm")).unwrap();
    if isa != "scalar" {
        rename(&gemv, "gemv_i2s_r32_q8_scalar", 3);
        rename(norm, "norm_f32_scalar", 1);
    }
    for operation in ["attend", "store"] {
        let id = receipt.kernels.keys().find(|id| id.starts_with(operation)).unwrap();
        rename(id, &id.replace("f16", "q8_0"), u64::MAX);
    }
    forge(&|r| {
        let bytes = |layout, m: &MatrixUsed| {
            packed::bytes(layout, m.rows as usize, m.cols as usize).unwrap() as u64
        };
        let all: u64 = r.model.matrices.iter().map(|m| bytes(Format::Tl2R32, m)).sum();
        for matrix in &mut r.model.matrices {
            matrix.layout = "tl2_r32".to_owned();
        }
        r.read.prompt.linear = all * r.model.layers;
        r.read.decode.linear = all * r.model.layers;
    });
    forge(&|r| r.model.types = vec!["Q9".to_owned()]);
    forge(&|r| r.model.architecture = "llama".to_owned());
    forge(&|r| r.read.prompt.head = 1);
    // Calls whose sum would overflow.
    forge(&|r| {
        let ids = ["head_f16_f32_scalar", "head_f32_f32_scalar"];
        r.kernels.extend(ids.map(|id| (id.to_owned(), u64::MAX)));
    });
    forge(&|r| r.read.bandwidth_gbps = Some(-3.0));
    let more = |id: String| forge(&move |r| r.kernels.extend([(id.clone(), 1)]));
    assert!(more("gemv_magic_q8_avx9".to_owned()).contains("there is no kernel"));
    assert!(more("condense_f16_f32_scalar".to_owned()).contains("no forward pass calls condense"));
    assert!(more("scan_q8_scalar".to_owned()).contains("WRONG"));
    assert!(more("refine_q8_scalar".to_owned()).contains("WRONG"));
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let said = more(format!("add_f32_{foreign}"));
    assert!(said.contains(&format!("does not run with at most {isa}")), "{said}");
    forge(&|r| r.machine.architecture = "sparc".to_owned());
    forge(&|r| {
        r.machine.architecture = "aarch64".to_owned();
        r.machine.isas = ["scalar", "avx2", "neon"].map(str::to_owned).to_vec();
    });
    forge(&|r| r.machine.isas.push(foreign.to_owned()));
    forge(&|r| r.machine.isas.clear());
    forge(&|r| r.machine.isas.insert(0, "scalar".to_owned()));
    let said = forge(&|r| r.machine.device = "cuda:0".to_owned());
    assert!(said.contains("no kernel of a GPU was called"), "{said}");
    let said = forge(&|r| {
        r.machine.device = "cuda:0".to_owned();
        r.kernels = [("norm_f32".to_owned(), 1)].into();
    });
    assert!(said.contains("no kernel of a GPU was called (gemm_, wmma_, i2s_gpu_)"), "{said}");
    let said = forge(&|r| {
        r.machine.device = "cuda:0".to_owned();
        r.kernels.insert("i2s_gpu_gemv_dp4a".to_owned(), 1);
    });
    assert!(said.contains("cuda:0 is a GPU, and none is named"), "{said}");
    let said = forge(&|r| r.faked = true);
    assert!(said.contains("BITNET_GPU_FAKE"), "{said}");
}
