//! From a prompt to tokens, one after another.

use std::time::{Duration, Instant};

use bitnet_kernels::Calls;

use crate::sample::{Sampler, Sampling};
use crate::session::Session;
use crate::{Engine, Error, WeightsRead};

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model gave a token that ends the text.
    Stop,
    /// The limit of tokens, or the context, is reached.
    Length,
    /// The caller stopped it.
    Cancelled,
}

impl Finish {
    /// The name clients of inference servers know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// A text being continued.
#[derive(Debug)]
pub struct Generation<'a> {
    engine: &'a Engine,
    session: Session,
    sampler: Sampler,
    /// Prompt and generated tokens.
    tokens: Vec<u32>,
    prompt: usize,
    /// Generated tokens at most.
    limit: usize,
    finish: Option<Finish>,
    timings: Timings,
    /// What was read for the prompt, once it has been run.
    prompt_read: Option<WeightsRead>,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the start to the logits after the prompt.
    pub prompt: Duration,
    /// From the start to the first token.
    pub first_token: Duration,
    /// From the first token to the last, one that ended the text included.
    pub decode: Duration,
}

impl<'a> Generation<'a> {
    /// Continues `prompt` by at most `limit` tokens, in the context of the engine.
    ///
    /// # Errors
    ///
    /// Where the prompt is empty or does not fit, a setting is out of range, or memory runs out.
    pub fn new(
        engine: &'a Engine,
        prompt: Vec<u32>,
        sampling: Sampling,
        limit: usize,
    ) -> Result<Generation<'a>, Error> {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let context = engine.context();
        if prompt.len() > context {
            return Err(Error::Context { tokens: prompt.len(), context });
        }
        Ok(Generation {
            engine,
            session: engine.session(1)?,
            sampler: Sampler::new(sampling, engine.manager())?,
            prompt: prompt.len(),
            tokens: prompt,
            limit,
            finish: None,
            timings: Timings::default(),
            prompt_read: None,
        })
    }

    /// The next token. `stop` is asked before each forward pass; true ends generation.
    ///
    /// Nothing once the model ended the text, the limit is reached, or `stop` said so;
    /// [`Generation::finish`] then says which. A token that ends the text is not given.
    ///
    /// # Errors
    ///
    /// Where the logits are not finite or memory runs out.
    pub fn next(&mut self, mut stop: impl FnMut() -> bool) -> Result<Option<u32>, Error> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let done = self.tokens.len() - self.prompt;
        if done >= self.limit || self.session.len(0) == self.session.context() {
            return Ok(self.end(Finish::Length));
        }
        let start = Instant::now();
        let input = &self.tokens[self.session.len(0)..];
        let wanted = self.sampler.wanted(&self.tokens);
        let Some(logits) = self.session.extend(0, input, wanted, &mut stop)? else {
            return Ok(self.end(Finish::Cancelled));
        };
        if done == 0 {
            self.timings.prompt = start.elapsed();
        }
        let token = self.sampler.sample(logits, &self.tokens)?;
        if done == 0 {
            self.prompt_read = Some(self.session.read());
        }
        if done > 0 {
            self.timings.decode += start.elapsed();
        }
        if self.engine.is_end(token) {
            return Ok(self.end(Finish::Stop));
        }
        if done == 0 {
            self.timings.first_token = start.elapsed();
        }
        self.tokens.push(token);
        Ok(Some(token))
    }

    fn end(&mut self, finish: Finish) -> Option<u32> {
        self.finish = Some(finish);
        None
    }

    /// Why it ended, once it did.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The tokens generated so far.
    #[must_use]
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// The tokens of the prompt.
    #[must_use]
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    /// Tokens that have been run.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.session.len(0)
    }

    /// Bytes of weights read so far: for the prompt, then for the tokens after it.
    #[must_use]
    pub fn read(&self) -> [WeightsRead; 2] {
        let all = self.session.read();
        let prompt = self.prompt_read.unwrap_or(all);
        let (linear, head) = (all.linear - prompt.linear, all.head - prompt.head);
        [prompt, WeightsRead { linear, head }]
    }

    /// All logits after the last token that was run; nothing if the prompt was not run to its end.
    pub fn last_logits(&mut self) -> Option<&[f32]> {
        self.session.last_logits()
    }

    /// Where the time went so far.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Kernels called so far: those of the forward pass, then those of the sampler.
    #[must_use]
    pub fn calls(&self) -> [&Calls; 2] {
        [self.session.calls(), self.sampler.calls()]
    }
}
