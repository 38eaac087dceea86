//! `POST /completion`: a prompt as it is, as llama.cpp has it.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bitnet_inference::{Finish, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Events, Gone, Part};
use crate::completions::Prompts;
use crate::error::ApiError;
use crate::options::{self, Options};
use crate::state::{State, Text};
use crate::worker::Piece;

/// Fields that the others do not have.
#[derive(Debug, Deserialize)]
struct Fields {
    prompt: Prompts,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    n_probs: Option<i64>,
    #[serde(default)]
    return_tokens: Option<bool>,
}

/// What is said along with the text.
struct Ask {
    model: String,
    return_tokens: bool,
}

/// Continues a prompt.
pub(crate) async fn complete(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.takes_requests()?;
    let fields: Fields = options::read(&body)?;
    let options: Options = options::read(&body)?;
    if fields.prompt.len() != 1 || options.choices()? != 1 {
        let what = "prompt: one text at a time: /v1/completions takes several";
        return Err(ApiError::invalid(what).code("invalid_value").param("prompt"));
    }
    let wanted = fields.n_probs.filter(|&n| n > 0);
    let logprobs = wanted.map(|n| options::top_logprobs(Some(n), "n_probs")).transpose()?;
    let named = |error: ApiError| error.of("prompt", options.bound_by());
    let places = state.places(1)?;
    let prompts = state.think(|| fields.prompt.tokens(model)).await.map_err(named)?;
    let mut requests = Vec::with_capacity(1);
    for prompt in prompts {
        let request = options.clone().request(prompt, &state.config)?;
        model.check(&request).map_err(named)?;
        requests.push(Request { logprobs, ..request });
    }
    let texts = state.generate(requests, places).await.map_err(named)?;
    let return_tokens = fields.return_tokens.unwrap_or(false);
    let ask = Ask { model: model.name.clone(), return_tokens };
    if fields.stream.unwrap_or(false) {
        let work = Arc::clone(&state);
        return answer::stream(&state, texts, |texts, events| stream(work, ask, texts, events))
            .await;
    }
    let answer = answer::one(texts).await?;
    let mut object = ask.last(&answer, &answer.text, &answer.tokens);
    if wanted.is_some() {
        let tokenizer = model.tokenizer()?;
        let all = answer.logprobs.iter().map(|token| answer::logprob(tokenizer, token));
        object["completion_probabilities"] = all.collect();
    }
    Ok(Json(object).into_response())
}

impl Ask {
    /// A piece of the text.
    fn piece(&self, text: &str, tokens: &[u32]) -> Value {
        let tokens = if self.return_tokens { tokens } else { &[] };
        json!({ "index": 0, "content": text, "tokens": tokens, "stop": false })
    }

    /// The last piece, with what the answer took.
    fn last(&self, answer: &Answer, text: &str, tokens: &[u32]) -> Value {
        let (kind, word) = match &answer.finish {
            Finish::Length => ("limit", ""),
            Finish::StopString(word) => ("word", word.as_str()),
            Finish::Stop => ("eos", ""),
            Finish::Cancelled => ("none", ""),
        };
        let usage = &answer.usage;
        let mut object = self.piece(text, tokens);
        object["stop"] = true.into();
        object["model"] = self.model.as_str().into();
        object["stop_type"] = kind.into();
        object["stopping_word"] = word.into();
        object["tokens_predicted"] = usage.generated.into();
        object["tokens_evaluated"] = usage.prompt.into();
        object["tokens_cached"] = usage.cached.into();
        object["truncated"] = false.into();
        object["timings"] = answer::timings(usage);
        object
    }
}

/// An answer that goes out as it comes. There is no `[DONE]` behind it.
async fn stream(
    state: Arc<State>,
    ask: Ask,
    mut texts: Vec<Text>,
    events: Events,
) -> Result<(), Gone> {
    let Some(text) = texts.first_mut() else { return Ok(()) };
    let mut part = Part::default();
    loop {
        match events.next(text).await? {
            Ok(Piece::Token(token)) => {
                let mut piece = ask.piece(&token.text, &[token.token]);
                if let (Some(logprobs), Ok(model)) = (&token.logprobs, state.model())
                    && let Ok(tokenizer) = model.tokenizer()
                {
                    let one = answer::logprob(tokenizer, &(token.token, logprobs.clone()));
                    piece["completion_probabilities"] = json!([one]);
                }
                events.data(&piece).await?;
                part.push(token);
            }
            Ok(Piece::End(end)) => {
                let answer = part.end(&end);
                return events.data(&ask.last(&answer, &end.text, &[])).await;
            }
            Err(error) => return events.error(&error).await,
        }
    }
}
