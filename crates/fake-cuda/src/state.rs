//! What the driver has: memory, modules, streams, graphs.
//!
//! Nothing is done before somebody waits for it, and no more of it than that: what a program forgets to wait for, it does
//! not see.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use ptx_emu::{Launch, Memory, Module};

use crate::config::{Config, Failure};

/// Errors, as the driver numbers them.
pub(crate) mod code {
    pub(crate) const INVALID_VALUE: u32 = 1;
    pub(crate) const OUT_OF_MEMORY: u32 = 2;
    pub(crate) const NO_DEVICE: u32 = 100;
    pub(crate) const INVALID_DEVICE: u32 = 101;
    pub(crate) const INVALID_CONTEXT: u32 = 201;
    pub(crate) const NO_BINARY: u32 = 209;
    pub(crate) const INVALID_PTX: u32 = 218;
    pub(crate) const PEER_UNSUPPORTED: u32 = 217;
    pub(crate) const PTX_VERSION: u32 = 222;
    pub(crate) const INVALID_HANDLE: u32 = 400;
    pub(crate) const NOT_FOUND: u32 = 500;
    pub(crate) const NOT_READY: u32 = 600;
    pub(crate) const ILLEGAL_ADDRESS: u32 = 700;
    pub(crate) const PEER_ENABLED: u32 = 704;
    pub(crate) const COOPERATIVE_LAUNCH_TOO_LARGE: u32 = 720;
    pub(crate) const CAPTURING: u32 = 900;
}

/// A result of a call, or an error.
pub(crate) type Answer<T> = Result<T, u32>;

/// A handle: no address.
pub(crate) type Handle = usize;

/// Instructions of warps that a kernel may take.
const LIMIT: u64 = 20_000_000_000;

/// Devices have memory at addresses of their own.
const DEVICE_BITS: u32 = 40;

/// The device whose memory an address is in.
pub(crate) fn device_of(address: u64) -> Option<usize> {
    (address >> DEVICE_BITS).checked_sub(1).map(|device| device as usize)
}

/// A kernel, with what it is launched with.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) function: Arc<Function>,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: usize,
    pub(crate) args: Arc<[u8]>,
    pub(crate) cooperative: bool,
}

/// Something to be done in a stream.
#[derive(Clone)]
pub(crate) enum Work {
    Kernel(Call),
    /// From memory of the host that must stay as it is until this is done.
    CopyIn {
        to: u64,
        from: usize,
        bytes: usize,
    },
    /// What was in memory of the host.
    Write {
        to: u64,
        bytes: Arc<[u8]>,
    },
    CopyOut {
        to: usize,
        from: u64,
        bytes: usize,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Fill {
        to: u64,
        byte: u8,
        bytes: usize,
    },
    /// A ticket of an event.
    Record(u64),
    Wait(u64),
}

#[derive(Default)]
pub(crate) struct Stream {
    /// The device that it is of.
    device: usize,
    queue: VecDeque<Work>,
    /// What a graph has so far, while one is recorded.
    pub(crate) capture: Option<Vec<Work>>,
}

impl Stream {
    /// An empty one of a device.
    pub(crate) fn of(device: usize) -> Stream {
        Stream { device, ..Stream::default() }
    }
}

pub(crate) struct Function {
    pub(crate) module: Arc<Module>,
    pub(crate) name: String,
    /// Dynamic shared memory that it may have.
    pub(crate) shared: AtomicUsize,
}

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) memories: Vec<Memory>,
    pub(crate) streams: HashMap<Handle, Stream>,
    /// Tickets of the last record of each.
    pub(crate) events: HashMap<Handle, Option<u64>>,
    pub(crate) modules: HashMap<Handle, Arc<Module>>,
    pub(crate) functions: HashMap<Handle, Arc<Function>>,
    pub(crate) graphs: HashMap<Handle, Arc<[Work]>>,
    /// Memory of the host that devices reach by themselves.
    pub(crate) pinned: HashMap<usize, Box<[u64]>>,
    pub(crate) peers: HashSet<(usize, usize)>,
    done: HashSet<u64>,
    next: usize,
    /// Errors of kernels of a device, which all later calls for it give again.
    failed: HashMap<usize, u32>,
    /// Calls of each function: of all devices, and of each.
    calls: HashMap<(&'static str, Option<usize>), u64>,
}

impl State {
    pub(crate) fn new(config: Config) -> State {
        let memory =
            |device: i32| Memory::from((u64::from(device.cast_unsigned()) + 1) << DEVICE_BITS);
        State {
            memories: (0..config.devices).map(memory).collect(),
            config,
            streams: HashMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            pinned: HashMap::new(),
            peers: HashSet::new(),
            done: HashSet::new(),
            next: 0x1000,
            failed: HashMap::new(),
            calls: HashMap::new(),
        }
    }

    /// Begins a call for the current device: it fails where it is said to, or something before it has failed.
    pub(crate) fn enter(&mut self, function: &'static str, device: Option<usize>) -> Answer<()> {
        let mut count = |of| {
            let count = self.calls.entry((function, of)).or_default();
            *count += 1;
            (of, *count)
        };
        let all = count(None);
        let counts = [all, device.map_or(all, |device| count(Some(device)))];
        let fails = |failure: &&Failure| {
            failure.function == function && counts.contains(&(failure.device, failure.call))
        };
        if let Some(Failure { error, .. }) = self.config.failures.iter().find(fails) {
            return Err(*error);
        }
        let failed = device.and_then(|device| self.failed.get(&device));
        failed.map_or(Ok(()), |error| Err(*error))
    }

    pub(crate) fn handle(&mut self) -> Handle {
        self.next += 0x10;
        self.next
    }

    /// The memory that an address is in.
    pub(crate) fn memory(&mut self, address: u64) -> Answer<&mut Memory> {
        let device = device_of(address).ok_or(code::INVALID_VALUE)?;
        self.memories.get_mut(device).ok_or(code::INVALID_VALUE)
    }

    /// Does something at once, in a graph that is recorded, or when somebody waits for it.
    pub(crate) fn enqueue(&mut self, stream: Handle, work: Work) -> Answer<()> {
        let stream = self.stream(stream)?;
        match &mut stream.capture {
            Some(graph) => graph.push(work),
            None => stream.queue.push_back(work),
        }
        Ok(())
    }

    /// The stream of a handle; 0 is one that is always there.
    pub(crate) fn stream(&mut self, stream: Handle) -> Answer<&mut Stream> {
        if stream == 0 {
            return Ok(self.streams.entry(0).or_default());
        }
        self.streams.get_mut(&stream).ok_or(code::INVALID_HANDLE)
    }

    pub(crate) fn is_capturing(&mut self, stream: Handle) -> Answer<bool> {
        Ok(self.stream(stream)?.capture.is_some())
    }

    /// Does all that is in a stream.
    pub(crate) fn finish(&mut self, stream: Handle) -> Answer<()> {
        if self.is_capturing(stream)? {
            return Err(code::CAPTURING);
        }
        while self.advance(stream)? {}
        Ok(())
    }

    /// Does all that is in the streams of a device.
    pub(crate) fn finish_all(&mut self, device: usize) -> Answer<()> {
        let of_it = self.streams.iter().filter(|(_, stream)| stream.device == device);
        let streams: Vec<Handle> = of_it.map(|(handle, _)| *handle).collect();
        streams.into_iter().try_for_each(|stream| self.finish(stream))
    }

    /// Does what comes next in a stream, if there is something.
    pub(crate) fn advance(&mut self, stream: Handle) -> Answer<bool> {
        let Some(work) = self.stream(stream)?.queue.pop_front() else { return Ok(false) };
        let device = self.stream(stream)?.device;
        let result = self.run(work);
        if let Err(error) = result {
            self.failed.insert(device, error);
        }
        result.map(|()| true)
    }

    /// Until a ticket is done.
    pub(crate) fn finish_ticket(&mut self, ticket: u64) -> Answer<()> {
        while !self.done.contains(&ticket) {
            self.advance_ticket(ticket)?;
        }
        Ok(())
    }

    pub(crate) fn is_done(&self, ticket: u64) -> bool {
        self.done.contains(&ticket)
    }

    /// Does what comes next in the stream that a ticket is in.
    pub(crate) fn advance_ticket(&mut self, ticket: u64) -> Answer<()> {
        let has = |stream: &Stream| {
            stream.queue.iter().any(|work| matches!(work, Work::Record(t) if *t == ticket))
        };
        let stream = self.streams.iter().find(|(_, stream)| has(stream)).map(|(handle, _)| *handle);
        self.advance(stream.ok_or(code::INVALID_HANDLE)?)?;
        Ok(())
    }

    pub(crate) fn ticket(&mut self) -> u64 {
        self.handle() as u64
    }

    fn run(&mut self, work: Work) -> Answer<()> {
        match work {
            Work::Kernel(call) => return self.run_kernel(&call),
            Work::Record(ticket) => _ = self.done.insert(ticket),
            Work::Wait(ticket) => return self.finish_ticket(ticket),
            Work::CopyIn { to, from, bytes } => {
                let bytes = crate::host_bytes(from, bytes).to_vec();
                self.put(to, &bytes)?;
            }
            Work::Write { to, bytes } => self.put(to, &bytes)?,
            Work::CopyOut { to, from, bytes } => {
                let mut bytes = self.get(from, bytes)?;
                if let Some(first) = bytes.first_mut().filter(|_| self.config.wrong) {
                    *first ^= 1;
                }
                crate::host_bytes_mut(to, bytes.len()).copy_from_slice(&bytes);
            }
            Work::Copy { to, from, bytes } => {
                let bytes = self.get(from, bytes)?;
                self.put(to, &bytes)?;
            }
            Work::Fill { to, byte, bytes } => self.put(to, &vec![byte; bytes])?,
        }
        Ok(())
    }

    fn put(&mut self, to: u64, bytes: &[u8]) -> Answer<()> {
        if bytes.is_empty() || self.memory(to)?.write(to, bytes) {
            Ok(())
        } else {
            Err(code::ILLEGAL_ADDRESS)
        }
    }

    fn get(&mut self, from: u64, bytes: usize) -> Answer<Vec<u8>> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        Ok(self.memory(from)?.read(from, bytes).ok_or(code::ILLEGAL_ADDRESS)?.to_vec())
    }

    fn run_kernel(&mut self, call: &Call) -> Answer<()> {
        let Call { function, grid, block, shared, args, cooperative } = call;
        // Its memory is that of its first pointer: kernels that reach further are not there.
        let device = args.chunks_exact(8).find_map(|bytes| {
            let address = u64::from_le_bytes(bytes.try_into().ok()?);
            let device = (address >> DEVICE_BITS).checked_sub(1)?;
            (device < self.memories.len() as u64).then_some(device as usize)
        });
        let memory = &mut self.memories[device.unwrap_or(0)];
        let launch = Launch {
            grid: *grid,
            block: *block,
            dynamic_shared: *shared,
            args,
            cooperative: *cooperative,
            limit: LIMIT,
        };
        match function.module.launch(&function.name, &launch, memory) {
            Ok(_) => Ok(()),
            Err(error) => {
                eprintln!("fake CUDA driver: {}: {error}", function.name);
                Err(code::ILLEGAL_ADDRESS)
            }
        }
    }
}
