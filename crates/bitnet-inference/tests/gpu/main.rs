//! Models on a GPU, whose driver runs kernels in an interpreter: the same bits as on the processor.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

#[path = "../common/mod.rs"]
mod common;
mod failures;
mod formats;
#[path = "../common/reference.rs"]
mod models;
mod performance;
mod precision;
mod receipts;
mod replicas;
mod requests;
#[path = "../common/rewritten.rs"]
mod rewritten;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../common/tiny.rs"]
mod tiny;

use std::process::ExitCode;

use bitnet_inference::{Engine, GpuPasses, Input, KvType, Options};
use bitnet_kernels::Device;
use common::{DEMO, load, logits};
use fake_cuda::cases::{self, Case, Library};

const CASES: &[Case] = &[
    ("prompts_give_the_same_logits", Library::Fake, "", prompts),
    ("older_devices_give_the_same_logits", Library::Fake, "cc=6.1", prompts),
    ("other_devices_give_the_same_logits", Library::Fake, "cc=8.6", prompts),
    ("sequences_are_each_as_alone", Library::Fake, "", sequences),
    ("other_architectures_give_the_same_logits", Library::Fake, "", architectures),
    ("passes_in_one_kernel_give_the_same_logits", Library::Fake, "", in_one_kernel),
    ("devices_without_such_kernels_refuse_them", Library::Fake, "cc=7.5", refused),
    ("embeddings_are_the_same", Library::Fake, "", embeddings),
    ("what_is_observed_is_the_same", Library::Fake, "", observed),
];

fn main() -> ExitCode {
    cases::main(
        &[
            CASES,
            requests::CASES,
            receipts::CASES,
            formats::CASES,
            performance::CASES,
            precision::CASES,
            replicas::CASES,
            failures::CASES,
        ]
        .concat(),
    )
}

pub(crate) fn on_gpu() -> Options {
    Options { device: Device::Cuda(0), ..on_cpu() }
}

pub(crate) fn on_cpu() -> Options {
    Options { threads: Some(1), context: Some(256), ..Options::default() }
}

/// The same model on the processor and on the GPU.
pub(crate) fn both(options: &Options) -> [Engine; 2] {
    [Device::Cpu, Device::Cuda(0)].map(|device| load(DEMO, &Options { device, ..options.clone() }))
}

pub(crate) fn prompt(tokens: u32) -> Vec<u32> {
    (0..tokens).map(|i| (i * i * 7 + i * 131) % 2040).collect()
}

pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Of all sizes that have kernels of their own, in all formats of keys and values.
fn prompts() {
    for (kv, tokens) in [(KvType::F16, 40), (KvType::F32, 20), (KvType::Q8_0, 10)] {
        let [cpu, gpu] = both(&Options { kv, ..on_cpu() });
        let ids = prompt(tokens);
        assert_eq!(bits(&logits(&gpu, &ids)), bits(&logits(&cpu, &ids)), "{kv}, {tokens} tokens");
        // One by one.
        let [mut here, mut there] = [&cpu, &gpu].map(|engine| engine.session(1).unwrap());
        for &token in &ids[..3] {
            let input = [Input { sequence: 0, token, logits: true }];
            assert_eq!(bits(there.run(&input).unwrap()), bits(here.run(&input).unwrap()), "{kv}");
        }
    }
}

/// Several sequences in a pass, of different lengths, some without logits; and taken back.
fn sequences() {
    let [mut here, mut there] = both(&on_cpu()).map(|engine| engine.session(3).unwrap());
    let input = |sequence, token, logits| Input { sequence, token, logits };
    let passes = [
        vec![input(0, 5, false), input(0, 6, true), input(2, 7, true)],
        vec![input(1, 8, false), input(1, 9, false), input(2, 10, false)],
        vec![input(0, 11, true), input(1, 12, true), input(2, 13, true)],
    ];
    for pass in &passes {
        assert_eq!(bits(there.run(pass).unwrap()), bits(here.run(pass).unwrap()));
    }
    for session in [&mut here, &mut there] {
        session.truncate(0, 1);
    }
    let pass = [input(0, 14, true), input(2, 15, true)];
    assert_eq!(bits(there.run(&pass).unwrap()), bits(here.run(&pass).unwrap()));
    assert_eq!(there.len(0), 2);
}

fn architectures() {
    for name in ["1bitllm", "llama", "qwen3", "gemma3-embedding"] {
        let open = |options: &Options| Engine::open(models::folder(name), options).unwrap();
        let ids: Vec<u32> = prompt(18).into_iter().map(|id| id % 96).collect();
        let options = Options { context: None, ..on_cpu() };
        let there = logits(&open(&Options { device: Device::Cuda(0), ..options.clone() }), &ids);
        assert_eq!(bits(&there), bits(&logits(&open(&options), &ids)), "{name}");
    }
}

/// Texts alone and together, in all formats of keys and values, by all architectures.
fn in_one_kernel() {
    let gpu = |options: &Options| Options {
        device: Device::Cuda(0),
        gpu_passes: GpuPasses::Kernel,
        ..options.clone()
    };
    for kv in [KvType::F16, KvType::F32, KvType::Q8_0] {
        let options = Options { kv, ..on_cpu() };
        let engines = [options.clone(), gpu(&options)].map(|options| load(DEMO, &options));
        let [here, there] = engines.map(|engine| step_by_step(&engine, 3));
        assert_eq!(there, here, "{kv}");
    }
    for name in ["1bitllm", "llama", "qwen3", "gemma3-embedding"] {
        let options = Options { context: None, ..on_cpu() };
        let engines = [options.clone(), gpu(&options)]
            .map(|options| Engine::open(models::folder(name), &options).unwrap());
        let [here, there] = engines.map(|engine| step_by_step(&engine, 2));
        assert_eq!(there, here, "{name}");
    }
}

/// The logits of some sequences after each of three tokens, which come together and one by one.
fn step_by_step(engine: &Engine, sequences: usize) -> Vec<Vec<u32>> {
    let mut session = engine.session(sequences).unwrap();
    let mut seen = Vec::new();
    let token = |i: usize| (7 * i * i + 3) as u32 % 90;
    for step in 0..3 {
        let input = |sequence| Input { sequence, token: token(3 * sequence + step), logits: true };
        let inputs: Vec<_> = (0..sequences).map(input).collect();
        match step {
            1 => inputs.chunks(1).for_each(|input| seen.push(bits(session.run(input).unwrap()))),
            _ => seen.push(bits(session.run(&inputs).unwrap())),
        }
    }
    seen
}

fn refused() {
    let options = Options { gpu_passes: GpuPasses::Kernel, ..on_gpu() };
    let error = load(DEMO, &options).session(1).unwrap_err().to_string();
    assert!(error.contains("leave out --gpu-passes kernel"), "{error}");
}

fn embeddings() {
    let [here, there] = both(&on_cpu()).map(|engine| {
        let mut session = engine.session(1).unwrap();
        session.embed(0, &prompt(9)).unwrap()
    });
    assert_eq!(bits(&there), bits(&here));
}

/// The residual stream behind each layer.
fn observed() {
    let seen = both(&on_cpu()).map(|engine| {
        let mut session = engine.session(1).unwrap();
        let inputs: Vec<_> =
            prompt(3).into_iter().map(|token| Input { sequence: 0, token, logits: true }).collect();
        let mut seen = Vec::new();
        let logits = session.run_observed(&inputs, |layer, x| seen.push((layer, bits(x)))).unwrap();
        (bits(logits), seen)
    });
    assert_eq!(seen[1], seen[0]);
    assert!(seen[0].1.len() > 1);
}
