//! The same bits, whatever computes them: every instruction set, any number of threads, any cut of
//! the prompt, alone or beside other sequences; and the same on every machine.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;
mod exact;
#[path = "common/reference.rs"]
mod models;
#[path = "common/tiny.rs"]
mod tiny;

use bitnet_inference::device_features::{select_gpu_kernel, supports_device};
use bitnet_inference::{CHUNK, Engine, Error, Input, KvType, Layout, Logits, Options, Wanted};
use bitnet_kernels::manager::KernelBackend;
use bitnet_kernels::{Cpu, Device, Isa};
use common::{DEMO, load, logits};
use exact::exact;
use sha2::{Digest, Sha256};
use tiny::long_tiny;

/// Of the logits after each token of [`prompt`], on every machine.
const LOGITS_SHA256: &str = "e73af8a94291407c1483a3ce9e2eb954e8f12771b3a4d4aaced763595b61622b";

/// Long enough for several blocks of the key-value cache and more than one chunk.
fn prompt() -> Vec<u32> {
    let mut ids = vec![2040];
    ids.extend((0..149).map(|i: u32| (i * i * 7 + i * 131) % 2040));
    ids
}

fn everything(logits: Result<Option<Logits<'_>>, Error>) -> &[f32] {
    match logits {
        Ok(Some(Logits::All(logits))) => logits,
        other => panic!("{other:?}"),
    }
}

fn hash(logits: &[f32]) -> String {
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn engine(isa: Isa, threads: usize) -> Engine {
    engine_with(isa, threads, KvType::F32)
}

/// With keys and values of type `kv`.
fn engine_with(isa: Isa, threads: usize, kv: KvType) -> Engine {
    let (isa, threads) = (Some(isa), Some(threads));
    load(DEMO, &Options { isa, threads, kv, ..exact() })
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_logits() {
    for &isa in Cpu::detect().isas() {
        for threads in [1, 2] {
            let found = hash(&logits(&engine(isa, threads), &prompt()));
            println!("{isa}, {threads} threads: logits {found}");
            assert_eq!(found, LOGITS_SHA256, "{isa}, {threads} threads");
        }
    }
}

/// Of the logits of every architecture but the first after each token of a prompt, on every machine.
#[test]
fn every_architecture_gives_the_same_logits_everywhere() {
    let ids: Vec<_> = (0..150).map(|i| (i * i * 7 + i * 31) % 96).collect();
    for (name, expected) in [
        ("1bitllm", "d10f2046fded9d0eeefa0c0b1ce6da57b170e3bafb68424131dff0baf27d57af"),
        ("llama", "a6cdcb57bcd10b5309526dc414e307a70a9b3eb139584a284fc8a1175dbdb021"),
        ("qwen3-embedding", "62686799b98a186e0679af0a21c508aa9276d5c0c3120a67484a793cea11237e"),
        ("gemma3-embedding", "85a1e26b62625e8187f6cda60a7e1a8b426be2e90e1184428bf1799543ee8fd2"),
        ("qwen3", "4cbcb03fbd2a1135a69ab63f20b0a540fe8a9721ad7956aaaa6516a8d9fb6107"),
    ] {
        for (&isa, threads) in Cpu::detect().isas().iter().zip([1, 2, 1, 2, 1, 2]) {
            for layout in [Layout::I2SR32, Layout::Tl2R32] {
                let (isa, threads, layout) = (Some(isa), Some(threads), Some(layout));
                let options = Options { isa, threads, layout, ..exact() };
                let engine = Engine::open(models::folder(name), &options).unwrap();
                let ids = &ids[..engine.context().min(ids.len())];
                assert_eq!(hash(&logits(&engine, ids)), expected, "{name}, {isa:?}, {layout:?}");
            }
        }
    }
}

#[test]
fn every_layout_of_weights_gives_the_same_logits() {
    for &isa in Cpu::detect().isas() {
        let layout = Some(Layout::Tl2R32);
        let engine = load(DEMO, &Options { isa: Some(isa), layout, ..exact() });
        assert_eq!(hash(&logits(&engine, &prompt())), LOGITS_SHA256, "{isa}, {layout:?}");
    }
}

#[test]
fn floating_point_weights_give_the_same_logits() {
    let plain = engine(Isa::Scalar, 1);
    for &isa in Cpu::detect().isas() {
        let options = Options { isa: Some(isa), dequantize: true, ..exact() };
        let engine = load(DEMO, &options);
        assert_eq!(hash(&logits(&engine, &prompt())), LOGITS_SHA256, "{isa}");
        assert!(engine.dequantized() && !plain.dequantized());
        assert!(engine.notices().iter().any(|notice| notice.to_string().contains("--dequantize")));
        assert_eq!(engine.layouts(), ["f16"]);
    }
}

#[test]
fn preferred_kernels_are_called_and_give_the_same_logits() {
    let named = ["I2S_QK256_CUDA", "gemv_tl2_r32_q8_scalar", "norm_f32_scalar"];
    let kernels = named.iter().map(|name| name.parse().unwrap()).collect();
    let engine = load(DEMO, &Options { kernels, ..exact() });
    assert_eq!(hash(&logits(&engine, &prompt())), LOGITS_SHA256);
    assert_eq!(engine.layouts(), ["tl2_r32"]);
    let mut session = engine.session(1).unwrap();
    session.run(&[Input { sequence: 0, token: 1, logits: true }]).unwrap();
    let called: Vec<_> = session.calls().iter().map(|(kernel, _)| kernel.to_string()).collect();
    for name in &named[1..] {
        assert!(called.iter().any(|id| id == name), "{name} in {called:?}");
    }
    assert!(!called.iter().any(|id| id.starts_with("gemv_i2s") || id == "norm_f32_avx2"));
}

#[test]
fn a_model_tells_what_it_can_compute_with() {
    let cpu = Cpu::detect();
    for &isa in cpu.isas() {
        let found = engine(isa, 1).kernel_capabilities();
        assert_eq!(found.simd_level, isa);
        assert!(found.max_context_length > 0);
        assert_eq!(found.cuda_available, supports_device(Device::Cuda(0)));
        assert!(found.is_capable_of(KernelBackend::I2sScalar));
        assert_eq!(found.is_capable_of(KernelBackend::I2sAvx2), Isa::Avx2.within(isa));
        assert_eq!(found.is_capable_of(KernelBackend::I2sNeon), Isa::Neon.within(isa));
        let gpu = select_gpu_kernel(0, 1).is_ok();
        assert_eq!(found.is_capable_of(KernelBackend::I2sCuda), gpu);
    }
}

#[test]
fn short_keys_and_values_give_the_same_logits_everywhere_and_nearly_those_of_long_ones() {
    let cpu = Cpu::detect();
    let plain = logits(&engine(Isa::Scalar, 1), &prompt());
    let size = (plain.iter().map(|x| x * x).sum::<f32>() / plain.len() as f32).sqrt();
    for (kv, bound) in [(KvType::F16, 0.01), (KvType::Q8_0, 0.02)] {
        let found = logits(&engine_with(Isa::Scalar, 1, kv), &prompt());
        for (&isa, threads) in cpu.isas().iter().zip([2, 1, 2, 1, 2, 1]) {
            let other = logits(&engine_with(isa, threads, kv), &prompt());
            assert_eq!(hash(&other), hash(&found), "{kv:?}, {isa}, {threads} threads");
        }
        let squares = found.iter().zip(&plain).map(|(a, b)| (a - b).powi(2));
        let error = (squares.sum::<f32>() / plain.len() as f32).sqrt() / size;
        println!("{kv:?}: {error}");
        assert!(error > 0.0 && error < bound, "{kv:?}: {error}");
    }
}

#[test]
fn any_cut_of_the_prompt_gives_the_same_logits() {
    let best = *Cpu::detect().isas().last().unwrap();
    let engine = engine(best, 2);
    let ids = prompt();
    let mixed = [1, 2, 30, 1, 90, 5, 21];
    for sizes in [&[1; 150][..], &[3; 50], &[17; 9], &[128, 22], &mixed] {
        let mut session = engine.session(1).unwrap();
        let (mut all, mut rest) = (Vec::new(), &ids[..]);
        for &size in sizes {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            let inputs = chunk.iter().map(|&token| Input { sequence: 0, token, logits: true });
            all.extend_from_slice(session.run(&inputs.collect::<Vec<_>>()).unwrap());
        }
        assert!(rest.is_empty());
        assert_eq!(hash(&all), LOGITS_SHA256, "cut into {} of {}", sizes.len(), sizes[0]);
    }
}

#[test]
fn many_positions_give_the_same_logits_however_they_are_shared_out() {
    let ids: Vec<u32> = (0..1060).map(|i: u32| (i * i * 11 + i * 7) % 512).collect();
    let best = *Cpu::detect().isas().last().unwrap();
    let mut wanted: Option<Vec<f32>> = None;
    // A prompt at once goes by rows, tokens one after another go by spans of positions.
    for (isa, threads, at_once) in [(best, 1, 1060), (best, 2, 1020), (Isa::Scalar, 3, 1020)] {
        let options = Options { isa: Some(isa), threads: Some(threads), ..exact() };
        let engine = load(long_tiny(), &options);
        let mut session = engine.session(1).unwrap();
        let (prompt, rest) = ids.split_at(at_once);
        let mut all = Vec::new();
        for chunk in prompt.chunks(CHUNK).chain(rest.chunks(1)) {
            let inputs = chunk.iter().map(|&token| Input { sequence: 0, token, logits: true });
            all.extend_from_slice(session.run(&inputs.collect::<Vec<_>>()).unwrap());
        }
        let wanted = wanted.get_or_insert_with(|| all.clone());
        assert!(all == *wanted, "{isa}, {threads} threads, {at_once} at once");
    }
}

#[test]
fn a_sequence_does_not_depend_on_its_neighbours() {
    let best = *Cpu::detect().isas().last().unwrap();
    let engine = engine(best, 2);
    let ids = prompt();
    let vocabulary = engine.vocabulary();
    let mut session = engine.session(3).unwrap();
    let mut all = Vec::new();
    // Sequence 1 is the prompt; 0 and 2 start later or earlier, with other tokens and speeds.
    for (step, &token) in ids.iter().enumerate() {
        let mut inputs = Vec::new();
        if step > 20 {
            inputs.extend((0..step % 3).map(|i| (0, (step * 5 + i) as u32)));
        }
        inputs.push((1, token));
        if step < 110 {
            inputs.push((2, (step * 11) as u32 % 2040));
        }
        let inputs: Vec<_> = inputs
            .into_iter()
            .map(|(sequence, token)| Input { sequence, token, logits: sequence != 2 })
            .collect();
        let logits = session.run(&inputs).unwrap();
        // Sequence 2 gives none, so the last row is that of sequence 1.
        all.extend_from_slice(&logits[logits.len() - vocabulary..]);
    }
    assert_eq!(hash(&all), LOGITS_SHA256);
}

#[test]
fn a_refused_call_changes_nothing() {
    let best = *Cpu::detect().isas().last().unwrap();
    let engine = engine(best, 1);
    let mut session = engine.session(1).unwrap();
    let mut all = Vec::new();
    for &token in &prompt() {
        let input = Input { sequence: 0, token, logits: true };
        assert!(session.run(&[input, Input { token: 2048, ..input }]).is_err());
        all.extend_from_slice(session.run(&[input]).unwrap());
    }
    assert_eq!(hash(&all), LOGITS_SHA256);
}

#[test]
fn a_sequence_cut_back_goes_on_as_if_it_had_never_been_longer() {
    let engine = load(DEMO, &exact());
    let ids = prompt();
    let mut session = engine.session(1).unwrap();
    let want = everything(session.extend(0, &ids[..41], Wanted::All, || false)).to_vec();
    session.extend(0, &ids[41..], Wanted::All, || false).unwrap();
    session.truncate(0, 19);
    assert_eq!(session.len(0), 19);
    session.truncate(0, 100);
    assert_eq!(session.len(0), 19, "nothing comes back");
    let got = everything(session.extend(0, &ids[19..41], Wanted::All, || false));
    assert!(got == want);
}

#[test]
fn the_size_of_a_model_is_that_of_its_tensors() {
    let engine = load(DEMO, &exact());
    let c = engine.config();
    let layer = 2 * c.hidden * (c.q_size() + c.kv_size()) + 3 * c.hidden * c.ffn;
    let ternary = c.layers * layer;
    let norms = c.layers * (2 * c.hidden + c.q_size() + c.ffn) + c.hidden;
    assert_eq!(engine.ternary_products(), ternary as u64);
    let table = engine.vocabulary() * c.hidden;
    assert_eq!(engine.checkpoint().parameters(), (ternary + norms + table) as u64);
    // I2_S with a tail for each of seven matrices, F32 norms, F16 embeddings.
    let bytes = ternary / 4 + 7 * c.layers * 32 + norms * 4 + table * 2;
    assert_eq!(engine.size(), bytes as u64);
}
