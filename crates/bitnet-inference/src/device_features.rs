//! What this build was compiled for, and what the machine has.

use std::{env, iter};

use bitnet_gpu::kernels::{GpuPasses, KernelId, Needs, TARGETS, target_of};
use bitnet_gpu::{CudaComputeCapability, PrecisionMode};
use bitnet_kernels::manager::KernelBackend;
use bitnet_kernels::{Device, Devices, Isa, KernelManager, Operation, kernels};

use crate::{Options, gpu};

/// The environment variable that makes [`gpu_available_runtime`] answer as if there were a GPU
/// (`cuda` or `gpu`, in any case), or none (anything else): to test what follows from the answer.
/// Nothing else changes: a GPU that is not there cannot be opened, and receipts say that the
/// variable was set and never verify.
pub const GPU_FAKE: &str = "BITNET_GPU_FAKE";

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// This build has no kernels for it.
    #[error("{device} is not available: not compiled with `{feature}`: {hint}")]
    NotCompiled {
        /// The device.
        device: Device,
        /// What is missing in the build.
        feature: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The machine does not have it.
    #[error("{device} is not available: {reason}")]
    NotAvailableRuntime {
        /// The device.
        device: Device,
        /// Why not.
        reason: String,
    },
    /// It cannot do what is asked for.
    #[error("{device} does not do this: {what}")]
    Unsupported {
        /// The device.
        device: Device,
        /// What is asked for, and what to do.
        what: &'static str,
    },
    /// It does not run a kernel.
    #[error(
        "{device} does not run {kernel}, which needs {needs}: it has {has}{}",
        if *.cooperative { "" } else { " without cooperative launches" }
    )]
    NoKernel {
        /// The device.
        device: Device,
        /// The kernel.
        kernel: &'static str,
        /// Devices that run it.
        needs: Needs,
        /// The compute capability of this one.
        has: CudaComputeCapability,
        /// Whether this one takes cooperative launches.
        cooperative: bool,
    },
    /// It is named more than once.
    #[error("{device} is there twice: name each device once")]
    Twice {
        /// The device.
        device: Device,
    },
    /// It is only said to be there.
    #[error("{device} is not available: {GPU_FAKE} only says so; unset it")]
    Faked {
        /// The device.
        device: Device,
    },
}

impl DeviceError {
    pub(crate) const NO_EMBEDDINGS: DeviceError =
        DeviceError::Unsupported { device: Device::Llama, what: "embeddings; use --device cpu" };
}

/// Whether this build has kernels for GPUs.
#[must_use]
pub fn gpu_compiled() -> bool {
    Gpu::find().compiled
}

/// Whether a GPU can be used, or [`GPU_FAKE`] says so.
#[must_use]
pub fn gpu_available_runtime() -> bool {
    Gpu::find().available()
}

/// Whether a model can run on a device, if what [`gpu_available_runtime`] answers is true.
#[must_use]
pub fn supports_device(device: Device) -> bool {
    Gpu::find().supports(device)
}

/// Whether [`GPU_FAKE`] is set.
#[must_use]
pub fn gpu_faked() -> bool {
    Gpu::find().fake.is_some()
}

/// Refuses to run passes in ways that only GPUs have.
pub(crate) fn check_options(options: &Options) -> Result<(), DeviceError> {
    let &Options { device, gpu_passes, gpu_precision, .. } = options;
    let what = match (device, gpu_passes, gpu_precision) {
        (Device::Cuda(_), ..) => return Ok(()),
        (_, GpuPasses::Kernel, _) => "passes in one kernel; leave out --gpu-passes kernel",
        (.., PrecisionMode::Fp16 | PrecisionMode::Bf16) => {
            "attention in less than single precision; leave out --gpu-precision, or say auto"
        }
        (.., PrecisionMode::Fp32 | PrecisionMode::Auto) => return Ok(()),
    };
    Err(DeviceError::Unsupported { device, what })
}

/// Makes sure that a device is there.
///
/// # Errors
///
/// [`DeviceError`] where it is not.
pub fn open(device: Device) -> Result<(), DeviceError> {
    Gpu::find().open(device)
}

/// Makes sure that devices can have a model together: one of any kind, or several GPUs, each once.
pub(crate) fn open_all(device: Device, beside: &[Device]) -> Result<(), DeviceError> {
    let all = || iter::once(device).chain(beside.iter().copied());
    for (index, device) in all().enumerate() {
        if !beside.is_empty() && !matches!(device, Device::Cuda(_)) {
            let what = "one of several devices, which are all NVIDIA GPUs; name it alone";
            return Err(DeviceError::Unsupported { device, what });
        }
        if all().take(index).any(|other| other == device) {
            return Err(DeviceError::Twice { device });
        }
        open(device)?;
    }
    Ok(())
}

/// The devices that are meant. There is at least one; whether a model can run on it is not known yet.
///
/// # Errors
///
/// [`DeviceError`] where all GPUs are meant, and there are none.
pub fn resolve(devices: &Devices) -> Result<Vec<Device>, DeviceError> {
    match devices {
        Devices::These(devices) if !devices.is_empty() => Ok(devices.clone()),
        _ => {
            open(Device::Cuda(0))?;
            Ok((0..gpu::found().len()).map(Device::Cuda).collect())
        }
    }
}

/// The kernel that multiplies so many rows of 8-bit activations by a ternary matrix on a GPU. It is known by the generation
/// of the GPU, which is not opened.
///
/// # Errors
///
/// [`DeviceError`] where there is no such GPU, or it is too old.
pub fn select_gpu_kernel(number: usize, rows: usize) -> Result<KernelId, DeviceError> {
    let device = Device::Cuda(number);
    open(device)?;
    product_on(device, &gpu::found(), rows)
}

/// The same, of GPUs that there are.
fn product_on(device: Device, found: &[Found], rows: usize) -> Result<KernelId, DeviceError> {
    let mut numbered = (0..).map(Device::Cuda).zip(found);
    let Some((_, &here)) = numbered.find(|(number, _)| *number == device) else {
        let reason = format!("this machine has {} such devices", found.len());
        return Err(DeviceError::NotAvailableRuntime { device, reason });
    };
    // Whatever is too old for the oldest has none.
    let target = target_of(here.0).ok_or_else(|| no_kernel(KernelId::GemvDp4a, device, here))?;
    Ok(KernelId::product(TARGETS[target].1, rows, false))
}

/// A GPU: its generation, and whether it takes cooperative launches.
type Found = (CudaComputeCapability, bool);

/// A kernel for NVIDIA GPUs, and what runs it here.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuKernel {
    /// Which.
    pub id: KernelId,
    /// The GPUs of this machine that run it, by their generations; or why none does. None of them is opened.
    pub devices: Result<Vec<Device>, DeviceError>,
}

/// All kernels for NVIDIA GPUs, in the order of [`KernelId::ALL`], whether this build has them or not.
#[must_use]
pub fn gpu_kernels() -> Vec<GpuKernel> {
    Gpu::find().kernels(&gpu::found())
}

/// Those that run a kernel, of GPUs that there are; or why the best of them does not.
fn devices_for(id: KernelId, found: &[Found]) -> Result<Vec<Device>, DeviceError> {
    let runs =
        |(has, cooperative): Found| id.is_for(has) && (cooperative || !id.devices().cooperative);
    let numbered = || (0..).map(Device::Cuda).zip(found.iter().copied());
    let devices: Vec<_> =
        numbered().filter(|(_, here)| runs(*here)).map(|(device, _)| device).collect();
    match numbered().max_by_key(|(_, here)| *here) {
        Some((device, here)) if devices.is_empty() => Err(no_kernel(id, device, here)),
        _ => Ok(devices),
    }
}

fn no_kernel(id: KernelId, device: Device, (has, cooperative): Found) -> DeviceError {
    let (kernel, needs) = (id.name(), id.devices());
    DeviceError::NoKernel { device, kernel, needs, has, cooperative }
}

/// What this build and this machine can compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendCapabilities {
    /// Kernels in Rust for the processor: always.
    pub cpu_rust: bool,
    /// Kernels for NVIDIA GPUs, and one of these.
    pub cuda: bool,
    /// Libraries of C++ engines, where there are some.
    pub cpp_ffi: bool,
    /// Kernels that make ternary weights of others.
    pub quantization_kernels: bool,
}

/// What this build and this machine can compute with.
#[must_use]
pub fn detect_backends() -> BackendCapabilities {
    let manager = KernelManager::new();
    let has = |operation| {
        let format = kernels().find(|k| k.operation() == operation).and_then(|k| k.format());
        manager.has_kernel_for(Device::Cpu, format, operation, operation.data())
    };
    BackendCapabilities {
        cpu_rust: has(Operation::Gemv) && has(Operation::Gemm),
        cuda: supports_device(Device::Cuda(0)),
        cpp_ffi: supports_device(Device::Llama),
        quantization_kernels: has(Operation::Ternarize),
    }
}

/// What a loaded model can compute with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCapabilities {
    /// The families of kernels that may run.
    pub backends: Vec<KernelBackend>,
    /// Whether a GPU can be used.
    pub cuda_available: bool,
    /// The best instruction set in use.
    pub simd_level: Isa,
    /// Tokens that a sequence can hold.
    pub max_context_length: usize,
}

impl KernelCapabilities {
    pub(crate) fn new(manager: &KernelManager, context: usize) -> KernelCapabilities {
        KernelCapabilities {
            backends: backends(manager),
            cuda_available: supports_device(Device::Cuda(0)),
            simd_level: manager.best_isa(),
            max_context_length: context,
        }
    }

    /// Whether kernels of a family may run.
    #[must_use]
    pub fn is_capable_of(&self, backend: KernelBackend) -> bool {
        self.backends.contains(&backend)
    }
}

/// The families of kernels that may run, on GPUs too.
fn backends(manager: &KernelManager) -> Vec<KernelBackend> {
    let gpu = select_gpu_kernel(0, 1).is_ok().then_some(KernelBackend::I2sCuda);
    manager.backends().into_iter().chain(gpu).collect()
}

/// What is known of GPUs.
#[derive(Clone, Debug)]
struct Gpu {
    /// Whether the build has kernels for them.
    compiled: bool,
    /// Why there is none to compute with, if there is none. To know it starts the driver: only who asks for a GPU waits for that.
    missing: fn() -> Option<String>,
    /// What the environment says.
    fake: Option<String>,
}

impl Gpu {
    fn find() -> Gpu {
        Gpu {
            compiled: cfg!(feature = "cuda"),
            missing: gpu::missing,
            fake: env::var(GPU_FAKE).ok().filter(|value| !value.is_empty()),
        }
    }

    fn present(&self) -> bool {
        (self.missing)().is_none()
    }

    fn available(&self) -> bool {
        match self.fake.as_deref() {
            Some(fake) => fake.eq_ignore_ascii_case("cuda") || fake.eq_ignore_ascii_case("gpu"),
            None => self.present(),
        }
    }

    fn supports(&self, device: Device) -> bool {
        match device {
            Device::Cpu => true,
            Device::Cuda(_) => self.compiled && self.available(),
            Device::Llama => cfg!(feature = "ffi"),
            // Metal, and what is not known yet.
            _ => false,
        }
    }

    /// All kernels, of which some of these may run some.
    fn kernels(&self, found: &[Found]) -> Vec<GpuKernel> {
        let there = self.open(Device::Cuda(0));
        let kernel = |&id| {
            let devices = there.clone().and_then(|()| devices_for(id, found));
            GpuKernel { id, devices }
        };
        KernelId::ALL.iter().map(kernel).collect()
    }

    fn open(&self, device: Device) -> Result<(), DeviceError> {
        match device {
            Device::Cpu => Ok(()),
            Device::Llama if cfg!(feature = "ffi") => Ok(()),
            Device::Llama => Err(DeviceError::NotCompiled {
                device,
                feature: "ffi",
                hint: "build with --features ffi, or use --device cpu",
            }),
            Device::Cuda(_) if self.present() && self.compiled => Ok(()),
            Device::Cuda(_) if !self.present() && self.available() => {
                Err(DeviceError::Faked { device })
            }
            Device::Cuda(_) if self.compiled => Err(DeviceError::NotAvailableRuntime {
                device,
                reason: (self.missing)().unwrap_or_default(),
            }),
            _ => Err(DeviceError::NotCompiled {
                device,
                feature: if matches!(device, Device::Cuda(_)) { "gpu" } else { "metal" },
                hint: match device {
                    Device::Cuda(_) => "build with --features cuda, or use --device cpu",
                    _ => "there are no kernels for it; use --device cpu",
                },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA: Device = Device::Cuda(0);

    fn gpu(compiled: bool, present: bool, fake: Option<&str>) -> Gpu {
        let missing: fn() -> Option<String> = match present {
            true => || None,
            false => || Some("no CUDA device found; check nvidia-smi".to_owned()),
        };
        Gpu { compiled, missing, fake: fake.map(str::to_owned) }
    }

    #[test]
    fn a_gpu_is_supported_where_it_is_compiled_for_and_there() {
        for (compiled, present) in [(false, false), (false, true), (true, false), (true, true)] {
            let gpu = gpu(compiled, present, None);
            assert_eq!(gpu.available(), present);
            assert_eq!(gpu.supports(CUDA), compiled && present);
            assert_eq!(gpu.open(CUDA).is_ok(), compiled && present);
            assert!(gpu.supports(Device::Cpu) && gpu.open(Device::Cpu).is_ok());
            assert_eq!(gpu.supports(Device::Llama), cfg!(feature = "ffi"));
            assert_eq!(gpu.open(Device::Llama).is_ok(), cfg!(feature = "ffi"));
            assert!(!gpu.supports(Device::Metal) && gpu.open(Device::Metal).is_err());
        }
    }

    #[test]
    fn who_asks_for_no_gpu_does_not_wait_for_its_driver() {
        let missing = || panic!("nobody asks for a GPU");
        let gpu = Gpu { compiled: true, missing, fake: None };
        assert!(gpu.open(Device::Cpu).is_ok() && gpu.supports(Device::Cpu));
        assert!(gpu.open(Device::Metal).is_err() && !gpu.supports(Device::Metal));
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = gpu(false, true, None).open(CUDA).unwrap_err();
        assert!(matches!(error, DeviceError::NotCompiled { feature: "gpu", .. }));
        assert!(error.to_string().contains("use --device cpu"), "{error}");
        let error = gpu(true, false, None).open(CUDA).unwrap_err();
        assert!(matches!(error, DeviceError::NotAvailableRuntime { .. }));
        assert!(error.to_string().contains("check nvidia-smi"), "{error}");
        let error = gpu(true, true, None).open(Device::Metal).unwrap_err();
        assert!(matches!(error, DeviceError::NotCompiled { feature: "metal", .. }));
    }

    #[test]
    fn a_faked_gpu_is_said_to_be_there_and_cannot_be_opened() {
        for fake in ["cuda", "CUDA", "gpu", "Gpu"] {
            assert!(gpu(false, false, Some(fake)).available());
            assert!(!gpu(false, false, Some(fake)).supports(CUDA));
            assert!(gpu(true, false, Some(fake)).supports(CUDA));
            let error = gpu(true, false, Some(fake)).open(CUDA).unwrap_err();
            assert_eq!(error, DeviceError::Faked { device: CUDA });
        }
        // The other way round the answer changes too, and nothing else.
        let hidden = gpu(true, true, Some("none"));
        assert!(!hidden.available() && !hidden.supports(CUDA) && hidden.open(CUDA).is_ok());
    }

    #[test]
    fn several_devices_are_gpus_each_once() {
        let error = open_all(Device::Cpu, &[CUDA]).unwrap_err();
        assert!(matches!(error, DeviceError::Unsupported { device: Device::Cpu, .. }), "{error}");
        assert_eq!(open_all(Device::Cpu, &[]), Ok(()));
        // Without a GPU that is what is said first.
        if !supports_device(CUDA) {
            assert!(open_all(CUDA, &[CUDA]).is_err() && resolve(&Devices::AllCuda).is_err());
        }
        assert_eq!(
            resolve(&"cuda:3,1".parse().unwrap()),
            Ok(vec![Device::Cuda(3), Device::Cuda(1)])
        );
    }

    #[test]
    fn this_build_tells_what_it_has() {
        assert_eq!(gpu_compiled(), Gpu::find().compiled);
        let found = detect_backends();
        assert!(
            found.cpu_rust && found.quantization_kernels && found.cpp_ffi == cfg!(feature = "ffi")
        );
        assert_eq!(found.cuda, supports_device(CUDA));
        let kernels = gpu_kernels();
        assert!(kernels.iter().map(|kernel| &kernel.id).eq(KernelId::ALL));
        assert_eq!(select_gpu_kernel(0, 1).is_ok(), open(CUDA).is_ok());
        let manager = KernelManager::new();
        let families = KernelCapabilities::new(&manager, 1);
        assert_eq!(families.is_capable_of(KernelBackend::I2sCuda), open(CUDA).is_ok());
    }

    fn of(major: u32, minor: u32) -> Found {
        (CudaComputeCapability::new(major, minor), true)
    }

    #[test]
    fn kernels_of_gpus_run_or_say_why_not() {
        let why = |gpu: Gpu| {
            let kernels = gpu.kernels(&[]);
            assert!(kernels.iter().map(|kernel| &kernel.id).eq(KernelId::ALL));
            let mut reasons = kernels.into_iter().map(|kernel| kernel.devices.unwrap_err());
            let first = reasons.next().unwrap();
            assert!(reasons.all(|other| other == first));
            first
        };
        assert!(matches!(why(gpu(false, false, None)), DeviceError::NotCompiled { .. }));
        assert!(matches!(why(gpu(true, false, None)), DeviceError::NotAvailableRuntime { .. }));
        assert!(matches!(why(gpu(true, false, Some("cuda"))), DeviceError::Faked { .. }));

        let here = [of(5, 2), of(7, 5), of(8, 6)];
        let kernels = gpu(true, true, None).kernels(&here);
        let on = |id| kernels.iter().find(|kernel| kernel.id == id).unwrap().devices.clone();
        assert_eq!(on(KernelId::Add), Ok(vec![Device::Cuda(1), Device::Cuda(2)]));
        assert_eq!(on(KernelId::GemvMma), Ok(vec![Device::Cuda(2)]));
        assert_eq!(
            on(KernelId::GemmWgmma).unwrap_err().to_string(),
            "cuda:2 does not run gemm_i2s_wgmma_s8, which needs compute capability 9.0 and no other: it has 8.6"
        );
        let alone = [(CudaComputeCapability::new(9, 0), false)];
        let error = devices_for(KernelId::MegaDecode, &alone).unwrap_err().to_string();
        assert!(error.ends_with("it has 9.0 without cooperative launches"), "{error}");
    }

    #[test]
    fn products_on_gpus_have_the_kernel_of_the_generation() {
        let found = [of(7, 5), of(9, 0), of(12, 0), of(5, 2)];
        let kernel = |number, rows| product_on(Device::Cuda(number), &found, rows);
        assert_eq!(
            [1, 64].map(|rows| kernel(0, rows)),
            [Ok(KernelId::GemvDp4a), Ok(KernelId::GemvDp4a)]
        );
        assert_eq!(kernel(1, 1), Ok(KernelId::GemvMma));
        assert_eq!(kernel(1, 64), Ok(KernelId::GemmWgmma));
        assert_eq!(kernel(2, 64), Ok(KernelId::Gemm64));
        assert!(matches!(kernel(3, 1), Err(DeviceError::NoKernel { .. })));
        let error = kernel(4, 1).unwrap_err().to_string();
        assert!(error.contains("has 4 such devices"), "{error}");
    }
}
