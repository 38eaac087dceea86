//! The thread that has the scheduler: requests go in, what comes of them goes out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use bitnet_inference::{
    Capacity, Compiled, End, Engine, Error, Event, Request, RequestId, Scheduler, Session, Token,
};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

/// Tokens of texts whose embeddings are wanted that are run beside a step, at most: what the others wait for.
const BESIDE: usize = 32;

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// A text. Where nobody takes its pieces any more, it ends.
    Generate {
        request: Box<Request>,
        constraint: Option<Box<Compiled>>,
        pieces: mpsc::UnboundedSender<Result<Piece, Error>>,
    },
    /// The embeddings of texts.
    Embed { texts: Vec<Vec<u32>>, answer: oneshot::Sender<Result<Vec<Vec<f32>>, Error>> },
}

/// What comes of a text.
#[derive(Debug)]
pub(crate) enum Piece {
    Token(Token),
    End(Box<End>),
}

/// When the thread last did something.
#[derive(Debug)]
pub(crate) struct Pulse {
    start: Instant,
    /// Milliseconds after the start; what it does now began then. 0 while there is nothing to do.
    since: AtomicU64,
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse { start: Instant::now(), since: AtomicU64::new(0) }
    }

    fn beat(&self) {
        let now = self.start.elapsed().as_millis() as u64;
        self.since.store(now.max(1), Ordering::Relaxed);
    }

    fn rest(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Seconds that it has been busy with the same thing.
    pub(crate) fn busy(&self) -> f64 {
        match self.since.load(Ordering::Relaxed) {
            0 => 0.0,
            since => self.start.elapsed().as_secs_f64() - since as f64 / 1e3,
        }
    }
}

/// A text on its way.
struct Reader {
    pieces: mpsc::UnboundedSender<Result<Piece, Error>>,
    asked: Instant,
    last: Option<Instant>,
}

/// Texts whose embeddings are wanted.
struct Embeddings {
    texts: Vec<Vec<u32>>,
    answer: oneshot::Sender<Result<Vec<Vec<f32>>, Error>>,
    done: Vec<Vec<f32>>,
    /// Tokens of the next text that have been run.
    run: usize,
    asked: Instant,
}

pub(crate) struct Worker<'a> {
    engine: &'a Engine,
    capacity: Capacity,
    scheduler: Scheduler<'a>,
    /// Made when the first embedding is asked for.
    embedder: Option<Session>,
    readers: HashMap<RequestId, Reader>,
    embeddings: VecDeque<Embeddings>,
    metrics: Arc<Metrics>,
    pulse: Arc<Pulse>,
}

impl<'a> Worker<'a> {
    /// # Errors
    ///
    /// As [`Scheduler::new`].
    pub(crate) fn new(
        engine: &'a Engine,
        capacity: Capacity,
        (metrics, pulse): (Arc<Metrics>, Arc<Pulse>),
    ) -> Result<Worker<'a>, Error> {
        let scheduler = Scheduler::new(engine, capacity)?;
        let (readers, embeddings) = (HashMap::new(), VecDeque::new());
        metrics.blocks.set(scheduler.blocks().1);
        let embedder = None;
        Ok(Worker { engine, capacity, scheduler, embedder, readers, embeddings, metrics, pulse })
    }

    /// Tokens that a request can hold.
    pub(crate) fn context(&self) -> usize {
        self.scheduler.context()
    }

    /// Works until nobody can ask any more and all is done.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            if self.scheduler.is_idle() && self.embeddings.is_empty() {
                self.publish();
                self.pulse.rest();
                let Ok(command) = commands.recv() else { return };
                self.take(command);
            }
            self.pulse.beat();
            while let Ok(command) = commands.try_recv() {
                self.take(command);
            }
            self.forget_those_who_left();
            self.publish();
            let done = self.scheduler.step();
            // Before anybody learns of it, so that who asks then sees what is so.
            self.publish();
            match done {
                Ok(events) => events.into_iter().for_each(|event| self.tell(event)),
                Err(error) => self.fail_all(&error),
            }
            self.embed();
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Generate { request, constraint, pieces } => {
                let asked = Instant::now();
                match self.scheduler.submit_with(*request, constraint.map(|it| *it)) {
                    Ok(id) => {
                        self.readers.insert(id, Reader { pieces, asked, last: None });
                    }
                    Err(error) => {
                        self.metrics.ended("error", None, asked.elapsed());
                        // Who is not there any more need not know.
                        let _ = pieces.send(Err(error));
                    }
                }
            }
            Command::Embed { texts, answer } => {
                let done = Vec::with_capacity(texts.len());
                self.embeddings.push_back(Embeddings {
                    texts,
                    answer,
                    done,
                    run: 0,
                    asked: Instant::now(),
                });
            }
        }
    }

    fn forget_those_who_left(&mut self) {
        let left = self.readers.iter().filter(|(_, reader)| reader.pieces.is_closed());
        for id in left.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.scheduler.cancel(id);
        }
        self.embeddings.retain(|wanted| {
            let is_gone = wanted.answer.is_closed();
            if is_gone {
                self.metrics.ended("cancelled", None, wanted.asked.elapsed());
            }
            !is_gone
        });
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Token(token) => {
                self.metrics.generated_tokens.add(1);
                if let Some(reader) = self.readers.get_mut(&token.id) {
                    let now = Instant::now();
                    if let Some(last) = reader.last.replace(now) {
                        self.metrics.between_tokens.add(now - last);
                    }
                    let _ = reader.pieces.send(Ok(Piece::Token(token)));
                }
            }
            Event::End(end) => {
                if let Some(reader) = self.readers.remove(&end.id) {
                    let all = reader.asked.elapsed();
                    self.metrics.ended(end.finish.name(), Some(&end.usage), all);
                    let _ = reader.pieces.send(Ok(Piece::End(end)));
                }
            }
            Event::Failed { id, error } => self.fail(id, error),
            _ => {}
        }
    }

    fn fail(&mut self, id: RequestId, error: Error) {
        if let Some(reader) = self.readers.remove(&id) {
            self.metrics.ended("error", None, reader.asked.elapsed());
            let _ = reader.pieces.send(Err(error));
        }
    }

    /// A forward pass failed: all are told, those that wait as well, whose turn would be with the same.
    fn fail_all(&mut self, error: &Error) {
        let what = error.to_string();
        for (id, reader) in self.readers.drain() {
            self.scheduler.cancel(id);
            self.metrics.ended("error", None, reader.asked.elapsed());
            let _ = reader.pieces.send(Err(Error::Pass { what: what.clone() }));
        }
    }

    /// A piece of the text whose embedding is wanted next: between steps, so that texts go on.
    fn embed(&mut self) {
        let Some(mut wanted) = self.embeddings.pop_front() else { return };
        match self.run_some(&mut wanted) {
            // All have their turn, text by text.
            Ok(()) if wanted.run > 0 => self.embeddings.push_front(wanted),
            Ok(()) if wanted.done.len() < wanted.texts.len() => self.embeddings.push_back(wanted),
            Ok(()) => {
                self.metrics.ended("stop", None, wanted.asked.elapsed());
                // Who is not there any more need not know.
                let _ = wanted.answer.send(Ok(wanted.done));
            }
            Err(error) => {
                self.metrics.ended("error", None, wanted.asked.elapsed());
                let _ = wanted.answer.send(Err(error));
            }
        }
    }

    fn run_some(&mut self, wanted: &mut Embeddings) -> Result<(), Error> {
        self.engine.can_embed()?;
        let session = match &mut self.embedder {
            Some(session) => session,
            none => none.insert(self.engine.session(1)?),
        };
        let Some(text) = wanted.texts.get(wanted.done.len()) else { return Ok(()) };
        if wanted.run == 0 {
            session.truncate(0, 0);
        }
        let rest = &text[wanted.run..];
        let most = if self.scheduler.is_idle() { self.capacity.chunk } else { BESIDE };
        let piece = &rest[..rest.len().min(most)];
        self.metrics.prompt_tokens.add(piece.len());
        let embedding = session.embed(0, piece)?;
        wanted.run += piece.len();
        // That of a piece is of nobody's interest.
        if wanted.run == text.len() {
            wanted.done.push(embedding);
            wanted.run = 0;
        }
        Ok(())
    }

    fn publish(&self) {
        let (running, waiting) = self.scheduler.load();
        // Of embeddings the first is being computed.
        let first = self.embeddings.len().min(1);
        self.metrics.running.set(running + first);
        self.metrics.waiting.set(waiting + self.embeddings.len() - first);
        self.metrics.blocks_used.set(self.scheduler.blocks().0);
    }
}
