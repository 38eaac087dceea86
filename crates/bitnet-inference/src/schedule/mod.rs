//! Many requests at once: one forward pass takes a token of each that is being generated and pieces of
//! the prompts of others (continuous batching).
//!
//! Keys and values lie in blocks that requests take as they grow. Where blocks run out, the request that
//! came last gives its own back and begins again later; nothing fails for it. What comes out for a
//! request depends on the request alone, to the last bit: not on who shares its passes, how its prompt was
//! cut, what it found in the cache or whether it had to begin again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bitnet_kernels::op::KV_BLOCK;

use crate::session::{CHUNK, Input};
use crate::{Compiled, Engine, Error, Session};

mod counts;
mod draft;
mod embed;
mod front;
mod lend;
mod member;
mod replicas;
mod request;
mod sequence;
mod store;
mod text;

use embed::Embeddings;
pub use replicas::{DeviceStatus, Replicas};
pub use request::{Capacity, End, Event, Finish, Request, RequestId, Timings, Token, Usage};
use sequence::Sequence;

/// Runs requests on an engine.
#[derive(Debug)]
pub struct Scheduler<'a> {
    engine: &'a Engine,
    /// The device that computes, by its place among those of the engine.
    replica: usize,
    session: Session,
    capacity: Capacity,
    /// Tokens that a sequence can hold.
    context: usize,
    /// Those that run, in the order in which they came.
    running: Vec<Sequence<'a>>,
    /// Those that wait, in the order in which they came.
    waiting: VecDeque<Sequence<'a>>,
    /// Sequences of the session that nobody has.
    slots: Vec<usize>,
    /// Texts whose embeddings are wanted, in the order of their turns, and what computes them once there were some.
    embeddings: VecDeque<Embeddings>,
    embedder: Option<Session>,
    /// What is to be said with the next step.
    events: Vec<Event>,
    /// Requests so far.
    requests: u64,
    /// Blocks that are lent to others.
    lent: usize,
}

impl<'a> Scheduler<'a> {
    /// A scheduler without requests.
    ///
    /// # Errors
    ///
    /// [`Error::Capacity`] where the capacity makes no sense, [`Error::Memory`].
    pub fn new(engine: &'a Engine, capacity: Capacity) -> Result<Scheduler<'a>, Error> {
        Scheduler::on(engine, 0, capacity)
    }

    /// The same on one of the [devices](Engine::devices) of the engine, by its place there.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::new`].
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn on(
        engine: &'a Engine,
        replica: usize,
        mut capacity: Capacity,
    ) -> Result<Scheduler<'a>, Error> {
        // What a library keeps of one sequence no other can have.
        capacity.prefix_cache &= engine.library().is_none();
        let Capacity { sequences, tokens, chunk, .. } = capacity;
        // Each that is generating has a row.
        let ranges = [("rows of a forward pass", chunk, CHUNK), ("sequences", sequences, chunk)];
        for (what, value, most) in ranges {
            if !(1..=most).contains(&value) {
                return Err(Error::Capacity { what, value, most });
            }
        }
        let whole = engine.context().div_ceil(KV_BLOCK);
        let all = tokens.map_or(whole.saturating_mul(sequences), |tokens| tokens / KV_BLOCK);
        let blocks = all.min(u32::MAX as usize);
        if blocks == 0 {
            let (what, value) = ("tokens of keys and values", tokens.unwrap_or(0));
            return Err(Error::Capacity { what, value, most: usize::MAX });
        }
        Ok(Scheduler {
            engine,
            replica,
            // One more, through which what is in the cache is read and written.
            session: Session::new(engine, replica, (sequences + 1, blocks))?,
            capacity,
            context: engine.context().min(blocks * KV_BLOCK),
            running: Vec::with_capacity(sequences),
            waiting: VecDeque::new(),
            slots: (0..sequences).rev().collect(),
            embeddings: VecDeque::new(),
            embedder: None,
            events: Vec::new(),
            requests: 0,
            lent: 0,
        })
    }

    /// Tokens that a sequence can hold: the context of the engine, or all there is room for.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// Requests that run, and requests that wait. Of embeddings the first is being computed.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let first = self.embeddings.len().min(1);
        (self.running.len() + first, self.waiting.len() + self.embeddings.len() - first)
    }

    /// Blocks of 16 tokens of keys and values: those that requests hold, and all.
    #[must_use]
    pub fn blocks(&self) -> (usize, usize) {
        self.session.blocks()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.has_no_texts() && self.embeddings.is_empty() && self.events.is_empty()
    }

    /// Whether no text is to be continued.
    fn has_no_texts(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Takes a request, to begin with one of the next steps.
    ///
    /// # Errors
    ///
    /// Where the prompt is empty or does not fit, a token is not in the vocabulary, or something it asks
    /// for is out of its range or cannot be met.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        self.submit_with(request, None)
    }

    /// As [`Scheduler::submit`], with a constraint that is ready, in place of that of the request.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::submit`].
    pub fn submit_with(
        &mut self,
        request: Request,
        constraint: Option<Compiled>,
    ) -> Result<RequestId, Error> {
        let id = RequestId(self.requests);
        let sequence = Sequence::new(self.engine, id, (request, constraint), self.context)?;
        self.requests += 1;
        self.take(sequence);
        Ok(id)
    }

    /// Takes a request that is ready, at its place among those that wait.
    fn take(&mut self, sequence: Sequence<'a>) {
        let at = self.waiting.partition_point(|other| other.id < sequence.id);
        self.waiting.insert(at, sequence);
    }

    /// Ends a request. The next step says so, but of embeddings; nothing happens if there is none.
    pub fn cancel(&mut self, id: RequestId) {
        self.embeddings.retain(|wanted| wanted.id != id);
        if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let mut sequence = self.running.remove(at);
            sequence.usage.positions = self.session.len(sequence.slot);
            self.release(sequence.slot);
            sequence.end(Finish::Cancelled, &mut self.events);
        } else if let Some(at) = self.waiting.iter().position(|sequence| sequence.id == id)
            && let Some(mut sequence) = self.waiting.remove(at)
        {
            sequence.end(Finish::Cancelled, &mut self.events);
        }
    }

    /// A forward pass, if there is something to do, and what came of it; and a piece of the embeddings that are wanted.
    ///
    /// # Errors
    ///
    /// Where a forward pass fails. Requests are as they were.
    pub fn step(&mut self) -> Result<Vec<Event>, Error> {
        self.embed_some()?;
        let start = Instant::now();
        self.admit();
        let shares = self.share_out();
        if !shares.is_empty() {
            self.forward(&shares)?;
            let logits = start.elapsed();
            let ends = self.draw(&shares);
            self.settle(&shares, ends, (logits, start.elapsed()));
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Lets requests that wait begin, in order, as long as there is a place and there are blocks for all
    /// their tokens and one more.
    fn admit(&mut self) {
        while let (Some(next), Some(&slot)) = (self.waiting.front(), self.slots.last()) {
            let blocks = next.tokens.len() / KV_BLOCK + 1;
            if !self.running.is_empty() && blocks > self.session.cache().available() {
                return;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            self.slots.pop();
            let cache = Some(self.session.cache()).filter(|_| self.capacity.prefix_cache);
            let cached = sequence.start(slot, cache);
            self.session.begin(slot, cached);
            // One that had to give way comes back to its place.
            let at = self.running.partition_point(|other| other.id < sequence.id);
            self.running.insert(at, sequence);
        }
    }

    /// What each that runs has of the next forward pass: tokens that are being generated first, then
    /// prompts in the order in which they came, then guesses.
    fn share_out(&mut self) -> Vec<Share> {
        let left = |session: &Session, sequence: &Sequence<'_>| {
            sequence.tokens.len() - session.len(sequence.slot)
        };
        let mut budget = self.capacity.chunk;
        let mut shares: Vec<_> = self.running.iter().map(|_| Share::default()).collect();
        for decoding in [true, false] {
            for (sequence, share) in self.running.iter().zip(&mut shares) {
                let left = left(&self.session, sequence);
                if (left == 1) == decoding {
                    share.rows = left.min(budget);
                    share.is_last = share.rows == left;
                    budget -= share.rows;
                }
            }
        }
        for (sequence, share) in self.running.iter_mut().zip(&shares) {
            let room = self.context - self.session.len(sequence.slot) - share.rows;
            sequence.draft(if share.is_last { room.min(budget) } else { 0 });
            budget -= sequence.drafts.len();
        }
        let mut index = 0;
        while index < self.running.len() {
            if self.make_room(index, shares[index].rows) {
                index += 1;
            }
            shares.truncate(self.running.len());
        }
        shares
    }

    /// Takes blocks for the rows and guesses of the request at `index`, from those that came after it, if
    /// need be. False where it had to give way itself, or failed: there is no memory even for it alone.
    fn make_room(&mut self, index: usize, rows: usize) -> bool {
        loop {
            let sequence = &mut self.running[index];
            let (slot, guesses) = (sequence.slot, sequence.drafts.len());
            let positions = self.session.len(slot) + rows;
            let room = self.session.cache().reserve(slot, positions + guesses);
            if matches!(room, Ok(true)) {
                return true;
            }
            if guesses > 0 {
                sequence.drafts.clear();
                continue;
            }
            if self.running.len() > 1 {
                self.preempt();
                if index == self.running.len() {
                    return false;
                }
                continue;
            }
            // What is lent comes back.
            if self.lent > 0 {
                self.preempt();
                return false;
            }
            // Alone: what others left in the cache is free now.
            let error = match self.session.cache().reserve(slot, positions) {
                Ok(true) => return true,
                Ok(false) => {
                    let bytes = self.session.cache().block_bytes();
                    Error::Memory { what: "key-value cache", bytes }
                }
                Err(error) => error,
            };
            let id = self.running.remove(index).id;
            self.release(slot);
            self.events.push(Event::Failed { id, error });
            return false;
        }
    }

    /// Has the one that came last give its blocks back, and begin again later.
    fn preempt(&mut self) {
        if let Some(mut last) = self.running.pop() {
            self.release(last.slot);
            last.pause();
            self.take(last);
        }
    }

    /// The device that computes, by its place among those of the engine.
    #[must_use]
    pub fn replica(&self) -> usize {
        self.replica
    }

    /// A sequence that no request has.
    fn spare(&self) -> usize {
        self.capacity.sequences
    }

    fn release(&mut self, slot: usize) {
        self.session.release(slot);
        self.slots.push(slot);
    }

    /// Runs the rows of all, up to the logits.
    fn forward(&mut self, shares: &[Share]) -> Result<(), Error> {
        let (mut inputs, mut wanted) = (Vec::with_capacity(self.capacity.chunk), Vec::new());
        for (sequence, share) in self.running.iter_mut().zip(shares) {
            let from = self.session.len(sequence.slot);
            let input = |&token| Input { sequence: sequence.slot, token, logits: false };
            inputs.extend(sequence.tokens[from..][..share.rows].iter().map(input));
            if !share.is_last {
                continue;
            }
            let last = inputs.len() - 1;
            inputs.extend(sequence.drafts.iter().map(input));
            inputs[last..].iter_mut().for_each(|input| input.logits = true);
            let outputs = inputs.len() - last;
            wanted.extend(std::iter::repeat_n(sequence.wanted(), outputs));
        }
        self.session.step(&inputs, &wanted)
    }

    /// Draws the next tokens. Gives how each ends, if it does.
    fn draw(&mut self, shares: &[Share]) -> Vec<Option<Result<Finish, Error>>> {
        let (session, mut first) = (&self.session, 0);
        let mut ends = Vec::with_capacity(shares.len());
        for (sequence, share) in self.running.iter_mut().zip(shares) {
            ends.push(if share.is_last {
                let outputs = 1 + sequence.drafts.len();
                let end = sequence.advance(|i| session.found(first + i), &mut self.events);
                first += outputs;
                end
            } else {
                None
            });
        }
        ends
    }

    /// Notes what has been run, and takes leave of those that have ended.
    fn settle(
        &mut self,
        shares: &[Share],
        ends: Vec<Option<Result<Finish, Error>>>,
        (logits, step): (Duration, Duration),
    ) {
        let all = std::mem::take(&mut self.running);
        for ((mut sequence, share), end) in all.into_iter().zip(shares).zip(ends) {
            let slot = sequence.slot;
            sequence.took(share.is_last.then_some(logits), step);
            if share.is_last {
                self.session.truncate(slot, sequence.usage.positions);
            }
            if self.capacity.prefix_cache {
                let run = self.session.len(slot);
                sequence.publish(self.session.cache(), run);
            }
            match end {
                None => {
                    self.running.push(sequence);
                    continue;
                }
                Some(Ok(finish)) => sequence.end(finish, &mut self.events),
                Some(Err(error)) => self.events.push(Event::Failed { id: sequence.id, error }),
            }
            self.release(slot);
        }
    }
}

/// What a request has of a forward pass.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Tokens that have not been run.
    rows: usize,
    /// Whether the last of them is among these: then there are logits, of it and of all guesses.
    is_last: bool,
}
