//! What is found of drivers and devices.

use bitnet_gpu::CudaComputeCapability;
use bitnet_gpu::cuda::{Error, Gpu, Probe};

use fake_cuda::cases::{Case, Library};

pub(crate) const CASES: &[Case] = &[
    ("no_driver", Library::Nothing, "", || {
        assert_eq!(Probe::run(), Probe::NoDriver);
        let error = Gpu::open(0).unwrap_err().to_string();
        assert!(error.contains("no NVIDIA driver") && error.contains("LD_LIBRARY_PATH"), "{error}");
    }),
    ("another_library_under_its_name", Library::Foreign, "", || {
        assert_eq!(Probe::run(), Probe::NotADriver { missing: "cuInit" });
        assert!(Gpu::open(0).unwrap_err().to_string().contains("no driver of NVIDIA"));
    }),
    ("no_device", Library::Fake, "devices=0", || {
        assert_eq!(Probe::run(), Probe::NoDevice);
        assert!(Gpu::open(0).unwrap_err().to_string().contains("CUDA_VISIBLE_DEVICES"));
    }),
    ("a_driver_that_is_too_old", Library::Fake, "driver=12020", || {
        assert_eq!(Probe::run(), Probe::DriverTooOld { version: 12_020 });
        let error = Gpu::open(0).unwrap_err().to_string();
        assert!(error.contains("knows CUDA 12.2, and 12.4 is needed"), "{error}");
    }),
    ("a_driver_that_does_not_start", Library::Fake, "fail=cuInit:1:999", || {
        let Probe::InitFailed { code: 999, name } = Probe::run() else { panic!() };
        assert_eq!(name, "CUDA_ERROR_UNKNOWN");
    }),
    ("a_driver_that_fails_later", Library::Fake, "fail=cuDeviceGetName:1:101", || {
        assert!(matches!(Probe::run(), Probe::InitFailed { code: 101, .. }));
    }),
    ("devices", Library::Fake, "devices=2 cc=8.6 memory=123456789", || {
        let Probe::Devices { driver: 12_040, devices } = Probe::run() else { panic!() };
        assert_eq!(devices.len(), 2);
        let second = &devices[1];
        assert_eq!((second.device_id, second.name.as_str()), (1, "Fake GPU 1"));
        assert_eq!(second.uuid, "face0000000000000000000000000001");
        assert_eq!(
            (second.compute_capability, second.total_memory),
            (CudaComputeCapability::new(8, 6), 123_456_789)
        );
        assert_eq!((second.supports_fp16, second.supports_bf16), (true, true));
        assert_eq!((devices[0].peers.as_slice(), second.peers.as_slice()), (&[1][..], &[0][..]));
        // As an H200 would say.
        assert_eq!(second.memory_bandwidth, 2 * 2_619_000_000 * 5120 / 8);
        let error = Gpu::open(2).unwrap_err();
        assert_eq!(error, Error::NoSuchDevice { number: 2, count: 2 });
    }),
    ("devices_that_cannot_reach_each_other", Library::Fake, "devices=2 peers=no", || {
        assert!(Probe::run().devices().iter().all(|device| device.peers.is_empty()));
    }),
    ("a_device_that_is_too_old", Library::Fake, "cc=5.2", || {
        let error = Gpu::open(0).unwrap_err().to_string();
        assert!(error.contains("has compute capability 5.2; 6.1 is the least"), "{error}");
    }),
    ("kernels_are_those_of_the_device", Library::Fake, "cc=7.5", || {
        let gpu = Gpu::open(0).unwrap();
        assert_eq!(gpu.target().0, "sm_61");
        assert!(gpu.has(bitnet_gpu::kernels::KernelId::GemvDp4a));
        assert!(!gpu.has(bitnet_gpu::kernels::KernelId::GemvMma));
    }),
    ("one_generation_has_kernels_that_no_other_has", Library::Fake, "cc=9.0", || {
        let gpu = Gpu::open(0).unwrap();
        assert_eq!(gpu.target(), ("sm_90a", CudaComputeCapability::new(9, 0)));
        assert!(gpu.has(bitnet_gpu::kernels::KernelId::GemmWgmma));
    }),
    ("later_generations_have_those_of_all", Library::Fake, "cc=10.0", || {
        let gpu = Gpu::open(0).unwrap();
        assert_eq!(gpu.target(), ("sm_80", CudaComputeCapability::new(8, 0)));
        assert!(!gpu.has(bitnet_gpu::kernels::KernelId::GemmWgmma));
    }),
    ("kernels_that_the_driver_refuses", Library::Fake, "fail=cuModuleLoadDataEx:1:218", || {
        let error = Gpu::open(0).unwrap_err();
        assert!(matches!(error, Error::Module { code: 218, .. }), "{error}");
        assert!(error.to_string().contains("CUDA_ERROR_INVALID_PTX"), "{error}");
    }),
];
