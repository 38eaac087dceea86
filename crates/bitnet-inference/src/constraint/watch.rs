//! Ends work on constraints that takes too long: how long it takes depends on the constraint, and nothing
//! that can be seen of one tells in advance.

use std::fmt::Display;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use llguidance::{CancellationHandle, Matcher};

/// How long it may take to find out which tokens may come next: many times what it usually does.
const LONGEST: Duration = Duration::from_secs(1);

/// A thread that looks at the time. It ends with the last of its watches.
#[derive(Clone, Debug)]
pub(super) struct Watch(Sender<Work>);

/// Work that has begun.
#[derive(Debug)]
struct Work {
    began: Instant,
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
        let begun = Work { began: Instant::now(), handle, is_done: Arc::clone(&is_done) };
        self.0.send(begun).map_err(|why| why.to_string())?;
        let result = work(matcher).map_err(|why| why.to_string());
        *is_done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        result
    }
}

/// Looks after work in the order in which it begins, which is that in which it is to end.
fn watch(works: &Receiver<Work>) {
    for Work { began, handle, is_done } in works {
        loop {
            let left = LONGEST.saturating_sub(began.elapsed());
            // What is done while this is held is not ended.
            let is_done = is_done.lock().unwrap_or_else(PoisonError::into_inner);
            if *is_done {
                break;
            }
            if left.is_zero() {
                handle.cancel();
                break;
            }
            drop(is_done);
            thread::sleep(left);
        }
    }
}
