//! From the pieces of texts to answers, at once or as they come.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bitnet_inference::tokenizer::Tokenizer;
use bitnet_inference::{Finish, LogProbabilities, Token, Usage};
use futures_util::{future, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time;

use crate::error::ApiError;
use crate::id;
use crate::state::{Model, State, Text};
use crate::worker::Piece;

/// Between signs of life of a stream in which nothing comes.
const PING: Duration = Duration::from_secs(15);
/// Events that wait for a slow reader; behind them the text waits in pieces.
const EVENTS: usize = 16;

/// A text that is whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<(u32, LogProbabilities)>,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

/// What all objects of an answer have in common, where OpenAI has the interface.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
}

impl Head {
    pub(crate) fn new(prefix: &str, model: &Model) -> Head {
        let (id, created) = (id::new(prefix), id::now());
        Head { id, created, model: model.name.clone(), fingerprint: model.fingerprint() }
    }

    pub(crate) fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices,
        })
    }
}

/// What there is of a text.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) text: String,
    tokens: Vec<u32>,
    logprobs: Vec<(u32, LogProbabilities)>,
}

impl Part {
    pub(crate) fn push(&mut self, token: Token) {
        self.text.push_str(&token.text);
        self.tokens.push(token.token);
        self.logprobs.extend(token.logprobs.map(|logprobs| (token.token, logprobs)));
    }

    pub(crate) fn end(mut self, end: &bitnet_inference::End) -> Answer {
        self.text.push_str(&end.text);
        let Part { text, tokens, logprobs } = self;
        Answer { text, tokens, logprobs, finish: end.finish.clone(), usage: end.usage }
    }
}

/// Waits for the only one of some texts.
pub(crate) async fn one(texts: Vec<Text>) -> Result<Answer, ApiError> {
    let answer = all(texts).await?.pop();
    answer.ok_or_else(|| ApiError::internal("there is no text"))
}

/// Waits for a text.
async fn whole(text: &mut Text) -> Result<Answer, ApiError> {
    let mut part = Part::default();
    loop {
        match text.next().await? {
            Piece::Token(token) => part.push(token),
            Piece::End(end) => return Ok(part.end(&end)),
        }
    }
}

/// Waits for texts, which are generated at the same time.
pub(crate) async fn all(mut texts: Vec<Text>) -> Result<Vec<Answer>, ApiError> {
    let mut answers = Vec::with_capacity(texts.len());
    for text in &mut texts {
        answers.push(whole(text).await?);
    }
    Ok(answers)
}

/// Where the events of a stream go.
#[derive(Clone)]
pub(crate) struct Events {
    to: mpsc::Sender<SseEvent>,
    /// How long a reader may take for one.
    patience: Duration,
    state: Arc<State>,
}

impl Events {
    /// Sends data. An error where nobody reads on.
    pub(crate) async fn data(&self, value: &Value) -> Result<(), Gone> {
        self.send(SseEvent::default().data(value.to_string())).await
    }

    /// Sends data with a name.
    pub(crate) async fn named(&self, name: &str, value: &Value) -> Result<(), Gone> {
        self.send(SseEvent::default().event(name).data(value.to_string())).await
    }

    /// Says why there is no more.
    pub(crate) async fn error(&self, error: &ApiError) -> Result<(), Gone> {
        self.failed(error);
        self.data(&error.body()).await
    }

    /// Has the server's own lines tell of an error.
    pub(crate) fn failed(&self, error: &ApiError) {
        if error.status.is_server_error() {
            self.state.log.failed(error.code, &error.message);
        }
    }

    /// Says that there is no more.
    pub(crate) async fn done(&self) -> Result<(), Gone> {
        self.send(SseEvent::default().data("[DONE]")).await
    }

    async fn send(&self, event: SseEvent) -> Result<(), Gone> {
        match time::timeout(self.patience, self.to.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// What comes next of a text, as long as somebody reads.
    pub(crate) async fn next(&self, text: &mut Text) -> Result<Result<Piece, ApiError>, Gone> {
        tokio::select! {
            piece = text.next() => Ok(piece),
            () = self.to.closed() => Err(Gone),
        }
    }
}

/// Nobody reads on, or too slowly.
#[derive(Debug)]
pub(crate) struct Gone;

/// A response of the events that `work` sends of texts. It begins with the first of them, so that an error
/// before that has a status, and a server that dies before it can be told from one that answers; but not
/// later than a sign of life is due.
pub(crate) async fn stream<F>(
    state: &Arc<State>,
    mut texts: Vec<Text>,
    work: impl FnOnce(Vec<Text>, Events) -> F,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let first = future::select_all(texts.iter_mut().map(|text| Box::pin(text.begin())));
    if let Ok((began, ..)) = time::timeout(PING, first).await {
        began?;
    }
    let (sender, receiver) = mpsc::channel(EVENTS);
    let patience = state.config.client_timeout;
    let events = Events { to: sender.clone(), patience, state: Arc::clone(state) };
    let is_whole = Arc::new(AtomicBool::new(false));
    let (work, ended) = (work(texts, events), Arc::clone(&is_whole));
    // Who does not read on drops the receiver, and with that ends the work.
    tokio::spawn(async move {
        ended.store(work.await.is_ok(), Ordering::Relaxed);
        drop(sender);
    });
    let events = stream::unfold((receiver, is_whole), |(mut receiver, is_whole)| async move {
        let event = match receiver.recv().await {
            Some(event) => Ok(event),
            None if is_whole.swap(true, Ordering::Relaxed) => return None,
            // Who was too slow is not to take it for the end.
            None => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        Some((event, (receiver, is_whole)))
    });
    let ping = KeepAlive::new().interval(PING).text("ping");
    let mut response = Sse::new(events).keep_alive(ping).into_response();
    // Proxies pass it on piece by piece.
    let no = axum::http::HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", no);
    Ok(response)
}

/// What texts of one prompt took together, as OpenAI counts it.
pub(crate) fn usage<'u>(all: impl IntoIterator<Item = &'u Usage>) -> Value {
    let (mut prompt, mut cached, mut generated, mut accepted, mut rejected) = (0, 0, 0, 0, 0);
    for usage in all {
        prompt = usage.prompt;
        cached = cached.max(usage.cached);
        generated += usage.generated;
        accepted += usage.accepted;
        rejected += usage.drafted - usage.accepted;
    }
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": { "cached_tokens": cached },
        "completion_tokens_details": {
            "accepted_prediction_tokens": accepted, "rejected_prediction_tokens": rejected,
        },
    })
}

/// Where the time of a text went, as llama.cpp tells it.
pub(crate) fn timings(usage: &Usage) -> Value {
    let times = usage.timings;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (run, decoded) =
        (usage.prompt - usage.cached, usage.positions.saturating_sub(usage.prompt));
    let rate = |n: usize, time: Duration| {
        (n > 0 && !time.is_zero()).then(|| n as f64 / time.as_secs_f64())
    };
    let each = |n: usize, time: Duration| (n > 0).then(|| ms(time) / n as f64);
    json!({
        "cache_n": usage.cached,
        "prompt_n": run,
        "prompt_ms": ms(times.prompt),
        "prompt_per_token_ms": each(run, times.prompt),
        "prompt_per_second": rate(run, times.prompt),
        "predicted_n": usage.generated,
        "predicted_ms": ms(times.decode),
        "predicted_per_token_ms": each(decoded, times.decode),
        "predicted_per_second": rate(decoded, times.decode),
        "first_token_ms": ms(times.first_token),
        "queued_ms": ms(times.queued),
        "draft_n": usage.drafted,
        "draft_n_accepted": usage.accepted,
    })
}

/// A token, and its log-probability, as `chat/completions` has them.
pub(crate) fn logprob(tokenizer: &Tokenizer, (token, logprobs): &(u32, LogProbabilities)) -> Value {
    let one = |id: u32, logprob: f32| {
        let bytes = tokenizer.bytes(id).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        // JSON has no infinity.
        json!({ "id": id, "token": text, "logprob": logprob.max(-9999.0), "bytes": bytes })
    };
    let mut entry = one(*token, logprobs.token);
    let top = logprobs.top.iter().map(|&(id, logprob)| one(id, logprob));
    entry["top_logprobs"] = top.collect();
    entry
}
