//! Ends work on constraints that takes too long: how long it takes depends on the constraint, and nothing
//! that can be seen of one tells in advance.

use std::fmt::Display;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use llguidance::{CancellationHandle, Matcher};

/// How often it is looked whether work is done.
const SLICE: Duration = Duration::from_millis(50);
/// Slices that it may take to find out which tokens may come next: many times what it usually does. Each
/// counts the same however long it really was, so that a process that is stopped, or has to wait for a
/// processor, does not lose its work.
const SLICES: u32 = 20;

/// A thread that counts the time. It ends with the last of its watches.
#[derive(Clone, Debug)]
pub(super) struct Watch(Sender<Work>);

/// Work that has begun.
#[derive(Debug)]
struct Work {
    /// The slices seen since it began.
    slices: u32,
    handle: CancellationHandle,
    is_done: Arc<Mutex<bool>>,
}

impl Watch {
    /// # Errors
    ///
    /// Where there can be no thread.
    pub(super) fn new() -> io::Result<Watch> {
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new().name("bitnet-watch".into()).spawn(move || watch(&receiver))?;
        Ok(Watch(sender))
    }

    /// Has a matcher do something. One that takes too long cannot be used any more.
    ///
    /// # Errors
    ///
    /// Those of the matcher.
    pub(super) fn run<T, E: Display>(
        &self,
        matcher: &mut Matcher,
        work: impl FnOnce(&mut Matcher) -> Result<T, E>,
    ) -> Result<T, String> {
        let Some(handle) = matcher.cancellation_handle() else {
            return work(matcher).map_err(|why| why.to_string());
        };
        let is_done = Arc::new(Mutex::new(false));
        let begun = Work { slices: 0, handle, is_done: Arc::clone(&is_done) };
        self.0.send(begun).map_err(|why| why.to_string())?;
        let result = work(matcher).map_err(|why| why.to_string());
        *is_done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        result
    }
}

/// Looks after all work that has begun, until there are no more watches.
fn watch(works: &Receiver<Work>) {
    while let Ok(work) = works.recv() {
        let mut under_way = vec![work];
        while !under_way.is_empty() {
            thread::sleep(SLICE);
            under_way.retain_mut(goes_on);
            under_way.extend(works.try_iter());
        }
    }
}

/// Counts a slice of work, and ends it if that was its last.
fn goes_on(work: &mut Work) -> bool {
    // What is done while this is held is not ended.
    let is_done = work.is_done.lock().unwrap_or_else(PoisonError::into_inner);
    work.slices += 1;
    if !*is_done && work.slices >= SLICES {
        work.handle.cancel();
    }
    !*is_done && work.slices < SLICES
}
