//! `POST /v1/completions`: a prompt as it is.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
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
        let encode = |text: &str| {
            model.may_fit(text.len())?;
            model.engine.encode(text).map_err(ApiError::from)
        };
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
    let logprobs = fields.logprobs.map(|n| options::top_logprobs(Some(n), "logprobs"));
    let logprobs = logprobs.transpose()?;
    let named = |error: ApiError| error.of("prompt", options.bound_by());
    let places = state.places(given * n)?;
    let prompts = state.think(|| fields.prompt.tokens(model)).await.map_err(named)?;
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
            "logprobs": logprobs_of(model, &answer.logprobs, &mut Offsets::default()),
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

/// Where tokens begin in a text, in characters: those that begin within one begin where it does.
#[derive(Debug, Default)]
struct Offsets {
    characters: usize,
    /// Of a character that is not whole.
    pending: Vec<u8>,
}

impl Offsets {
    /// Where a token begins that has these bytes.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let begin = self.characters;
        self.pending.extend_from_slice(bytes);
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            self.characters += chunk.valid().chars().count();
            used += chunk.valid().len();
            // What could still become a character waits; anything else is shown as one.
            let rest = &self.pending[used..];
            let is_end = chunk.invalid().len() == rest.len();
            let may_grow = str::from_utf8(rest).is_err_and(|why| why.error_len().is_none());
            if chunk.invalid().is_empty() || is_end && may_grow {
                break;
            }
            self.characters += 1;
            used += chunk.invalid().len();
        }
        self.pending.drain(..used);
        begin
    }
}

/// Log-probabilities, as this interface has them.
fn logprobs_of(model: &Model, all: &[(u32, LogProbabilities)], offsets: &mut Offsets) -> Value {
    let (Ok(tokenizer), [_, ..]) = (model.tokenizer(), all) else { return Value::Null };
    let bytes = |id: u32| tokenizer.bytes(id).unwrap_or_default();
    // Tokens that are no text by themselves have names that are not all the same.
    let text = |id: u32| match str::from_utf8(bytes(id)) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let codes = bytes(id).iter().map(|byte| format!("\\x{byte:02x}"));
            format!("bytes:{}", codes.collect::<String>())
        }
    };
    let (mut tokens, mut values, mut tops, mut begins) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (token, logprobs) in all {
        let top = logprobs.top.iter().map(|&(id, value)| (text(id), value.into()));
        tops.push(Value::Object(top.collect()));
        begins.push(offsets.push(bytes(*token)));
        tokens.push(text(*token));
        values.push(logprobs.token);
    }
    json!({
        "tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": begins,
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
                Err(error) => return events.error(&error).await,
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
        let (mut part, mut offsets) = (Part::default(), Offsets::default());
        loop {
            match events.next(&mut text).await? {
                Ok(Piece::Token(token)) => {
                    let logprobs = token.logprobs.clone().map(|it| (token.token, it));
                    let logprobs = match self.state.model() {
                        Ok(model) => logprobs_of(model, logprobs.as_slice(), &mut offsets),
                        Err(_) => Value::Null,
                    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters() {
        let mut offsets = Offsets::default();
        let crown = "\u{1f451}".as_bytes();
        let pieces = [b"a", &crown[..1], &crown[1..3], &crown[3..], b"b\xff", b"c"];
        let begins = pieces.map(|piece| offsets.push(piece));
        assert_eq!(begins, [0, 1, 1, 1, 2, 4]);
        assert_eq!(offsets.push(b""), 5);
    }
}
