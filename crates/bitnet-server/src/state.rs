//! What all requests share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

use bitnet_inference::chat::{ChatTemplate, Conversation};
use bitnet_inference::tokenizer::Tokenizer;
use bitnet_inference::{Engine, Error, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc as channel, oneshot};
use tokio::{task, time};

use crate::Config;
use crate::error::ApiError;
use crate::id;
use crate::log::Logger;
use crate::metrics::Metrics;
use crate::worker::{Command, Piece};

/// How many read prompts and prepare constraints at the same time.
const TURNS: usize = 2;
/// How much shorter tokens can be than the text that they were made of, at most: composed characters.
const SHRINKS: usize = 4;
/// Requests with large bodies at the same time.
const LARGE: usize = 4;

/// What all requests share.
pub(crate) struct State {
    pub(crate) config: Config,
    model: OnceLock<Model>,
    commands: mpsc::Sender<Command>,
    pub(crate) log: Logger,
    /// A place for each request that runs or waits.
    places: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    /// Turns to read prompts and to prepare constraints, which can take a while: all that is left of
    /// the processors is for those.
    turns: Semaphore,
    /// A place for each request with a large body, which takes many times its size once it is read.
    pub(crate) large: Semaphore,
    draining: AtomicBool,
    /// Whether only this machine can ask.
    pub(crate) loopback: bool,
}

/// The model, once it is loaded.
pub(crate) struct Model {
    pub(crate) engine: Arc<Engine>,
    /// What clients call it.
    pub(crate) name: String,
    /// When it was loaded, in seconds since 1970.
    pub(crate) created: u64,
    /// Tokens that a request can hold.
    pub(crate) context: usize,
    /// Bytes of a prompt that could be so many.
    longest_prompt: usize,
    template: Result<ChatTemplate, ApiError>,
}

/// A text that is being generated. Who drops it ends it.
pub(crate) struct Text {
    pieces: channel::UnboundedReceiver<Result<Piece, Error>>,
    /// What came while only its beginning was waited for.
    first: Option<Piece>,
    place: Place,
}

/// The right to be generated, or computed otherwise, until a time.
#[derive(Debug)]
pub(crate) struct Place {
    deadline: time::Instant,
    _permit: OwnedSemaphorePermit,
}

impl Text {
    /// Waits for its beginning.
    pub(crate) async fn begin(&mut self) -> Result<(), ApiError> {
        if self.first.is_none() {
            self.first = Some(self.next().await?);
        }
        Ok(())
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Result<Piece, ApiError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match time::timeout_at(self.place.deadline, self.pieces.recv()).await {
            Ok(Some(piece)) => Ok(piece?),
            Ok(None) => Err(ApiError::draining()),
            Err(_) => Err(ApiError::timeout("the request took longer than the server allows")),
        }
    }
}

impl State {
    pub(crate) fn new(
        config: Config,
        loopback: bool,
        (commands, log): (mpsc::Sender<Command>, Logger),
        metrics: Arc<Metrics>,
    ) -> State {
        let places = Arc::new(Semaphore::new(config.capacity.sequences + config.queue));
        State {
            config,
            model: OnceLock::new(),
            commands,
            log,
            places,
            metrics,
            turns: Semaphore::new(TURNS),
            large: Semaphore::new(LARGE),
            draining: AtomicBool::new(false),
            loopback,
        }
    }

    /// Requests that run at the same time, on all devices.
    pub(crate) fn slots(&self) -> usize {
        self.config.capacity.sequences * self.metrics.devices().len().max(1)
    }

    /// Requests that run or wait, at most.
    fn most(&self) -> usize {
        self.slots() + self.config.queue
    }

    /// Takes a model that is loaded, on devices that are known.
    pub(crate) fn ready(&self, engine: Arc<Engine>, context: usize) {
        // There were those of one.
        self.places.add_permits(self.slots() - self.config.capacity.sequences);
        let template =
            engine.checkpoint().chat_template_or_plain(self.config.chat_template.as_deref());
        let template = template.map_err(ApiError::from);
        let created = id::now();
        let name = self.config.name.clone();
        let longest = engine.tokenizer().map_or(0, |tokenizer| {
            let bytes = (0..tokenizer.len() as u32).filter_map(|id| tokenizer.piece(id));
            bytes.map(<[u8]>::len).max().unwrap_or(0)
        });
        let longest_prompt = context.saturating_mul(longest).saturating_mul(SHRINKS);
        // It is the only one.
        let _ = self.model.set(Model { engine, name, created, context, longest_prompt, template });
    }

    pub(crate) fn model(&self) -> Result<&Model, ApiError> {
        self.model.get().ok_or_else(|| ApiError::unavailable("Loading model").code("loading"))
    }

    /// No more requests are taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether a request would be taken.
    pub(crate) fn takes_requests(&self) -> Result<&Model, ApiError> {
        if self.is_draining() {
            return Err(ApiError::draining());
        }
        self.model()
    }

    /// Waits until nothing is being generated.
    pub(crate) async fn idle(&self) {
        // Nobody closes them.
        let _ = self.places.acquire_many(u32::try_from(self.most()).unwrap_or(u32::MAX)).await;
    }

    /// Does what takes a while, and for which many may ask at once.
    pub(crate) async fn think<T>(&self, work: impl FnOnce() -> T) -> T {
        // Nobody closes them.
        let _turn = self.turns.acquire().await;
        task::block_in_place(work)
    }

    /// Whether there is a place at all.
    pub(crate) fn has_place(&self) -> Result<(), ApiError> {
        self.takes_requests()?;
        match self.places.available_permits() {
            0 => Err(self.full()),
            _ => Ok(()),
        }
    }

    fn full(&self) -> ApiError {
        // Who waits for the end of all takes the places that are left.
        if let Err(error) = self.takes_requests() {
            return error;
        }
        let (slots, queue) = (self.slots(), self.config.queue);
        ApiError::busy(format!(
            "{slots} requests run and {queue} wait: the queue is full, ask again later"
        ))
    }

    /// A place for each of `n` texts, which are then sure to be generated. Their time runs from here.
    pub(crate) fn places(&self, n: usize) -> Result<Vec<Place>, ApiError> {
        let all = self.most();
        if n > all {
            let what = format!("n: {n} texts at once, of {all} at most");
            return Err(ApiError::invalid(what).code("invalid_value").param("n"));
        }
        (0..n).map(|_| self.place()).collect()
    }

    /// A place for one text, whose time runs from here.
    pub(crate) fn place(&self) -> Result<Place, ApiError> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| self.full())?;
        Ok(Place { deadline: time::Instant::now() + self.config.timeout, _permit: permit })
    }

    /// Does what takes a while for one request, which has a place for as long.
    pub(crate) async fn think_with_place<T>(
        &self,
        work: impl FnOnce() -> T,
    ) -> Result<T, ApiError> {
        let _place = self.place()?;
        Ok(self.think(work).await)
    }

    /// Begins to generate texts, whose requests have been checked.
    pub(crate) async fn generate(
        &self,
        requests: Vec<Request>,
        places: Vec<Place>,
    ) -> Result<Vec<Text>, ApiError> {
        let model = self.model()?;
        let mut texts = Vec::with_capacity(requests.len());
        for (mut request, place) in requests.into_iter().zip(places) {
            let constraint = match request.constraint.take() {
                None => None,
                Some(constraint) => {
                    Some(Box::new(self.think(|| model.engine.compile(&constraint)).await?))
                }
            };
            let (pieces, receiver) = channel::unbounded_channel();
            let request = Box::new(request);
            self.send(Command::Generate { request, constraint, pieces })?;
            texts.push(Text { pieces: receiver, first: None, place });
        }
        Ok(texts)
    }

    /// The embeddings of texts.
    pub(crate) async fn embed(
        &self,
        texts: Vec<Vec<u32>>,
        place: Place,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        let (answer, receiver) = oneshot::channel();
        self.send(Command::Embed { texts, answer })?;
        match time::timeout_at(place.deadline, receiver).await {
            Ok(Ok(embeddings)) => Ok(embeddings?),
            Ok(Err(_)) => Err(ApiError::draining()),
            Err(_) => Err(ApiError::timeout("the request took longer than the server allows")),
        }
    }

    fn send(&self, command: Command) -> Result<(), ApiError> {
        self.commands
            .send(command)
            .map_err(|_| ApiError::internal("the engine has stopped: see what the server said"))
    }
}

impl Model {
    /// Whether a request would be taken.
    pub(crate) fn check(&self, request: &Request) -> Result<(), ApiError> {
        Ok(request.check(&self.engine, self.context)?)
    }

    pub(crate) fn tokenizer(&self) -> Result<&Tokenizer, ApiError> {
        Ok(self.engine.tokenizer()?)
    }

    pub(crate) fn template(&self) -> Result<&ChatTemplate, ApiError> {
        self.template.as_ref().map_err(ApiError::clone)
    }

    /// The tokens of a conversation.
    pub(crate) fn render(&self, conversation: &Conversation) -> Result<Vec<u32>, ApiError> {
        let tokenizer = self.tokenizer()?;
        let prompt = self.template()?.render(conversation, tokenizer);
        let prompt = prompt.map_err(Error::from)?;
        self.may_fit(prompt.text().len())?;
        Ok(prompt.tokens(tokenizer))
    }

    /// Whether so many bytes could be a prompt: none are made tokens that are far too many.
    pub(crate) fn may_fit(&self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.longest_prompt {
            return Ok(());
        }
        let what = format!("{bytes} bytes are more than {} tokens", self.context);
        Err(ApiError::invalid(what).code("context_length_exceeded"))
    }

    /// What stands for the program and the way it computes: with the same, the same model and the same
    /// seed, answers are the same. Kernels, threads and other requests change nothing,
    /// unless attention is to be in less than single precision: then kernels and GPU are named.
    pub(crate) fn fingerprint(&self) -> String {
        format!("bitnet-{}-{}", env!("CARGO_PKG_VERSION"), self.engine.cache_kind())
    }
}
