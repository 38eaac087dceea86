//! A launch: blocks one after another, or all at once where they wait for one another.

use std::collections::{BTreeMap, BTreeSet};

use crate::block::Block;
use crate::error::Error;
use crate::inst::LANES;
use crate::memory::Memory;
use crate::order::Order;
use crate::parse::{Entry, Module};

/// What a kernel is launched with.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: usize,
    /// The bytes of all parameters, each at its [offset](Module::params).
    pub args: &'a [u8],
    /// All blocks are there at once, so that they may wait for one another.
    pub cooperative: bool,
    /// Instructions of warps at most.
    pub limit: u64,
}

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions of warps.
    pub instructions: u64,
    /// Lines of the text whose instructions were executed by a thread.
    pub lines: BTreeSet<usize>,
    /// What the first whole warp read that came to a load from global memory, by the lines of these.
    pub reads: BTreeMap<usize, Read>,
}

/// What a warp reads at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The addresses of its threads.
    pub addresses: Vec<u64>,
    /// Bytes of each.
    pub bytes: usize,
}

/// What is known of an instruction that was executed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Executed {
    pub(crate) ever: bool,
    pub(crate) read: Option<Read>,
}

/// Shared memory of a block at most, of any device.
const SHARED: usize = 227 * 1024;
/// Threads of a block at most, of any device.
const THREADS: u32 = 1024;

impl Module {
    /// Runs a kernel to its end.
    ///
    /// # Errors
    ///
    /// All that is found wrong.
    pub fn launch(
        &self,
        kernel: &str,
        launch: &Launch<'_>,
        memory: &mut Memory,
    ) -> Result<Report, Error> {
        let no_entry = || Error::NoEntry(kernel.to_owned());
        let entry = self.entries.get(kernel).ok_or_else(no_entry)?;
        check(kernel, entry, launch)?;
        let mut executed = vec![Executed::default(); entry.code.len()];
        let mut left = launch.limit;
        let [x, y, z] = launch.grid;
        let blocks = (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z])));
        let mut blocks = blocks.map(|index| Block::new(self, entry, launch, index));
        memory.order = Some(Order::new((x * y * z) as usize));
        let ran = match launch.cooperative {
            true => at_once(&mut blocks.collect(), memory, (&mut executed, &mut left)),
            false => {
                blocks.try_for_each(|mut block| block.run(memory, &mut executed, &mut left, true))
            }
        };
        memory.order = None;
        ran?;
        let mut report = Report { instructions: launch.limit - left, ..Report::default() };
        for (inst, executed) in entry.code.iter().zip(executed).filter(|(_, code)| code.ever) {
            report.lines.insert(inst.line);
            report.reads.extend(executed.read.map(|read| (inst.line, read)));
        }
        Ok(report)
    }

    /// The lines of the text that have instructions of a kernel.
    #[must_use]
    pub fn lines(&self, kernel: &str) -> BTreeSet<usize> {
        let code = self.entries.get(kernel).map_or(&[][..], |entry| &entry.code);
        code.iter().map(|inst| inst.line).collect()
    }
}

/// Runs blocks in turns until all have ended.
fn at_once(
    all: &mut Vec<Block<'_>>,
    memory: &mut Memory,
    (executed, left): (&mut [Executed], &mut u64),
) -> Result<(), Error> {
    while !all.is_empty() {
        for block in &mut *all {
            block.run(memory, executed, left, false)?;
        }
        all.retain(|block| !block.done());
    }
    Ok(())
}

fn check(kernel: &str, entry: &Entry, launch: &Launch<'_>) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Launch { kernel: kernel.to_owned(), what });
    let (expected, given) = (entry.param_bytes, launch.args.len());
    if expected != given {
        return Err(Error::Arguments { kernel: kernel.to_owned(), expected, given });
    }
    let threads: u32 = launch.block.iter().product();
    if launch.grid.contains(&0) || threads == 0 {
        return refuse("it has no threads".to_owned());
    }
    if threads > THREADS || launch.grid[1] > 65_535 || launch.grid[2] > 65_535 {
        return refuse(format!(
            "{:?} blocks of {:?} threads are too many",
            launch.grid, launch.block
        ));
    }
    if let Some(most) = entry.threads {
        let fits = launch.block.iter().product::<u32>() <= most.of.iter().product();
        if !fits || (most.exactly && most.of != launch.block) {
            return refuse(format!(
                "it is compiled for blocks of {:?}, not {:?}",
                most.of, launch.block
            ));
        }
    }
    if entry.shared + launch.dynamic_shared > SHARED {
        return refuse(format!("{} bytes of shared memory", entry.shared + launch.dynamic_shared));
    }
    Ok(())
}

/// Warps of a block.
pub(crate) fn warps(launch: &Launch<'_>) -> usize {
    launch.block.iter().product::<u32>().div_ceil(LANES as u32) as usize
}
