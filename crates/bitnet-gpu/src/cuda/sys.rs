//! The driver's functions: the only place that calls them, and that is not safe by itself.
#![expect(unsafe_code, reason = "the driver is a library in C")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, sys as cu};

use super::args::Args;
use super::error::Error;
use super::memory::MemoryTracker;
use super::probe::CudaDeviceInfo;
use crate::CudaComputeCapability;

/// An error by number and name.
pub(crate) type Code = (i32, String);

/// All functions that are called: here, and by what is used of `cudarc`.
const SYMBOLS: &[&CStr] = &[
    c"cuInit",
    c"cuDriverGetVersion",
    c"cuDeviceGetCount",
    c"cuDeviceGet",
    c"cuDeviceGetName",
    c"cuDeviceGetUuid",
    c"cuDeviceTotalMem_v2",
    c"cuDeviceGetAttribute",
    c"cuDeviceCanAccessPeer",
    c"cuDevicePrimaryCtxRetain",
    c"cuDevicePrimaryCtxRelease_v2",
    c"cuCtxGetCurrent",
    c"cuCtxSetCurrent",
    c"cuCtxSynchronize",
    c"cuCtxEnablePeerAccess",
    c"cuStreamCreate",
    c"cuStreamDestroy_v2",
    c"cuStreamSynchronize",
    c"cuStreamBeginCapture_v2",
    c"cuStreamEndCapture",
    c"cuEventCreate",
    c"cuEventDestroy_v2",
    c"cuEventRecord",
    c"cuEventSynchronize",
    c"cuEventElapsedTime",
    c"cuMemAlloc_v2",
    c"cuMemFree_v2",
    c"cuMemGetInfo_v2",
    c"cuMemHostAlloc",
    c"cuMemFreeHost",
    c"cuMemcpyHtoDAsync_v2",
    c"cuMemcpyDtoHAsync_v2",
    c"cuMemcpyDtoDAsync_v2",
    c"cuMemcpyPeerAsync",
    c"cuMemsetD8Async",
    c"cuModuleLoadDataEx",
    c"cuModuleUnload",
    c"cuModuleGetFunction",
    c"cuFuncGetAttribute",
    c"cuFuncSetAttribute",
    c"cuStreamWaitEvent",
    c"cuLaunchKernel",
    c"cuLaunchCooperativeKernel",
    c"cuOccupancyMaxActiveBlocksPerMultiprocessor",
    c"cuGraphInstantiateWithFlags",
    c"cuGraphLaunch",
    c"cuGraphExecDestroy",
    c"cuGraphDestroy",
];

/// The name of an error: what prints it in `cudarc` would ask the driver, which may not have an answer.
fn named(code: cu::CUresult) -> Code {
    (code as i32, format!("{code:?}"))
}

fn checked(code: cu::CUresult) -> Result<(), Code> {
    if code == cu::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(named(code)) }
}

/// Calls a function of the driver.
macro_rules! driver {
    ($function:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: that the arguments are what the function takes is argued where it is called.
        let code = unsafe { cu::$function($($arg),*) };
        checked(code).map_err(|(code, name)| Error::Driver { call: stringify!($function), code, name })
    }};
}

/// Whether there is a library that could be a driver.
pub(crate) fn is_library_present() -> bool {
    // SAFETY: the library's own initialisers run; it is the one that the system has for this.
    unsafe { cu::is_culib_present() }
}

/// The first function that the library lacks. There must be one.
pub(crate) fn missing_symbol() -> Option<&'static str> {
    // SAFETY: as above; it is there.
    let library = unsafe { cu::culib() };
    // SAFETY: nothing is called.
    let lacks =
        |name: &&&CStr| unsafe { library.get::<*const ()>(name.to_bytes_with_nul()) }.is_err();
    SYMBOLS.iter().find(lacks).map(|name| name.to_str().unwrap_or_default())
}

/// What a function gives in a place that it is told of.
fn given<T>(f: impl FnOnce(*mut T) -> cu::CUresult) -> Result<T, Code> {
    let mut value = MaybeUninit::zeroed();
    checked(f(value.as_mut_ptr()))?;
    // SAFETY: numbers and pointers of the driver, which zeros are too; the call has written it.
    Ok(unsafe { value.assume_init() })
}

pub(crate) fn init() -> Result<(), Code> {
    // SAFETY: it may be called at any time.
    checked(unsafe { cu::cuInit(0) })
}

pub(crate) fn driver_version() -> Result<i32, Code> {
    // SAFETY: there is room for the number.
    given(|version| unsafe { cu::cuDriverGetVersion(version) })
}

/// What there is of devices.
pub(crate) fn devices() -> Result<Vec<CudaDeviceInfo>, Code> {
    // SAFETY: there is room for the number.
    let count: c_int = given(|count| unsafe { cu::cuDeviceGetCount(count) })?;
    (0..count).map(|number| device(number, count)).collect()
}

fn device(number: c_int, count: c_int) -> Result<CudaDeviceInfo, Code> {
    use cu::CUdevice_attribute as A;
    // SAFETY: there is room for the handle.
    let handle: cu::CUdevice = given(|device| unsafe { cu::cuDeviceGet(device, number) })?;
    // SAFETY: the device is there, and there is room for the number.
    let attribute =
        |of: A| given(|value: *mut c_int| unsafe { cu::cuDeviceGetAttribute(value, of, handle) });
    let mut name = [0_u8; 256];
    // SAFETY: there is room for as many bytes as are said, and the last is left zero.
    checked(unsafe { cu::cuDeviceGetName(name.as_mut_ptr().cast::<c_char>(), 255, handle) })?;
    // SAFETY: there is room for the 16 bytes.
    let uuid: cu::CUuuid = given(|uuid| unsafe { cu::cuDeviceGetUuid(uuid, handle) })?;
    // SAFETY: there is room for the number.
    let total_memory: usize = given(|bytes| unsafe { cu::cuDeviceTotalMem_v2(bytes, handle) })?;
    let capability = CudaComputeCapability::new(
        attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?.max(0) as u32,
        attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?.max(0) as u32,
    );
    let clock = attribute(A::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?.max(0) as u64;
    let bus = attribute(A::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?.max(0) as u64;
    let reaches = |other: &c_int| {
        // SAFETY: both devices are there, and there is room for the number.
        let can =
            given(|can: *mut c_int| unsafe { cu::cuDeviceCanAccessPeer(can, handle, *other) });
        *other != number && can.is_ok_and(|can| can != 0)
    };
    Ok(CudaDeviceInfo {
        device_id: number as usize,
        name: CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned(),
        uuid: uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect(),
        compute_capability: capability,
        total_memory,
        l2_cache: attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.max(0) as usize,
        // Kilohertz, twice in each of which a bit comes over each line.
        memory_bandwidth: 2 * clock * 1000 * bus / 8,
        multiprocessor_count: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        max_threads_per_block: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        max_shared_memory_per_block: attribute(
            A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?
        .max(attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)?)
        .max(0) as usize,
        cooperative_launch: attribute(A::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        supports_fp16: capability >= CudaComputeCapability::new(6, 1),
        supports_bf16: capability >= CudaComputeCapability::new(8, 0),
        peers: (0..count).filter(reaches).map(|other| other as usize).collect(),
    })
}

/// Opens a device: its context is that of all who use it in this process.
pub(crate) fn context(number: usize) -> Result<Arc<CudaContext>, Error> {
    let context =
        CudaContext::new(number).map_err(|error| failed("cuDevicePrimaryCtxRetain", error.0))?;
    // SAFETY: what is ordered by events here is ordered by us: all that is enqueued has its order from streams.
    unsafe { context.disable_event_tracking() };
    Ok(context)
}

fn failed(call: &'static str, code: cu::CUresult) -> Error {
    let (code, name) = named(code);
    Error::Driver { call, code, name }
}

/// Makes the context of a device that of this thread.
pub(crate) fn bind(context: &CudaContext) -> Result<(), Error> {
    context.bind_to_thread().map_err(|error| failed("cuCtxSetCurrent", error.0))
}

pub(crate) fn new_stream(context: &Arc<CudaContext>) -> Result<Arc<CudaStream>, Error> {
    context.new_stream().map_err(|error| failed("cuStreamCreate", error.0))
}

/// Waits until all that is in a stream is done.
pub(crate) fn synchronize(stream: &CudaStream) -> Result<(), Error> {
    stream.synchronize().map_err(|error| failed("cuStreamSynchronize", error.0))
}

/// Free and all bytes of a device.
pub(crate) fn memory(context: &CudaContext) -> Result<(usize, usize), Error> {
    bind(context)?;
    let (mut free, mut total) = (0, 0);
    driver!(cuMemGetInfo_v2(&raw mut free, &raw mut total))?;
    Ok((free, total))
}

/// Memory of a device, until it is dropped.
#[derive(Debug)]
pub(crate) struct Allocation {
    address: u64,
    bytes: usize,
    context: Arc<CudaContext>,
    tracker: Arc<MemoryTracker>,
}

impl Allocation {
    /// So many bytes, at least one. Nothing is known of what is in them.
    pub(crate) fn new(
        context: &Arc<CudaContext>,
        bytes: usize,
        tracker: &Arc<MemoryTracker>,
    ) -> Result<Allocation, Error> {
        bind(context)?;
        let mut address = 0;
        driver!(cuMemAlloc_v2(&raw mut address, bytes.max(1)))?;
        tracker.taken(bytes);
        let (context, tracker) = (Arc::clone(context), Arc::clone(tracker));
        Ok(Allocation { address, bytes, context, tracker })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // Of a device that has failed nothing can be given back; the process that ends does it.
        let _ = bind(&self.context);
        let _ = driver!(cuMemFree_v2(self.address));
        self.tracker.given_back(self.bytes);
    }
}

/// Memory of the host that devices read and write by themselves.
#[derive(Debug)]
pub(crate) struct Pinned {
    address: *mut u8,
    bytes: usize,
    context: Arc<CudaContext>,
}

// SAFETY: it is memory like any other; who has it alone may write it.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Zeros.
    pub(crate) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Pinned, Error> {
        bind(context)?;
        let bytes = bytes.max(1);
        let mut address = ptr::null_mut::<c_void>();
        driver!(cuMemHostAlloc(&raw mut address, bytes, 0))?;
        let address = address.cast::<u8>();
        // SAFETY: the driver has given so many bytes.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Pinned { address, bytes, context: Arc::clone(context) })
    }

    /// Words of it. No device may be writing them.
    pub(crate) fn words(&self) -> &[[u8; 4]] {
        // SAFETY: they are there, and were written.
        let bytes = unsafe { std::slice::from_raw_parts(self.address, self.bytes) };
        bytes.as_chunks().0
    }

    /// Its bytes. No device may be reading or writing them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: they are there, were written, and are borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = bind(&self.context);
        let _ = driver!(cuMemFreeHost(self.address.cast::<c_void>()));
    }
}

/// A place in the memory of a device, which holds what is there until it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    memory: Arc<Allocation>,
    offset: usize,
    bytes: usize,
}

impl Region {
    /// All of some memory.
    pub(crate) fn all(memory: Allocation) -> Region {
        let bytes = memory.bytes();
        Region { memory: Arc::new(memory), offset: 0, bytes }
    }

    /// A part of it.
    ///
    /// # Panics
    ///
    /// If it is not in it.
    pub(crate) fn part(&self, offset: usize, bytes: usize) -> Region {
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.bytes),
            "a part of the region"
        );
        Region { memory: Arc::clone(&self.memory), offset: self.offset + offset, bytes }
    }

    pub(crate) fn address(&self) -> u64 {
        self.memory.address() + self.offset as u64
    }

    /// The context of the device whose memory it is.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.memory.context
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Copies bytes to a device, and waits until they are there.
pub(crate) fn upload(stream: &CudaStream, to: &Region, bytes: &[u8]) -> Result<(), Error> {
    assert!(bytes.len() <= to.bytes(), "room for the bytes");
    if bytes.is_empty() {
        return Ok(());
    }
    bind(stream.context())?;
    driver!(cuMemcpyHtoDAsync_v2(
        to.address(),
        bytes.as_ptr().cast::<c_void>(),
        bytes.len(),
        stream.cu_stream()
    ))?;
    synchronize(stream)
}

/// Copies bytes from a device, and waits until they are here.
pub(crate) fn download(stream: &CudaStream, from: &Region, bytes: &mut [u8]) -> Result<(), Error> {
    assert!(bytes.len() <= from.bytes(), "as many bytes as there are");
    if bytes.is_empty() {
        return Ok(());
    }
    bind(stream.context())?;
    let to = bytes.as_mut_ptr().cast::<c_void>();
    driver!(cuMemcpyDtoHAsync_v2(to, from.address(), bytes.len(), stream.cu_stream()))?;
    synchronize(stream)
}

/// Enqueues a copy of the first bytes of memory that a device reads by itself: they must stay until it is done.
pub(crate) fn enqueue_upload(
    stream: &CudaStream,
    to: &Region,
    from: &Pinned,
    bytes: usize,
) -> Result<(), Error> {
    assert!(bytes <= to.bytes() && bytes <= from.bytes, "room for the bytes");
    bind(stream.context())?;
    let from = from.address.cast_const().cast::<c_void>();
    driver!(cuMemcpyHtoDAsync_v2(to.address(), from, bytes, stream.cu_stream()))
}

/// Enqueues a copy to memory that a device writes by itself: nobody may look before it is done.
pub(crate) fn enqueue_download(
    stream: &CudaStream,
    from: &Region,
    to: &mut Pinned,
    bytes: usize,
) -> Result<(), Error> {
    assert!(bytes <= from.bytes() && bytes <= to.bytes, "room for the bytes");
    bind(stream.context())?;
    let to = to.address.cast::<c_void>();
    driver!(cuMemcpyDtoHAsync_v2(to, from.address(), bytes, stream.cu_stream()))
}

/// Enqueues that bytes become this one.
pub(crate) fn fill(stream: &CudaStream, region: &Region, byte: u8) -> Result<(), Error> {
    if region.bytes() == 0 {
        return Ok(());
    }
    bind(stream.context())?;
    driver!(cuMemsetD8Async(region.address(), byte, region.bytes(), stream.cu_stream()))
}

/// Enqueues a copy within the memory of a device.
pub(crate) fn copy(stream: &CudaStream, from: &Region, to: &Region) -> Result<(), Error> {
    assert!(from.bytes() <= to.bytes(), "room for the bytes");
    bind(stream.context())?;
    driver!(cuMemcpyDtoDAsync_v2(to.address(), from.address(), from.bytes(), stream.cu_stream()))
}

/// Lets a device reach the memory of another. False where the driver does not have it, or has it for too many already.
pub(crate) fn enable_peer(context: &CudaContext, peer: &CudaContext) -> Result<bool, Error> {
    use cu::CUresult as R;
    bind(context)?;
    // SAFETY: both contexts are there, and that of the device is current.
    match unsafe { cu::cuCtxEnablePeerAccess(peer.cu_ctx(), 0) } {
        R::CUDA_SUCCESS | R::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(true),
        R::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED | R::CUDA_ERROR_TOO_MANY_PEERS => Ok(false),
        code => Err(failed("cuCtxEnablePeerAccess", code)),
    }
}

/// Enqueues a copy from the memory of another device, which must stay as it is until it is done.
pub(crate) fn copy_from_peer(stream: &CudaStream, from: &Region, to: &Region) -> Result<(), Error> {
    assert!(from.bytes() <= to.bytes(), "room for the bytes");
    bind(stream.context())?;
    driver!(cuMemcpyPeerAsync(
        to.address(),
        to.context().cu_ctx(),
        from.address(),
        from.context().cu_ctx(),
        from.bytes(),
        stream.cu_stream(),
    ))
}

/// Kernels that the driver has compiled.
#[derive(Debug)]
pub(crate) struct Module {
    module: cu::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: the driver lets any thread use a module, as long as its context is bound.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Has the driver compile a text.
    pub(crate) fn load(
        context: &Arc<CudaContext>,
        ptx: &str,
        target: &'static str,
    ) -> Result<Module, Error> {
        use cu::CUjit_option as Option;
        bind(context)?;
        let text = CString::new(ptx).unwrap_or_default();
        let mut log = vec![0_u8; 8192];
        let mut options =
            [Option::CU_JIT_ERROR_LOG_BUFFER, Option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values =
            [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(log.len())];
        let mut module = ptr::null_mut();
        // SAFETY: the text ends with a zero; the options and values are as many as is said, and the buffer as long.
        let code = unsafe {
            cu::cuModuleLoadDataEx(
                &raw mut module,
                text.as_ptr().cast::<c_void>(),
                options.len() as c_uint,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        checked(code).map_err(|(code, name)| {
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default();
            Error::Module { target, code, name, log: log.to_string_lossy().trim().to_owned() }
        })?;
        Ok(Module { module, context: Arc::clone(context) })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = bind(&self.context);
        let _ = driver!(cuModuleUnload(self.module));
    }
}

/// A kernel.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    function: cu::CUfunction,
    module: Arc<Module>,
}

// SAFETY: as of the module.
unsafe impl Send for Function {}
// SAFETY: as of the module.
unsafe impl Sync for Function {}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: usize,
}

impl Function {
    /// The kernel of this name.
    pub(crate) fn find(module: &Arc<Module>, name: &str) -> Result<Function, Error> {
        bind(&module.context)?;
        let name = CString::new(name).unwrap_or_default();
        let mut function = ptr::null_mut();
        driver!(cuModuleGetFunction(&raw mut function, module.module, name.as_ptr()))?;
        Ok(Function { function, module: Arc::clone(module) })
    }

    fn attribute(&self, attribute: cu::CUfunction_attribute) -> Result<usize, Error> {
        bind(&self.module.context)?;
        let mut value = 0;
        driver!(cuFuncGetAttribute(&raw mut value, attribute, self.function))?;
        Ok(usize::try_from(value).unwrap_or(0))
    }

    /// Lets launches ask for all that a block has of shared memory, `most`, but for what the kernel has in any case. Gives how
    /// much that is.
    pub(crate) fn allow_shared(&self, most: usize) -> Result<usize, Error> {
        use cu::CUfunction_attribute as A;
        let left = most.saturating_sub(self.attribute(A::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?);
        let attribute = A::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = c_int::try_from(left).unwrap_or(c_int::MAX);
        driver!(cuFuncSetAttribute(self.function, attribute, bytes))?;
        Ok(left)
    }

    /// Bytes of local memory that a thread takes.
    pub(crate) fn local_bytes(&self) -> Result<usize, Error> {
        self.attribute(cu::CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
    }

    /// Enqueues it. What it does with the addresses among its arguments is for those to know who lay them out.
    pub(crate) fn launch(
        &self,
        stream: &CudaStream,
        shape: Shape,
        args: &Args,
    ) -> Result<(), Error> {
        /// What follows in the list is the buffer of the arguments; its length; nothing.
        const BUFFER: usize = 1;
        const LENGTH: usize = 2;
        const END: usize = 0;
        bind(stream.context())?;
        let Shape { grid: [x, y, z], threads, shared } = shape;
        let shared = c_uint::try_from(shared).unwrap_or(c_uint::MAX);
        let mut bytes = args.bytes().len();
        let mut extra = [
            ptr::without_provenance_mut(BUFFER),
            args.bytes().as_ptr().cast_mut().cast::<c_void>(),
            ptr::without_provenance_mut(LENGTH),
            (&raw mut bytes).cast::<c_void>(),
            ptr::without_provenance_mut(END),
        ];
        driver!(cuLaunchKernel(
            self.function,
            x,
            y,
            z,
            threads,
            1,
            1,
            shared,
            stream.cu_stream(),
            ptr::null_mut(),
            extra.as_mut_ptr(),
        ))
    }
}

impl Function {
    /// Blocks of so many threads and so much shared memory that a multiprocessor has room for.
    pub(crate) fn resident(&self, threads: u32, shared: usize) -> Result<usize, Error> {
        bind(&self.module.context)?;
        let threads = c_int::try_from(threads).unwrap_or(c_int::MAX);
        let mut blocks = 0;
        driver!(cuOccupancyMaxActiveBlocksPerMultiprocessor(
            &raw mut blocks,
            self.function,
            threads,
            shared
        ))?;
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// Enqueues a kernel that takes an address, a number and an address, and whose blocks wait for one another: there must
    /// be [room](Function::resident) for all of them.
    pub(crate) fn launch_together(
        &self,
        stream: &CudaStream,
        shape: Shape,
        (mut first, mut number, mut second): (u64, c_int, u64),
    ) -> Result<(), Error> {
        bind(stream.context())?;
        let Shape { grid: [x, y, z], threads, shared } = shape;
        let shared = c_uint::try_from(shared).unwrap_or(c_uint::MAX);
        let mut args: [*mut c_void; 3] =
            [(&raw mut first).cast(), (&raw mut number).cast(), (&raw mut second).cast()];
        driver!(cuLaunchCooperativeKernel(
            self.function,
            x,
            y,
            z,
            threads,
            1,
            1,
            shared,
            stream.cu_stream(),
            args.as_mut_ptr(),
        ))
    }
}

/// Launches that were recorded, to be enqueued together.
#[derive(Debug)]
pub(crate) struct Graph {
    graph: cu::CUgraph,
    exec: cu::CUgraphExec,
    context: Arc<CudaContext>,
}

// SAFETY: the driver lets any thread use a graph, one at a time: here who has it alone.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `enqueue` puts into a stream, instead of doing it.
    pub(crate) fn record(
        stream: &CudaStream,
        enqueue: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Graph, Error> {
        bind(stream.context())?;
        let mode = cu::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        driver!(cuStreamBeginCapture_v2(stream.cu_stream(), mode))?;
        let enqueued = enqueue();
        // Ended in any case: a stream that records takes nothing else.
        let mut graph = ptr::null_mut();
        let ended = driver!(cuStreamEndCapture(stream.cu_stream(), &raw mut graph));
        enqueued?;
        ended?;
        let context = Arc::clone(stream.context());
        let mut recorded = Graph { graph, exec: ptr::null_mut(), context };
        driver!(cuGraphInstantiateWithFlags(&raw mut recorded.exec, graph, 0))?;
        Ok(recorded)
    }

    /// Enqueues all of it.
    pub(crate) fn launch(&mut self, stream: &CudaStream) -> Result<(), Error> {
        bind(stream.context())?;
        driver!(cuGraphLaunch(self.exec, stream.cu_stream()))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = bind(&self.context);
        if !self.exec.is_null() {
            let _ = driver!(cuGraphExecDestroy(self.exec));
        }
        if !self.graph.is_null() {
            let _ = driver!(cuGraphDestroy(self.graph));
        }
    }
}

/// Milliseconds that the device works on what `enqueue` puts into a stream; waits for it.
pub(crate) fn timed(
    stream: &CudaStream,
    enqueue: impl FnOnce() -> Result<(), Error>,
) -> Result<f32, Error> {
    let [start, end] = [Event::new(stream.context())?, Event::new(stream.context())?];
    start.record(stream)?;
    enqueue()?;
    end.record(stream)?;
    end.wait()?;
    let mut milliseconds = 0.0;
    driver!(cuEventElapsedTime(&raw mut milliseconds, start.event, end.event))?;
    Ok(milliseconds)
}

/// A point of time in a stream.
#[derive(Debug)]
pub(crate) struct Event {
    event: cu::CUevent,
    context: Arc<CudaContext>,
}

// SAFETY: the driver lets any thread use an event, as long as its context is bound.
unsafe impl Send for Event {}

impl Event {
    pub(crate) fn new(context: &Arc<CudaContext>) -> Result<Event, Error> {
        bind(context)?;
        let mut event = ptr::null_mut();
        driver!(cuEventCreate(&raw mut event, 0))?;
        Ok(Event { event, context: Arc::clone(context) })
    }

    /// It is when all is done that was enqueued until now.
    pub(crate) fn record(&self, stream: &CudaStream) -> Result<(), Error> {
        bind(&self.context)?;
        driver!(cuEventRecord(self.event, stream.cu_stream()))
    }

    /// What is enqueued in a stream from now on is done when it has come to pass.
    pub(crate) fn holds_up(&self, stream: &CudaStream) -> Result<(), Error> {
        bind(&self.context)?;
        driver!(cuStreamWaitEvent(stream.cu_stream(), self.event, 0))
    }

    /// Waits for it.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        bind(&self.context)?;
        driver!(cuEventSynchronize(self.event))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = bind(&self.context);
        let _ = driver!(cuEventDestroy_v2(self.event));
    }
}
