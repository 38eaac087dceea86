//! Products of four warps together, `wgmma`: begun by an instruction, and done when they are waited for.
//!
//! Results are computed when a product begins; until it is done nobody may come near its registers, nor write the shared memory that it
//! reads. Threads that have written that must have shown it by a fence of their own: one of the threads that read, which devices
//! take too, is not looked for.

use super::{At, Block, Next};
use crate::error::Error;
use crate::inst::{GroupProduct, Lanes, Operand};
use crate::matrix;
use crate::shared::View;
use crate::warp::{Flight, Mask, Warp};

/// Warps that multiply together.
const WARPS: usize = 4;
/// Bytes of a row in shared memory.
const ROW: u64 = 128;
/// Bytes that stay together there.
const PIECE: usize = 16;

/// Where the second matrix of a product lies: its columns as rows of 128 bytes, eight of them one after another, whose pieces are
/// swapped by the number of the row. The manual calls it swizzling of 128 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptor {
    /// The first byte.
    start: u64,
    /// Bytes from eight rows to the next eight.
    stride: u64,
}

impl Descriptor {
    /// What the bits say; in words, what is wrong with those that say nothing, or nothing that is known here.
    fn of(bits: u64) -> Result<Descriptor, &'static str> {
        let bytes = |from: u32| (bits >> from & 0x3fff) * PIECE as u64;
        let (start, stride) = (bytes(0), bytes(32));
        match (bits >> 62, bits >> 49 & 7) {
            _ if bits & 0x3ff1_c000_c000_c000 != 0 => {
                Err("a descriptor of a matrix has bits that mean nothing")
            }
            (1, 0) if (start / ROW).is_multiple_of(8) => Ok(Descriptor { start, stride }),
            (1, _) => Err("a matrix in shared memory does not begin with eight rows"),
            _ => Err("a matrix in shared memory has an order that is not known here"),
        }
    }

    /// The address of a piece of a row.
    fn piece(self, row: usize, piece: usize) -> u64 {
        let (row, piece) = (row as u64, (piece * PIECE) as u64);
        let at = self.start + row / 8 * self.stride + row % 8 * ROW + piece;
        at ^ (at / ROW % 8 * PIECE as u64)
    }
}

impl Block<'_> {
    /// Begins a product when the last of four warps comes to it.
    pub(super) fn begin_product(&mut self, at: At, product: &GroupProduct) -> Result<Next, Error> {
        let first = at.warp / WARPS * WARPS;
        let group = first..first + WARPS;
        let whole = |warps: &&[Warp]| warps.iter().all(|warp| warp.live == Mask::MAX);
        let Some(warps) = self.warps.get(group.clone()).filter(whole) else {
            let what =
                "four warps begin a product together, and not all of their threads are there";
            return Err(Error::Divergence { what: what.to_owned(), place: self.place(at) });
        };
        let waits = |warp: &Warp| warp.at(warp.blocked, at.pc) == Mask::MAX;
        if !warps.iter().all(|warp| warp.number == at.warp || waits(warp)) {
            return Ok(Next::Wait);
        }
        let group: Vec<At> = group.map(|warp| At { warp, ..at }).collect();
        let (add, bits) = (self.same(&group, product.add)?, self.same(&group, product.b)?);
        let b = Descriptor::of(bits).map_err(|what| self.trap(at, what))?;
        let places = (0..product.columns()).flat_map(|row| [b.piece(row, 0), b.piece(row, 1)]);
        let places = places.map(|place| self.within(at, 0, place, PIECE));
        let places = places.collect::<Result<Vec<usize>, Error>>()?;
        for at in group {
            self.begin_part(at, product, &places, add == 1)?;
            let warp = &mut self.warps[at.warp];
            warp.blocked = 0;
            warp.jump(Mask::MAX, at.pc + 1);
        }
        Ok(Next::There)
    }

    /// What an operand is: one value for all threads of some warps.
    fn same(&self, warps: &[At], operand: Operand) -> Result<u64, Error> {
        let values: Vec<Lanes> =
            warps.iter().map(|&at| self.read(at, operand)).collect::<Result<_, _>>()?;
        let all = values.as_flattened();
        match all.iter().all(|value| *value == all[0]) {
            true => Ok(all[0]),
            false => Err(self.trap(warps[0], "threads begin a product of different matrices")),
        }
    }

    /// The part of a warp, of a matrix whose pieces lie at `places`.
    fn begin_part(
        &mut self,
        at: At,
        product: &GroupProduct,
        places: &[usize],
        add: bool,
    ) -> Result<(), Error> {
        let warp = &self.warps[at.warp];
        let parts = warp.parts_of(product, add).map_err(|refused| self.refused(at, refused))?;
        let view = View { thread: warp.thread(0), clocks: &self.clocks[at.warp] };
        for &place in places {
            let begun = self.shared.begin_read(place, PIECE, view);
            begun.map_err(|fault| self.fault(at, 0, fault))?;
        }
        let piece = |place: &usize| &self.shared.bytes[*place..][..PIECE];
        let b: Vec<u8> = places.iter().flat_map(piece).copied().collect();
        let sums = matrix::multiply_columns(product.signed, &parts.a, b.as_chunks().0, &parts.c);
        self.warps[at.warp].begin(Flight::new(product, places), &sums);
        Ok(())
    }

    /// Waits until so many groups of products of a warp are under way at most.
    pub(super) fn end_products(&mut self, at: At, still: usize) {
        let warp = &mut self.warps[at.warp];
        let view = View { thread: warp.thread(0), clocks: &self.clocks[at.warp] };
        for flight in warp.end(still) {
            flight.places.iter().for_each(|&place| self.shared.end_read(place, PIECE, view));
        }
    }
}
