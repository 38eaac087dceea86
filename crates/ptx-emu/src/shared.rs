//! Shared memory of a block, that knows who wrote and who read each of its bytes, and what orders threads.

use std::ops::Range;

/// A point in what a thread does: the clock of its warp then. A warp's clock begins with 1 and goes on where
/// its threads wait for one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    thread: u32,
    /// 0: never.
    clock: u32,
}

/// What is known of a byte.
#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    write: Stamp,
    /// The write was part of an atomic operation, which needs no order with others.
    atomic: bool,
    /// The clock of the writer's warp when a fence of the writer has [shown](Shared::show) it to products of four warps; 0: never.
    shown: u32,
    /// Such products that read it and are not done.
    products: u32,
}

/// Shared memory of a block.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bytes: Vec<u8>,
    shadow: Vec<Shadow>,
    /// The last read of each byte by each warp since it was written, as [bits](Read).
    reads: Vec<u64>,
    warps: usize,
    /// What each warp has written and not shown; nothing is noted where the kernel has no fences that show.
    hidden: Vec<Vec<Hidden>>,
}

/// Bytes that a thread has written.
#[derive(Clone, Debug)]
struct Hidden {
    thread: u32,
    at: Range<usize>,
}

/// Reads of a byte by a warp at one clock.
#[derive(Clone, Copy, Debug)]
struct Read {
    stamp: Stamp,
    /// Other threads of the warp read it too.
    more: bool,
}

impl Read {
    /// Set in the number of the thread.
    const MORE: u64 = 1 << 63;

    fn of(bits: u64) -> Read {
        let thread = ((bits & !Read::MORE) >> 32) as u32;
        Read { stamp: Stamp { thread, clock: bits as u32 }, more: bits & Read::MORE != 0 }
    }

    fn bits(self) -> u64 {
        let Read { stamp: Stamp { thread, clock }, more } = self;
        u64::from(thread) << 32 | u64::from(clock) | if more { Read::MORE } else { 0 }
    }
}

/// A thread, and what its warp knows of the clocks of all warps, its own among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) thread: u32,
    pub(crate) clocks: &'a [u32],
}

/// What is wrong with an access: the byte, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Unwritten(usize),
    Race {
        at: usize,
        what: &'static str,
        other: u32,
    },
    /// A product of four warps reads it still.
    InFlight(usize),
    /// Such a product reads it, and it was not shown to that.
    Hidden(usize),
}

impl View<'_> {
    fn warp(self) -> usize {
        self.thread as usize / 32
    }

    fn stamp(self) -> Stamp {
        Stamp { thread: self.thread, clock: self.clocks[self.warp()] }
    }

    /// Whether all that came before `stamp`, and it, comes before this.
    fn follows(self, stamp: Stamp) -> bool {
        let warp = stamp.thread as usize / 32;
        stamp.clock == 0
            || stamp.thread == self.thread
            || if warp == self.warp() {
                stamp.clock < self.clocks[warp]
            } else {
                stamp.clock <= self.clocks[warp]
            }
    }
}

impl Shadow {
    /// Whether a thread may read the byte, which is that at `at`.
    fn readable(&self, at: usize, view: View<'_>) -> Result<(), Fault> {
        let Stamp { thread: other, clock } = self.write;
        match view.follows(self.write) {
            _ if clock == 0 => Err(Fault::Unwritten(at)),
            true => Ok(()),
            false => Err(Fault::Race { at, what: "a read and the write of", other }),
        }
    }
}

impl Shared {
    /// Memory for so many warps. `shows`: the kernel has fences that [show](Shared::show).
    pub(crate) fn new(bytes: usize, warps: usize, shows: bool) -> Shared {
        let (shadow, reads) = (vec![Shadow::default(); bytes], vec![0; bytes * warps]);
        let hidden = vec![Vec::new(); if shows { warps } else { 0 }];
        Shared { bytes: vec![0xa5; bytes], shadow, reads, warps, hidden }
    }

    /// Whether some bytes were all written.
    pub(crate) fn written(&self, at: usize, bytes: usize) -> Result<(), Fault> {
        match self.shadow[at..][..bytes].iter().position(|shadow| shadow.write.clock == 0) {
            Some(hole) => Err(Fault::Unwritten(at + hole)),
            None => Ok(()),
        }
    }

    /// Notes that a thread reads some bytes.
    pub(crate) fn read(&mut self, at: usize, bytes: usize, view: View<'_>) -> Result<(), Fault> {
        (at..at + bytes).try_for_each(|at| self.shadow[at].readable(at, view))?;
        self.note_read(at, bytes, view);
        Ok(())
    }

    fn note_read(&mut self, at: usize, bytes: usize, view: View<'_>) {
        for at in at..at + bytes {
            let bits = &mut self.reads[at * self.warps + view.warp()];
            let (before, stamp) = (Read::of(*bits), view.stamp());
            let more = before.stamp.clock == stamp.clock
                && (before.more || before.stamp.thread != stamp.thread);
            *bits = Read { stamp, more }.bits();
        }
    }

    /// Notes that a product of four warps begins to read some bytes, for a thread of one of them.
    pub(crate) fn begin_read(
        &mut self,
        at: usize,
        bytes: usize,
        view: View<'_>,
    ) -> Result<(), Fault> {
        for at in at..at + bytes {
            let shadow = &mut self.shadow[at];
            shadow.readable(at, view)?;
            let shown = Stamp { clock: shadow.shown, ..shadow.write };
            if shown.clock == 0 || !view.follows(shown) {
                return Err(Fault::Hidden(at));
            }
            shadow.products += 1;
        }
        Ok(())
    }

    /// Notes that it has read them.
    pub(crate) fn end_read(&mut self, at: usize, bytes: usize, view: View<'_>) {
        self.shadow[at..][..bytes].iter_mut().for_each(|shadow| shadow.products -= 1);
        self.note_read(at, bytes, view);
    }

    /// Shows what some threads of a warp have written to products of four warps; `clock` is that of the warp.
    pub(crate) fn show(&mut self, warp: usize, threads: impl Fn(u32) -> bool, clock: u32) {
        let Some(hidden) = self.hidden.get_mut(warp) else { return };
        for Hidden { thread, at } in hidden.extract_if(.., |hidden| threads(hidden.thread)) {
            let mine = self.shadow[at].iter_mut().filter(|shadow| shadow.write.thread == thread);
            mine.for_each(|shadow| shadow.shown = clock);
        }
    }

    /// Notes that a thread works on some bytes at once with others, and writes them.
    pub(crate) fn exchange(
        &mut self,
        at: usize,
        bytes: &[u8],
        view: View<'_>,
    ) -> Result<(), Fault> {
        for at in at..at + bytes.len() {
            let shadow = &mut self.shadow[at];
            if shadow.atomic {
                shadow.write = Stamp::default();
            }
        }
        self.write(at, bytes, view)?;
        self.shadow[at..][..bytes.len()].iter_mut().for_each(|shadow| shadow.atomic = true);
        Ok(())
    }

    /// Writes some bytes for a thread.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8], view: View<'_>) -> Result<(), Fault> {
        for (at, &byte) in (at..).zip(bytes) {
            let shadow = &mut self.shadow[at];
            if shadow.products > 0 {
                return Err(Fault::InFlight(at));
            }
            // Threads that write the same may do so at once.
            if !view.follows(shadow.write) && self.bytes[at] != byte {
                let other = shadow.write.thread;
                return Err(Fault::Race { at, what: "a write and the write of", other });
            }
            for bits in &mut self.reads[at * self.warps..][..self.warps] {
                let Read { stamp, more } = Read::of(std::mem::take(bits));
                if !view.follows(stamp) || more && stamp == view.stamp() {
                    let other = stamp.thread;
                    return Err(Fault::Race { at, what: "a write and the read of", other });
                }
            }
            *shadow = Shadow { write: view.stamp(), ..Shadow::default() };
            self.bytes[at] = byte;
        }
        if let Some(hidden) = self.hidden.get_mut(view.warp()) {
            hidden.push(Hidden { thread: view.thread, at: at..at + bytes.len() });
        }
        Ok(())
    }
}
