//! Receipts of what a GPU computed.

use bitnet_inference::receipt::{Around, Receipt, Verdict, verify};
use bitnet_inference::{CHUNK, Engine, Generation, GpuPasses, Options, Request, Sampling};
use bitnet_kernels::Device;
use fake_cuda::cases::{Case, Library};

use crate::common::{DEMO, load};
use crate::{models, on_gpu, prompt};

pub(crate) const CASES: &[Case] = &[
    ("receipts_hold_without_a_gpu", Library::Fake, "", hold),
    ("receipts_of_older_devices_hold", Library::Fake, "cc=7.5", hold),
    ("receipts_of_passes_in_one_kernel_hold", Library::Fake, "", in_one_kernel),
    ("receipts_of_other_architectures_hold", Library::Fake, "", architectures),
    ("tokens_that_the_device_chooses_are_counted", Library::Fake, "", chosen),
    ("forged_receipts_do_not_hold", Library::Fake, "", forged),
];

pub(crate) fn receipt(engine: &Engine, prompt: Vec<u32>, limit: usize) -> Receipt {
    receipt_of(engine, Request::new(prompt, Sampling::default(), limit))
}

fn receipt_of(engine: &Engine, request: Request) -> Receipt {
    let mut generation = Generation::new(engine, request).unwrap();
    while generation.next(|| false).unwrap().is_some() {}
    Receipt::new(engine, &mut generation, Around::default()).unwrap()
}

/// What is wrong with a receipt.
pub(crate) fn wrong(verdict: &Verdict) -> Vec<&'static str> {
    verdict.checks.iter().filter(|check| check.wrong.is_some()).map(|check| check.what).collect()
}

/// The same of a device that there could be.
pub(crate) fn real(receipt: &Receipt) -> Receipt {
    let mut real = receipt.clone();
    let gpu = real.machine.gpu.as_mut().unwrap();
    gpu.uuid = "1234567890abcdef".repeat(2);
    real.sha256 = real.digest();
    real
}

fn hold() {
    let engine = load(DEMO, &on_gpu());
    for (tokens, limit) in [(1, 3), (9, 1), (20, 0), (129, 1)] {
        let receipt = receipt(&engine, prompt(tokens), limit);
        // The driver of this test is known for what it is.
        assert_eq!(wrong(&verify(&receipt, None).unwrap()), ["kernels of the device"]);
        let real = real(&receipt);
        assert!(verify(&real, None).unwrap().holds(), "{}", verify(&real, None).unwrap());
        // Any processor can run it again.
        let options = Options { threads: Some(1), ..real.options().unwrap() };
        assert_eq!(options.device, Device::Cpu);
        let again = verify(&real, Some(&load(DEMO, &options))).unwrap();
        assert!(again.holds() && again.rerun, "{again}");
    }
}

fn architectures() {
    for name in ["1bitllm", "llama", "qwen3"] {
        let engine = Engine::open(models::folder(name), &on_gpu()).unwrap();
        let ids = prompt(9).into_iter().map(|id| id % 96).collect();
        let real = real(&receipt(&engine, ids, 3));
        let verdict = verify(&real, None).unwrap();
        assert!(verdict.holds(), "{name}: {verdict}");
    }
}

fn in_one_kernel() {
    let engine = load(DEMO, &Options { gpu_passes: GpuPasses::Kernel, ..on_gpu() });
    // The last has a prompt that ends in a pass of one row.
    for (tokens, limit, passes) in [(1, 3, 3), (9, 3, 2), (CHUNK as u32 + 1, 2, 2)] {
        let real = real(&receipt(&engine, prompt(tokens), limit));
        assert_eq!(real.kernels["i2s_gpu_megadecode"], passes);
        let options = Options { threads: Some(1), ..real.options().unwrap() };
        let verdict = verify(&real, Some(&load(DEMO, &options))).unwrap();
        assert!(verdict.holds(), "{verdict}");
        // They have attention in single precision.
        let mut forged = real.clone();
        forged.machine.gpu.as_mut().unwrap().attention = "fp16".to_owned();
        forged.sha256 = forged.digest();
        assert_eq!(wrong(&verify(&forged, None).unwrap()), ["calls of kernels"]);
        for change in [1, -1] {
            let mut forged = real.clone();
            let launches = forged.kernels.get_mut("i2s_gpu_megadecode").unwrap();
            *launches = launches.wrapping_add_signed(change);
            forged.sha256 = forged.digest();
            assert_eq!(wrong(&verify(&forged, None).unwrap()), ["calls of kernels"]);
        }
    }
}

/// Texts go on on the device, from the second token on and up to the last.
fn chosen() {
    let engine = load(DEMO, &on_gpu());
    for sampling in [Sampling::greedy(), Sampling { seed: 3, ..Sampling::default() }] {
        let request = Request { ignore_end: true, ..Request::new(prompt(9), sampling, 6) };
        let real = real(&receipt_of(&engine, request));
        assert_eq!(real.kernels["sample_draw"], 4);
        assert_eq!(real.kernels["step_advance"], 4);
        assert_eq!(real.machine.gpu.as_ref().unwrap().dropped_passes, 0);
        let options = Options { threads: Some(1), ..real.options().unwrap() };
        let verdict = verify(&real, Some(&load(DEMO, &options))).unwrap();
        assert!(verdict.holds(), "{verdict}");
    }
}

fn forged() {
    let engine = load(DEMO, &on_gpu());
    let sound = real(&receipt(&engine, prompt(12), 3));
    let forge = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = sound.clone();
        change(&mut receipt);
        receipt.sha256 = receipt.digest();
        wrong(&verify(&receipt, None).unwrap())
    };
    assert!(forge(&|_| {}).is_empty());
    assert_eq!(sound.kernels["gemv_head_i8_mma"], 3);
    // What the sampler asks for depends on the logits.
    for name in sound.kernels.keys().filter(|name| *name != "sample_topk") {
        let found = forge(&|receipt| *receipt.kernels.get_mut(name).unwrap() += 1);
        assert_eq!(found, ["calls of kernels"], "{name}");
        // Without scans all of the output layer would have been read.
        let found = forge(&|receipt| _ = receipt.kernels.remove(name));
        assert_eq!(found[0], "calls of kernels", "{name}");
    }
    // Sums of numbers that nothing has are no numbers that something has.
    for (name, calls) in [("embed_bf16", 1 << 63), ("rmsnorm_quant_i8", u64::MAX)] {
        let found = forge(&|receipt| _ = receipt.kernels.insert(name.to_owned(), calls));
        assert!(!found.is_empty(), "{name}");
    }
    let found = forge(&|receipt| receipt.model.matrices[6].cols = u64::MAX);
    assert!(!found.is_empty());
    let device = ["kernels of the device"];
    assert_eq!(forge(&|receipt| receipt.machine.device = "cpu".to_owned()), device);
    assert_eq!(forge(&|receipt| receipt.machine.gpu.as_mut().unwrap().ptx_sha256.clear()), device);
    assert_eq!(
        forge(&|receipt| receipt.machine.gpu.as_mut().unwrap().compute_capability = "7.5".into()),
        device
    );
    let found = forge(&|receipt| receipt.machine.gpu.as_mut().unwrap().target = "sm_61".into());
    assert_eq!(found, ["kernels of the device", "calls of kernels", "bytes of weights"]);
    assert_eq!(forge(&|receipt| receipt.read.decode.linear += 1), ["bytes of weights"]);
    // Kernels of the processor did not compute.
    let found = forge(&|receipt| _ = receipt.kernels.insert("norm_f32_scalar".to_owned(), 1));
    assert!(!found.is_empty());
}
