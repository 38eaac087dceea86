//! What this build was compiled for, and what the machine has.

use std::{env, iter};

use bitnet_gpu::kernels::GpuPasses;
use bitnet_kernels::manager::{KernelBackend, KernelHandle};
use bitnet_kernels::{DataType, Device, Devices, Format, Isa, KernelManager, Operation, kernels};

use crate::{Error, gpu};

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

/// Refuses to run passes in a way that only GPUs have.
pub(crate) fn check_passes(device: Device, passes: GpuPasses) -> Result<(), DeviceError> {
    match (device, passes) {
        (Device::Cuda(_), _) | (_, GpuPasses::Graph) => Ok(()),
        (_, GpuPasses::Kernel) => {
            let what = "passes in one kernel; leave out --gpu-passes kernel";
            Err(DeviceError::Unsupported { device, what })
        }
    }
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
            Ok((0..gpu::count()).map(Device::Cuda).collect())
        }
    }
}

/// The kernel for products with ternary matrices on a GPU.
///
/// # Errors
///
/// [`Error::Device`] where there is no such GPU, [`Error::NoCompatibleKernel`] where it has no such
/// kernel.
pub fn select_gpu_kernel(number: usize, manager: &KernelManager) -> Result<KernelHandle, Error> {
    let device = Device::Cuda(number);
    open(device)?;
    Ok(manager.kernel_for(device, Format::I2S, Operation::Gemm, DataType::Q8)?)
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
            backends: manager.backends(),
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
        assert!(select_gpu_kernel(0, &KernelManager::new()).is_err());
    }
}
