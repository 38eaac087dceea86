//! `POST /v1/completions`: a prompt as it is.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bitnet_inference::tokenizer::Tokenizer;
use bitnet_inference::{LogProbabilities, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Events, Gone, Head, Part};
use crate::chat;
use crate::error::ApiError;
use crate::options::{self, Options, StreamOptions};
use crate::state::{Model, State, Text};
use crate::worker::Piece;

/// What clients call an answer.
const OBJECT: &str = "text_completion";
/// Prompts of a request at most.
const PROMPTS: usize = 128;
/// Alternatives to a token at most.
const TOP: i64 = 20;

/// Fields that the others do not have.
#[derive(Debug, Deserialize)]
struct Fields {
    prompt: Prompts,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    logprobs: Option<i64>,
    #[serde(default)]
    best_of: Option<i64>,
    #[serde(default)]
    suffix: Option<String>,
}

/// Prompts, as texts or as tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a string, an array of strings, of token ids, or of arrays of them")]
pub(crate) enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

impl Prompts {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Prompts::Text(_) | Prompts::Ids(_) => 1,
            Prompts::Texts(texts) => texts.len(),
            Prompts::Many(many) => many.len(),
        }
    }

    /// The tokens of each.
    pub(crate) fn tokens(self, model: &Model) -> Result<Vec<Vec<u32>>, ApiError> {
        let encode = |text: &str| model.engine.encode(text).map_err(ApiError::from);
        match self {
            Prompts::Text(text) => Ok(vec![encode(&text)?]),
            Prompts::Texts(texts) => texts.iter().map(|text| encode(text)).collect(),
            Prompts::Ids(ids) => Ok(vec![ids]),
            Prompts::Many(many) => Ok(many),
        }
    }
}

/// Continues prompts.
pub(crate) async fn complete(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.takes_requests()?;
    let fields: Fields = options::read(&body)?;
    let options: Options = options::read(&body)?;
    let n = options.choices()?;
    let wrong = |param: &str, why: &str| {
        ApiError::invalid(format!("{param}: {why}")).code("invalid_value").param(param)
    };
    if fields.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(wrong("suffix", "the model cannot write what comes before a text"));
    }
    if fields.best_of.is_some_and(|best| best != n as i64) {
        return Err(wrong("best_of", "it can only be n: all texts are given"));
    }
    let echo = fields.echo.unwrap_or(false);
    if echo && fields.logprobs.is_some() {
        return Err(wrong("echo", "there are no log-probabilities of prompts"));
    }
    let given = fields.prompt.len();
    if !(1..=PROMPTS).contains(&given) {
        return Err(wrong("prompt", &format!("there may be 1 to {PROMPTS}")));
    }
    let logprobs = match fields.logprobs {
        None => None,
        Some(top) if top > TOP => return Err(wrong("logprobs", &format!("{TOP} at most"))),
        Some(_) => Some(options::top_logprobs(fields.logprobs, "logprobs")?),
    };
    let named = |error: ApiError| error.of("prompt", options.bound_by());
    let places = state.places(given * n)?;
    let prompts = state.think(|| fields.prompt.tokens(model)).await?;
    let echoed: Vec<String> = match echo {
        true => {
            let tokenizer = model.tokenizer()?;
            let all = prompts.iter().map(|prompt| tokenizer.decode(prompt));
            all.flat_map(|text| std::iter::repeat_n(text, n)).collect()
        }
        false => vec![String::new(); given * n],
    };
    let mut requests = Vec::with_capacity(given * n);
    for prompt in prompts {
        let request = options.clone().request(prompt, &state.config)?;
        model.check(&request).map_err(named)?;
        requests.extend(chat::each(&Request { logprobs, ..request }, n));
    }
    let texts = state.generate(requests, places).await.map_err(named)?;
    let head = Head::new("cmpl-", model);
    if fields.stream.unwrap_or(false) {
        let usage = StreamOptions::usage(fields.stream_options);
        let stream = Stream { state: Arc::clone(&state), head, usage, n };
        let work = |texts, events| stream.run(texts, echoed, events);
        return answer::stream(&state, texts, work).await;
    }
    let answers = answer::all(texts).await?;
    let choices = (0..).zip(answers.iter().zip(&echoed)).map(|(index, (answer, echoed))| {
        json!({
            "index": index, "text": format!("{echoed}{}", answer.text),
            "finish_reason": answer.finish.name(),
            "logprobs": logprobs_of(model, &answer.logprobs, 0),
        })
    });
    let mut object = head.object(OBJECT, choices.collect());
    object["usage"] = usage(&answers.iter().collect::<Vec<_>>(), n);
    if let Some(answer) = answers.first() {
        object["timings"] = answer::timings(&answer.usage);
    }
    Ok(Json(object).into_response())
}

/// What all texts took: prompts count once for the `n` texts of each.
fn usage(answers: &[&Answer], n: usize) -> Value {
    let mut all = answer::usage(answers.iter().map(|answer| &answer.usage));
    let prompts = answers.iter().step_by(n);
    let prompt: usize = prompts.map(|answer| answer.usage.prompt).sum();
    let generated = all["completion_tokens"].as_u64().unwrap_or(0);
    all["prompt_tokens"] = prompt.into();
    all["total_tokens"] = (prompt as u64 + generated).into();
    all
}

/// Log-probabilities, as this interface has them.
fn logprobs_of(model: &Model, all: &[(u32, LogProbabilities)], mut offset: usize) -> Value {
    let (Ok(tokenizer), [_, ..]) = (model.tokenizer(), all) else { return Value::Null };
    let text = |tokenizer: &Tokenizer, id: u32| {
        String::from_utf8_lossy(tokenizer.bytes(id).unwrap_or_default()).into_owned()
    };
    let (mut tokens, mut values, mut tops, mut offsets) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (token, logprobs) in all {
        let top = logprobs.top.iter().map(|&(id, value)| (text(tokenizer, id), value.into()));
        tops.push(Value::Object(top.collect()));
        offsets.push(offset);
        let token = text(tokenizer, *token);
        offset += token.chars().count();
        tokens.push(token);
        values.push(logprobs.token);
    }
    json!({
        "tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets,
    })
}

struct Stream {
    state: Arc<State>,
    head: Head,
    /// Whether the last chunk says what it took.
    usage: bool,
    /// Texts of each prompt.
    n: usize,
}

impl Stream {
    async fn run(self, texts: Vec<Text>, echoed: Vec<String>, events: Events) -> Result<(), Gone> {
        for (index, echoed) in echoed.iter().enumerate().filter(|(_, echoed)| !echoed.is_empty()) {
            events.data(&self.chunk(index, echoed, Value::Null, Value::Null)).await?;
        }
        let running = texts.into_iter().enumerate().map(|(i, text)| self.one(i, text, &events));
        let mut answers = Vec::new();
        for ended in futures_util::future::join_all(running).await {
            match ended? {
                Ok(answer) => answers.push(answer),
                Err(error) => return events.data(&error.body()).await,
            }
        }
        if self.usage {
            let mut last = self.head.object(OBJECT, json!([]));
            last["usage"] = usage(&answers.iter().collect::<Vec<_>>(), self.n);
            if let Some(answer) = answers.first() {
                last["timings"] = answer::timings(&answer.usage);
            }
            events.data(&last).await?;
        }
        events.done().await
    }

    async fn one(
        &self,
        index: usize,
        mut text: Text,
        events: &Events,
    ) -> Result<Result<Answer, ApiError>, Gone> {
        let (mut part, mut offset) = (Part::default(), 0);
        loop {
            match events.next(&mut text).await? {
                Ok(Piece::Token(token)) => {
                    let logprobs = token.logprobs.clone().map(|it| (token.token, it));
                    let logprobs = match self.state.model() {
                        Ok(model) => logprobs_of(model, logprobs.as_slice(), offset),
                        Err(_) => Value::Null,
                    };
                    offset += token.text.chars().count();
                    if !token.text.is_empty() || !logprobs.is_null() {
                        let chunk = self.chunk(index, &token.text, logprobs, Value::Null);
                        events.data(&chunk).await?;
                    }
                    part.push(token);
                }
                Ok(Piece::End(end)) => {
                    let finish = end.finish.name().into();
                    events.data(&self.chunk(index, &end.text, Value::Null, finish)).await?;
                    return Ok(Ok(part.end(&end)));
                }
                Ok(Piece::Failed(error)) => return Ok(Err(error.into())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn chunk(&self, index: usize, text: &str, logprobs: Value, finish: Value) -> Value {
        let choice =
            json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish });
        let mut chunk = self.head.object(OBJECT, json!([choice]));
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}
