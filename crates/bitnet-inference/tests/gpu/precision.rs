//! Attention that multiplies in less than single precision: near the processor, and the same whatever is beside it.

use std::iter;

use bitnet_gguf::Gguf;
use bitnet_inference::receipt::{LibraryUsed, Receipt, verify};
use bitnet_inference::{CHUNK, Engine, GpuPasses, Input, KvType, Options, PrecisionMode, Session};
use bitnet_kernels::Device;
use fake_cuda::cases::{Case, Library};

use crate::common::{DEMO, load, logits};
use crate::receipts::{real, receipt, wrong};
use crate::{bits, on_cpu, on_gpu, prompt};

pub(crate) const CASES: &[Case] = &[
    ("lesser_precisions_give_logits_that_are_near", Library::Fake, "cc=8.6", near),
    ("texts_are_the_same_whatever_is_beside_them", Library::Fake, "", beside),
    ("many_texts_are_each_as_alone", Library::Fake, "", many),
    ("receipts_in_lesser_precisions_hold", Library::Fake, "", receipts),
    ("precisions_are_refused_where_they_are_not", Library::Fake, "", refused),
    (
        "devices_of_several_generations_have_single_precision",
        Library::Fake,
        "devices=2 cc=9.0,8.6",
        several,
    ),
    ("older_devices_have_single_precision", Library::Fake, "cc=7.5", older),
];

const LESSER: [PrecisionMode; 2] = [PrecisionMode::Fp16, PrecisionMode::Bf16];

fn of(gpu_precision: PrecisionMode) -> Options {
    Options { gpu_precision, ..on_gpu() }
}

fn near() {
    let ids = prompt(40);
    let expected = logits(&load(DEMO, &on_cpu()), &ids);
    let length = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let all = length(&mut expected.iter().copied());
    for (mode, bound) in iter::zip(LESSER, [2e-3, 3e-2]) {
        let found = logits(&load(DEMO, &of(mode)), &ids);
        let apart = length(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / all;
        assert!(apart < bound, "{mode}: {apart}");
        assert_ne!(bits(&found), bits(&expected), "{mode} is single precision");
    }
}

/// The logits after tokens of a sequence, which come in passes of so many, beside others if it is so.
fn in_passes(session: &mut Session, mut ids: &[u32], sizes: &[usize], others: bool) -> Vec<u32> {
    let input = |sequence, token, logits| Input { sequence, token, logits };
    let mut last = Vec::new();
    for &size in sizes {
        let (pass, rest) = ids.split_at(size);
        let mut inputs: Vec<_> = pass.iter().map(|&id| input(1, id, false)).collect();
        inputs.last_mut().unwrap().logits = true;
        if others {
            inputs.insert(0, input(0, 5, false));
            inputs.extend([input(2, 6, false), input(2, 7, false)]);
        }
        last = bits(session.run(&inputs).unwrap());
        ids = rest;
    }
    last
}

fn beside() {
    let ids = prompt(19);
    for mode in LESSER {
        let engine = load(DEMO, &of(mode));
        let run = |sizes, others| in_passes(&mut engine.session(3).unwrap(), &ids, sizes, others);
        let alone = run(&[19], false);
        assert!(run(&[3, 14, 1, 1], false) == alone, "{mode}: in pieces");
        assert!(run(&[12, 7], true) == alone, "{mode}: beside others");
    }
}

/// As many texts as a pass has room for, each of a token: more pieces than there are of rows that attend together in others.
fn many() {
    let engine = load(DEMO, &Options { context: Some(32), ..of(PrecisionMode::Fp16) });
    let input = |sequence, token| Input { sequence, token, logits: true };
    let token = |sequence: usize| 7 * (sequence % 3) as u32 + 3;
    let alone = [0, 1, 2].map(|i| {
        let mut session = engine.session(1).unwrap();
        bits(session.run(&[input(0, token(i))]).unwrap())
    });
    let mut session = engine.session(CHUNK).unwrap();
    let inputs: Vec<_> = (0..CHUNK).map(|sequence| input(sequence, token(sequence))).collect();
    let found = bits(session.run(&inputs).unwrap());
    for (sequence, found) in found.chunks(alone[0].len()).enumerate() {
        assert!(found == alone[sequence % 3], "text {sequence}");
    }
}

fn receipts() {
    let engine = load(DEMO, &of(PrecisionMode::Auto));
    assert_eq!(engine.attention(), PrecisionMode::Fp16);
    assert!(engine.cache_kind().starts_with("f16-fp16-9.0-"), "{}", engine.cache_kind());
    let sound = real(&receipt(&engine, prompt(12), 3));
    assert_eq!(sound.machine.gpu.as_ref().unwrap().attention, "fp16");
    assert!(sound.kernels.contains_key("attn_prefill_mma_f16"));
    assert!(!sound.kernels.contains_key("attn_gqa_f16"));
    let options = sound.options().unwrap();
    assert_eq!((options.device, options.gpu_precision), (Device::Cuda(0), PrecisionMode::Fp16));
    let verdict = |receipt: &Receipt, engine: Option<&Engine>| verify(receipt, engine).unwrap();
    let again = verdict(&sound, Some(&load(DEMO, &options)));
    assert!(again.holds() && again.rerun, "{again}");
    let other = load(DEMO, &of(PrecisionMode::Bf16));
    for other in [None, Some(&load(DEMO, &on_cpu())), Some(&load(DEMO, &on_gpu())), Some(&other)] {
        let arithmetic = verdict(&sound, other);
        assert!(arithmetic.holds() && !arithmetic.rerun, "{arithmetic}");
    }

    let forge = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = sound.clone();
        change(&mut receipt);
        receipt.sha256 = receipt.digest();
        wrong(&verdict(&receipt, None))
    };
    for attention in ["fp32", "bf16", "auto", "fp8"] {
        let found = forge(&|receipt| {
            receipt.machine.gpu.as_mut().unwrap().attention = attention.to_owned()
        });
        assert!(found.contains(&"calls of kernels"), "{attention}: {found:?}");
    }
    for kv in ["f32", "q8_0"] {
        let found = forge(&|receipt| receipt.request.kv = kv.to_owned());
        assert_eq!(found, ["calls of kernels"], "{kv}");
    }
    assert_eq!(forge(&|receipt| receipt.dequantized = true), ["kernels of the device"]);
    let library = LibraryUsed { file: "libllama.so".to_owned(), sha256: "0".repeat(64) };
    let of_library = |receipt: &mut Receipt| {
        receipt.machine.device = "llama".to_owned();
        receipt.machine.library = Some(library.clone());
        receipt.kernels = [("Llama_CPU".to_owned(), 1)].into();
    };
    assert!(forge(&of_library).contains(&"kernels of the device"));
    let mut forged = sound.clone();
    of_library(&mut forged);
    let options = forged.options().unwrap();
    assert_eq!((options.device, options.gpu_precision), (Device::Llama, PrecisionMode::Fp32));
    forged.machine.library = None;
    forged.machine.gpu.as_mut().unwrap().attention = "auto".to_owned();
    assert!(forged.options().unwrap_err().contains("is no precision"));
    for name in ["attn_prefill_mma_f16", "rope_kv_append_f16"] {
        let found = forge(&|receipt| *receipt.kernels.get_mut(name).unwrap() += 1);
        assert_eq!(found, ["calls of kernels"], "{name}");
    }
}

fn refusal(options: &Options) -> String {
    let gguf = Gguf::from_static("model.gguf", DEMO).unwrap();
    Engine::load(gguf, options).unwrap_err().to_string()
}

fn refused() {
    for mode in LESSER {
        let cpu = refusal(&Options { device: Device::Cpu, ..of(mode) });
        assert!(cpu.contains("leave out --gpu-precision"), "{cpu}");
        for kv in [KvType::F32, KvType::Q8_0] {
            let error = refusal(&Options { kv, ..of(mode) });
            assert!(error.contains("--cache-type f16"), "{error}");
        }
        let error = refusal(&Options { gpu_passes: GpuPasses::Kernel, ..of(mode) });
        assert!(error.contains("leave out --gpu-passes kernel"), "{error}");
    }
    let kernel = Options { gpu_passes: GpuPasses::Kernel, ..of(PrecisionMode::Auto) };
    assert_eq!(load(DEMO, &kernel).attention(), PrecisionMode::Fp32);
    let auto = |kv| load(DEMO, &Options { kv, ..of(PrecisionMode::Auto) }).attention();
    assert_eq!([KvType::F32, KvType::Q8_0].map(auto), [PrecisionMode::Fp32; 2]);
    let cpu = load(DEMO, &Options { gpu_precision: PrecisionMode::Auto, ..on_cpu() });
    assert_eq!(cpu.attention(), PrecisionMode::Fp32);
}

fn several() {
    for mode in LESSER {
        let both = Options { beside: vec![Device::Cuda(1)], ..of(mode) };
        let error = refusal(&both);
        assert!(error.contains("devices of one compute capability"), "{error}");
        let auto = Options { gpu_precision: PrecisionMode::Auto, ..both };
        assert_eq!(load(DEMO, &auto).attention(), PrecisionMode::Fp32);
        assert_eq!(load(DEMO, &Options { device: Device::Cuda(1), ..of(mode) }).attention(), mode);
    }
}

fn older() {
    for mode in LESSER {
        let error = refusal(&of(mode));
        assert!(error.contains("8.0 at least"), "{error}");
    }
    let auto = load(DEMO, &of(PrecisionMode::Auto));
    assert_eq!((auto.attention(), auto.cache_kind().as_str()), (PrecisionMode::Fp32, "f16"));
}
