//! A CUDA driver without a GPU: the functions of `libcuda.so` that this workspace calls, with an interpreter behind them.
//!
//! A program finds it where `LD_LIBRARY_PATH` leads to it. `BITNET_FAKE_CUDA` says what it pretends to be (`config.rs`).
#![expect(unsafe_code, reason = "it is called from C, with pointers")]

pub mod cases;
mod config;
mod state;

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use config::Config;
use ptx_emu::Module;
use state::{Answer, Call, Function, Handle, State, Stream, Work, code};

static STATE: Mutex<Option<State>> = Mutex::new(None);

thread_local! {
    /// The device of the context that is current, or nothing.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Handles of contexts: those of devices.
const CONTEXTS: usize = 0x100;

/// A call of a function of this name.
fn call(name: &'static str, f: impl FnOnce(&mut State) -> Answer<()>) -> u32 {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if state.is_none() {
        match Config::read() {
            Some(config) => *state = Some(State::new(config)),
            None => {
                eprintln!("fake CUDA driver: BITNET_FAKE_CUDA is not understood");
                return code::INVALID_VALUE;
            }
        }
    }
    let Some(state) = state.as_mut() else { return code::INVALID_VALUE };
    match state.enter(name, CURRENT.get()).and_then(|()| f(state)) {
        Ok(()) => 0,
        Err(error) => error,
    }
}

/// Bytes of the host.
fn host_bytes<'a>(at: usize, bytes: usize) -> &'a [u8] {
    // SAFETY: whoever calls the driver says that they are there.
    unsafe { std::slice::from_raw_parts(at as *const u8, bytes) }
}

/// Bytes of the host.
fn host_bytes_mut<'a>(at: usize, bytes: usize) -> &'a mut [u8] {
    // SAFETY: whoever calls the driver says that they are there, and that nobody else looks at them.
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, bytes) }
}

/// Writes what a function gives.
fn give<T>(to: *mut T, value: T) -> Answer<()> {
    if to.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: whoever calls the driver says that there is room.
    unsafe { to.write(value) };
    Ok(())
}

/// The device of the current context.
fn current() -> Answer<usize> {
    CURRENT.get().ok_or(code::INVALID_CONTEXT)
}

fn device(state: &State, device: c_int) -> Answer<usize> {
    if (0..state.config.devices).contains(&device) {
        Ok(device as usize)
    } else {
        Err(code::INVALID_DEVICE)
    }
}

/// Defines functions of the driver.
macro_rules! driver {
    ($($name:ident($($arg:ident: $ty:ty),*) |$state:pat_param| $body:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the driver.")]
            ///
            /// # Safety
            ///
            /// As of the driver: pointers lead to as much as it would read or write.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
                call(stringify!($name), |$state| $body)
            }
        )*
    };
}

driver! {
    cuInit(_flags: c_uint) |state| if state.config.devices == 0 { Err(code::NO_DEVICE) } else { Ok(()) };
    cuDriverGetVersion(version: *mut c_int) |state| give(version, state.config.driver);

    cuDeviceGetCount(count: *mut c_int) |state| give(count, state.config.devices);
    cuDeviceGet(out: *mut c_int, ordinal: c_int) |state| {
        device(state, ordinal)?;
        give(out, ordinal)
    };
    cuDeviceGetName(name: *mut c_char, length: c_int, of: c_int) |state| {
        device(state, of)?;
        let text = format!("Fake GPU {of}\0");
        let room = host_bytes_mut(name as usize, length as usize);
        room.get_mut(..text.len()).ok_or(code::INVALID_VALUE)?.copy_from_slice(text.as_bytes());
        Ok(())
    };
    cuDeviceGetUuid(uuid: *mut [u8; 16], of: c_int) |state| {
        let last = device(state, of)? as u8;
        give(uuid, [0xfa, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    };
    cuDeviceTotalMem_v2(bytes: *mut usize, of: c_int) |state| {
        device(state, of)?;
        give(bytes, state.config.memory)
    };
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, of: c_int) |state| {
        device(state, of)?;
        let (major, minor) = state.config.capability(of);
        give(value, match attribute {
            // Threads of a block; and of its sides.
            1..=3 => 1024,
            4 => 64,
            // Blocks along the sides.
            5 => i32::MAX,
            6 | 7 => 65_535,
            // Shared memory of a block.
            8 => 48 * 1024,
            10 => 32,
            // Registers of a block.
            12 | 82 => 65_536,
            // Clock, multiprocessors.
            13 => 1_755_000,
            16 => MULTIPROCESSORS,
            // Memory clock, bus, second-level cache.
            36 => 2_619_000,
            37 => 5_120,
            38 => 50 << 20,
            39 => 2048,
            75 => major,
            76 => minor,
            81 => 228 * 1024,
            // Cooperative launches.
            95 => 1,
            // Shared memory of a block, for those who ask for more.
            97 => most_shared((major, minor)) as i32,
            _ => 0,
        })
    };
    cuDevicePrimaryCtxRetain(context: *mut usize, of: c_int) |state| {
        let of = device(state, of)?;
        give(context, CONTEXTS + of)
    };
    cuDevicePrimaryCtxRelease_v2(of: c_int) |state| device(state, of).map(|_| ());
    cuDeviceCanAccessPeer(can: *mut c_int, one: c_int, other: c_int) |state| {
        let (one, other) = (device(state, one)?, device(state, other)?);
        give(can, c_int::from(state.config.peers && one != other))
    };

    cuCtxSetCurrent(context: usize) |state| {
        let of = context.checked_sub(CONTEXTS).filter(|of| *of < state.memories.len());
        if of.is_none() && context != 0 {
            return Err(code::INVALID_CONTEXT);
        }
        CURRENT.set(of);
        Ok(())
    };
    cuCtxGetCurrent(context: *mut usize) |_| give(context, CURRENT.get().map_or(0, |of| CONTEXTS + of));
    cuCtxSynchronize() |state| state.finish_all(current()?);
    cuCtxEnablePeerAccess(context: usize, _flags: c_uint) |state| {
        let pair = (current()?, context.checked_sub(CONTEXTS).ok_or(code::INVALID_CONTEXT)?);
        match (state.config.peers, state.peers.insert(pair)) {
            (false, _) => Err(code::PEER_UNSUPPORTED),
            (true, false) => Err(code::PEER_ENABLED),
            (true, true) => Ok(()),
        }
    };

    cuStreamCreate(stream: *mut usize, _flags: c_uint) |state| {
        let handle = state.handle();
        state.streams.insert(handle, Stream::of(current()?));
        give(stream, handle)
    };
    cuStreamDestroy_v2(stream: usize) |state| {
        state.finish(stream)?;
        state.streams.remove(&stream);
        Ok(())
    };
    cuStreamSynchronize(stream: usize) |state| state.finish(stream);
    cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) |state| {
        let ticket = *state.events.get(&event).ok_or(code::INVALID_HANDLE)?;
        ticket.map_or(Ok(()), |ticket| state.enqueue(stream, Work::Wait(ticket)))
    };
    cuStreamBeginCapture_v2(stream: usize, _mode: c_uint) |state| {
        let stream = state.stream(stream)?;
        if stream.capture.is_some() {
            return Err(code::CAPTURING);
        }
        stream.capture = Some(Vec::new());
        Ok(())
    };
    cuStreamEndCapture(stream: usize, graph: *mut usize) |state| {
        let nodes = state.stream(stream)?.capture.take().ok_or(code::INVALID_VALUE)?;
        let handle = state.handle();
        state.graphs.insert(handle, nodes.into());
        give(graph, handle)
    };
    cuStreamIsCapturing(stream: usize, status: *mut c_int) |state| {
        let capturing = state.is_capturing(stream)?;
        give(status, c_int::from(capturing))
    };

    cuEventCreate(event: *mut usize, _flags: c_uint) |state| {
        let handle = state.handle();
        state.events.insert(handle, None);
        give(event, handle)
    };
    cuEventDestroy_v2(event: usize) |state| {
        state.events.remove(&event).map(|_| ()).ok_or(code::INVALID_HANDLE)
    };
    cuEventRecord(event: usize, stream: usize) |state| {
        let ticket = state.ticket();
        *state.events.get_mut(&event).ok_or(code::INVALID_HANDLE)? = Some(ticket);
        state.enqueue(stream, Work::Record(ticket))
    };
    cuEventSynchronize(event: usize) |state| {
        let ticket = *state.events.get(&event).ok_or(code::INVALID_HANDLE)?;
        ticket.map_or(Ok(()), |ticket| state.finish_ticket(ticket))
    };
    cuEventQuery(event: usize) |state| {
        match *state.events.get(&event).ok_or(code::INVALID_HANDLE)? {
            // Who asks again and again comes to an end.
            Some(ticket) if !state.is_done(ticket) => {
                state.advance_ticket(ticket)?;
                Err(code::NOT_READY)
            }
            _ => Ok(()),
        }
    };
    cuEventElapsedTime(milliseconds: *mut f32, _start: usize, _end: usize) |_| give(milliseconds, 1.0);

    cuMemAlloc_v2(address: *mut u64, bytes: usize) |state| {
        let memory = &mut state.memories[current()?];
        if bytes == 0 {
            return Err(code::INVALID_VALUE);
        }
        if memory.used().saturating_add(bytes) > state.config.memory {
            return Err(code::OUT_OF_MEMORY);
        }
        give(address, memory.allocate(bytes))
    };
    cuMemFree_v2(address: u64) |state| {
        state.finish_all(current()?)?;
        if state.memory(address)?.free(address) { Ok(()) } else { Err(code::INVALID_VALUE) }
    };
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) |state| {
        give(free, state.config.memory - state.memories[current()?].used())?;
        give(total, state.config.memory)
    };
    cuMemHostAlloc(address: *mut usize, bytes: usize, _flags: c_uint) |state| {
        let room = vec![0xa5a5_a5a5_a5a5_a5a5_u64; bytes.div_ceil(8)].into_boxed_slice();
        let at = room.as_ptr() as usize;
        state.pinned.insert(at, room);
        give(address, at)
    };
    cuMemFreeHost(address: usize) |state| {
        state.finish_all(current()?)?;
        state.pinned.remove(&address).map(|_| ()).ok_or(code::INVALID_VALUE)
    };
    cuMemcpyHtoDAsync_v2(to: u64, from: usize, bytes: usize, stream: usize) |state| {
        let work = match is_pinned(state, from, bytes) {
            true => Work::CopyIn { to, from, bytes },
            false => Work::Write { to, bytes: host_bytes(from, bytes).into() },
        };
        state.enqueue(stream, work)
    };
    cuMemcpyDtoHAsync_v2(to: usize, from: u64, bytes: usize, stream: usize) |state| {
        let waits = !is_pinned(state, to, bytes) && !state.is_capturing(stream)?;
        state.enqueue(stream, Work::CopyOut { to, from, bytes })?;
        if waits { state.finish(stream) } else { Ok(()) }
    };
    cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) |state| {
        state.enqueue(stream, Work::Copy { to, from, bytes })
    };
    cuMemcpyPeerAsync(to: u64, target: usize, from: u64, source: usize, bytes: usize, stream: usize) |state| {
        if [to, from].map(state::device_of) != [target, source].map(|context| context.checked_sub(CONTEXTS)) {
            return Err(code::INVALID_VALUE);
        }
        state.enqueue(stream, Work::Copy { to, from, bytes })
    };
    cuMemsetD8Async(to: u64, byte: u8, bytes: usize, stream: usize) |state| {
        state.enqueue(stream, Work::Fill { to, byte, bytes })
    };

    cuModuleLoadData(module: *mut usize, image: *const c_char) |state| {
        load(state, module, image, (0, std::ptr::null(), std::ptr::null()))
    };
    cuModuleLoadDataEx(module: *mut usize, image: *const c_char, count: c_uint, options: *const c_uint,
        values: *const *mut c_void) |state| load(state, module, image, (count, options, values));
    cuModuleUnload(module: usize) |state| {
        state.modules.remove(&module).map(|_| ()).ok_or(code::INVALID_HANDLE)
    };
    cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) |state| {
        let module = Arc::clone(state.modules.get(&module).ok_or(code::INVALID_HANDLE)?);
        // SAFETY: names end with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let fixed = module.static_shared(&name).ok_or(code::NOT_FOUND)?;
        let handle = state.handle();
        let shared = AtomicUsize::new(48 * 1024 - fixed);
        state.functions.insert(handle, Arc::new(Function { module, name, shared }));
        give(function, handle)
    };
    cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: usize) |state| {
        let function = state.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        give(value, match attribute {
            1 => fixed_shared(function) as c_int,
            // None uses local memory: the interpreter has none.
            _ => 0,
        })
    };
    cuFuncSetAttribute(function: usize, attribute: c_uint, value: c_int) |state| {
        let function = state.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        // Dynamic shared memory: with what the kernel has in any case no more than there is.
        if attribute == 8 {
            if value as usize + fixed_shared(function) > most_shared(state.config.capability(0)) {
                return Err(code::INVALID_VALUE);
            }
            function.shared.store(value as usize, Ordering::Relaxed);
        }
        Ok(())
    };
    cuLaunchKernel(function: usize, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: usize, params: *const *const u8, extra: *const usize) |state| {
        launch(state, function, ([gx, gy, gz], [bx, by, bz], shared), (stream, (params, extra), false))
    };
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: usize, threads: c_int, shared: usize) |state| {
        let function = state.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        give(blocks, resident(function, threads as usize, shared) as c_int)
    };
    cuLaunchCooperativeKernel(function: usize, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
        shared: c_uint, stream: usize, params: *const *const u8) |state| {
        let of = state.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        let room = MULTIPROCESSORS as usize * resident(of, (bx * by * bz) as usize, shared as usize);
        if (gx * gy * gz) as usize > room {
            return Err(code::COOPERATIVE_LAUNCH_TOO_LARGE);
        }
        launch(state, function, ([gx, gy, gz], [bx, by, bz], shared), (stream, (params, std::ptr::null()), true))
    };

    cuGraphInstantiateWithFlags(exec: *mut usize, graph: usize, _flags: u64) |state| {
        let nodes = Arc::clone(state.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?);
        let handle = state.handle();
        state.graphs.insert(handle, nodes);
        give(exec, handle)
    };
    cuGraphLaunch(exec: usize, stream: usize) |state| {
        let nodes = Arc::clone(state.graphs.get(&exec).ok_or(code::INVALID_HANDLE)?);
        nodes.iter().try_for_each(|work| state.enqueue(stream, work.clone()))
    };
    cuGraphExecDestroy(exec: usize) |state| state.graphs.remove(&exec).map(|_| ()).ok_or(code::INVALID_HANDLE);
    cuGraphDestroy(graph: usize) |state| state.graphs.remove(&graph).map(|_| ()).ok_or(code::INVALID_HANDLE);
}

/// Of each device.
const MULTIPROCESSORS: c_int = 4;

/// Bytes of shared memory that a block can have.
fn most_shared(capability: (i32, i32)) -> usize {
    let kib = match capability {
        (..=6, _) => 48,
        (7, 0..=2) => 96,
        (7, _) => 64,
        (8, 0 | 7) => 163,
        (8, _) | (12.., _) => 99,
        _ => 227,
    };
    kib << 10
}

/// Blocks that a multiprocessor has room for: each takes shared memory, and a KiB of it besides; there are threads for 2048.
fn resident(function: &Function, threads: usize, shared: usize) -> usize {
    let each = fixed_shared(function) + shared + 1024;
    (2048 / threads.max(1)).min((228 << 10) / each)
}

/// Bytes of these that a kernel has in any case.
fn fixed_shared(function: &Function) -> usize {
    function.module.static_shared(&function.name).unwrap_or(0)
}

/// Whether memory of the host is one that devices reach by themselves.
fn is_pinned(state: &State, at: usize, bytes: usize) -> bool {
    let holds = |start: &usize, words: usize| *start <= at && at + bytes <= start + 8 * words;
    state.pinned.iter().any(|(start, room)| holds(start, room.len()))
}

/// Loads a text. What is wrong with it goes to the buffer that the options name.
fn load(
    state: &mut State,
    module: *mut usize,
    image: *const c_char,
    (count, options, values): (c_uint, *const c_uint, *const *mut c_void),
) -> Answer<()> {
    /// The buffer of the log, and its length.
    const LOG: [c_uint; 2] = [5, 6];
    // SAFETY: texts end with a zero.
    let text = unsafe { CStr::from_ptr(image) }.to_string_lossy();
    let log = |what: &str| {
        let option = |wanted| {
            // SAFETY: there are `count` options and values.
            (0..count as usize)
                .find(|&i| unsafe { *options.add(i) } == wanted)
                .map(|i| unsafe { *values.add(i) })
        };
        if let (Some(buffer), Some(length)) = (option(LOG[0]), option(LOG[1])) {
            let room = host_bytes_mut(buffer as usize, length as usize);
            let bytes = what.len().min(room.len().saturating_sub(1));
            room[..bytes].copy_from_slice(&what.as_bytes()[..bytes]);
            room[bytes] = 0;
        }
    };
    let parsed = Module::parse(&text).map_err(|error| {
        log(&error.to_string());
        code::INVALID_PTX
    })?;
    let number = |text: &str| {
        text.chars().filter(char::is_ascii_digit).collect::<String>().parse::<i32>().unwrap_or(0)
    };
    // PTX 8.4 came with CUDA 12.4.
    let version = number(&parsed.version);
    if version - 80 > (state.config.driver - 12_000) / 10 {
        log(&format!("PTX {} is newer than the driver", parsed.version));
        return Err(code::PTX_VERSION);
    }
    let (major, minor) = state.config.capability(0);
    let (target, has) = (number(&parsed.target), 10 * major + minor);
    if target > has || (parsed.target.ends_with('a') && target != has) {
        log(&format!("{} is not for sm_{has}", parsed.target));
        return Err(code::NO_BINARY);
    }
    let handle = state.handle();
    state.modules.insert(handle, Arc::new(parsed));
    give(module, handle)
}

fn launch(
    state: &mut State,
    function: Handle,
    (grid, block, shared): ([u32; 3], [u32; 3], c_uint),
    (stream, (params, extra), cooperative): (Handle, (*const *const u8, *const usize), bool),
) -> Answer<()> {
    let function = Arc::clone(state.functions.get(&function).ok_or(code::INVALID_HANDLE)?);
    let shared = shared as usize;
    if shared > function.shared.load(Ordering::Relaxed) {
        return Err(code::INVALID_VALUE);
    }
    let args = arguments(&function, params, extra)?;
    let call = Call { function, grid, block, shared, args: args.into(), cooperative };
    state.enqueue(stream, Work::Kernel(call))
}

/// The bytes of the arguments: each at its place, or all in a buffer.
fn arguments(
    function: &Function,
    params: *const *const u8,
    extra: *const usize,
) -> Answer<Vec<u8>> {
    let expected = function.module.params(&function.name).unwrap_or_default();
    if params.is_null() {
        // SAFETY: what the buffer is, the buffer, what its length is, where its length is, the end.
        let [one, buffer, two, length, end] = unsafe { *extra.cast::<[usize; 5]>() };
        if (one, two, end) != (1, 2, 0) {
            return Err(code::INVALID_VALUE);
        }
        // SAFETY: the length is there.
        let length = unsafe { *(length as *const usize) };
        return Ok(host_bytes(buffer, length).to_vec());
    }
    let mut args = Vec::new();
    for (i, (offset, bytes)) in expected.into_iter().enumerate() {
        args.resize(offset, 0);
        // SAFETY: there is a pointer for each parameter, to as many bytes.
        let from = unsafe { *params.add(i) };
        args.extend(host_bytes(from as usize, bytes));
    }
    Ok(args)
}

/// `cuGetErrorString` of the driver, which is there even where nothing else works.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(_error: u32, text: *mut *const c_char) -> u32 {
    give(text, c"an error of the fake driver".as_ptr()).err().unwrap_or(0)
}

/// `cuGetErrorName` of the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(_error: u32, text: *mut *const c_char) -> u32 {
    give(text, c"CUDA_ERROR_FAKE".as_ptr()).err().unwrap_or(0)
}
