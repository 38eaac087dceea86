//! A request on its way: its tokens, what draws them, and how far they have been run.

use std::time::{Duration, Instant};

use bitnet_kernels::op::KV_BLOCK;

use super::draft::Drafter;
use super::request::{End, Event, Finish, Request, RequestId, Timings, Token, Usage};
use super::text::Text;
use crate::constraint::{Compiled, Constrained};
use crate::kv::{KvCache, Parent};
use crate::sample::{LogProbabilities, Sampler};
use crate::{Best, Engine, Error, Logits, Wanted};

/// A request on its way.
#[derive(Debug)]
pub(super) struct Sequence<'a> {
    pub(super) id: RequestId,
    engine: &'a Engine,
    /// Prompt and generated tokens.
    pub(super) tokens: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    limit: usize,
    /// Tokens that it can hold.
    context: usize,
    ignore_end: bool,
    logprobs: Option<usize>,
    sampler: Sampler<'a>,
    constrained: Option<Constrained>,
    text: Text<'a>,
    stops: Vec<String>,
    drafter: Option<Drafter>,
    /// Tokens that are guessed to follow, in the forward pass that runs.
    pub(super) drafts: Vec<u32>,
    /// Which of the session's sequences it is, while it runs.
    pub(super) slot: usize,
    /// Blocks that others can share, and what the next one follows.
    published: (usize, Parent),
    asked: Instant,
    started: bool,
    /// Steps before the one that gave the first token.
    waited: Duration,
    pub(super) usage: Usage,
}

impl<'a> Sequence<'a> {
    /// A request that waits for its turn in a context of so many tokens.
    ///
    /// # Errors
    ///
    /// Where the prompt is empty or does not fit, a token is not in the vocabulary, or something it asks
    /// for is out of its range.
    pub(super) fn new(
        engine: &'a Engine,
        id: RequestId,
        (request, constraint): (Request, Option<Compiled>),
        context: usize,
    ) -> Result<Sequence<'a>, Error> {
        request.check(engine, context)?;
        let Request { prompt, sampling, stop, .. } = request;
        let (tokens, vocabulary) = (prompt.len(), engine.vocabulary());
        let constrained = match (constraint, &request.constraint) {
            (Some(Compiled(constrained)), _) => Some(constrained),
            (None, Some(constraint)) => Some(engine.compile(constraint)?.0),
            (None, None) => None,
        };
        let mut sampler = Sampler::new(sampling, engine)?;
        if request.ignore_end {
            sampler.ban((0..vocabulary as u32).filter(|&id| engine.is_end(id)).collect());
        }
        let stream = engine.tokenizer().ok().map(|tokenizer| tokenizer.stream_after(&prompt));
        Ok(Sequence {
            id,
            engine,
            prompt: tokens,
            limit: request.limit,
            context,
            ignore_end: request.ignore_end,
            logprobs: request.logprobs,
            sampler,
            constrained,
            text: Text::new(stream, stop.clone()),
            stops: stop,
            drafter: (request.draft > 0).then(|| Drafter::new(request.draft)),
            drafts: Vec::new(),
            slot: usize::MAX,
            published: (0, Parent::default()),
            asked: Instant::now(),
            started: false,
            waited: Duration::ZERO,
            usage: Usage { prompt: tokens, ..Usage::default() },
            tokens: prompt,
        })
    }

    /// Tokens generated.
    pub(super) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// Whether nothing more is to be generated.
    fn is_done(&self) -> bool {
        self.generated() >= self.limit
    }

    /// Takes a place among those that run. Gives the tokens whose keys and values are there.
    pub(super) fn start(&mut self, slot: usize, cache: Option<&mut KvCache>) -> usize {
        self.slot = slot;
        // The last token is run in any case: its logits are needed.
        let known = &self.tokens[..self.tokens.len() - 1];
        let (parent, blocks) = cache.map_or_else(Default::default, |kv| kv.share(slot, known));
        self.published = (blocks, parent);
        let cached = blocks * KV_BLOCK;
        if !self.started {
            self.started = true;
            self.usage.timings.queued = self.asked.elapsed();
            self.usage.cached = cached;
        }
        cached
    }

    /// Gives its place to another.
    pub(super) fn pause(&mut self) {
        self.slot = usize::MAX;
        self.drafts.clear();
        self.usage.preempted += 1;
    }

    /// Guesses up to `room` tokens, as far as they can be needed.
    pub(super) fn draft(&mut self, room: usize) {
        self.drafts.clear();
        if let Some(drafter) = &self.drafter {
            let left = self.limit - self.generated();
            self.drafts = drafter.draft(&self.tokens, room.min(left.saturating_sub(1)));
        }
    }

    /// What it wants of the logits after its last token, and after each guess.
    pub(super) fn wanted(&mut self) -> Wanted<'_> {
        // What may come after a guess is not known yet.
        let is_open = self.constrained.is_some() && !self.drafts.is_empty();
        if is_open || self.logprobs.is_some() {
            return Wanted::All;
        }
        let (end, left) = (self.tokens.len(), self.limit.saturating_sub(self.generated()));
        self.tokens.extend_from_slice(&self.drafts);
        // The tokens are as before when it returns; what is wanted is the sampler's.
        let wanted = self.sampler.wanted(&self.tokens, self.drafts.len());
        self.tokens.truncate(end);
        let wanted = match wanted {
            // Nothing goes on with the last token.
            Wanted::Best(best) if left <= 1 => Wanted::Best(Best { draw: None, ..best }),
            wanted => wanted,
        };
        match (wanted, &mut self.constrained) {
            (Wanted::Best(best), Some(constrained)) => match constrained.allowed() {
                Ok(allowed) => Wanted::Best(Best { only: Some(allowed.as_slice()), ..best }),
                // Drawing from the logits meets the same error.
                Err(_) => Wanted::All,
            },
            (wanted, _) => wanted,
        }
    }

    /// Draws tokens from the logits after the last token and after each guess, as long as guesses are
    /// right. Gives why the request ends, if it does.
    pub(super) fn advance<'l>(
        &mut self,
        logits: impl Fn(usize) -> Logits<'l>,
        events: &mut Vec<Event>,
    ) -> Option<Result<Finish, Error>> {
        let (before, drafts) = (self.tokens.len(), std::mem::take(&mut self.drafts));
        let mut right = 0;
        let end = loop {
            if self.is_done() {
                // The prompt alone was to be run.
                break Some(Ok(Finish::Length));
            }
            let end = self.next(logits(right), events).transpose();
            let is_right =
                right < drafts.len() && self.tokens.get(before + right) == drafts.get(right);
            right += usize::from(is_right);
            if end.is_some() || !is_right {
                break end;
            }
        };
        // Tokens that were run behind a wrong guess are none of the text.
        self.usage.positions = before + right;
        if !drafts.is_empty() {
            self.usage.drafted += drafts.len();
            self.usage.accepted += right;
            if let Some(drafter) = &mut self.drafter {
                drafter.learn(drafts.len(), right);
            }
        }
        end
    }

    /// Draws a token. Why the text ends, if it does.
    fn next(
        &mut self,
        logits: Logits<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Option<Finish>, Error> {
        let token = match &mut self.constrained {
            None => self.sampler.sample(logits, &self.tokens)?,
            Some(constrained) => {
                let allowed = constrained.allowed()?;
                let is_allowed = |id: u32| allowed.is_allowed(id);
                let token = self.sampler.sample_of(logits, &self.tokens, is_allowed)?;
                token.ok_or_else(|| constrained.stuck())?
            }
        };
        // Where ends are to be ignored, a constraint can leave nothing else.
        if self.engine.is_end(token) && (!self.ignore_end || self.constrained.is_some()) {
            return Ok(Some(Finish::Stop));
        }
        let complete = match &mut self.constrained {
            Some(constrained) => constrained.push(token)?,
            None => false,
        };
        let logprobs = match (self.logprobs, logits) {
            (Some(top), Logits::All(logits)) => Some(LogProbabilities::new(logits, token, top)),
            _ => None,
        };
        self.tokens.push(token);
        let piece = self.text.push(token);
        events.push(Event::Token(Token { id: self.id, token, text: piece.text, logprobs }));
        Ok(match piece.stop {
            Some(stop) => Some(Finish::StopString(self.stops[stop].clone())),
            None if complete => Some(Finish::Stop),
            // The last token is not run any more.
            None if self.is_done() || self.tokens.len() > self.context => Some(Finish::Length),
            None => None,
        })
    }

    /// Says that it is done, and why.
    pub(super) fn end(&mut self, finish: Finish, events: &mut Vec<Event>) {
        let mut rest = self.text.finish();
        if matches!(finish, Finish::StopString(_)) {
            rest.text.clear();
        }
        // The end of a character that is not whole can complete a stop string.
        let finish = match rest.stop {
            Some(stop) => Finish::StopString(self.stops[stop].clone()),
            None => finish,
        };
        self.usage.generated = self.generated();
        let calls = self.sampler.calls().clone();
        let end = End { id: self.id, finish, text: rest.text, usage: self.usage, calls };
        events.push(Event::End(Box::new(end)));
    }

    /// Lets others share the blocks of the first `run` tokens, which have been run.
    pub(super) fn publish(&mut self, cache: &mut KvCache, run: usize) {
        let whole = &self.tokens[..run.min(self.tokens.len())];
        let (done, mut parent) = self.published;
        let blocks = whole.as_chunks::<KV_BLOCK>().0;
        for (index, tokens) in blocks.iter().enumerate().skip(done) {
            parent = cache.publish((self.slot, index), parent, tokens);
        }
        self.published = (blocks.len().max(done), parent);
    }

    /// Adds a step to the times: up to the logits, if it had some, and all of it.
    pub(super) fn took(&mut self, logits: Option<Duration>, step: Duration) {
        let Timings { prompt, first_token, decode, .. } = &mut self.usage.timings;
        match logits {
            _ if !prompt.is_zero() => *decode += step,
            None => self.waited += step,
            Some(logits) => {
                *prompt = self.waited + logits;
                if self.tokens.len() > self.prompt {
                    *first_token = self.waited + step;
                }
            }
        }
    }
}
