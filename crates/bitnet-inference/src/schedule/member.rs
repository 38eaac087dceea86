//! The thread of one of several devices: it has a scheduler, follows orders, and tells what comes of them.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;

use super::lend::Loan;
use super::sequence::Sequence;
use super::{Embeddings, Event, RequestId, Scheduler};
use crate::Error;
use crate::kv::Change;

/// What a device is asked to do.
#[derive(Debug)]
pub(super) enum Work<'a> {
    Text(Box<Sequence<'a>>),
    Embeddings(Embeddings),
}

impl Work<'_> {
    pub(super) fn id(&self) -> RequestId {
        match self {
            Work::Text(sequence) => sequence.id,
            Work::Embeddings(wanted) => wanted.id,
        }
    }
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order<'a> {
    /// To do something, and to copy blocks before.
    Do(Work<'a>, Option<Loan>),
    Cancel(RequestId),
    /// To lend the keys and values of some tokens to the member that will do the work.
    Lend {
        tokens: Vec<u32>,
        to: usize,
        work: Work<'a>,
    },
    /// That nobody copies these blocks any more.
    TakeBack(Vec<u32>),
}

/// What the thread tells.
#[derive(Debug)]
pub(super) enum News<'a> {
    /// A step is done.
    Step { events: Vec<Event>, state: State },
    /// What is to be copied for the work, if it was still there.
    Lent { to: usize, work: Work<'a>, loan: Option<Loan> },
    /// So many of the blocks were copied: the lender may have them back.
    Copied { from: usize, blocks: Vec<u32>, copied: usize },
    /// The device failed, and has nothing to do any more.
    Failed { error: Error, events: Vec<Event>, work: Vec<Work<'a>>, state: State },
    /// The thread is no more.
    Gone,
}

/// How it is with a member after a step.
#[derive(Debug)]
pub(super) struct State {
    pub(super) running: usize,
    pub(super) waiting: usize,
    /// Blocks of keys and values: those in use, and all.
    pub(super) blocks: (usize, usize),
    pub(super) changes: Vec<Change>,
    pub(super) from_peers: u64,
}

/// A scheduler, and whom it tells what comes of its work.
pub(super) struct Member<'a, T: Fn(News<'a>)> {
    pub(super) scheduler: Scheduler<'a>,
    pub(super) tell: T,
}

impl<'a, T: Fn(News<'a>)> Member<'a, T> {
    /// Works until nobody gives orders any more.
    pub(super) fn work(mut self, orders: &Receiver<Order<'a>>) {
        // From here on it is noted what others can begin with.
        let _ = self.scheduler.state();
        loop {
            if self.scheduler.is_idle() || self.scheduler.waits_for_loans() {
                let Ok(order) = orders.recv() else { return };
                self.follow(order);
            }
            loop {
                match orders.try_recv() {
                    Ok(order) => self.follow(order),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            match self.scheduler.step() {
                Ok(events) => {
                    let state = self.scheduler.state();
                    (self.tell)(News::Step { events, state });
                }
                Err(error) => self.fail(error, None),
            }
        }
    }

    fn follow(&mut self, order: Order<'a>) {
        match order {
            Order::Do(work, loan) => {
                if let Some(loan) = loan {
                    // What cannot be copied is computed. A device that failed says so with its next pass.
                    let copied = self.scheduler.borrow_blocks(&loan).unwrap_or(0);
                    let Loan { from, blocks, .. } = loan;
                    (self.tell)(News::Copied { from, blocks, copied });
                }
                self.scheduler.accept(work);
            }
            Order::Cancel(id) => self.scheduler.cancel(id),
            Order::Lend { tokens, to, work } => match self.scheduler.lend(tokens) {
                Ok(loan) => (self.tell)(News::Lent { to, work, loan }),
                Err(error) => self.fail(error, Some(work)),
            },
            Order::TakeBack(blocks) => self.scheduler.take_back(&blocks),
        }
    }

    /// Gives all work back, and one that it was not to do.
    fn fail(&mut self, error: Error, other: Option<Work<'a>>) {
        let mut work = self.scheduler.hand_over();
        work.extend(other);
        let events = std::mem::take(&mut self.scheduler.events);
        let state = self.scheduler.state();
        (self.tell)(News::Failed { error, events, work, state });
    }
}

impl<'a, T: Fn(News<'a>)> Drop for Member<'a, T> {
    /// Whoever waits for it must learn that it does nothing more.
    fn drop(&mut self) {
        if thread::panicking() {
            (self.tell)(News::Gone);
        }
    }
}

impl<'a> Scheduler<'a> {
    /// Takes work that has begun elsewhere, or not at all.
    fn accept(&mut self, work: Work<'a>) {
        match work {
            Work::Text(sequence) => self.take(*sequence),
            Work::Embeddings(wanted) => self.embeddings.push_back(wanted),
        }
    }

    /// Gives up all that it has, to begin again elsewhere.
    fn hand_over(&mut self) -> Vec<Work<'a>> {
        while !self.running.is_empty() {
            self.preempt();
        }
        let texts = self.waiting.drain(..).map(|sequence| Work::Text(Box::new(sequence)));
        let wanted = self.embeddings.drain(..).map(|wanted| Work::Embeddings(wanted.anew()));
        texts.chain(wanted).collect()
    }

    fn state(&mut self) -> State {
        let (running, waiting) = self.load();
        State {
            running,
            waiting,
            blocks: self.blocks(),
            changes: match self.capacity.prefix_cache {
                true => self.session.cache().changes(),
                false => Vec::new(),
            },
            from_peers: self.session.peer_copies(),
        }
    }
}
