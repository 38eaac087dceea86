//! `POST /v1/messages`: the interface of Anthropic, whose conversations become those of `chat.rs`.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bitnet_inference::chat::Conversation;
use bitnet_inference::{End, Finish, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, Events, Gone, Part};
use crate::chat;
use crate::error::ApiError;
use crate::options::{self, OneOrMore};
use crate::state::{State, Text};
use crate::tools::{Call, Sent, Tools};
use crate::worker::Piece;
use crate::{id, messages};

#[derive(Debug, Deserialize)]
struct Fields {
    messages: Vec<Value>,
    #[serde(default)]
    max_tokens: Option<i64>,
    #[serde(default)]
    system: Option<Value>,
    #[serde(default)]
    stop_sequences: Option<OneOrMore>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<ToolChoice>,
    #[serde(default)]
    output_config: Option<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    #[serde(default)]
    format: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct ToolChoice {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    disable_parallel_tool_use: Option<bool>,
}

fn wrong(param: &str, why: &str) -> ApiError {
    ApiError::invalid(format!("{param}: {why}")).code("invalid_messages").param(param)
}

/// What a request says, as `chat.rs` understands it.
struct Said {
    conversation: Conversation,
    tools: Tools,
    /// The fields that the others have, too.
    body: Value,
    stream: bool,
}

fn read(body: &Value) -> Result<Said, ApiError> {
    let fields: Fields = options::read(body)?;
    let stream = fields.stream.unwrap_or(false);
    let mut said = Vec::new();
    if let Some(system) = fields.system.as_ref().filter(|system| !system.is_null()) {
        said.push(("system".to_owned(), json!({ "role": "system", "content": system })));
    }
    if fields.messages.is_empty() {
        return Err(wrong("messages", "there are none"));
    }
    for (place, message) in messages::placed(&fields.messages) {
        let messages = translated(message).map_err(|why| wrong(&place, why))?;
        said.extend(messages.into_iter().map(|message| (place.clone(), message)));
    }
    // What this interface does not know is as in `chat/completions`.
    let mut ours = body.as_object().cloned().unwrap_or_default();
    ours.insert("max_tokens".to_owned(), json!(fields.max_tokens));
    ours.insert("stop".to_owned(), json!(fields.stop_sequences.map(OneOrMore::into_vec)));
    let format = fields.output_config.and_then(|output| output.format);
    ours.insert("response_format".to_owned(), json!(format));
    let tool = |tool: &Value| {
        json!({ "type": "function", "function": {
            "name": tool.get("name"), "description": tool.get("description"),
            "parameters": tool.get("input_schema"),
        } })
    };
    let tools: Vec<_> = fields.tools.iter().flatten().map(tool).collect();
    ours.insert("tools".to_owned(), json!(tools));
    ours.remove("tool_choice");
    ours.remove("n");
    if let Some(choice) = fields.tool_choice {
        ours.insert(
            "parallel_tool_calls".to_owned(),
            json!(!choice.disable_parallel_tool_use.unwrap_or(false)),
        );
        let choice = match choice.kind.as_str() {
            "auto" | "none" => json!(choice.kind),
            "any" => json!("required"),
            "tool" => json!({ "type": "function", "function": { "name": choice.name } }),
            _ => return Err(wrong("tool_choice.type", "it is none of auto, any, tool and none")),
        };
        ours.insert("tool_choice".to_owned(), choice);
    }
    let ours = Value::Object(ours);
    let tools = Tools::of(&ours)?;
    let said = said.iter().map(|(place, message)| (place.clone(), message));
    let conversation = messages::conversation(said, tools.told(), &Map::new())?;
    Ok(Said { conversation, tools, body: ours, stream })
}

/// A message as messages of OpenAI: results of functions are messages of their own there.
fn translated(message: &Value) -> Result<Vec<Value>, &'static str> {
    let role = message.get("role").and_then(Value::as_str);
    let role = role.filter(|role| ["user", "assistant", "system"].contains(role));
    let role = role.ok_or("its role is none of user, assistant and system")?;
    let content = message.get("content").ok_or("it has no content")?;
    let Value::Array(blocks) = content else {
        return Ok(vec![json!({ "role": role, "content": content })]);
    };
    let (mut texts, mut calls, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for block in blocks {
        match block.get("type").and_then(Value::as_str) {
            Some("tool_use") => calls.push(json!({
                "id": block.get("id"), "type": "function",
                "function": { "name": block.get("name"), "arguments": block.get("input") },
            })),
            Some("tool_result") => results.push(json!({
                "role": "tool", "tool_call_id": block.get("tool_use_id"),
                "content": block.get("content").unwrap_or(&Value::Null).clone(),
            })),
            // What the model thought before is not told to it again.
            Some("thinking" | "redacted_thinking") => {}
            _ => texts.push(block.clone()),
        }
    }
    for result in &mut results {
        if result["content"].is_null() {
            result["content"] = json!("");
        }
    }
    if !texts.is_empty() || !calls.is_empty() {
        let mut message = json!({ "role": role, "content": texts });
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        results.push(message);
    }
    Ok(results)
}

/// Names of fields, in `chat/completions` and here.
const NAMES: [(&str, &str); 2] =
    [("stop", "stop_sequences"), ("response_format", "output_config.format")];

/// Answers a conversation.
pub(crate) async fn create(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    answer(state, body).await.map_err(|error| error.renamed(&NAMES))
}

async fn answer(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.takes_requests()?;
    let Said { conversation, tools, body, stream } = read(&body)?;
    let asked = chat::ask(&state, model, (&conversation, tools, &body)).await?;
    let prompt = asked.request.prompt.len();
    let (texts, tools) = asked.begin(&state, "messages").await?;
    let head = Head { id: id::new("msg_"), model: model.name.clone() };
    if stream {
        let stream = Stream { head, prompt, tools, index: 0, sent: Sent::default(), begun: false };
        return answer::stream(&state, texts, |texts, events| stream.run(texts, events)).await;
    }
    let answer = answer::one(texts).await?;
    let (said, calls) = tools.parse(&answer.text);
    let mut content = Vec::new();
    if !said.is_empty() || calls.is_empty() {
        content.push(json!({ "type": "text", "text": said }));
    }
    content.extend(calls.iter().map(used));
    let mut message = head.message(&content);
    let (reason, sequence) = why(&answer.finish, !calls.is_empty());
    message["stop_reason"] = reason;
    message["stop_sequence"] = sequence;
    message["usage"] = usage(&answer.usage);
    Ok(Json(message).into_response())
}

/// `POST /v1/messages/count_tokens`.
pub(crate) async fn count(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.model()?;
    let Said { conversation, .. } = read(&body)?;
    let prompt = state.think_with_place(|| model.render(&conversation)).await??;
    Ok(Json(json!({ "input_tokens": prompt.len() })).into_response())
}

/// A call, as a block.
fn used(call: &Call) -> Value {
    let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    json!({ "type": "tool_use", "id": id::new("toolu_"), "name": call.name, "input": input })
}

/// Why an answer ended, and with which stop string.
fn why(finish: &Finish, called: bool) -> (Value, Value) {
    match finish {
        Finish::Length => (json!("max_tokens"), Value::Null),
        _ if called => (json!("tool_use"), Value::Null),
        Finish::StopString(text) => (json!("stop_sequence"), json!(text)),
        Finish::Stop | Finish::Cancelled => (json!("end_turn"), Value::Null),
    }
}

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.generated,
    })
}

struct Head {
    id: String,
    model: String,
}

impl Head {
    fn message(&self, content: &[Value]) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": null, "stop_sequence": null,
        })
    }
}

/// An answer that goes out as it comes.
struct Stream {
    head: Head,
    /// Tokens of the prompt.
    prompt: usize,
    tools: Tools,
    /// Blocks that are done.
    index: usize,
    sent: Sent,
    /// Whether the block of the text has begun.
    begun: bool,
}

impl Stream {
    async fn run(mut self, mut texts: Vec<Text>, events: Events) -> Result<(), Gone> {
        let Some(text) = texts.first_mut() else { return Ok(()) };
        let mut message = self.head.message(&[]);
        message["usage"] = json!({ "input_tokens": self.prompt, "output_tokens": 0 });
        let start = json!({ "type": "message_start", "message": message });
        events.named("message_start", &start).await?;
        let mut part = Part::default();
        loop {
            match events.next(text).await? {
                Ok(Piece::Token(token)) => {
                    part.push(token);
                    let more = self.sent.more(&self.tools, &part.text);
                    self.say(more, &events).await?;
                }
                Ok(Piece::End(end)) => return self.end(part, &end, &events).await,
                Err(error) => return fail(&error, &events).await,
            }
        }
    }

    /// A piece of the text.
    async fn say(&mut self, text: &str, events: &Events) -> Result<(), Gone> {
        if text.is_empty() {
            return Ok(());
        }
        self.begin_text(events).await?;
        self.delta(json!({ "type": "text_delta", "text": text }), events).await
    }

    async fn begin_text(&mut self, events: &Events) -> Result<(), Gone> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        self.begin(json!({ "type": "text", "text": "" }), events).await
    }

    async fn begin(&self, block: Value, events: &Events) -> Result<(), Gone> {
        let event =
            json!({ "type": "content_block_start", "index": self.index, "content_block": block });
        events.named("content_block_start", &event).await
    }

    async fn delta(&self, delta: Value, events: &Events) -> Result<(), Gone> {
        let event = json!({ "type": "content_block_delta", "index": self.index, "delta": delta });
        events.named("content_block_delta", &event).await
    }

    async fn stop(&mut self, events: &Events) -> Result<(), Gone> {
        let event = json!({ "type": "content_block_stop", "index": self.index });
        self.index += 1;
        events.named("content_block_stop", &event).await
    }

    async fn end(mut self, part: Part, end: &End, events: &Events) -> Result<(), Gone> {
        let answer: Answer = part.end(end);
        let (said, calls) = self.tools.parse(&answer.text);
        let rest = self.sent.rest(&said);
        self.say(rest, events).await?;
        if calls.is_empty() {
            // There is one, even if it is empty.
            self.begin_text(events).await?;
        }
        if self.begun {
            self.stop(events).await?;
        }
        for call in &calls {
            let mut block = used(call);
            block["input"] = json!({});
            self.begin(block, events).await?;
            let delta = json!({ "type": "input_json_delta", "partial_json": call.arguments });
            self.delta(delta, events).await?;
            self.stop(events).await?;
        }
        let (reason, sequence) = why(&answer.finish, !calls.is_empty());
        let last = json!({
            "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": sequence },
            "usage": usage(&answer.usage),
        });
        events.named("message_delta", &last).await?;
        events.named("message_stop", &json!({ "type": "message_stop" })).await
    }
}

async fn fail(error: &ApiError, events: &Events) -> Result<(), Gone> {
    events.failed(error);
    events.named("error", &error.anthropic_body()).await
}
