//! From a prompt to a text, token by token.

use bitnet_kernels::Calls;

use crate::schedule::{
    Capacity, End, Event, Finish, Request, RequestId, Scheduler, Timings, Token, Usage,
};
use crate::{Engine, Error, PerformanceStats, WeightsRead};

/// A text being continued: a [`Scheduler`] with one request.
#[derive(Debug)]
pub struct Generation<'a> {
    scheduler: Scheduler<'a>,
    id: RequestId,
    request: Request,
    generated: Vec<u32>,
    /// Not given out yet.
    ready: Vec<Token>,
    end: Option<Box<End>>,
    /// What was read for the prompt, once it has been run.
    prompt_read: Option<WeightsRead>,
}

impl<'a> Generation<'a> {
    /// Continues a prompt in the context of the engine.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::submit`], or where memory runs out.
    pub fn new(engine: &'a Engine, request: Request) -> Result<Generation<'a>, Error> {
        let capacity = Capacity { sequences: 1, prefix_cache: false, ..Capacity::default() };
        Generation::with(Scheduler::new(engine, capacity)?, request)
    }

    /// Continues a prompt with a scheduler that has nothing else to do.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::submit`].
    pub fn with(mut scheduler: Scheduler<'a>, request: Request) -> Result<Generation<'a>, Error> {
        let id = scheduler.submit(request.clone())?;
        Ok(Generation {
            scheduler,
            id,
            request,
            generated: Vec::new(),
            ready: Vec::new(),
            end: None,
            prompt_read: None,
        })
    }

    /// The next token, with what is clear of the text. `stop` is asked before each forward pass; true
    /// ends generation.
    ///
    /// Nothing once the text has ended; [`Generation::end`] then says why, and has the rest of the
    /// text. A token that ends the text is not given.
    ///
    /// # Errors
    ///
    /// Where the logits are not finite or memory runs out.
    pub fn next(&mut self, mut stop: impl FnMut() -> bool) -> Result<Option<Token>, Error> {
        while self.ready.is_empty() && self.end.is_none() {
            // What is done needs no pass.
            if self.scheduler.load() != (0, 0) && stop() {
                self.scheduler.cancel(self.id);
            }
            for event in self.scheduler.step()? {
                match event {
                    Event::Token(token) => self.ready.push(token),
                    Event::End(end) => self.end = Some(end),
                    Event::Failed { error, .. } => return Err(error),
                    // Nobody else asks.
                    Event::Embeddings { .. } => {}
                }
            }
            let first = !self.ready.is_empty() || self.end.is_some();
            if first && self.prompt_read.is_none() {
                self.prompt_read = Some(self.scheduler.read());
            }
            // The next is at the end.
            self.ready.reverse();
        }
        let token = self.ready.pop();
        self.generated.extend(token.iter().map(|token| token.token));
        Ok(token)
    }

    /// How it ended, once it did and all tokens were given.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_deref().filter(|_| self.ready.is_empty())
    }

    /// Why it ended, once it did.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.end().map(|end| end.finish.clone())
    }

    /// The tokens given so far.
    #[must_use]
    pub fn generated(&self) -> &[u32] {
        &self.generated
    }

    /// What was asked for.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What it took, once it ended.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.end.as_ref().map_or_else(Usage::default, |end| end.usage)
    }

    /// Where the time went, once it ended.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.usage().timings
    }

    /// Bytes of weights read so far: for the prompt, then for the tokens after it.
    #[must_use]
    pub fn read(&self) -> [WeightsRead; 2] {
        let all = self.scheduler.read();
        let prompt = self.prompt_read.unwrap_or(all);
        let (linear, head) = (all.linear - prompt.linear, all.head - prompt.head);
        [prompt, WeightsRead { linear, head }]
    }

    /// What a GPU did so far, and what it took; nothing where none computes.
    #[must_use]
    pub fn performance_stats(&self) -> Option<PerformanceStats> {
        self.scheduler.performance_stats()
    }

    /// All logits after the last token that was run; nothing if the prompt was not run to its end.
    ///
    /// # Errors
    ///
    /// Where a GPU fails.
    pub(crate) fn last_logits(&mut self) -> Result<Option<&[f32]>, Error> {
        self.scheduler.last_logits()
    }

    /// The device that computes, by its place among those of the engine.
    pub(crate) fn replica(&self) -> usize {
        self.scheduler.replica()
    }

    /// Kernels of a GPU that were launched so far, by name.
    pub(crate) fn launches(&self) -> Vec<(&'static str, u64)> {
        self.scheduler.launches()
    }

    /// Passes that a GPU began before their tokens were known, and dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.scheduler.dropped()
    }

    /// Passes that a library of another engine has computed, and what it is called in receipts.
    pub(crate) fn foreign_calls(&self) -> Option<(&'static str, u64)> {
        self.scheduler.foreign_calls()
    }

    /// Kernels called so far: those of forward passes and, once it ended, those of the sampler.
    pub fn calls(&self) -> impl Iterator<Item = &Calls> {
        [self.scheduler.calls()].into_iter().chain(self.end.iter().map(|end| &end.calls))
    }

    /// The scheduler, for the next request.
    #[must_use]
    pub fn into_scheduler(self) -> Scheduler<'a> {
        self.scheduler
    }
}
