//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bitnet_inference::chat::Conversation;
use bitnet_inference::{End, Finish, LogProbabilities, Request, Token, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, Events, Gone, Head, Part};
use crate::error::ApiError;
use crate::id;
use crate::messages;
use crate::options::{self, Options, StreamOptions};
use crate::state::{Model, Place, State, Text};
use crate::tools::{Call, Sent, Tools};
use crate::worker::Piece;

/// Fields that the others do not have.
#[derive(Debug, Deserialize)]
struct Fields {
    messages: Vec<Value>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<i64>,
    #[serde(default)]
    chat_template_kwargs: Option<Map<String, Value>>,
    #[serde(default)]
    add_generation_prompt: Option<bool>,
}

/// A request that has been understood, with places for its texts.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) tools: Tools,
    places: Vec<Place>,
    /// The field that says what the text must be.
    bound_by: Option<&'static str>,
}

/// The request of a conversation.
pub(crate) async fn ask(
    state: &State,
    model: &Model,
    (conversation, tools, body): (&Conversation, Tools, &Value),
) -> Result<Asked, ApiError> {
    let options: Options = options::read(body)?;
    let places = state.places(options.choices()?)?;
    let prompt = state.think(|| model.render(conversation)).await;
    let prompt = prompt.map_err(|error| error.of("messages", None))?;
    let mut bound_by = options.bound_by();
    let mut request = options.request(prompt, &state.config)?;
    if let Some(constraint) = tools.constraint() {
        if bound_by.replace("tools").is_some() {
            let what =
                "a text cannot be a call of a function and what response_format says at once";
            return Err(ApiError::invalid(what).code("invalid_tools").param("tool_choice"));
        }
        request.constraint = Some(constraint);
    }
    Ok(Asked { request, tools, places, bound_by })
}

impl Asked {
    /// Begins to generate its texts.
    pub(crate) async fn begin(
        self,
        state: &State,
        prompt: &str,
    ) -> Result<(Vec<Text>, Tools), ApiError> {
        let Asked { request, tools, places, bound_by } = self;
        let named = |error: ApiError| error.of(prompt, bound_by);
        state.model()?.check(&request).map_err(named)?;
        let requests = each(&request, places.len());
        Ok((state.generate(requests, places).await.map_err(named)?, tools))
    }
}

/// The same request, for each of its texts: their seeds differ.
pub(crate) fn each(request: &Request, n: usize) -> Vec<Request> {
    let one = |index: usize| {
        let mut one = request.clone();
        one.sampling.seed = one.sampling.seed.wrapping_add(index as u64);
        one
    };
    (0..n).map(one).collect()
}

/// Answers a conversation.
pub(crate) async fn complete(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.takes_requests()?;
    let fields: Fields = options::read(&body)?;
    let tools = Tools::of(&body)?;
    let variables = fields.chat_template_kwargs.unwrap_or_default();
    let mut conversation =
        messages::conversation(messages::placed(&fields.messages), tools.told(), &variables)?;
    conversation.answer = fields.add_generation_prompt.unwrap_or(true);
    let mut asked = ask(&state, model, (&conversation, tools, &body)).await?;
    if fields.logprobs.unwrap_or(false) {
        let top = options::top_logprobs(fields.top_logprobs, "top_logprobs")?;
        asked.request.logprobs = Some(top);
    }
    let (texts, tools) = asked.begin(&state, "messages").await?;
    let head = Head::new("chatcmpl-", model);
    if fields.stream.unwrap_or(false) {
        let usage = StreamOptions::usage(fields.stream_options);
        let stream = Stream { state: Arc::clone(&state), head, tools, usage };
        return answer::stream(&state, texts, |texts, events| stream.run(texts, events)).await;
    }
    let answers = answer::all(texts).await?;
    let choices = (0..).zip(&answers).map(|(index, answer)| {
        let (message, finish) = message(answer, &tools);
        json!({
            "index": index, "message": message, "finish_reason": finish,
            "logprobs": logprobs(model, answer.logprobs.iter()),
        })
    });
    let mut object = head.object("chat.completion", choices.collect());
    object["usage"] = answer::usage(answers.iter().map(|answer| &answer.usage));
    if let Some(answer) = answers.first() {
        object["timings"] = answer::timings(&answer.usage);
    }
    Ok(Json(object).into_response())
}

/// What an answer says, and why it ended.
fn message(answer: &Answer, tools: &Tools) -> (Value, &'static str) {
    let (text, calls) = tools.parse(&answer.text);
    let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
    if calls.is_empty() {
        return (message, answer.finish.name());
    }
    if text.is_empty() {
        message["content"] = Value::Null;
    }
    message["tool_calls"] = calls.iter().map(called).collect();
    let finish = match answer.finish {
        Finish::Length => "length",
        _ => "tool_calls",
    };
    (message, finish)
}

/// A call, as clients are told of it.
pub(crate) fn called(call: &Call) -> Value {
    json!({
        "id": id::new("call_"), "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

fn logprobs<'l>(
    model: &Model,
    all: impl ExactSizeIterator<Item = &'l (u32, LogProbabilities)>,
) -> Value {
    match (all.len(), model.tokenizer()) {
        (1.., Ok(tokenizer)) => {
            let content: Vec<_> = all.map(|token| answer::logprob(tokenizer, token)).collect();
            json!({ "content": content, "refusal": null })
        }
        _ => Value::Null,
    }
}

/// An answer that goes out as it comes.
struct Stream {
    state: Arc<State>,
    head: Head,
    tools: Tools,
    /// Whether the last chunk says what it took.
    usage: bool,
}

/// One of its texts.
struct Choice {
    index: usize,
    text: Text,
    part: Part,
    sent: Sent,
}

impl Stream {
    async fn run(self, texts: Vec<Text>, events: Events) -> Result<(), Gone> {
        let choices = texts.into_iter().enumerate();
        let choices: Vec<_> = choices
            .map(|(index, text)| Choice {
                index,
                text,
                part: Part::default(),
                sent: Sent::default(),
            })
            .collect();
        for choice in &choices {
            let first = json!({ "role": "assistant", "content": "" });
            events.data(&self.chunk(choice.index, first, Value::Null)).await?;
        }
        let running = choices.into_iter().map(|choice| self.one(choice, &events));
        let mut usages = Vec::new();
        for ended in futures_util::future::join_all(running).await {
            match ended? {
                Ok(usage) => usages.push(usage),
                Err(error) => return events.error(&error).await,
            }
        }
        if self.usage {
            let mut last = self.head.object("chat.completion.chunk", json!([]));
            last["usage"] = answer::usage(&usages);
            if let Some(usage) = usages.first() {
                last["timings"] = answer::timings(usage);
            }
            events.data(&last).await?;
        }
        events.done().await
    }

    /// A text, to its end.
    async fn one(
        &self,
        mut choice: Choice,
        events: &Events,
    ) -> Result<Result<Usage, ApiError>, Gone> {
        loop {
            match events.next(&mut choice.text).await? {
                Ok(Piece::Token(token)) => self.token(&mut choice, token, events).await?,
                Ok(Piece::End(end)) => {
                    let usage = end.usage;
                    self.end(choice, &end, events).await?;
                    return Ok(Ok(usage));
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn token(&self, choice: &mut Choice, token: Token, events: &Events) -> Result<(), Gone> {
        let logprobs = token.logprobs.clone().map(|logprobs| (token.token, logprobs));
        choice.part.push(token);
        let new = choice.sent.more(&self.tools, &choice.part.text);
        if new.is_empty() && logprobs.is_none() {
            return Ok(());
        }
        let logprobs = match self.state.model() {
            Ok(model) => self::logprobs(model, logprobs.iter()),
            Err(_) => Value::Null,
        };
        let mut chunk = self.chunk(choice.index, json!({ "content": new }), Value::Null);
        chunk["choices"][0]["logprobs"] = logprobs;
        events.data(&chunk).await
    }

    async fn end(&self, choice: Choice, end: &End, events: &Events) -> Result<(), Gone> {
        let Choice { index, part, sent, .. } = choice;
        let answer = part.end(end);
        let (text, calls) = self.tools.parse(&answer.text);
        let rest = sent.rest(&text);
        if !rest.is_empty() {
            events.data(&self.chunk(index, json!({ "content": rest }), Value::Null)).await?;
        }
        for (n, call) in calls.iter().enumerate() {
            let mut call = called(call);
            call["index"] = n.into();
            events.data(&self.chunk(index, json!({ "tool_calls": [call] }), Value::Null)).await?;
        }
        let finish = match answer.finish {
            Finish::Stop | Finish::StopString(_) if !calls.is_empty() => "tool_calls",
            ref finish => finish.name(),
        };
        events.data(&self.chunk(index, json!({}), finish.into())).await
    }

    fn chunk(&self, index: usize, delta: Value, finish: Value) -> Value {
        let choice =
            json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish });
        let mut chunk = self.head.object("chat.completion.chunk", json!([choice]));
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}
