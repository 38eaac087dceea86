//! A block of threads: its warps in turns, and what each instruction does.

mod group;

use crate::error::{Error, Place, Space};
use crate::inst::{
    Address, Function, Inst, LANES, Lanes, Op, Operand, SHARED_WINDOW, Shuffle, Vote, Window,
};
use crate::launch::{self, Executed, Launch, Read};
use crate::matrix::{self, TILE};
use crate::memory::Memory;
use crate::order::{Order, Unordered};
use crate::parse::{Entry, Module};
use crate::shared::{Fault, Shared, View};
use crate::warp::{Copy, Mask, Refused, Warp, lanes};

/// Instructions of a warp in one turn.
const TURN: usize = 4096;

/// Barriers of a block.
const BARRIERS: usize = 16;

pub(crate) struct Block<'a> {
    module: &'a Module,
    entry: &'a Entry,
    launch: &'a Launch<'a>,
    index: [u32; 3],
    /// Its place among all, counted along x, then y, then z.
    number: usize,
    warps: Vec<Warp>,
    shared: Shared,
    barriers: [Barrier; BARRIERS],
    /// What each warp knows of the clocks of all.
    clocks: Vec<Vec<u32>>,
}

/// A barrier: who has come, and what they know.
#[derive(Clone, Debug, Default)]
struct Barrier {
    arrived: u32,
    clocks: Vec<u32>,
}

/// What came of an instruction.
enum Next {
    /// The lanes go on behind it.
    Step,
    /// They are where they should be.
    There,
    /// They wait for others.
    Wait,
}

/// The lanes that execute an instruction, and where.
#[derive(Clone, Copy)]
struct At {
    warp: usize,
    pc: usize,
    mask: Mask,
}

impl<'a> Block<'a> {
    pub(crate) fn new(
        module: &'a Module,
        entry: &'a Entry,
        launch: &'a Launch<'a>,
        index: [u32; 3],
    ) -> Block<'a> {
        let warps = launch::warps(launch);
        let mut clocks = vec![vec![0; warps]; warps];
        clocks.iter_mut().enumerate().for_each(|(warp, clocks)| clocks[warp] = 1);
        Block {
            module,
            entry,
            launch,
            index,
            number: number_of(index, launch.grid),
            warps: (0..warps).map(|number| Warp::new(number, entry, launch)).collect(),
            shared: Shared::new(
                entry.shared + launch.dynamic_shared,
                warps,
                entry.code.iter().any(|inst| matches!(inst.op, Op::Show)),
            ),
            barriers: std::array::from_fn(|_| Barrier { arrived: 0, clocks: vec![0; warps] }),
            clocks,
        }
    }

    pub(crate) fn done(&self) -> bool {
        self.warps.iter().all(|warp| warp.live == 0)
    }

    /// Gives each warp a turn, or turns to the end.
    pub(crate) fn run(
        &mut self,
        memory: &mut Memory,
        executed: &mut [Executed],
        left: &mut u64,
        to_the_end: bool,
    ) -> Result<(), Error> {
        while !self.done() {
            let before = *left;
            for warp in 0..self.warps.len() {
                for _ in 0..TURN {
                    let Some((mask, pc)) = self.warps[warp].group() else { break };
                    if *left == 0 {
                        let place = self.place(At { warp, pc, mask });
                        return Err(Error::Endless { instructions: self.launch.limit, place });
                    }
                    *left -= 1;
                    self.step(At { warp, pc, mask }, memory, executed)?;
                }
            }
            if *left == before {
                return Err(self.stuck());
            }
            if !to_the_end {
                break;
            }
        }
        Ok(())
    }

    /// Why nobody goes on.
    fn stuck(&self) -> Error {
        let at = |warp: &Warp| {
            let lane = (warp.live & warp.blocked).trailing_zeros() as usize % LANES;
            At { warp: warp.number, pc: warp.pcs[lane], mask: 1 << lane }
        };
        match self.warps.iter().find(|warp| warp.live != 0 && warp.waiting.is_none()) {
            Some(warp) => {
                let what =
                    "some threads are at an instruction that others will never come to".to_owned();
                Error::Divergence { what, place: self.place(at(warp)) }
            }
            None => {
                let waiting =
                    self.warps.iter().find(|warp| warp.live != 0).unwrap_or(&self.warps[0]);
                Error::Deadlock { place: self.place(at(waiting)) }
            }
        }
    }

    fn line(&self, pc: usize) -> (usize, String) {
        let line = self.entry.code.get(pc).map_or(self.module.lines.len(), |inst| inst.line);
        (line, self.module.lines[line - 1].clone())
    }

    fn place(&self, at: At) -> Place {
        let lane = at.mask.trailing_zeros() as usize % LANES;
        self.warps[at.warp].place(lane, self.line(at.pc), self.index)
    }

    fn place_of(&self, at: At, lane: usize) -> Place {
        self.place(At { mask: 1 << lane, ..at })
    }

    fn trap(&self, at: At, what: &str) -> Error {
        Error::Trap { what: what.to_owned(), place: self.place(at) }
    }

    fn refused(&self, at: At, refused: Refused) -> Error {
        let name = |register: usize| self.entry.registers[register].name.clone();
        let (what, place) = (|register| format!("register {}", name(register)), self.place(at));
        match refused {
            Refused::Undefined(register, lane) => Error::UndefinedRegister {
                register: name(register),
                place: self.place_of(at, lane),
            },
            Refused::InFlight(register) => Error::InFlight { what: what(register), place },
            Refused::Unfenced(register) => Error::Unfenced { what: what(register), place },
        }
    }

    fn read(&self, at: At, operand: Operand) -> Result<Lanes, Error> {
        let values = self.warps[at.warp].read(operand, at.mask, (self.index, self.launch));
        values.map_err(|refused| self.refused(at, refused))
    }

    fn read_all(&self, at: At, operands: &[Operand]) -> Result<Vec<Lanes>, Error> {
        operands.iter().map(|&operand| self.read(at, operand)).collect()
    }

    fn write(&mut self, at: At, register: usize, values: &Lanes) {
        self.warps[at.warp].write(self.entry, register, values, at.mask);
    }

    fn addresses(&self, at: At, address: Address) -> Result<Lanes, Error> {
        let addresses = self.warps[at.warp].addresses(address, at.mask, (self.index, self.launch));
        addresses.map_err(|refused| self.refused(at, refused))
    }

    /// One instruction of the lanes `at.mask` of a warp.
    fn step(
        &mut self,
        at: At,
        memory: &mut Memory,
        executed: &mut [Executed],
    ) -> Result<(), Error> {
        let Some(inst) = self.entry.code.get(at.pc) else {
            return Err(self.trap(at, "the kernel has ended without `ret`"));
        };
        let warp = &mut self.warps[at.warp];
        warp.ran += 1;
        let mut active = at.mask;
        if let Some((predicate, yes)) = inst.guard {
            let holds = self.read(at, Operand::Register(predicate))?;
            active = lanes(at.mask)
                .filter(|&lane| (holds[lane] == 1) == yes)
                .fold(0, |all, lane| all | 1 << lane);
        }
        let skip = at.mask & !active;
        self.warps[at.warp].jump(skip, at.pc + 1);
        if active == 0 {
            return Ok(());
        }
        let at = At { mask: active, ..at };
        let executed = &mut executed[at.pc];
        executed.ever = true;
        if let Op::Load { window: Window::Global, ty, out, at: address, .. } = &inst.op
            && executed.read.is_none()
            && at.mask == u32::MAX
        {
            let addresses = self.addresses(at, *address)?.to_vec();
            executed.read = Some(Read { addresses, bytes: ty.bytes() * out.len() });
        }
        match self.execute(inst, at, memory)? {
            Next::Step => self.warps[at.warp].jump(at.mask, at.pc + 1),
            Next::There => {}
            Next::Wait => self.warps[at.warp].blocked |= at.mask,
        }
        match self.warps[at.warp].broken {
            Some(register) => Err(self.refused(at, Refused::InFlight(register))),
            None => Ok(()),
        }
    }

    fn execute(&mut self, inst: &'a Inst, at: At, memory: &mut Memory) -> Result<Next, Error> {
        match &inst.op {
            Op::Compute { f, ty, out, of } => {
                let values = match (f, &of[..]) {
                    (Function::One(f), [a]) => f(*ty, &self.read(at, *a)?),
                    (Function::Two(f), [a, b]) => f(*ty, &self.read(at, *a)?, &self.read(at, *b)?),
                    (Function::Three(f), [a, b, c]) => {
                        f(*ty, &self.read(at, *a)?, &self.read(at, *b)?, &self.read(at, *c)?)
                    }
                    (Function::Four(f), [a, b, c, d]) => {
                        let first = (self.read(at, *a)?, self.read(at, *b)?);
                        f(*ty, &first.0, &first.1, &self.read(at, *c)?, &self.read(at, *d)?)
                    }
                    _ => return Err(self.trap(at, "another number of operands expected")),
                };
                self.write(at, *out, &values);
            }
            Op::Convert { f, out, of } => {
                let values = self.read(at, *of)?.map(f);
                self.write(at, *out, &values);
            }
            Op::Compare { f, ty, out, of } => {
                let values = f(*ty, &self.read(at, of[0])?, &self.read(at, of[1])?);
                for (out, values) in out.iter().zip([values, values.map(|value| 1 - value)]) {
                    out.iter().for_each(|&out| self.write(at, out, &values));
                }
            }
            Op::Pack { bits, out, of } => {
                let mask = u64::MAX >> (64 - bits);
                let mut values = [0; LANES];
                for (i, part) in self.read_all(at, of)?.iter().enumerate() {
                    values
                        .iter_mut()
                        .zip(part)
                        .for_each(|(value, part)| *value |= (part & mask) << (bits * i as u32));
                }
                self.write(at, *out, &values);
            }
            Op::Unpack { bits, out, of } => {
                let values = self.read(at, *of)?;
                for (i, out) in out.iter().enumerate() {
                    let part =
                        values.map(|value| value >> (bits * i as u32) & (u64::MAX >> (64 - bits)));
                    out.iter().for_each(|&out| self.write(at, out, &part));
                }
            }
            Op::Load { window, ty, out, at: address, acquires } => {
                let addresses = self.addresses(at, *address)?;
                let (size, count) = (ty.bytes(), out.len());
                for lane in lanes(at.mask) {
                    let mut bytes = [0; 16];
                    let bytes = &mut bytes[..size * count];
                    let place = (*window, addresses[lane]);
                    self.load(at, lane, place, bytes, memory)?;
                    match &mut memory.order {
                        Some(order) if *acquires => order.acquire(self.number, addresses[lane]),
                        _ => self.ordered((at, lane), place, bytes.len(), memory, Order::read)?,
                    }
                    for (out, bytes) in out.iter().zip(bytes.chunks(size)) {
                        let value = ty.widen(number(bytes)) as u64;
                        out.iter().for_each(|&out| {
                            self.warps[at.warp].write_lane(self.entry, out, lane, value)
                        });
                    }
                }
            }
            Op::Store { window, ty, of, at: address } => {
                let addresses = self.addresses(at, *address)?;
                let values = self.read_all(at, of)?;
                for lane in lanes(at.mask) {
                    let bytes: Vec<u8> = values
                        .iter()
                        .flat_map(|value| value[lane].to_le_bytes().into_iter().take(ty.bytes()))
                        .collect();
                    let place = (*window, addresses[lane]);
                    self.store(at, lane, place, &bytes, memory)?;
                    self.ordered((at, lane), place, bytes.len(), memory, Order::write)?;
                }
            }
            Op::Atomic { window, f, ty, out, at: address, of } => {
                let addresses = self.addresses(at, *address)?;
                let (b, c) = (self.read(at, of[0])?, self.read(at, of[1])?);
                for lane in lanes(at.mask) {
                    let mut bytes = [0; 8];
                    let bytes = &mut bytes[..ty.bytes()];
                    let place = self.resolve((*window, addresses[lane]));
                    self.aligned(at, lane, place.1, bytes.len())?;
                    if place.0 == Window::Shared {
                        let from = self.within(at, lane, place.1, bytes.len())?;
                        let written = self.shared.written(from, bytes.len());
                        written.map_err(|fault| self.fault(at, lane, fault))?;
                        bytes.copy_from_slice(&self.shared.bytes[from..][..ty.bytes()]);
                    } else {
                        self.load(at, lane, place, bytes, memory)?;
                    }
                    let old = number(bytes);
                    let new = (f(*ty, old, b[lane], c[lane]) & ty.mask()).to_le_bytes();
                    let new = &new[..ty.bytes()];
                    if place.0 == Window::Shared {
                        let view = View {
                            thread: self.warps[at.warp].thread(lane),
                            clocks: &self.clocks[at.warp],
                        };
                        let written = self.shared.exchange(place.1 as usize, new, view);
                        written.map_err(|fault| self.fault(at, lane, fault))?;
                    } else {
                        self.store(at, lane, place, new, memory)?;
                        if let Some(order) = &mut memory.order {
                            order.atomic(self.number, place.1);
                        }
                    }
                    out.iter().for_each(|&out| {
                        self.warps[at.warp].write_lane(self.entry, out, lane, old)
                    });
                }
            }
            Op::Branch(target) => {
                self.warps[at.warp].jump(at.mask, *target);
                return Ok(Next::There);
            }
            Op::Return => {
                self.warps[at.warp].live &= !at.mask;
                return Ok(Next::There);
            }
            Op::Trap => return Err(self.trap(at, "the kernel says that it must not come here")),
            Op::Nothing => {}
            Op::Fence => {
                if let Some(order) = &mut memory.order {
                    order.fence(self.number);
                }
            }
            Op::Show => {
                let (warp, clock) = (&self.warps[at.warp], self.clocks[at.warp][at.warp]);
                let first = warp.thread(0);
                self.shared.show(at.warp, |thread| at.mask >> (thread - first) & 1 == 1, clock);
            }
            Op::CopyAsync { .. } | Op::CopyCommit | Op::CopyWait(_) => {
                return self.copies(inst, at, memory);
            }
            Op::Barrier { id, threads, waits } => return self.barrier(at, (*id, *threads), *waits),
            _ => return self.together(inst, at),
        }
        Ok(Next::Step)
    }

    /// Instructions that lanes execute together.
    fn together(&mut self, inst: &'a Inst, at: At) -> Result<Next, Error> {
        let mask = match &inst.op {
            Op::WarpBarrier { mask }
            | Op::Shuffle { mask, .. }
            | Op::Vote { mask, .. }
            | Op::Reduce { mask, .. } => {
                let first = at.mask.trailing_zeros() as usize;
                self.read(At { mask: 1 << first, ..at }, *mask)?[first] as Mask
            }
            Op::ActiveMask(_) => at.mask,
            _ => Mask::MAX,
        };
        let Some(at) = self.gather(at, mask)? else { return Ok(Next::Wait) };
        match &inst.op {
            Op::WarpBarrier { .. } => self.clocks[at.warp][at.warp] += 1,
            Op::Shuffle { how, out, within, of, .. } => {
                let [a, by, clamp] =
                    [self.read(at, of[0])?, self.read(at, of[1])?, self.read(at, of[2])?];
                let (mut values, mut inside) = (a, [0; LANES]);
                for lane in lanes(at.mask) {
                    let from = source(*how, lane, by[lane], clamp[lane]);
                    inside[lane] = u64::from(from.is_some());
                    let from = from.unwrap_or(lane);
                    if at.mask >> from & 1 == 0 {
                        return Err(
                            self.trap(at, "a shuffle from a thread that takes no part in it")
                        );
                    }
                    values[lane] = a[from];
                }
                self.write(at, *out, &values);
                within.iter().for_each(|&within| self.write(at, within, &inside));
            }
            Op::Vote { how, out, of, negated, .. } => {
                let votes = self.read(at, *of)?;
                let yes = lanes(at.mask).filter(|&lane| (votes[lane] == 1) != *negated);
                let yes: Mask = yes.fold(0, |all, lane| all | 1 << lane);
                let result = match how {
                    Vote::All => u64::from(yes == at.mask),
                    Vote::Any => u64::from(yes != 0),
                    Vote::Uniform => u64::from(yes == at.mask || yes == 0),
                    Vote::Ballot => u64::from(yes),
                };
                self.write(at, *out, &[result; LANES]);
            }
            Op::ActiveMask(out) => self.write(at, *out, &[u64::from(at.mask); LANES]),
            Op::Reduce { f, ty, out, of, .. } => {
                let values = self.read(at, *of)?;
                let result =
                    lanes(at.mask).map(|lane| values[lane]).reduce(|a, b| f(*ty, a, b) & ty.mask());
                self.write(at, *out, &[result.unwrap_or(0); LANES]);
            }
            Op::Multiply { product, out, a, b, c } => {
                let [a, b, c] =
                    [self.read_all(at, a)?, self.read_all(at, b)?, self.read_all(at, c)?];
                let values = matrix::multiply(*product, &a, &b, &c);
                out.iter().zip(&values).for_each(|(&out, values)| self.write(at, out, values));
            }
            Op::LoadTile { out, at: address, stride } => {
                let (addresses, stride) = (self.addresses(at, *address)?, self.read(at, *stride)?);
                let mut tile = [[0; TILE]; TILE];
                for lane in 0..LANES {
                    let (row, col, mut bytes) = (lane / 2, TILE / 2 * (lane % 2), [0; TILE]);
                    let from = addresses[lane] + 2 * (row as u64 * stride[lane] + col as u64);
                    self.shared_read(at, lane, from, &mut bytes)?;
                    let halves = bytes.as_chunks().0.iter().map(|half| u16::from_le_bytes(*half));
                    tile[row][col..].iter_mut().zip(halves).for_each(|(x, half)| *x = half);
                }
                let fragments = matrix::fragments(&tile, out.len());
                out.iter().zip(&fragments).for_each(|(&out, values)| self.write(at, out, values));
            }
            Op::MultiplyTiles { bfloat, out, a, b, c } => {
                let [a, b, c] =
                    [self.read_all(at, a)?, self.read_all(at, b)?, self.read_all(at, c)?];
                let values = matrix::multiply_tiles(*bfloat, &a, &b, &c);
                out.iter().zip(&values).for_each(|(&out, values)| self.write(at, out, values));
            }
            Op::StoreTile { of, at: address, stride } => {
                let (addresses, stride) = (self.addresses(at, *address)?, self.read(at, *stride)?);
                let values = self.read_all(at, of)?;
                for lane in 0..LANES {
                    let (row, col) = (lane / 2, TILE / 2 * (lane % 2));
                    let first = addresses[lane] + 4 * (row as u64 * stride[lane] + col as u64);
                    for (to, value) in (first..).step_by(4).zip(&values) {
                        let bytes = (value[lane] as u32).to_le_bytes();
                        self.store_shared(at, lane, to, &bytes)?;
                    }
                }
            }
            Op::LoadMatrix { transposed, out, at: address } => {
                let addresses = self.addresses(at, *address)?;
                self.load_matrix(at, *transposed, out, &addresses)?;
            }
            Op::GroupMultiply(product) => return self.begin_product(at, product),
            Op::GroupFence => self.warps[at.warp].fence(),
            Op::GroupCommit => self.warps[at.warp].commit(),
            Op::GroupWait(still) => self.end_products(at, *still),
            _ => return Err(self.trap(at, "an instruction that is not known here")),
        }
        self.warps[at.warp].blocked &= !at.mask;
        self.warps[at.warp].jump(at.mask, at.pc + 1);
        Ok(Next::There)
    }

    /// All lanes of `mask`, if they are at this instruction.
    fn gather(&self, at: At, mask: Mask) -> Result<Option<At>, Error> {
        if at.mask & !mask != 0 {
            return Err(self.trap(at, "a thread that is not in the mask of its instruction"));
        }
        let warp = &self.warps[at.warp];
        let here = at.mask | warp.at(warp.blocked & warp.live, at.pc);
        if mask & !warp.live != 0 {
            let what = "a thread that has returned is in the mask of an instruction".to_owned();
            return Err(Error::Divergence { what, place: self.place(at) });
        }
        Ok((mask & !here == 0).then_some(At { mask, ..at }))
    }

    /// A barrier of the block, for whole warps.
    fn barrier(
        &mut self,
        at: At,
        (id, threads): (Operand, Option<Operand>),
        waits: bool,
    ) -> Result<Next, Error> {
        let live = self.warps[at.warp].live;
        let Some(at) = self.gather(at, live)? else { return Ok(Next::Wait) };
        let first = at.mask.trailing_zeros() as usize;
        let id = self.read(at, id)?[first] as usize;
        let all: u32 = self.launch.block.iter().product();
        let expected = match threads {
            Some(threads) => self.read(at, threads)?[first] as u32,
            None => all,
        };
        let Some(barrier) = self.barriers.get_mut(id) else {
            return Err(self.trap(at, "there is no such barrier"));
        };
        barrier.arrived += at.mask.count_ones();
        let clocks = &mut self.clocks[at.warp];
        barrier.clocks.iter_mut().zip(&*clocks).for_each(|(all, mine)| *all = (*all).max(*mine));
        clocks[at.warp] += 1;
        let warp = &mut self.warps[at.warp];
        if waits {
            warp.waiting = Some(id);
            warp.blocked |= at.mask;
        } else {
            warp.blocked &= !at.mask;
            warp.jump(at.mask, at.pc + 1);
        }
        let arrived = barrier.arrived;
        if arrived > expected {
            return Err(self.trap(at, "more threads come to the barrier than it is for"));
        }
        if arrived == expected {
            self.open(id);
        }
        Ok(Next::There)
    }

    /// Lets all go on that wait at a barrier.
    fn open(&mut self, id: usize) {
        let warps = self.warps.len();
        let barrier = std::mem::replace(
            &mut self.barriers[id],
            Barrier { arrived: 0, clocks: vec![0; warps] },
        );
        for (warp, clocks) in self.warps.iter_mut().zip(&mut self.clocks) {
            if warp.waiting == Some(id) {
                warp.waiting = None;
                let waited = warp.blocked;
                warp.blocked = 0;
                lanes(waited).for_each(|lane| warp.pcs[lane] += 1);
                clocks
                    .iter_mut()
                    .zip(&barrier.clocks)
                    .for_each(|(mine, all)| *mine = (*mine).max(*all));
            }
        }
    }

    fn copies(&mut self, inst: &'a Inst, at: At, memory: &mut Memory) -> Result<Next, Error> {
        match inst.op {
            Op::CopyAsync { bytes, to, from, only } => {
                let (to, from) = (self.addresses(at, to)?, self.addresses(at, from)?);
                let only = only.map(|only| self.read(at, only)).transpose()?;
                for lane in lanes(at.mask) {
                    let only = only.map_or(bytes, |only| only[lane] as usize).min(bytes);
                    let copy = Copy {
                        lane,
                        to: to[lane],
                        from: from[lane],
                        bytes: (bytes, only),
                        pc: at.pc,
                    };
                    if let Some(open) = self.warps[at.warp].copies.last_mut() {
                        open.push(copy);
                    }
                }
                return Ok(Next::Step);
            }
            // Each thread has groups of its own; here they are those of a warp, so it must be whole.
            _ if at.mask != self.warps[at.warp].live => {
                return Err(
                    self.trap(at, "some threads of a warp begin or end a group of copies alone")
                );
            }
            Op::CopyCommit => self.warps[at.warp].copies.push(Vec::new()),
            Op::CopyWait(still) => {
                let groups = self.warps[at.warp].copies.len() - 1;
                let done = still.map_or(groups + 1, |still| groups.saturating_sub(still));
                let copies: Vec<Copy> =
                    self.warps[at.warp].copies.drain(..done).flatten().collect();
                if still.is_none() {
                    self.warps[at.warp].copies.push(Vec::new());
                }
                for Copy { lane, to, from, bytes: (all, only), pc } in copies {
                    let at = At { pc, ..at };
                    let mut bytes = vec![0; all];
                    if only > 0 {
                        let place = (Window::Global, from);
                        self.load(at, lane, place, &mut bytes[..only], memory)?;
                        self.ordered((at, lane), place, only, memory, Order::read)?;
                    }
                    self.store(at, lane, (Window::Shared, to), &bytes, memory)?;
                }
            }
            _ => {}
        }
        Ok(Next::Step)
    }

    /// `ldmatrix`: matrices of 8 x 8 numbers of 16 bits, whose rows lie at the addresses that eight lanes give each.
    fn load_matrix(
        &mut self,
        at: At,
        transposed: bool,
        out: &[usize],
        addresses: &Lanes,
    ) -> Result<(), Error> {
        for (i, &out) in out.iter().enumerate() {
            let mut rows = [[0_u16; 8]; 8];
            for (row, numbers) in rows.iter_mut().enumerate() {
                let (lane, mut bytes) = (8 * i + row, [0; 16]);
                self.shared_read(at, lane, addresses[lane], &mut bytes)?;
                let halves = bytes.as_chunks().0.iter().map(|half| u16::from_le_bytes(*half));
                numbers.iter_mut().zip(halves).for_each(|(number, half)| *number = half);
            }
            let values: Lanes = std::array::from_fn(|lane| {
                let (row, col) = (lane / 4, 2 * (lane % 4));
                let number = |col: usize| {
                    u64::from(if transposed { rows[col][row] } else { rows[row][col] })
                };
                number(col) | number(col + 1) << 16
            });
            self.write(at, out, &values);
        }
        Ok(())
    }

    /// The window and the address in it.
    fn resolve(&self, (window, address): (Window, u64)) -> (Window, u64) {
        match window {
            Window::Generic if address >= SHARED_WINDOW => {
                (Window::Shared, address - SHARED_WINDOW)
            }
            Window::Generic => (Window::Global, address),
            _ => (window, address),
        }
    }

    /// An access to memory that all blocks share, which must be ordered with those of others that are there at once.
    fn ordered(
        &self,
        (at, lane): (At, usize),
        place: (Window, u64),
        bytes: usize,
        memory: &mut Memory,
        access: fn(&mut Order, usize, u64, usize) -> Result<(), Unordered>,
    ) -> Result<(), Error> {
        let (Some(order), (Window::Global, address)) = (&mut memory.order, self.resolve(place))
        else {
            return Ok(());
        };
        access(order, self.number, address, bytes).map_err(|(what, other)| Error::RaceOfBlocks {
            address,
            what,
            other,
            place: self.place_of(at, lane),
        })
    }

    fn aligned(&self, at: At, lane: usize, address: u64, bytes: usize) -> Result<(), Error> {
        match address.is_multiple_of(bytes as u64) {
            true => Ok(()),
            false => Err(Error::Misaligned { address, bytes, place: self.place_of(at, lane) }),
        }
    }

    fn outside(&self, at: At, lane: usize, space: Space, (address, bytes): (u64, usize)) -> Error {
        Error::OutOfBounds { space, address, bytes, place: self.place_of(at, lane) }
    }

    fn load(
        &mut self,
        at: At,
        lane: usize,
        place: (Window, u64),
        out: &mut [u8],
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let (window, address) = self.resolve(place);
        let bytes = out.len();
        self.aligned(at, lane, address, bytes)?;
        let within = |space| self.outside(at, lane, space, (address, bytes));
        match window {
            Window::Shared => self.shared_read(at, lane, address, out)?,
            Window::Param => {
                let from = usize::try_from(address).unwrap_or(usize::MAX);
                let args = self.launch.args.get(from..).and_then(|args| args.get(..bytes));
                out.copy_from_slice(args.ok_or_else(|| within(Space::Param))?);
            }
            _ => {
                let (buffer, from) =
                    memory.find(address, bytes).ok_or_else(|| within(Space::Global))?;
                let buffer = memory.buffer(buffer);
                if let Some(hole) =
                    buffer.written[from..][..bytes].iter().position(|written| !written)
                {
                    let address = address + hole as u64;
                    return Err(Error::Uninitialized {
                        space: Space::Global,
                        address,
                        place: self.place_of(at, lane),
                    });
                }
                out.copy_from_slice(&buffer.bytes[from..][..bytes]);
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        at: At,
        lane: usize,
        place: (Window, u64),
        bytes: &[u8],
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let (window, address) = self.resolve(place);
        self.aligned(at, lane, address, bytes.len())?;
        if window == Window::Shared {
            return self.store_shared(at, lane, address, bytes);
        }
        match memory.write(address, bytes) {
            true => Ok(()),
            false => Err(self.outside(at, lane, Space::Global, (address, bytes.len()))),
        }
    }

    fn store_shared(
        &mut self,
        at: At,
        lane: usize,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let from = self.within(at, lane, address, bytes.len())?;
        let view = View { thread: self.warps[at.warp].thread(lane), clocks: &self.clocks[at.warp] };
        let written = self.shared.write(from, bytes, view);
        written.map_err(|fault| self.fault(at, lane, fault))
    }

    fn shared_read(
        &mut self,
        at: At,
        lane: usize,
        address: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        self.aligned(at, lane, address, out.len())?;
        let from = self.within(at, lane, address, out.len())?;
        let view = View { thread: self.warps[at.warp].thread(lane), clocks: &self.clocks[at.warp] };
        let read = self.shared.read(from, out.len(), view);
        read.map_err(|fault| self.fault(at, lane, fault))?;
        out.copy_from_slice(&self.shared.bytes[from..][..out.len()]);
        Ok(())
    }

    fn within(&self, at: At, lane: usize, address: u64, bytes: usize) -> Result<usize, Error> {
        let from = usize::try_from(address).ok().filter(|from| {
            from.checked_add(bytes).is_some_and(|end| end <= self.shared.bytes.len())
        });
        from.ok_or_else(|| self.outside(at, lane, Space::Shared, (address, bytes)))
    }

    fn fault(&self, at: At, lane: usize, fault: Fault) -> Error {
        let place = self.place_of(at, lane);
        match fault {
            Fault::Unwritten(address) => {
                Error::Uninitialized { space: Space::Shared, address: address as u64, place }
            }
            Fault::Race { at, what, other } => {
                Error::Race { address: at as u64, what, other, place }
            }
            Fault::InFlight(at) => {
                Error::InFlight { what: format!("shared memory at {at:#x}"), place }
            }
            Fault::Hidden(at) => {
                Error::Unfenced { what: format!("shared memory at {at:#x}"), place }
            }
        }
    }
}

fn number_of([x, y, z]: [u32; 3], [width, height, _]: [u32; 3]) -> usize {
    ((z * height + y) * width + x) as usize
}

/// Bytes to a number, the lowest first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The lane that a shuffle takes from, if that is in the segment.
fn source(how: Shuffle, lane: usize, by: u64, clamp: u64) -> Option<usize> {
    let (lane, by) = (lane as i64, (by & 31) as i64);
    let (clamp, segment) = ((clamp & 31) as i64, (clamp >> 8 & 31) as i64);
    let most = (lane & segment) | (clamp & !segment);
    let (from, inside) = match how {
        Shuffle::Up => (lane - by, lane - by >= most),
        Shuffle::Down => (lane + by, lane + by <= most),
        Shuffle::Butterfly => (lane ^ by, (lane ^ by) <= most),
        Shuffle::Index => {
            let from = (lane & segment) | (by & !segment);
            (from, from <= most)
        }
    };
    inside.then_some(from as usize)
}
