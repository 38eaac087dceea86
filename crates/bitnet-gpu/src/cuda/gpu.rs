//! A GPU that is open: its kernels, streams and counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaContext, CudaStream};

use super::error::Error;
use super::known;
use super::memory::{MemoryTracker, MemoryUse};
use super::probe::{CudaDeviceInfo, Probe};
use super::sys::{self, Allocation, Function, Module, Region};
use crate::CudaComputeCapability;
use crate::kernels::{KernelId, TARGETS, target_of};

/// The text of the kernels for each of the [targets](TARGETS).
const PTX: [&str; TARGETS.len()] = [
    include_str!("ptx/bitnet.sm_61.ptx"),
    include_str!("ptx/bitnet.sm_80.ptx"),
    include_str!("ptx/bitnet.sm_90a.ptx"),
];

/// An open device with its kernels.
#[derive(Debug)]
pub struct Gpu {
    info: CudaDeviceInfo,
    /// The version of CUDA of its driver.
    driver: i32,
    /// Which of the targets its kernels are for.
    target: usize,
    context: Arc<CudaContext>,
    /// By [`KernelId`]; none where the text for the device has it not. With how much shared memory a launch can ask for.
    functions: Vec<Option<(Function, usize)>>,
    /// What kernels run in.
    compute: Arc<CudaStream>,
    /// What weights come in by and found tokens go out by: no kernel waits for these.
    copy: Arc<CudaStream>,
    memory: Arc<MemoryTracker>,
    pub(crate) traffic: Traffic,
    /// Devices whose memory it was to reach, and whether it does.
    pub(crate) reached: Mutex<BTreeMap<usize, bool>>,
    /// Kernels that run slower than they should.
    slow: Vec<String>,
}

/// Bytes that went to a device and came from it, and how often.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) to_device: AtomicU64,
    pub(crate) bytes_to_device: AtomicU64,
    pub(crate) to_host: AtomicU64,
    pub(crate) bytes_to_host: AtomicU64,
    pub(crate) from_peers: AtomicU64,
    pub(crate) bytes_from_peers: AtomicU64,
}

impl Traffic {
    pub(crate) fn up(&self, bytes: usize) {
        self.to_device.fetch_add(1, Ordering::Relaxed);
        self.bytes_to_device.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn down(&self, bytes: usize) {
        self.to_host.fetch_add(1, Ordering::Relaxed);
        self.bytes_to_host.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn across(&self, bytes: usize) {
        self.from_peers.fetch_add(1, Ordering::Relaxed);
        self.bytes_from_peers.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Gpu {
    /// Opens a device, has its driver compile the kernels, and runs each of those that compute with weights on numbers
    /// whose result is known.
    ///
    /// # Errors
    ///
    /// Where there is no such device, or it is none to compute with.
    pub fn open(number: usize) -> Result<Arc<Gpu>, Error> {
        let probe = Probe::get();
        let Probe::Devices { driver, devices } = probe else {
            return Err(Error::Unavailable(probe.clone()));
        };
        let none = Error::NoSuchDevice { number, count: devices.len() };
        let info = devices.get(number).ok_or(none)?.clone();
        let has = info.compute_capability;
        let too_old = || Error::TooOld { name: info.name.clone(), has, needs: TARGETS[0].1 };
        let target = target_of(has).ok_or_else(too_old)?;
        let (name, from) = TARGETS[target];
        let context = sys::context(number)?;
        let module = Arc::new(Module::load(&context, PTX[target], name)?);
        let mut slow = Vec::new();
        let mut functions = Vec::new();
        for id in KernelId::ALL {
            if id.needs() > from {
                functions.push(None);
                continue;
            }
            let function = Function::find(&module, id.name())?;
            let room = function.allow_shared(info.max_shared_memory_per_block)?;
            // The driver's compiler is not the one that they were tuned with.
            let bytes = function.local_bytes()?;
            if bytes > 0 {
                let what =
                    format!("{} kept {bytes} bytes of each thread in slow memory", id.name());
                slow.push(what);
            }
            functions.push(Some((function, room)));
        }
        let (compute, copy) = (sys::new_stream(&context)?, sys::new_stream(&context)?);
        let gpu = Arc::new(Gpu {
            driver: *driver,
            info,
            target,
            context,
            functions,
            compute,
            copy,
            memory: Arc::default(),
            traffic: Traffic::default(),
            reached: Mutex::default(),
            slow,
        });
        known::check(&gpu)?;
        Ok(gpu)
    }

    /// What is known of the device.
    #[must_use]
    pub fn info(&self) -> &CudaDeviceInfo {
        &self.info
    }

    /// The version of CUDA that its driver knows: 12040 is 12.4.
    #[must_use]
    pub fn driver(&self) -> i32 {
        self.driver
    }

    /// The devices that its kernels were compiled for, as `sm_80`, and the compute capability of these.
    #[must_use]
    pub fn target(&self) -> (&'static str, CudaComputeCapability) {
        TARGETS[self.target]
    }

    /// What the driver's compiler made slower than it should be, in words.
    #[must_use]
    pub fn slow(&self) -> &[String] {
        &self.slow
    }

    /// The text of its kernels, as the driver has compiled it.
    #[must_use]
    pub fn ptx(&self) -> &'static str {
        PTX[self.target]
    }

    pub(crate) fn context(&self) -> Arc<CudaContext> {
        Arc::clone(&self.context)
    }

    pub(crate) fn compute(&self) -> &Arc<CudaStream> {
        &self.compute
    }

    pub(crate) fn copy(&self) -> &Arc<CudaStream> {
        &self.copy
    }

    /// Whether the device can run a kernel.
    #[must_use]
    pub fn has(&self, kernel: KernelId) -> bool {
        self.functions[kernel as usize].is_some()
    }

    /// The kernels that multiply one row by ternary weights, and `most`.
    #[must_use]
    pub fn product_kernels(&self, most: usize) -> [KernelId; 2] {
        [1, most].map(|rows| KernelId::product(self.target().1, rows, false))
    }

    /// A kernel, and how much shared memory a launch can ask for.
    pub(crate) fn function(&self, kernel: KernelId) -> Result<&(Function, usize), Error> {
        let what = || format!("{} has no kernel {}", self.info.name, kernel.name());
        self.functions[kernel as usize].as_ref().ok_or_else(|| Error::Unsupported { what: what() })
    }

    /// What is taken of its memory here.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        self.memory.get()
    }

    /// Bytes of memory that are free, and all.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn free_memory(&self) -> Result<(usize, usize), Error> {
        sys::memory(&self.context)
    }

    /// Memory for `what`, of which nothing is known.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub(crate) fn allocate(
        &self,
        what: &str,
        needs: usize,
        hint: &'static str,
    ) -> Result<Region, Error> {
        match Allocation::new(&self.context, needs, &self.memory) {
            Ok(allocation) => Ok(Region::all(allocation)),
            // CUDA_ERROR_OUT_OF_MEMORY.
            Err(Error::Driver { code: 2, .. }) => {
                let (free, total) = self.free_memory()?;
                let (what, device) = (what.to_owned(), self.info.name.clone());
                Err(Error::OutOfMemory { what, needs, device, free, total, hint })
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until all that was enqueued is done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], of a kernel too.
    pub fn synchronize(&self) -> Result<(), Error> {
        sys::synchronize(&self.copy)?;
        sys::synchronize(&self.compute)
    }
}

/// Launches of each kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launches(BTreeMap<KernelId, u64>);

impl Launches {
    pub(crate) fn add(&mut self, kernel: KernelId) {
        *self.0.entry(kernel).or_default() += 1;
    }

    /// As many again as there are in `others`.
    pub fn add_all(&mut self, others: &Launches) {
        for (kernel, count) in &others.0 {
            *self.0.entry(*kernel).or_default() += count;
        }
    }

    /// Each kernel that was launched, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (KernelId, u64)> {
        self.0.iter().map(|(kernel, count)| (*kernel, *count))
    }
}
