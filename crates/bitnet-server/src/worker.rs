//! The thread that has the scheduler, or gives work to those of several devices: requests go in, what comes of them goes
//! out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bitnet_inference::{Compiled, End, Error, Event, Replicas, Request, RequestId, Token};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

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
    /// To see what came of the work of a device that has a thread of its own.
    Look,
    /// To end: what still runs is for nobody.
    End,
}

/// What comes of a text.
#[derive(Debug)]
pub(crate) enum Piece {
    Token(Token),
    End(Box<End>),
}

/// When a device last did something.
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

    pub(crate) fn beat(&self) {
        let now = self.start.elapsed().as_millis() as u64;
        self.since.store(now.max(1), Ordering::Relaxed);
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.since.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn rest(&self) {
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

/// Who waits for what comes of a request.
struct Reader {
    asked: Instant,
    answer: Answer,
}

enum Answer {
    /// A text, and when the last token of it went out.
    Text(mpsc::UnboundedSender<Result<Piece, Error>>, Option<Instant>),
    /// Embeddings of so many tokens.
    Embeddings(oneshot::Sender<Result<Vec<Vec<f32>>, Error>>, usize),
}

impl Reader {
    fn new(answer: Answer) -> Reader {
        Reader { asked: Instant::now(), answer }
    }

    /// Whether nobody is there any more.
    fn is_gone(&self) -> bool {
        match &self.answer {
            Answer::Text(pieces, _) => pieces.is_closed(),
            Answer::Embeddings(answer, _) => answer.is_closed(),
        }
    }

    /// Says why there will be nothing more. Who is not there any more need not know.
    fn fail(self, error: Error) -> Duration {
        match self.answer {
            Answer::Text(pieces, _) => _ = pieces.send(Err(error)),
            Answer::Embeddings(answer, _) => _ = answer.send(Err(error)),
        }
        self.asked.elapsed()
    }
}

pub(crate) struct Worker<'a> {
    replicas: Replicas<'a>,
    readers: HashMap<RequestId, Reader>,
    metrics: Arc<Metrics>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(replicas: Replicas<'a>, metrics: Arc<Metrics>) -> Worker<'a> {
        metrics.set_devices(&replicas.devices());
        Worker { replicas, readers: HashMap::new(), metrics }
    }

    /// Works until nobody can ask any more and all is done, or it is to end.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            // Devices with threads say when there is something to see.
            if self.replicas.is_idle() || self.replicas.has_threads() {
                self.publish();
                let Ok(command) = commands.recv() else { return };
                if !self.take(command) {
                    return;
                }
            }
            if !self.replicas.has_threads() {
                self.metrics.beat();
            }
            while let Ok(command) = commands.try_recv() {
                if !self.take(command) {
                    return;
                }
            }
            self.forget_those_who_left();
            self.publish();
            let done = self.replicas.step();
            // Before anybody learns of it, so that who asks then sees what is so.
            self.publish();
            match done {
                Ok(events) => events.into_iter().for_each(|event| self.tell(event)),
                Err(error) => self.fail_all(&error),
            }
        }
    }

    /// Follows a command. False if it is to end.
    fn take(&mut self, command: Command) -> bool {
        let (asked, answer) = match command {
            Command::Generate { request, constraint, pieces } => {
                let asked = self.replicas.submit_with(*request, constraint.map(|it| *it));
                (asked, Answer::Text(pieces, None))
            }
            Command::Embed { texts, answer } => {
                let tokens = texts.iter().map(Vec::len).sum();
                (self.replicas.embed(texts), Answer::Embeddings(answer, tokens))
            }
            Command::Look => return true,
            Command::End => return false,
        };
        let reader = Reader::new(answer);
        match asked {
            Ok(id) => _ = self.readers.insert(id, reader),
            Err(error) => self.metrics.ended("error", None, reader.fail(error)),
        }
        true
    }

    fn forget_those_who_left(&mut self) {
        let left = self.readers.iter().filter(|(_, reader)| reader.is_gone());
        for id in left.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.replicas.cancel(id);
            // Of a text there will be an end.
            if let Some(Reader { asked, answer: Answer::Embeddings(..) }) = self.readers.get(&id) {
                self.metrics.ended("cancelled", None, asked.elapsed());
                self.readers.remove(&id);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Token(token) => {
                self.metrics.generated_tokens.add(1);
                let reader = self.readers.get_mut(&token.id).map(|reader| &mut reader.answer);
                if let Some(Answer::Text(pieces, last)) = reader {
                    let now = Instant::now();
                    if let Some(last) = last.replace(now) {
                        self.metrics.between_tokens.add(now - last);
                    }
                    // Who is not there any more need not know.
                    let _ = pieces.send(Ok(Piece::Token(token)));
                }
            }
            Event::End(end) => {
                if let Some(Reader { asked, answer }) = self.readers.remove(&end.id) {
                    self.metrics.ended(end.finish.name(), Some(&end.usage), asked.elapsed());
                    if let Answer::Text(pieces, _) = answer {
                        let _ = pieces.send(Ok(Piece::End(end)));
                    }
                }
            }
            Event::Embeddings { id, embeddings } => {
                if let Some(Reader { asked, answer }) = self.readers.remove(&id) {
                    self.metrics.ended("stop", None, asked.elapsed());
                    if let Answer::Embeddings(answer, tokens) = answer {
                        self.metrics.prompt_tokens.add(tokens);
                        let _ = answer.send(Ok(embeddings));
                    }
                }
            }
            Event::Failed { id, error } => {
                if let Some(reader) = self.readers.remove(&id) {
                    self.metrics.ended("error", None, reader.fail(error));
                }
            }
            _ => {}
        }
    }

    /// A forward pass failed: all are told, those that wait as well, whose turn would be with the same.
    fn fail_all(&mut self, error: &Error) {
        let what = error.to_string();
        for (id, reader) in self.readers.drain() {
            self.replicas.cancel(id);
            self.metrics.ended("error", None, reader.fail(Error::Pass { what: what.clone() }));
        }
    }

    fn publish(&self) {
        let (running, waiting) = self.replicas.load();
        self.metrics.running.set(running);
        self.metrics.waiting.set(waiting);
        self.metrics.publish(&self.replicas.devices());
    }
}
