//! Whether there are GPUs, found out without a chance of a panic: nothing else may touch the driver before.

use std::fmt;
use std::sync::OnceLock;

use super::sys;
use crate::CudaComputeCapability;

/// The oldest version of CUDA whose drivers take the kernels: 12.4, of March 2024.
pub const DRIVER: i32 = 12_040;

/// What there is of GPUs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Probe {
    /// No library of a driver.
    NoDriver,
    /// A library without functions that a driver has.
    NotADriver {
        /// The first of them.
        missing: &'static str,
    },
    /// The driver does not start.
    InitFailed {
        /// Why not, as it numbers errors.
        code: i32,
        /// The same in words.
        name: String,
    },
    /// The driver does not know the language of the kernels.
    DriverTooOld {
        /// Its version of CUDA: 12040 is 12.4.
        version: i32,
    },
    /// A driver without a device.
    NoDevice,
    /// Devices, in the order of the driver.
    Devices {
        /// Its version of CUDA.
        driver: i32,
        /// At least one.
        devices: Vec<CudaDeviceInfo>,
    },
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CudaDeviceInfo {
    /// Its number.
    pub device_id: usize,
    /// What it is called.
    pub name: String,
    /// What its driver knows it by, wherever it is plugged in: 16 bytes, in hexadecimal digits.
    pub uuid: String,
    /// Its generation: 9.0 is Hopper.
    pub compute_capability: CudaComputeCapability,
    /// Bytes of memory.
    pub total_memory: usize,
    /// Bytes of the cache that all multiprocessors share.
    pub l2_cache: usize,
    /// Bytes that its memory can be read with, at best, in a second; 0 where the driver does not tell.
    pub memory_bandwidth: u64,
    /// Multiprocessors.
    pub multiprocessor_count: i32,
    /// Threads of a block at most.
    pub max_threads_per_block: i32,
    /// Bytes of shared memory that a block can have.
    pub max_shared_memory_per_block: usize,
    /// Whether kernels may wait for all of their blocks.
    pub cooperative_launch: bool,
    /// Whether it computes in half precision: from 6.1 on.
    pub supports_fp16: bool,
    /// Whether it computes with bfloat16: from 8.0 on.
    pub supports_bf16: bool,
    /// Devices whose memory it can reach by itself.
    pub peers: Vec<usize>,
}

impl Probe {
    /// Looks for GPUs.
    #[must_use]
    pub fn run() -> Probe {
        if !sys::is_library_present() {
            return Probe::NoDriver;
        }
        if let Some(missing) = sys::missing_symbol() {
            return Probe::NotADriver { missing };
        }
        match sys::init() {
            // CUDA_ERROR_NO_DEVICE.
            Err((100, _)) => return Probe::NoDevice,
            Err((code, name)) => return Probe::InitFailed { code, name },
            Ok(()) => {}
        }
        let version = match sys::driver_version() {
            Ok(version) => version,
            Err((code, name)) => return Probe::InitFailed { code, name },
        };
        if version < DRIVER {
            return Probe::DriverTooOld { version };
        }
        match sys::devices() {
            Ok(devices) if devices.is_empty() => Probe::NoDevice,
            Ok(devices) => Probe::Devices { driver: version, devices },
            Err((code, name)) => Probe::InitFailed { code, name },
        }
    }

    /// What was found when it was first asked for.
    #[must_use]
    pub fn get() -> &'static Probe {
        static PROBE: OnceLock<Probe> = OnceLock::new();
        PROBE.get_or_init(Probe::run)
    }

    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &[CudaDeviceInfo] {
        match self {
            Probe::Devices { devices, .. } => devices,
            _ => &[],
        }
    }
}

/// A version of CUDA as people write it: 12040 is 12.4.
#[must_use]
pub fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::NoDriver => f.write_str(
                "no NVIDIA driver: there is no library libcuda.so.1 (nvcuda.dll on Windows); \
                 install a driver, or set LD_LIBRARY_PATH to where it is",
            ),
            Probe::NotADriver { missing } => write!(
                f,
                "the library libcuda.so.1 is no driver of NVIDIA, or a very old one: it has no {missing}; \
                 see where LD_LIBRARY_PATH leads"
            ),
            Probe::InitFailed { code, name } => {
                write!(f, "the NVIDIA driver does not start: {name} ({code}); check nvidia-smi")
            }
            Probe::DriverTooOld { version: has } => write!(
                f,
                "the NVIDIA driver is too old: it knows CUDA {}, and {} is needed (a driver from 550 on)",
                version(*has),
                version(DRIVER)
            ),
            Probe::NoDevice => f.write_str(
                "the NVIDIA driver has no device; check nvidia-smi and CUDA_VISIBLE_DEVICES",
            ),
            Probe::Devices { driver, devices } => {
                write!(f, "{} devices, CUDA {}", devices.len(), version(*driver))
            }
        }
    }
}
