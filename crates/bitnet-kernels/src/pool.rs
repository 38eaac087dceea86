//! Threads: cut an output into tiles, compute each once, join.
//!
//! Workers live as long as the pool. Between jobs they spin for a moment, because the next job of
//! a token is microseconds away, and then park, because the processor may be wanted elsewhere.
//! Which thread computes a tile is chance; what it computes is not. No lock is taken but
//! to sleep and to wake: who finds the pool at work for another computes alone.
#![expect(unsafe_code, reason = "disjoint parts of one output are handed to several threads")]

use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::{hint, io};

/// More threads than any machine runs.
const MOST_THREADS: usize = 1 << 16;

/// Turns of waiting before a thread parks: some tens of microseconds.
const SPINS: u32 = 4000;
/// The same, where threads share cores: one that waits keeps another from work.
const SHARED_SPINS: u32 = 20;

/// A rectangle of a row-major matrix that one thread may write.
#[derive(Debug)]
pub struct Tile<'a, T> {
    /// The first element of the matrix.
    matrix: *mut T,
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a tile is a mutable borrow of its own elements, which no other tile of the matrix has.
unsafe impl<T: Send> Send for Tile<'_, T> {}

impl<'a, T> Tile<'a, T> {
    /// All of a matrix with `stride` columns.
    ///
    /// # Panics
    ///
    /// If `matrix` is not whole rows.
    pub fn new(matrix: &'a mut [T], stride: usize) -> Tile<'a, T> {
        assert!(stride > 0 && matrix.len().is_multiple_of(stride), "whole rows");
        let rows = 0..matrix.len() / stride;
        Tile { matrix: matrix.as_mut_ptr(), stride, rows, cols: 0..stride, borrow: PhantomData }
    }

    /// The rows of the matrix it covers.
    #[must_use]
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The columns of the matrix it covers.
    #[must_use]
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// Its part of row `row` of the matrix.
    ///
    /// # Panics
    ///
    /// If the tile does not cover that row.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(self.rows.contains(&row), "row {row} outside {:?}", self.rows);
        // SAFETY: row and columns are within the matrix, which is borrowed for `'a`; no other tile
        // covers these elements, and `&mut self` keeps this one from giving them out twice.
        unsafe {
            let start = self.matrix.add(row * self.stride + self.cols.start);
            std::slice::from_raw_parts_mut(start, self.cols.len())
        }
    }

    /// Its part of each row of the matrix, in order.
    pub fn into_rows(self) -> impl Iterator<Item = &'a mut [T]> {
        let (start, stride, len) = (self.cols.start, self.stride, self.cols.len());
        self.rows.map(move |row| {
            // SAFETY: as in `row`; the tile is gone, and each row is given once.
            unsafe {
                let start = self.matrix.add(row * stride + start);
                std::slice::from_raw_parts_mut(start, len)
            }
        })
    }

    /// The same tile for a while.
    pub fn reborrow(&mut self) -> Tile<'_, T> {
        self.within(self.rows(), self.cols())
    }

    /// A part of it, for a while.
    ///
    /// # Panics
    ///
    /// If the tile does not cover `rows` x `cols` of the matrix.
    pub fn within(&mut self, rows: Range<usize>, cols: Range<usize>) -> Tile<'_, T> {
        let covers = |all: &Range<usize>, part: &Range<usize>| {
            all.start <= part.start && part.start <= part.end && part.end <= all.end
        };
        let covered = covers(&self.rows, &rows) && covers(&self.cols, &cols);
        assert!(covered, "{rows:?} x {cols:?} outside {:?} x {:?}", self.rows, self.cols);
        // SAFETY: the ranges are within those of `self`, which is borrowed while the part is used.
        unsafe { self.part(rows, cols) }
    }

    /// The part of `self` that is `rows` x `cols` of the matrix.
    ///
    /// # Safety
    ///
    /// The ranges must be within those of `self`, and no element may be in two tiles in use.
    unsafe fn part(&self, rows: Range<usize>, cols: Range<usize>) -> Tile<'a, T> {
        Tile { matrix: self.matrix, stride: self.stride, rows, cols, borrow: PhantomData }
    }
}

thread_local! {
    /// Whether this thread is inside a job: a job within it runs on this thread alone.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Threads that share the work of a kernel.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    /// Whether the workers have a job, or are about to.
    taken: AtomicBool,
    workers: Vec<JoinHandle<()>>,
}

/// A job is a function of nothing: each thread calls it once.
type Job<'a> = &'a (dyn Fn() + Sync);

#[derive(Debug)]
struct Shared {
    /// The job in progress; points into the stack of the thread that waits in `Pool::run`.
    job: AtomicPtr<Job<'static>>,
    /// Counts jobs. A change tells the workers that there is one.
    epoch: AtomicUsize,
    /// Workers that have not finished the job.
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    /// For each worker, whether it is parked or about to park.
    parked: Vec<AtomicBool>,
    /// Turns of waiting before a thread parks.
    spins: u32,
    /// Whether the thread in `Pool::run` sleeps or is about to.
    waiting: AtomicBool,
    /// What it sleeps with, until `busy` is zero.
    sleep: (Mutex<()>, Condvar),
}

impl Pool {
    /// A pool of `threads` threads, the calling one included.
    ///
    /// # Errors
    ///
    /// Where the operating system refuses a thread, or it would, for they are more than 65,536.
    pub fn new(threads: NonZeroUsize) -> io::Result<Pool> {
        if threads.get() > MOST_THREADS {
            let reason = format!("{threads} threads are more than {MOST_THREADS}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let extra = threads.get() - 1;
        let shared = Arc::new(Shared::new(extra));
        let mut pool = Pool { shared, taken: AtomicBool::new(false), workers: Vec::new() };
        for index in 0..extra {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new().name(format!("bitnet-{}", index + 1));
            // On failure the pool is dropped, which ends the workers there are.
            pool.workers.push(worker.spawn(move || shared.work(index))?);
        }
        Ok(pool)
    }

    /// A pool of the calling thread alone.
    #[must_use]
    pub fn alone() -> Pool {
        let shared = Arc::new(Shared::new(0));
        Pool { shared, taken: AtomicBool::new(false), workers: Vec::new() }
    }

    /// The number of threads, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f` once for each tile of a matrix with `stride` columns, cut every `grain` rows and
    /// columns.
    ///
    /// # Panics
    ///
    /// If `f` does, or `out` is not whole rows, or the grain is zero.
    pub fn tiles<T: Send>(
        &self,
        out: &mut [T],
        stride: usize,
        grain: (usize, usize),
        f: impl Fn(Tile<'_, T>) + Sync,
    ) {
        self.tiles_of([Cut { out, stride, grain }], |_, tile| f(tile));
    }

    /// Calls `f` once for each tile of some matrices, with the index of the matrix.
    ///
    /// # Panics
    ///
    /// As [`Pool::tiles`].
    pub fn tiles_of<T: Send, const N: usize>(
        &self,
        cuts: [Cut<'_, T>; N],
        f: impl Fn(usize, Tile<'_, T>) + Sync,
    ) {
        let grids = cuts.map(Grid::new);
        self.each(grids.iter().map(Grid::len).sum(), |mut i| {
            for (index, grid) in grids.iter().enumerate() {
                if i < grid.len() {
                    // SAFETY: `each` gives every index once.
                    return f(index, unsafe { grid.tile(i) });
                }
                i -= grid.len();
            }
        });
    }

    /// Calls `f` once for each tile of two matrices of the same shape, cut alike.
    ///
    /// # Panics
    ///
    /// As [`Pool::tiles`], or if the shapes differ.
    pub fn pairs<T: Send>(
        &self,
        [a, b]: [&mut [T]; 2],
        stride: usize,
        grain: (usize, usize),
        f: impl Fn(Tile<'_, T>, Tile<'_, T>) + Sync,
    ) {
        assert_eq!(a.len(), b.len(), "as many elements in both");
        let grid = |out| Grid::new(Cut { out, stride, grain });
        let (a, b) = (grid(a), grid(b));
        // SAFETY: `each` gives every index once, and the matrices are two.
        self.each(a.len(), |i| unsafe { f(a.tile(i), b.tile(i)) });
    }

    /// Calls `f` once for each chunk of some slices, with its index.
    ///
    /// # Panics
    ///
    /// If `f` does, or slices that go together have not as many chunks.
    pub fn chunks<C: Chunks>(&self, chunks: C, f: impl Fn(usize, C::Chunk) + Sync) {
        // SAFETY: `each` gives every index once.
        self.each(chunks.count(), |i| f(i, unsafe { chunks.chunk(i) }));
    }

    /// Calls `f` for `0..n`, each once.
    fn each(&self, n: usize, f: impl Fn(usize) + Sync) {
        let alone = n <= 1 || self.workers.is_empty() || BUSY.get();
        // `Acquire` and the `Release` below order what one caller and the next do to `shared`.
        if alone || self.taken.swap(true, Ordering::Acquire) {
            return (0..n).for_each(f);
        }
        let next = AtomicUsize::new(0);
        let result = self.run(&|| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    break;
                }
                f(i);
            }
        });
        self.taken.store(false, Ordering::Release);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    }

    /// Calls `job` once on every thread and waits for all of them; the error is a panic in it.
    ///
    /// The caller has taken the workers.
    fn run(&self, job: Job<'_>) -> thread::Result<()> {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers use the job between the change of `epoch` and
        // their decrement of `busy`, and this function does not return before `busy` is zero.
        let mut job: Job<'static> = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        shared.job.store(&raw mut job, Ordering::Relaxed);
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (parked, worker) in shared.parked.iter().zip(&self.workers) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        BUSY.set(true);
        let mine = catch_unwind(AssertUnwindSafe(job));
        BUSY.set(false);
        shared.wait();
        let theirs = shared.panicked.swap(false, Ordering::Relaxed);
        mine?;
        if theirs {
            Err(Box::new("a worker thread panicked; its message is above"))
        } else {
            Ok(())
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of jobs; it has no others.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// What `extra` workers share.
    fn new(extra: usize) -> Shared {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Shared {
            job: AtomicPtr::new(ptr::null_mut()),
            epoch: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: (0..extra).map(|_| AtomicBool::new(false)).collect(),
            spins: if extra < cores { SPINS } else { SHARED_SPINS },
            waiting: AtomicBool::new(false),
            sleep: (Mutex::new(()), Condvar::new()),
        }
    }

    /// The life of a worker.
    fn work(&self, index: usize) {
        BUSY.set(true);
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.epoch.load(Ordering::SeqCst) == seen {
                if spins < self.spins {
                    spins += 1;
                    hint::spin_loop();
                    continue;
                }
                // Either the next job sees the flag and unparks, or this sees the job. A swap and not
                // a store: emulators of ARM on x86 let a store pass the load behind it.
                self.parked[index].swap(true, Ordering::SeqCst);
                if self.epoch.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                self.parked[index].store(false, Ordering::SeqCst);
            }
            seen = seen.wrapping_add(1);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // SAFETY: `Pool::run` stored the job before it changed `epoch`, and keeps it alive
            // until `busy` is zero.
            let job = unsafe { *self.job.load(Ordering::Relaxed) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                // Dropping it could panic again.
                std::mem::forget(panic);
                self.panicked.store(true, Ordering::Relaxed);
            }
            // Either this sees that the caller waits, or the caller sees that nobody is busy.
            let last = self.busy.fetch_sub(1, Ordering::SeqCst) == 1;
            if last && self.waiting.load(Ordering::SeqCst) {
                let _asleep = self.sleep.0.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleep.1.notify_all();
            }
        }
    }

    /// Returns when no worker is busy.
    fn wait(&self) {
        let busy = || self.busy.load(Ordering::SeqCst) > 0;
        for _ in 0..self.spins {
            if !busy() {
                return;
            }
            hint::spin_loop();
        }
        self.waiting.store(true, Ordering::SeqCst);
        let asleep = self.sleep.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.sleep.1.wait_while(asleep, |()| busy()));
        self.waiting.store(false, Ordering::SeqCst);
    }
}

/// A row-major matrix to cut into tiles.
#[derive(Debug)]
pub struct Cut<'a, T> {
    /// Whole rows.
    pub out: &'a mut [T],
    /// Columns.
    pub stride: usize,
    /// Rows and columns of a tile; those at the end may have fewer.
    pub grain: (usize, usize),
}

/// What is cut into chunks that several threads may write: [`Chunked`] slices, and pairs of such.
pub trait Chunks: Sync {
    /// What `f` gets.
    type Chunk;
    /// Number of chunks.
    fn count(&self) -> usize;
    /// Chunk `i`.
    ///
    /// # Safety
    ///
    /// `i` must be less than the count, and each chunk may be in use once.
    unsafe fn chunk(&self, i: usize) -> Self::Chunk;
}

/// A slice in chunks.
#[derive(Debug)]
pub struct Chunked<'a, T>(Whole<'a, T>, usize);

impl<'a, T> Chunked<'a, T> {
    /// `slice` in chunks of `size` elements; the last may have fewer.
    ///
    /// # Panics
    ///
    /// If `size` is zero.
    pub fn new(slice: &'a mut [T], size: usize) -> Chunked<'a, T> {
        assert!(size > 0, "chunks of nothing");
        Chunked(Whole(Tile::new(slice, 1)), size)
    }
}

impl<'a, T: Send> Chunks for Chunked<'a, T> {
    type Chunk = &'a mut [T];

    fn count(&self) -> usize {
        self.0.0.rows.end.div_ceil(self.1)
    }

    unsafe fn chunk(&self, i: usize) -> &'a mut [T] {
        let (start, end) = (i * self.1, self.0.0.rows.end.min((i + 1) * self.1));
        // SAFETY: the range is within the slice, which is borrowed for `'a`; nobody else has the chunk.
        unsafe { std::slice::from_raw_parts_mut(self.0.0.matrix.add(start), end - start) }
    }
}

impl<A: Chunks, B: Chunks> Chunks for (A, B) {
    type Chunk = (A::Chunk, B::Chunk);

    fn count(&self) -> usize {
        let (a, b) = (self.0.count(), self.1.count());
        assert_eq!(a, b, "as many chunks of both");
        a
    }

    unsafe fn chunk(&self, i: usize) -> Self::Chunk {
        // SAFETY: the caller's.
        unsafe { (self.0.chunk(i), self.1.chunk(i)) }
    }
}

/// A whole matrix, shared by the threads that take parts of it.
#[derive(Debug)]
struct Whole<'a, T>(Tile<'a, T>);

// SAFETY: nothing is read or written through it; parts of it are made, and those are `Send`.
unsafe impl<T: Send> Sync for Whole<'_, T> {}

impl<'a, T> Whole<'a, T> {
    /// See [`Tile::part`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn part(&self, rows: Range<usize>, cols: Range<usize>) -> Tile<'a, T> {
        // SAFETY: the caller's.
        unsafe { self.0.part(rows, cols) }
    }
}

/// The tiles of a matrix.
struct Grid<'a, T> {
    whole: Whole<'a, T>,
    grain: (usize, usize),
    /// Tiles side by side.
    across: usize,
    /// Tiles one above the other.
    down: usize,
}

impl<'a, T> Grid<'a, T> {
    fn new(Cut { out, stride, grain }: Cut<'a, T>) -> Self {
        assert!(grain.0 > 0 && grain.1 > 0, "tiles of {grain:?}");
        let whole = Whole(Tile::new(out, stride));
        let down = whole.0.rows.end.div_ceil(grain.0);
        Grid { whole, grain, across: stride.div_ceil(grain.1), down }
    }

    fn len(&self) -> usize {
        self.across * self.down
    }

    /// Tile `i`.
    ///
    /// # Safety
    ///
    /// Each may be in use once.
    unsafe fn tile(&self, i: usize) -> Tile<'a, T> {
        // Down first: what tiles of the same columns share stays in a cache.
        let (row, col) = (i % self.down * self.grain.0, i / self.down * self.grain.1);
        let (rows, cols) = (self.whole.0.rows.end, self.whole.0.cols.end);
        let (last_row, last_col) = (rows.min(row + self.grain.0), cols.min(col + self.grain.1));
        // SAFETY: different indices are different tiles; the caller uses each once.
        unsafe { self.whole.part(row..last_row, col..last_col) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn every_element_is_computed_once() {
        for threads in [1, 2, 5] {
            let pool = pool(threads);
            for (rows, cols, grain) in [(1, 1, (1, 1)), (7, 13, (2, 5)), (3, 64, (3, 1))] {
                let mut out = vec![0; rows * cols];
                for _ in 0..50 {
                    pool.tiles(&mut out, cols, grain, |mut tile| {
                        for row in tile.rows() {
                            tile.row(row).iter_mut().for_each(|x| *x += 1);
                        }
                    });
                }
                assert!(out.iter().all(|&x| x == 50), "{threads} threads, {rows} x {cols}");
            }
        }
    }

    #[test]
    fn tiles_of_several_matrices_are_computed_once() {
        let (mut a, mut b, mut c) = (vec![0; 3 * 10], vec![0; 7], vec![0; 2 * 64]);
        let cut = |out, stride, grain| Cut { out, stride, grain };
        pool(3).tiles_of(
            [cut(&mut a, 10, (2, 3)), cut(&mut b, 7, (1, 2)), cut(&mut c, 64, (1, 64))],
            |index, mut tile| {
                for row in tile.rows() {
                    tile.row(row).iter_mut().for_each(|x| *x += index + 1);
                }
            },
        );
        assert!(
            a.iter().all(|&x| x == 1) && b.iter().all(|&x| x == 2) && c.iter().all(|&x| x == 3)
        );

        pool(2).pairs([&mut a, &mut b.repeat(30)[..30]], 10, (1, 4), |mut a, mut b| {
            assert_eq!((a.rows(), a.cols()), (b.rows(), b.cols()));
            for row in a.rows() {
                a.row(row).iter_mut().zip(b.row(row)).for_each(|(a, b)| *a += *b);
            }
        });
        assert!(a.iter().all(|&x| x == 3));
    }

    #[test]
    fn chunks_of_several_slices_go_together() {
        let (mut a, mut b, mut c) = (vec![0; 10], vec![0; 4], vec![0; 7]);
        let chunks = ((Chunked::new(&mut a, 3), Chunked::new(&mut b, 1)), Chunked::new(&mut c, 2));
        pool(3).chunks(chunks, |i, ((a, b), c)| {
            a.fill(i + 1);
            b.fill(a.len());
            c.fill(10 * (i + 1));
        });
        assert_eq!(a, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]);
        assert_eq!(b, [3, 3, 3, 1]);
        assert_eq!(c, [10, 10, 20, 20, 30, 30, 40]);
    }

    #[test]
    #[should_panic(expected = "as many chunks of both")]
    fn chunks_that_do_not_go_together_are_refused() {
        let (mut a, mut b) = ([0; 4], [0; 4]);
        pool(1).chunks((Chunked::new(&mut a, 1), Chunked::new(&mut b, 2)), |_, _| {});
    }

    #[test]
    fn jobs_after_a_pause_wake_parked_workers() {
        let pool = pool(3);
        for _ in 0..20 {
            thread::sleep(std::time::Duration::from_millis(2));
            let mut out = [0; 64];
            pool.tiles(&mut out, 64, (1, 1), |mut tile| tile.row(0)[0] = 1);
            assert_eq!(out, [1; 64]);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = pool(2);
        let mut out = [0; 64];
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.tiles(&mut out, 64, (1, 1), |tile| assert!(tile.cols().start != 40));
        }));
        assert!(result.is_err());
        pool.tiles(&mut out, 64, (1, 1), |mut tile| tile.row(0)[0] = 1);
        assert_eq!(out, [1; 64]);
    }

    #[test]
    fn a_panic_that_cannot_be_dropped_does_not_end_a_worker() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let (pool, me, both) = (pool(2), thread::current().id(), std::sync::Barrier::new(2));
        let mut out = [0; 2];
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.tiles(&mut out, 1, (1, 1), |_| {
                both.wait();
                if thread::current().id() != me {
                    std::panic::panic_any(Bomb);
                }
            });
        }));
        assert!(result.is_err());
        pool.tiles(&mut out, 1, (1, 1), |mut tile| {
            both.wait();
            tile.row(tile.rows().start)[0] = 1;
        });
        assert_eq!(out, [1; 2]);
    }

    #[test]
    fn more_threads_than_there_can_be_are_refused() {
        assert!(Pool::new(NonZeroUsize::MAX).is_err());
    }

    #[test]
    fn a_job_within_a_job_runs_on_its_thread() {
        let pool = pool(3);
        let mut out = [0; 8 * 16];
        pool.tiles(&mut out, 16, (1, 16), |mut row| {
            let index = row.rows().start;
            pool.tiles(row.row(index), 16, (1, 4), |mut tile| {
                tile.row(0).iter_mut().for_each(|x| *x += 1);
            });
        });
        assert_eq!(out, [1; 8 * 16]);
    }

    #[test]
    fn threads_of_a_process_share_a_pool() {
        let pool = pool(2);
        thread::scope(|scope| {
            for _ in 0..4 {
                // Who finds the pool taken computes alone, so none waits for another.
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mut out = [0; 16];
                        pool.tiles(&mut out, 16, (1, 1), |mut tile| tile.row(0)[0] += 1);
                        assert_eq!(out, [1; 16]);
                    }
                });
            }
        });
    }
}
