//! What is asked of a scheduler, and what it answers.

use std::time::Duration;

use bitnet_kernels::Calls;

use crate::sample::{LogProbabilities, Sampling};
use crate::{Constraint, Engine, Error};

/// How much a scheduler does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences that run at the same time; from 1 to [`CHUNK`](crate::CHUNK).
    pub sequences: usize,
    /// Tokens whose keys and values are kept, of all sequences together and of those that have ended;
    /// if not given, as many as all sequences can hold.
    pub tokens: Option<usize>,
    /// Whether sequences that begin with the same tokens share their keys and values.
    pub prefix_cache: bool,
    /// Rows of a forward pass at most: what a token waits for while a prompt is run. From 1 to
    /// [`CHUNK`](crate::CHUNK).
    pub chunk: usize,
}

impl Default for Capacity {
    fn default() -> Capacity {
        Capacity { sequences: 32, tokens: None, prefix_cache: true, chunk: crate::CHUNK }
    }
}

/// A text to continue.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The tokens to continue.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most.
    pub limit: usize,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to go on where the model ends the text.
    pub ignore_end: bool,
    /// Give the log-probability of each token, and of so many of the likeliest.
    pub logprobs: Option<usize>,
    /// Guess up to so many tokens ahead from what was said before: faster where a text repeats itself,
    /// and the same tokens.
    pub draft: usize,
    /// What the text must be.
    pub constraint: Option<Constraint>,
}

impl Request {
    /// To continue `prompt` by at most `limit` tokens.
    #[must_use]
    pub fn new(prompt: Vec<u32>, sampling: Sampling, limit: usize) -> Request {
        Request { prompt, sampling, limit, ..Request::default() }
    }

    /// Whether a scheduler would take it whose sequences hold `context` tokens. Its constraint is not
    /// looked at.
    ///
    /// # Errors
    ///
    /// Where the prompt is empty or does not fit, a token is not in the vocabulary, or something it asks
    /// for is out of its range.
    pub fn check(&self, engine: &Engine, context: usize) -> Result<(), Error> {
        let (tokens, vocabulary) = (self.prompt.len(), engine.vocabulary());
        if self.prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if tokens > context {
            return Err(Error::Context { tokens, context });
        }
        let biased = self.sampling.logit_bias.keys();
        if let Some(&id) = self.prompt.iter().chain(biased).find(|&&id| id as usize >= vocabulary) {
            return Err(Error::Token { id, vocabulary });
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::StopString);
        }
        self.sampling.check()
    }
}

/// Names a request within its scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// What came of a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A token more.
    Token(Token),
    /// A request is done.
    End(Box<End>),
    /// The embeddings of texts, in their order.
    Embeddings {
        /// Which request asked for them.
        id: RequestId,
        /// One for each text: `[hidden]`.
        embeddings: Vec<Vec<f32>>,
    },
    /// A request cannot go on.
    Failed {
        /// Which.
        id: RequestId,
        /// Why not.
        error: Error,
    },
}

/// A generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Whose it is.
    pub id: RequestId,
    /// The token.
    pub token: u32,
    /// What is clear of the text now and was not before.
    pub text: String,
    /// Its log-probability, where it was asked for.
    pub logprobs: Option<LogProbabilities>,
}

/// Why generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model gave a token that ends the text.
    Stop,
    /// A stop string came.
    StopString(String),
    /// The limit of tokens, or the context, is reached.
    Length,
    /// The caller stopped it.
    Cancelled,
}

impl Finish {
    /// The name clients of inference servers know.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Finish::Stop | Finish::StopString(_) => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// The end of a request.
#[derive(Clone, Debug)]
pub struct End {
    /// Which.
    pub id: RequestId,
    /// Why.
    pub finish: Finish,
    /// The rest of the text.
    pub text: String,
    /// What it took.
    pub usage: Usage,
    /// Kernels that its sampler called.
    pub calls: Calls,
}

/// What a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt whose keys and values were there already.
    pub cached: usize,
    /// Tokens generated.
    pub generated: usize,
    /// Tokens that have been run, or whose keys and values were there.
    pub positions: usize,
    /// Tokens that were guessed.
    pub drafted: usize,
    /// Those of them that were right.
    pub accepted: usize,
    /// How often it had to give way to others.
    pub preempted: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the request to its first forward pass.
    pub queued: Duration,
    /// Forward passes up to the logits after the prompt, and others between them.
    pub prompt: Duration,
    /// The same and the first token.
    pub first_token: Duration,
    /// From the first token to the last, one that ended the text included.
    pub decode: Duration,
}
