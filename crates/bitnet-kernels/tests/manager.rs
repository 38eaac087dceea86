//! Every question about kernels, asked on whatever processor this is.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

use std::env::consts::ARCH;

use bitnet_kernels::manager::{
    Because, Choice, KernelBackend, KernelRequirements, Matrix, Priority, Tuned,
};
use bitnet_kernels::op::{AddFn, GemmFn, GemvFn, HeadFn, NormFn};
use bitnet_kernels::{
    Cpu, DataType, Device, Format, Isa, KERNELS, KernelId, KernelManager, Line, Operation, Reason,
};

/// What the processor has not, or the build is not for.
fn missing(isa: Isa) -> bool {
    !Cpu::detect().has(isa)
}

fn best() -> Isa {
    *Cpu::detect().isas().last().unwrap()
}

fn id(name: &str) -> KernelId {
    name.parse().unwrap()
}

fn choices(names: &[&str]) -> Vec<Choice> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn matrix(format: Format, rows: usize, cols: usize) -> Matrix {
    Matrix { format: Some(format), rows, cols }
}

/// The brief's first test of its registry.
#[test]
fn test_kernel_registration() {
    let manager = KernelManager::new();
    for format in [Format::I2S, Format::Tl1] {
        for operation in [Operation::Gemv, Operation::Gemm] {
            assert!(manager.has_kernel_for(Device::Cpu, format, operation, DataType::Q8));
        }
    }
}

/// The brief's second: the answer depends on the hardware, and is a reason where it is no.
#[test]
fn test_cuda_kernel_availability() {
    let manager = KernelManager::new();
    let answer = manager.kernel_for(Device::Cuda(0), Format::I2S, Operation::Gemm, DataType::Q8);
    let error = answer.unwrap_err();
    assert_eq!(error.reasons, [(None, Reason::NotCompiled { device: Device::Cuda(0) })]);
    assert_eq!(
        error.to_string(),
        "no gemm kernel for i2s weights on cuda:0: these are the kernels of cpu: cuda:0 has its own, \
         which whole models are loaded for"
    );
}

/// The brief's third: weights of an unknown format.
#[test]
fn test_unsupported_combination() {
    let manager = KernelManager::default();
    for operation in [Operation::Gemv, Operation::Gemm, Operation::Head] {
        let data = operation.data();
        assert!(!manager.has_kernel_for(Device::Cpu, None, operation, data), "{operation}");
    }
}

#[test]
fn every_format_has_kernels_under_every_limit() {
    for &isa in Cpu::detect().isas() {
        let manager = KernelManager::new().limit(isa).unwrap();
        assert_eq!(manager.cpu().isas().last(), Some(&isa));
        for line in KERNELS {
            let Line { operation, format, .. } = *line;
            let chosen = manager.kernel_for(Device::Cpu, format, operation, operation.data());
            let chosen = chosen.unwrap().kernel;
            assert_eq!((chosen.operation(), chosen.format()), (operation, format));
            // The best of the line that the limit allows.
            let want = line.kernels.iter().rfind(|kernel| kernel.isa().within(isa)).unwrap();
            assert_eq!(chosen.id(), want.id());
        }
        for format in Format::TERNARY {
            let product = manager.product(matrix(format, 256, 256)).unwrap();
            assert_eq!(product.layout, Format::I2SR32);
            assert_eq!((product.gemv.kernel.isa(), product.gemm.kernel.isa()), (isa, isa));
            for layout in Format::PACKED {
                let manager = manager.clone().limit_layout(layout);
                let product = manager.product(matrix(format, 256, 256)).unwrap();
                assert_eq!(product.layout, layout);
                assert_eq!(product.gemv.kernel.format(), Some(layout));
                assert_eq!(product.gemm.kernel.format(), Some(layout));
            }
        }
    }
}

#[test]
fn a_limit_that_the_processor_lacks_is_refused() {
    for isa in Isa::ALL {
        match KernelManager::new().limit(isa) {
            Ok(manager) => assert_eq!(manager.cpu().isas().last(), Some(&isa)),
            Err(error) => assert!(missing(isa) && error.wanted == isa),
        }
    }
}

#[test]
fn every_kernel_says_why_it_does_not_run() {
    let manager = KernelManager::new().limit(Isa::Scalar).unwrap();
    for id in KERNELS.iter().flat_map(Line::ids) {
        let why = manager.availability(id);
        match id.isa.arch() {
            None => assert_eq!(why, Ok(())),
            Some(arch) if arch != ARCH => {
                assert_eq!(why, Err(Reason::Architecture { needs: arch }))
            }
            Some(_) if missing(id.isa) => assert_eq!(why, Err(Reason::Lacks { isa: id.isa })),
            Some(_) => assert_eq!(why, Err(Reason::Excluded { limit: Isa::Scalar })),
        }
    }
    let said = |reason: Reason| reason.to_string();
    assert_eq!(said(Reason::Lacks { isa: Isa::Avx512Vnni }), "CPU lacks avx512vnni");
    assert_eq!(said(Reason::Excluded { limit: Isa::Avx2 }), "excluded by --isa avx2");
    assert!(said(Reason::Architecture { needs: "sparc" }).contains("it is for sparc"));
}

#[test]
fn questions_that_make_no_sense_are_answered_with_what_would() {
    let manager = KernelManager::new();
    let ask = |format: Option<Format>, operation, data| {
        manager.kernel_for(Device::Cpu, format, operation, data).unwrap_err().to_string()
    };
    assert_eq!(
        ask(Some(Format::F16), Operation::Gemv, DataType::Q8),
        "no gemv kernel for f16 weights on cpu: it takes weights in i2s, tq1_0, tq2_0, tl1, tl2, \
         iq1_bn, iq2_bn, iq2_bn_r4, bitnet32_f16, hf_packed, i2s_arm, i2s_r4"
    );
    assert_eq!(
        ask(Some(Format::I2S), Operation::Gemv, DataType::F32),
        "no gemv kernel for i2s weights on cpu: it takes activations in q8"
    );
    assert_eq!(
        ask(Some(Format::F32), Operation::Norm, DataType::F32),
        "no norm kernel for f32 weights on cpu: it takes no weights"
    );
    assert_eq!(
        ask(None, Operation::Head, DataType::F32),
        "no head kernel on cpu: it takes weights in f32, f16, bf16, q8_0, q6_k, iq2_s, \
         q4_0, q4_k, q2_0, q2_0_g128"
    );
    let metal = manager.kernel_for(Device::Metal, None, Operation::Norm, DataType::F32);
    assert!(metal.unwrap_err().to_string().contains("no kernels for metal"));
    let error = manager.select::<GemvFn>(Some(Format::Q8_0)).unwrap_err();
    assert_eq!((error.operation, error.format), (Operation::Gemv, Some(Format::Q8_0)));
}

#[test]
fn shapes_decide_what_is_compatible() {
    let manager = KernelManager::new();
    let cols =
        |cols, priority| KernelRequirements::product(Format::Tl1, [1, cols], [1, 64], priority);
    // 2496 is a multiple of 8 but not of 128; 2500 is none of 8, as TL1 needs.
    for (width, layouts) in [(2560, 2), (2496, 2), (2500, 0)] {
        for priority in [Priority::Latency, Priority::Throughput] {
            let wanted = cols(width, priority);
            let found = manager.find_compatible_kernels(&wanted);
            assert_eq!(found.len(), layouts * Cpu::detect().isas().len());
            let chosen = manager.select_best_kernel(&wanted);
            match found.first() {
                Some(first) => {
                    let chosen = chosen.unwrap();
                    assert_eq!(chosen.kernel.id(), first.kernel.id());
                    assert_eq!(chosen.because, Because::Best);
                    assert_eq!(chosen.kernel.isa(), best());
                }
                None => {
                    let error = chosen.unwrap_err();
                    assert!(error.to_string().contains("a multiple of 8"), "{error}");
                }
            }
        }
    }
    let many = |operation| KernelRequirements {
        operation,
        input: [7, 256],
        ..cols(256, Priority::Latency)
    };
    let error = manager.select_best_kernel(&many(Operation::Gemv)).unwrap_err();
    assert!(error.to_string().contains("not 7: ask for gemm"), "{error}");
    assert!(manager.select_best_kernel(&many(Operation::Gemm)).is_ok());
    let head = |cols| KernelRequirements {
        device: Device::Cpu,
        operation: Operation::Head,
        format: Some(Format::Q6K),
        data: DataType::F32,
        input: [1, cols],
        output: [1, 1000],
    };
    assert!(manager.select_best_kernel(&head(2560)).is_ok());
    assert!(manager.select_best_kernel(&head(2570)).is_err());
    let norm = KernelRequirements { operation: Operation::Norm, format: None, ..head(7) };
    assert!(manager.select_best_kernel(&norm).is_ok());
}

#[test]
fn a_matrix_that_files_do_not_hold_is_refused() {
    let manager = KernelManager::new();
    let error = manager.product(matrix(Format::Tl1, 64, 2500)).unwrap_err();
    assert_eq!((error.operation, error.format), (Operation::Gemv, Some(Format::Tl1)));
    assert_eq!(
        error.to_string(),
        "no gemv kernel for tl1 weights on cpu: 2500 columns are not a multiple of 8, as tl1 needs"
    );
    for (format, rows, cols, said) in [
        (Format::Tq2_0, 96, 5460, "5460 columns are not a multiple of 256, as tq2_0 needs"),
        (Format::Iq2BnR4, 66, 256, "66 rows are not a multiple of 4, as iq2_bn_r4 needs"),
        (Format::I2S, 3, 64, "3 x 64 weights are not a multiple of 128, as i2s needs"),
    ] {
        let error = manager.product(matrix(format, rows, cols)).unwrap_err().to_string();
        assert_eq!(error, format!("no gemv kernel for {format} weights on cpu: {said}"));
    }
    for (format, rows, cols) in
        [(Format::Tl1, 64, 2496), (Format::I2S, 96, 5460), (Format::HfPacked, 64, 8641)]
    {
        let product = manager.product(matrix(format, rows, cols)).unwrap();
        assert_eq!(product.layout, Format::I2SR32, "{format} {rows} x {cols}");
    }
    for format in [None, Some(Format::F16)] {
        let error =
            KernelManager::new().product(Matrix { format, rows: 1, cols: 128 }).unwrap_err();
        assert!(error.to_string().contains("it takes weights in i2s"), "{error}");
    }
}

#[test]
fn what_a_user_prefers_comes_first() {
    let mut manager = KernelManager::new();
    manager
        .set_backend_preference(&choices(&["norm_f32_scalar", "GEMV_TL2_R32_Q8_SCALAR"]))
        .unwrap();
    assert_eq!(manager.select::<NormFn>(None).unwrap().kernel.isa(), Isa::Scalar);
    // Others of the same operation are out, other operations as they were.
    assert_eq!(manager.availability(id("norm_f32_scalar")), Ok(()));
    assert_eq!(manager.availability(id("gemv_i2s_r32_q8_scalar")), Err(Reason::NotPreferred));
    let add = manager.select::<AddFn>(None).unwrap().kernel.isa();
    assert_eq!(add, KernelManager::new().select::<AddFn>(None).unwrap().kernel.isa());
    // A matrix is packed as the preferred gemv reads it, and gemm follows.
    let product = manager.product(matrix(Format::I2S, 64, 256)).unwrap();
    assert_eq!(product.layout, Format::Tl2R32);
    assert_eq!((product.gemv.kernel.isa(), product.gemm.kernel.isa()), (Isa::Scalar, best()));
    let handle = manager
        .select_best_kernel(&KernelRequirements::product(
            Format::I2S,
            [1, 256],
            [1, 64],
            Priority::Latency,
        ))
        .unwrap();
    assert_eq!(handle.because, Because::Preferred);
    let packed = manager.clone().limit_layout(Format::I2SR32);
    let error = packed.product(matrix(Format::I2S, 64, 256)).unwrap_err();
    assert!(error.to_string().contains("excluded by --kernel"), "{error}");
    let mut other = KernelManager::new().limit_layout(Format::I2SR32);
    let error = other.set_backend_preference(&choices(&["gemv_tl2_r32_q8_scalar"])).unwrap_err();
    assert!(error.to_string().contains("excluded by --layout i2s_r32"), "{error}");
    // A new preference takes the place of the old one.
    manager.set_backend_preference(&[]).unwrap();
    assert_eq!(manager.select::<GemvFn>(Some(Format::I2SR32)).unwrap().kernel.isa(), best());
}

/// The brief's own example: a GPU first, then AVX2, then whatever runs.
#[test]
fn preferences_are_tried_in_order() {
    let mut manager = KernelManager::new();
    let wanted = ["I2S_QK256_CUDA", "I2S_QK256_AVX2", "i2s_qk256_scalar"];
    manager.set_backend_preference(&choices(&wanted)).unwrap();
    let used = [id("gemv_i2s_r32_q8_scalar")];
    let without = manager.without_effect(&choices(&wanted), &used);
    assert_eq!(without[0], (choices(&wanted)[0], Reason::OnGpu));
    assert_eq!(without.len(), 1 + usize::from(missing(Isa::Avx2)));
    // Products in any layout are one subject; other operations are, with weights of a format.
    let others = ["gemm_tl2_r32_q8_scalar", "norm_f32_scalar", "attend_f16_scalar"];
    let used = ["gemv_i2s_r32_q8_scalar", "attend_q8_0_scalar"].map(id);
    let without = KernelManager::new().without_effect(&choices(&others), &used);
    assert_eq!(without, [1, 2].map(|i| (choices(&others)[i], Reason::Unused)));
    let product = manager.product(matrix(Format::I2S, 64, 256)).unwrap();
    let cpu = Cpu::detect();
    let want = [Isa::AvxVnni, Isa::Avx2, Isa::Scalar].into_iter().find(|&isa| cpu.has(isa));
    assert_eq!(Some(product.gemv.kernel.isa()), want);
    assert_eq!(Some(product.gemm.kernel.isa()), want);
}

#[test]
fn preferences_that_cannot_be_are_refused_and_change_nothing() {
    let mut manager = KernelManager::new();
    let mut refused = |names: &[&str]| {
        let error = manager.set_backend_preference(&choices(names)).unwrap_err();
        let norm = manager.select::<NormFn>(None).unwrap().kernel.isa();
        assert_eq!(norm, KernelManager::new().select::<NormFn>(None).unwrap().kernel.isa());
        error
    };
    let error = refused(&["I2S_QK256_CUDA", "Llama_CPU", "norm_f32_scalar"]);
    assert_eq!([&error.refused[0].1, &error.refused[1].1], [&Reason::OnGpu, &Reason::Absent]);
    assert_eq!(error.refused.len(), 2);
    assert!(error.available.contains(&id("gemv_i2s_r32_q8_scalar")));
    assert!(error.available.iter().all(|id| id.operation.is_product() && !missing(id.isa)));
    assert!(error.to_string().contains("those that can run are gemv_i2s_r32_q8_scalar"), "{error}");
    let foreign = if ARCH == "aarch64" { "add_f32_avx2" } else { "add_f32_neon" };
    let error = refused(&[foreign]);
    assert!(matches!(error.refused[..], [(_, Reason::Architecture { .. })]), "{error:?}");
    assert!(error.available.iter().all(|id| id.operation == Operation::Add));
    let error = refused(&["gemv_i2s_r32_q8_scalar", "gemm_tl2_r32_q8_scalar"]);
    assert!(error.to_string().contains("name kernels of one layout"), "{error}");

    let mut scalar = KernelManager::new().limit(Isa::Scalar).unwrap();
    let better = best();
    if better != Isa::Scalar {
        let wanted = Choice::Kernel(KernelId { isa: better, ..id("gemv_i2s_r32_q8_scalar") });
        let error = scalar.set_backend_preference(&[wanted]).unwrap_err();
        assert_eq!(error.refused, [(wanted, Reason::Excluded { limit: Isa::Scalar })]);
    }
}

#[test]
fn names_of_kernels_and_families_parse() {
    for backend in KernelBackend::ALL {
        assert_eq!(backend.name().parse(), Ok(Choice::Backend(backend)));
        assert_eq!(Choice::Backend(backend).to_string(), backend.name());
        for id in backend.kernels() {
            assert_eq!(id.to_string().parse(), Ok(Choice::Kernel(id)), "kernels of {backend}");
            assert_eq!(Choice::Kernel(id).to_string(), id.to_string());
        }
    }
    let none = KernelBackend::ALL.into_iter().filter(|backend| backend.kernels().is_empty());
    let none: Vec<_> = none.map(KernelBackend::name).collect();
    assert_eq!(none, ["IQ2S_GGML_CUDA", "I2S_QK256_CUDA", "Llama_CUDA", "Llama_CPU"]);
    let error = "I2S_QK256_SSE9".parse::<Choice>().unwrap_err().to_string();
    assert!(error.contains("`I2S_QK256_SSE9`; this processor runs gemv_i2s_r32_q8_scalar"));
}

#[test]
fn families_of_output_layers_can_be_preferred() {
    let mut manager = KernelManager::new();
    manager.set_backend_preference(&choices(&["IQ2S_GGML_CPU", "head_f16_f32_scalar"])).unwrap();
    let head = |format| manager.select::<HeadFn>(Some(format)).unwrap().kernel.isa();
    assert_eq!(head(Format::F16), Isa::Scalar);
    let free = KernelManager::new();
    let best = free.select::<HeadFn>(Some(Format::Iq2S)).unwrap().kernel.isa();
    assert_eq!((head(Format::Iq2S), head(Format::Bf16)), (best, best));
}

#[test]
fn what_was_measured_decides_where_the_user_does_not() {
    let tuned = |operation, rows, cols, names: &[&str]| Tuned {
        operation,
        rows,
        cols,
        kernels: names.iter().map(|name| id(name)).collect(),
    };
    let mut manager = KernelManager::new();
    manager.set_tuned(vec![
        tuned(Operation::Gemv, 64, 256, &["gemv_tl2_r32_q8_neon", "gemv_tl2_r32_q8_scalar"]),
        tuned(Operation::Gemm, 64, 256, &["gemm_i2s_r32_q8_scalar", "gemm_tl2_r32_q8_scalar"]),
    ]);
    let names = |manager: &KernelManager, rows| {
        let product = manager.product(matrix(Format::I2S, rows, 256)).unwrap();
        [product.gemv.kernel.to_string(), product.gemm.kernel.to_string()]
    };
    let plain = names(&KernelManager::new(), 64);
    // A measured kernel that does not run here is passed over; gemm follows the layout of gemv.
    let first = if missing(Isa::Neon) { "gemv_tl2_r32_q8_scalar" } else { "gemv_tl2_r32_q8_neon" };
    assert_eq!(names(&manager, 64), [first, "gemm_tl2_r32_q8_scalar"]);
    assert_eq!(names(&manager, 65), plain);
    let wanted = KernelRequirements::product(Format::I2S, [1, 256], [1, 64], Priority::Latency);
    assert_eq!(manager.select_best_kernel(&wanted).unwrap().because, Because::Tuned);
    manager.set_backend_preference(&choices(&["gemv_i2s_r32_q8_scalar"])).unwrap();
    assert_eq!(names(&manager, 64), ["gemv_i2s_r32_q8_scalar", "gemm_i2s_r32_q8_scalar"]);
    // What was measured holds for kernels of its own operation.
    let gemm = manager.select::<GemmFn>(Some(Format::I2SR32)).unwrap();
    assert_eq!(gemm.kernel.isa(), best());
}
