//! A warp: 32 threads with a program counter each, of which those that are furthest behind go on together.

use crate::error::Place;
use crate::inst::{Address, LANES, Lanes, Operand, Register, Special};
use crate::launch::Launch;
use crate::parse::Entry;

/// A set of lanes, the first in the lowest bit.
pub(crate) type Mask = u32;

/// The lanes of a set.
pub(crate) fn lanes(mask: Mask) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

/// A copy that was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) lane: usize,
    pub(crate) to: u64,
    pub(crate) from: u64,
    /// All, and those that are not zeros.
    pub(crate) bytes: (usize, usize),
    /// The instruction.
    pub(crate) pc: usize,
}

/// A warp.
pub(crate) struct Warp {
    /// Its number in the block.
    pub(crate) number: usize,
    registers: Vec<Lanes>,
    /// The lanes that have written to each.
    defined: Vec<Mask>,
    pub(crate) pcs: [usize; LANES],
    /// Those that have not returned.
    pub(crate) live: Mask,
    /// Those that wait for others.
    pub(crate) blocked: Mask,
    /// The barrier of the block that it waits at.
    pub(crate) waiting: Option<usize>,
    /// Groups of copies, the open one last.
    pub(crate) copies: Vec<Vec<Copy>>,
    /// Coordinates of the threads.
    threads: [Lanes; 3],
    /// Instructions that it has run.
    pub(crate) ran: u64,
}

/// A register that nothing was written to, by number.
pub(crate) struct Undefined(pub(crate) Register, pub(crate) usize);

impl Warp {
    pub(crate) fn new(number: usize, entry: &Entry, launch: &Launch<'_>) -> Warp {
        let [x, y, z] = launch.block;
        let first = (number * LANES) as u32;
        let thread = |lane: usize| first + lane as u32;
        let live = (x * y * z - first).min(LANES as u32);
        Warp {
            number,
            registers: vec![[0; LANES]; entry.registers.len()],
            defined: vec![0; entry.registers.len()],
            pcs: [0; LANES],
            live: u32::MAX >> (LANES as u32 - live),
            blocked: 0,
            waiting: None,
            copies: vec![Vec::new()],
            threads: [
                std::array::from_fn(|lane| u64::from(thread(lane) % x)),
                std::array::from_fn(|lane| u64::from(thread(lane) / x % y)),
                std::array::from_fn(|lane| u64::from(thread(lane) / x / y)),
            ],
            ran: 0,
        }
    }

    /// The number in the block of the thread of a lane.
    pub(crate) fn thread(&self, lane: usize) -> u32 {
        (self.number * LANES + lane) as u32
    }

    /// The lanes that go on next, all at one instruction, and that one.
    pub(crate) fn group(&self) -> Option<(Mask, usize)> {
        let runnable = self.live & !self.blocked;
        let pc = lanes(runnable).map(|lane| self.pcs[lane]).min()?;
        Some((self.at(runnable, pc), pc))
    }

    /// Those of `mask` that are at an instruction.
    pub(crate) fn at(&self, mask: Mask, pc: usize) -> Mask {
        lanes(mask).filter(|&lane| self.pcs[lane] == pc).fold(0, |all, lane| all | 1 << lane)
    }

    pub(crate) fn jump(&mut self, mask: Mask, to: usize) {
        lanes(mask).for_each(|lane| self.pcs[lane] = to);
    }

    /// What an operand is for some lanes.
    pub(crate) fn read(
        &self,
        operand: Operand,
        mask: Mask,
        (index, launch): ([u32; 3], &Launch<'_>),
    ) -> Result<Lanes, Undefined> {
        let special = match operand {
            Operand::Immediate(value) => return Ok([value; LANES]),
            Operand::Register(register) => {
                let missing = mask & !self.defined[register];
                return match missing {
                    0 => Ok(self.registers[register]),
                    _ => Err(Undefined(register, missing.trailing_zeros() as usize)),
                };
            }
            Operand::Special(special) => special,
        };
        let one = match special {
            Special::Thread(axis) => return Ok(self.threads[axis]),
            Special::Lane => return Ok(std::array::from_fn(|lane| lane as u64)),
            Special::Threads(axis) => launch.block[axis].into(),
            Special::Block(axis) => index[axis].into(),
            Special::Blocks(axis) => launch.grid[axis].into(),
            Special::Warp => self.number as u64,
            Special::Clock => self.ran,
            Special::Dynamic => launch.dynamic_shared as u64,
        };
        Ok([one; LANES])
    }

    /// Writes a register of some lanes.
    pub(crate) fn write(&mut self, entry: &Entry, register: Register, values: &Lanes, mask: Mask) {
        let bits = entry.registers[register].mask;
        let out = &mut self.registers[register];
        if mask == Mask::MAX {
            *out = values.map(|value| value & bits);
        } else {
            lanes(mask).for_each(|lane| out[lane] = values[lane] & bits);
        }
        self.defined[register] |= mask;
    }

    /// Writes a register of one lane.
    pub(crate) fn write_lane(
        &mut self,
        entry: &Entry,
        register: Register,
        lane: usize,
        value: u64,
    ) {
        self.registers[register][lane] = value & entry.registers[register].mask;
        self.defined[register] |= 1 << lane;
    }

    /// Addresses of some lanes.
    pub(crate) fn addresses(
        &self,
        at: Address,
        mask: Mask,
        place: ([u32; 3], &Launch<'_>),
    ) -> Result<Lanes, Undefined> {
        Ok(self.read(at.base, mask, place)?.map(|base| base.wrapping_add(at.offset)))
    }

    /// Where a lane is.
    pub(crate) fn place(&self, lane: usize, line: (usize, String), block: [u32; 3]) -> Place {
        Place { line, block, thread: self.thread(lane) }
    }
}
