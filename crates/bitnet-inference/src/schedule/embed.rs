//! Embeddings of texts, a piece at a time between the forward passes of others.

use super::{Event, RequestId, Scheduler};
use crate::Error;

/// Tokens that are run beside a step, at most: what the others wait for.
const BESIDE: usize = 32;

/// Texts whose embeddings are wanted.
#[derive(Debug)]
pub(super) struct Embeddings {
    pub(super) id: RequestId,
    texts: Vec<Vec<u32>>,
    done: Vec<Vec<f32>>,
    /// Tokens of the next text that have been run.
    run: usize,
}

impl Embeddings {
    pub(super) fn new(id: RequestId, texts: Vec<Vec<u32>>) -> Embeddings {
        Embeddings { id, done: Vec::with_capacity(texts.len()), texts, run: 0 }
    }

    /// The same, where nothing of the text that is next has been run.
    pub(super) fn anew(self) -> Embeddings {
        Embeddings { run: 0, ..self }
    }
}

impl Scheduler<'_> {
    /// Takes texts whose embeddings are wanted, as [`Session::embed`](crate::Session::embed) gives them. Some step
    /// gives all of them; those who ask have their turns text by text.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where a library computes.
    pub fn embed(&mut self, texts: Vec<Vec<u32>>) -> Result<RequestId, Error> {
        self.engine.can_embed()?;
        let id = RequestId(self.requests);
        self.requests += 1;
        self.embeddings.push_back(Embeddings::new(id, texts));
        Ok(id)
    }

    /// Runs a piece of the text whose embedding is wanted next.
    ///
    /// # Errors
    ///
    /// Where the device fails; then it is as before.
    pub(super) fn embed_some(&mut self) -> Result<(), Error> {
        let Some(mut wanted) = self.embeddings.pop_front() else { return Ok(()) };
        match self.run_some(&mut wanted) {
            // All have their turn, text by text.
            Ok(()) if wanted.run > 0 => self.embeddings.push_front(wanted),
            Ok(()) if wanted.done.len() < wanted.texts.len() => self.embeddings.push_back(wanted),
            Ok(()) => {
                let Embeddings { id, done: embeddings, .. } = wanted;
                self.events.push(Event::Embeddings { id, embeddings });
            }
            Err(error) if error.is_of_driver() => {
                self.embeddings.push_front(wanted.anew());
                return Err(error);
            }
            Err(error) => self.events.push(Event::Failed { id: wanted.id, error }),
        }
        Ok(())
    }

    fn run_some(&mut self, wanted: &mut Embeddings) -> Result<(), Error> {
        let most = if self.has_no_texts() { self.capacity.chunk } else { BESIDE };
        let session = match &mut self.embedder {
            Some(session) => session,
            none => none.insert(self.engine.session_on(self.replica, 1)?),
        };
        let Some(text) = wanted.texts.get(wanted.done.len()) else { return Ok(()) };
        if wanted.run == 0 {
            session.truncate(0, 0);
        }
        let rest = &text[wanted.run..];
        let piece = &rest[..rest.len().min(most)];
        let embedding = session.embed(0, piece)?;
        wanted.run += piece.len();
        // That of a piece is of nobody's interest.
        if wanted.run == text.len() {
            wanted.done.push(embedding);
            wanted.run = 0;
        }
        Ok(())
    }
}
