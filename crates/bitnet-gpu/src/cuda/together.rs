//! Passes in few launches: operations that follow each other become one launch of a kernel whose blocks wait for all others
//! between two of them.

use super::args::{Args, int};
use super::error::Error;
use super::gpu::{Gpu, Launches};
use super::memory::piece;
use super::sys::{self, Region, Shape};
use crate::kernels::KernelId;

/// A kernel that is to be launched.
#[derive(Debug)]
pub(super) struct Enqueued {
    pub(super) kernel: KernelId,
    pub(super) shape: Shape,
    pub(super) args: Args,
}

/// Kernels that are launched one after another.
#[derive(Debug)]
pub(super) struct List(Vec<Part>);

#[derive(Debug)]
enum Part {
    Alone(Enqueued),
    Together(Tape),
}

/// Operations of one launch, in the memory of the device.
#[derive(Debug)]
struct Tape {
    /// What blocks count in when they wait, then the operations.
    region: Region,
    count: usize,
    shape: Shape,
}

/// Threads of a block: `MEGA_THREADS` of `mega.cu`.
const THREADS: u32 = 256;
/// Blocks that its kernel is compiled for, of a multiprocessor.
const BLOCKS: usize = 2;
/// Bytes of an operation: `Op` of `mega.cu`.
const OPERATION: usize = 16 + ARGS;
/// Bytes of its arguments.
const ARGS: usize = 160;

/// Which operation does what a kernel does, if there is one: `Kind` of `mega.cu`.
fn kind(kernel: KernelId) -> Option<i32> {
    const KINDS: [KernelId; 12] = [
        KernelId::EmbedF32,
        KernelId::EmbedF16,
        KernelId::EmbedBf16,
        KernelId::RmsNorm,
        KernelId::Add,
        KernelId::Gate,
        KernelId::GemvNormMma,
        KernelId::GemvQuantizeMma,
        KernelId::GemvNormMmaGate,
        KernelId::AttendF32,
        KernelId::AttendF16,
        KernelId::AttendQ8,
    ];
    KINDS.iter().position(|of| *of == kernel).map(int)
}

impl List {
    /// The same as to launch each, in fewer launches. Their arguments go to the device.
    pub(super) fn new(gpu: &Gpu, all: Vec<Enqueued>) -> Result<List, Error> {
        let mut parts = Vec::new();
        let mut together: Vec<Enqueued> = Vec::new();
        for next in all {
            if kind(next.kernel).is_some() {
                together.push(next);
                continue;
            }
            List::close(gpu, &mut together, &mut parts)?;
            parts.push(Part::Alone(next));
        }
        List::close(gpu, &mut together, &mut parts)?;
        Ok(List(parts))
    }

    /// Makes one launch of what is to be done together; of one operation there is nothing to make.
    fn close(gpu: &Gpu, together: &mut Vec<Enqueued>, to: &mut Vec<Part>) -> Result<(), Error> {
        match together.len() {
            0 => {}
            1 => to.extend(together.drain(..).map(Part::Alone)),
            _ => {
                to.push(Part::Together(Tape::new(gpu, together)?));
                together.clear();
            }
        }
        Ok(())
    }

    pub(super) fn enqueue(&self, gpu: &Gpu) -> Result<(), Error> {
        for part in &self.0 {
            match part {
                Part::Alone(Enqueued { kernel, shape, args }) => {
                    gpu.function(*kernel)?.0.launch(gpu.compute(), *shape, args)?;
                }
                Part::Together(tape) => tape.enqueue(gpu)?,
            }
        }
        Ok(())
    }

    /// What is launched each time.
    pub(super) fn launches(&self) -> Launches {
        let mut launches = Launches::default();
        for part in &self.0 {
            launches.add(match part {
                Part::Alone(one) => one.kernel,
                Part::Together(_) => KernelId::MegaDecode,
            });
        }
        launches
    }
}

impl Tape {
    fn new(gpu: &Gpu, all: &[Enqueued]) -> Result<Tape, Error> {
        let shared = all.iter().map(|one| one.shape.shared).max().unwrap_or(0);
        let (function, most) = gpu.function(KernelId::MegaDecode)?;
        let at_once = if shared <= *most { function.resident(THREADS, shared)? } else { 0 };
        let multiprocessors = usize::try_from(gpu.info().multiprocessor_count).unwrap_or(0);
        let blocks = at_once.min(BLOCKS) * multiprocessors;
        if blocks == 0 || !gpu.info().cooperative_launch {
            let name = &gpu.info().name;
            let what = format!(
                "a pass in one kernel with {shared} bytes of shared memory, for which {name} has no room; leave out \
                 --gpu-passes kernel"
            );
            return Err(Error::Unsupported { what });
        }
        let mut bytes = vec![0; piece(4)];
        bytes.extend(all.iter().flat_map(Enqueued::operation));
        let region = gpu.allocate("the operations of a pass", bytes.len(), "take --device cpu")?;
        sys::upload(gpu.compute(), &region, &bytes)?;
        gpu.traffic.up(bytes.len());
        let shape = Shape { grid: [blocks as u32, 1, 1], threads: THREADS, shared };
        Ok(Tape { region, count: all.len(), shape })
    }

    fn enqueue(&self, gpu: &Gpu) -> Result<(), Error> {
        let (function, _) = gpu.function(KernelId::MegaDecode)?;
        let at = self.region.address();
        let args = (at + piece(4) as u64, int(self.count), at);
        function.launch_together(gpu.compute(), self.shape, args)
    }
}

impl Enqueued {
    /// As the kernel takes it.
    fn operation(&self) -> [u8; OPERATION] {
        let mut bytes = [0; OPERATION];
        let [x, y, z] = self.shape.grid.map(u32::cast_signed);
        let numbers = [kind(self.kernel).unwrap_or(-1), x, y, z];
        for (to, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let args = self.args.bytes();
        bytes[16..][..args.len()].copy_from_slice(args);
        bytes
    }
}
