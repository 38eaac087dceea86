//! A warp: 32 threads with a program counter each, of which those that are furthest behind go on together.

use crate::error::Place;
use crate::inst::{Address, GroupProduct, LANES, Lanes, Operand, Register, Special};
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

/// A product of four warps that was begun: what it has of one of these.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    out: Vec<Register>,
    a: Vec<Register>,
    /// Pieces of shared memory that it reads.
    pub(crate) places: Vec<usize>,
}

/// Registers that a product is of.
pub(crate) struct Parts {
    pub(crate) a: Vec<Lanes>,
    /// What it is added to.
    pub(crate) c: Vec<Lanes>,
}

/// A warp.
pub(crate) struct Warp {
    /// Its number in the block.
    pub(crate) number: usize,
    registers: Vec<Lanes>,
    /// The lanes that have written to each.
    defined: Vec<Mask>,
    /// When each was written last by anything but products of four warps, as a [number of instructions](Warp::ran).
    written: Vec<u64>,
    /// Such products that have each and are not done.
    busy: Vec<u32>,
    /// A register that was written when one had it.
    pub(crate) broken: Option<Register>,
    /// The last fence of registers, likewise.
    fence: u64,
    /// Groups of these products, the open one last.
    flights: Vec<Vec<Flight>>,
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

/// Why a register cannot be had.
pub(crate) enum Refused {
    /// Nothing was written to it in a lane.
    Undefined(Register, usize),
    /// A product of four warps has it.
    InFlight(Register),
    /// There is no fence between a write and such a product.
    Unfenced(Register),
}

impl Flight {
    pub(crate) fn new(product: &GroupProduct, places: &[usize]) -> Flight {
        let (out, a) = (product.out.clone(), product.a.clone());
        Flight { out, a, places: places.to_vec() }
    }

    fn registers(&self) -> impl Iterator<Item = Register> {
        self.out.iter().chain(&self.a).copied()
    }

    /// The first register that another product cannot have, too. Sums of one product after another are an exception.
    fn conflict(&self, with: &GroupProduct) -> Option<Register> {
        let one_after_another = self.out == with.out;
        let sum = |register: &Register| self.out.contains(register);
        let of_sums = with.a.iter().find(|register| sum(register));
        let into =
            |register: &&Register| self.a.contains(register) || sum(register) && !one_after_another;
        of_sums.or(with.out.iter().find(into)).copied()
    }
}

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
            written: vec![0; entry.registers.len()],
            busy: vec![0; entry.registers.len()],
            broken: None,
            fence: 0,
            flights: vec![Vec::new()],
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
    ) -> Result<Lanes, Refused> {
        let special = match operand {
            Operand::Immediate(value) => return Ok([value; LANES]),
            Operand::Register(register) if self.busy[register] > 0 => {
                return Err(Refused::InFlight(register));
            }
            Operand::Register(register) => return self.register(register, mask),
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

    fn register(&self, register: Register, mask: Mask) -> Result<Lanes, Refused> {
        match mask & !self.defined[register] {
            0 => Ok(self.registers[register]),
            missing => Err(Refused::Undefined(register, missing.trailing_zeros() as usize)),
        }
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
        self.note(register);
    }

    /// Notes that a register was written.
    fn note(&mut self, register: Register) {
        self.written[register] = self.ran;
        if self.busy[register] > 0 {
            self.broken = Some(register);
        }
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
        self.note(register);
    }

    /// Orders what was done with registers and products of four warps.
    pub(crate) fn fence(&mut self) {
        self.fence = self.ran;
    }

    /// What a product of four warps has of this one.
    pub(crate) fn parts_of(&self, product: &GroupProduct, add: bool) -> Result<Parts, Refused> {
        let mut flights = self.flights.iter().flatten();
        if let Some(register) = flights.find_map(|flight| flight.conflict(product)) {
            return Err(Refused::InFlight(register));
        }
        let mut all = product.a.iter().chain(&product.out);
        if let Some(&register) = all.find(|register| self.written[**register] > self.fence) {
            return Err(Refused::Unfenced(register));
        }
        let read = |registers: &[Register]| -> Result<Vec<Lanes>, Refused> {
            registers.iter().map(|&register| self.register(register, Mask::MAX)).collect()
        };
        let c = if add { read(&product.out)? } else { vec![[0; LANES]; product.out.len()] };
        Ok(Parts { a: read(&product.a)?, c })
    }

    /// Begins such a product, whose results are these.
    pub(crate) fn begin(&mut self, flight: Flight, results: &[Lanes]) {
        for (&out, values) in flight.out.iter().zip(results) {
            self.registers[out] = *values;
            self.defined[out] = Mask::MAX;
        }
        flight.registers().for_each(|register| self.busy[register] += 1);
        if let Some(open) = self.flights.last_mut() {
            open.push(flight);
        }
    }

    /// Begins another group of products.
    pub(crate) fn commit(&mut self) {
        self.flights.push(Vec::new());
    }

    /// The products of all groups but the open one and `still` before it: they are done.
    pub(crate) fn end(&mut self, still: usize) -> Vec<Flight> {
        let done = (self.flights.len() - 1).saturating_sub(still);
        let flights: Vec<Flight> = self.flights.drain(..done).flatten().collect();
        for register in flights.iter().flat_map(Flight::registers) {
            self.busy[register] -= 1;
        }
        flights
    }

    /// Addresses of some lanes.
    pub(crate) fn addresses(
        &self,
        at: Address,
        mask: Mask,
        place: ([u32; 3], &Launch<'_>),
    ) -> Result<Lanes, Refused> {
        Ok(self.read(at.base, mask, place)?.map(|base| base.wrapping_add(at.offset)))
    }

    /// Where a lane is.
    pub(crate) fn place(&self, lane: usize, line: (usize, String), block: [u32; 3]) -> Place {
        Place { line, block, thread: self.thread(lane) }
    }
}
