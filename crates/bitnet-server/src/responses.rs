//! `POST /v1/responses`, without anything that is kept: each request has the whole conversation.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bitnet_inference::{End, Finish, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answer::{self, Events, Gone, Part};
use crate::chat::{self, Asked};
use crate::error::ApiError;
use crate::options;
use crate::state::{Model, State, Text};
use crate::tools::{Call, Sent, Tools};
use crate::worker::Piece;
use crate::{id, messages};

#[derive(Debug, Deserialize)]
struct Fields {
    input: Value,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default)]
    previous_response_id: Option<String>,
    #[serde(default)]
    conversation: Option<Value>,
    #[serde(default)]
    background: Option<bool>,
    #[serde(default)]
    max_output_tokens: Option<i64>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    text: Option<TextFields>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct TextFields {
    #[serde(default)]
    format: Option<Value>,
}

fn wrong(param: &str, why: &str) -> ApiError {
    ApiError::invalid(format!("{param}: {why}")).code("invalid_value").param(param)
}

/// A request as `chat.rs` understands it.
async fn ask(
    state: &State,
    model: &Model,
    (fields, body): (&Fields, &Value),
) -> Result<Asked, ApiError> {
    let kept = [
        ("previous_response_id", fields.previous_response_id.is_some()),
        ("conversation", fields.conversation.as_ref().is_some_and(|it| !it.is_null())),
        ("background", fields.background.unwrap_or(false)),
    ];
    if let Some((name, _)) = kept.into_iter().find(|(_, is_given)| *is_given) {
        return Err(wrong(name, "nothing is kept here: send the whole conversation as input"));
    }
    let mut said = Vec::new();
    if let Some(instructions) = &fields.instructions {
        let message = json!({ "role": "system", "content": instructions });
        said.push(("instructions".to_owned(), message));
    }
    match &fields.input {
        Value::String(text) => {
            said.push(("input".to_owned(), json!({ "role": "user", "content": text })));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let place = format!("input[{index}]");
                let message = take(item, said.last_mut()).map_err(|why| wrong(&place, why))?;
                said.extend(message.map(|message| (place, message)));
            }
        }
        _ => return Err(wrong("input", "it is neither a string nor an array")),
    }
    // What this interface does not know is as in `chat/completions`.
    let mut ours = body.as_object().cloned().unwrap_or_default();
    ours.insert("max_tokens".to_owned(), json!(fields.max_output_tokens));
    let format = fields.text.as_ref().and_then(|text| text.format.clone());
    ours.insert("response_format".to_owned(), json!(format));
    let is_function = |tool: &&Value| tool.get("type").and_then(Value::as_str) == Some("function");
    let tool = |tool: &Value| json!({ "type": "function", "function": tool });
    let tools: Vec<_> = fields.tools.iter().flatten().filter(is_function).map(tool).collect();
    ours.insert("tools".to_owned(), json!(tools));
    ours.remove("n");
    let ours = Value::Object(ours);
    let tools = Tools::of(&ours)?;
    let said = said.iter().map(|(place, message)| (place.clone(), message));
    let conversation = messages::conversation(said, tools.told(), &Map::new())?;
    chat::ask(state, model, (&conversation, tools, &ours)).await
}

/// The message that an item is, if it is one by itself: calls go with the last message, if that is of calls.
fn take(item: &Value, last: Option<&mut (String, Value)>) -> Result<Option<Value>, &'static str> {
    match item.get("type").and_then(Value::as_str) {
        None | Some("message") => {
            let role = item.get("role").ok_or("it has no role")?;
            let content = item.get("content").ok_or("it has no content")?;
            Ok(Some(json!({ "role": role, "content": content })))
        }
        Some("function_call") => {
            let call = json!({
                "id": item.get("call_id"), "type": "function",
                "function": { "name": item.get("name"), "arguments": item.get("arguments") },
            });
            let calls = last.and_then(|(_, message)| message.get_mut("tool_calls"));
            if let Some(Value::Array(calls)) = calls {
                calls.push(call);
                return Ok(None);
            }
            Ok(Some(json!({ "role": "assistant", "tool_calls": [call] })))
        }
        Some("function_call_output") => {
            let output = item.get("output").ok_or("it has no output")?;
            let id = item.get("call_id");
            Ok(Some(json!({ "role": "tool", "tool_call_id": id, "content": output })))
        }
        // What the model thought before is not told to it again.
        Some("reasoning") => Ok(None),
        Some(_) => Err("it is none of message, function_call and function_call_output"),
    }
}

/// Names of fields, in `chat/completions` and here.
const NAMES: [(&str, &str); 4] = [
    ("messages", "input"),
    ("max_tokens", "max_output_tokens"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
];

/// Answers a conversation.
pub(crate) async fn create(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    answer(state, body).await.map_err(|error| error.renamed(&NAMES))
}

async fn answer(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.takes_requests()?;
    let fields: Fields = options::read(&body)?;
    let asked = ask(&state, model, (&fields, &body)).await?;
    let sampling = asked.request.sampling.clone();
    let (texts, tools) = asked.begin(&state, "input").await?;
    let or = |name: &str, other: Value| body.get(name).cloned().unwrap_or(other);
    let head = json!({
        "id": id::new("resp_"), "object": "response", "created_at": id::now(),
        "status": "in_progress", "error": null, "incomplete_details": null,
        "instructions": fields.instructions, "max_output_tokens": fields.max_output_tokens,
        "model": model.name, "output": [], "previous_response_id": null,
        "parallel_tool_calls": or("parallel_tool_calls", json!(true)),
        "tool_choice": or("tool_choice", json!("auto")), "tools": or("tools", json!([])),
        "temperature": sampling.temperature, "top_p": sampling.top_p,
        "text": or("text", json!({ "format": { "type": "text" } })),
        "reasoning": { "effort": null, "summary": null }, "truncation": "disabled",
        "metadata": or("metadata", json!({})), "store": false, "usage": null, "user": null,
    });
    if fields.stream.unwrap_or(false) {
        let stream = Stream::new(head, tools);
        return answer::stream(&state, texts, |texts, events| stream.run(texts, events)).await;
    }
    let answer = answer::one(texts).await?;
    let (said, calls) = tools.parse(&answer.text);
    let mut output = Vec::new();
    if !said.is_empty() || calls.is_empty() {
        output.push(message(&id::new("msg_"), Some(&said)));
    }
    output.extend(calls.iter().map(|call| function_call(&id::new("fc_"), &id::new("call_"), call)));
    let response = ended(head, output, (&answer.finish, &answer.usage));
    Ok(Json(response).into_response())
}

/// A response that is done.
fn ended(mut head: Value, output: Vec<Value>, (finish, usage): (&Finish, &Usage)) -> Value {
    let is_whole = *finish != Finish::Length;
    head["status"] = if is_whole { "completed" } else { "incomplete" }.into();
    if !is_whole {
        head["incomplete_details"] = json!({ "reason": "max_output_tokens" });
    }
    head["output"] = output.into();
    head["usage"] = json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": { "cached_tokens": usage.cached },
        "output_tokens": usage.generated,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt + usage.generated,
    });
    head
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// A message; one that is just begun has no text.
fn message(id: &str, text: Option<&str>) -> Value {
    json!({
        "type": "message", "id": id, "role": "assistant",
        "status": if text.is_some() { "completed" } else { "in_progress" },
        "content": text.map(part).into_iter().collect::<Vec<_>>(),
    })
}

fn function_call(id: &str, call_id: &str, call: &Call) -> Value {
    json!({
        "type": "function_call", "id": id, "call_id": call_id, "name": call.name,
        "arguments": call.arguments, "status": "completed",
    })
}

/// An answer that goes out as it comes.
struct Stream {
    head: Value,
    tools: Tools,
    /// Events so far.
    count: u64,
    output: Vec<Value>,
    /// What the message is called.
    message: String,
    sent: Sent,
    /// Whether the message has begun.
    begun: bool,
}

impl Stream {
    fn new(head: Value, tools: Tools) -> Stream {
        let message = id::new("msg_");
        Stream {
            head,
            tools,
            count: 0,
            output: Vec::new(),
            message,
            sent: Sent::default(),
            begun: false,
        }
    }

    async fn event(&mut self, name: &str, mut value: Value, to: &Events) -> Result<(), Gone> {
        value["type"] = name.into();
        value["sequence_number"] = self.count.into();
        self.count += 1;
        to.named(name, &value).await
    }

    async fn run(mut self, mut texts: Vec<Text>, events: Events) -> Result<(), Gone> {
        let Some(text) = texts.first_mut() else { return Ok(()) };
        for name in ["response.created", "response.in_progress"] {
            let value = json!({ "response": self.head });
            self.event(name, value, &events).await?;
        }
        let mut part = Part::default();
        loop {
            match events.next(text).await? {
                Ok(Piece::Token(token)) => {
                    part.push(token);
                    let more = self.sent.more(&self.tools, &part.text);
                    self.say(more, &events).await?;
                }
                Ok(Piece::End(end)) => return self.end(part, &end, &events).await,
                Err(error) => return self.fail(&error, &events).await,
            }
        }
    }

    /// A piece of the text.
    async fn say(&mut self, text: &str, events: &Events) -> Result<(), Gone> {
        if text.is_empty() {
            return Ok(());
        }
        self.begin(events).await?;
        let delta = self.of_text(json!({ "delta": text, "logprobs": [] }));
        self.event("response.output_text.delta", delta, events).await
    }

    async fn begin(&mut self, events: &Events) -> Result<(), Gone> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let added = json!({ "output_index": 0, "item": message(&self.message, None) });
        self.event("response.output_item.added", added, events).await?;
        let added = self.of_text(json!({ "part": part("") }));
        self.event("response.content_part.added", added, events).await
    }

    /// Something of the text of the message.
    fn of_text(&self, mut value: Value) -> Value {
        value["item_id"] = self.message.as_str().into();
        value["output_index"] = 0.into();
        value["content_index"] = 0.into();
        value
    }

    async fn end(mut self, whole: Part, end: &End, events: &Events) -> Result<(), Gone> {
        let answer = whole.end(end);
        let (said, calls) = self.tools.parse(&answer.text);
        let rest = self.sent.rest(&said);
        self.say(rest, events).await?;
        if calls.is_empty() {
            // There is one, even if it is empty.
            self.begin(events).await?;
        }
        if self.begun {
            let done = self.of_text(json!({ "text": said, "logprobs": [] }));
            self.event("response.output_text.done", done, events).await?;
            let done = self.of_text(json!({ "part": part(&said) }));
            self.event("response.content_part.done", done, events).await?;
            let item = message(&self.message, Some(&said));
            self.done(item, events).await?;
        }
        for call in &calls {
            let (id, call_id, index) = (id::new("fc_"), id::new("call_"), self.output.len());
            let item = function_call(&id, &call_id, call);
            let mut begun = item.clone();
            begun["arguments"] = "".into();
            begun["status"] = "in_progress".into();
            let added = json!({ "output_index": index, "item": begun });
            self.event("response.output_item.added", added, events).await?;
            let delta = json!({ "item_id": id, "output_index": index, "delta": call.arguments });
            self.event("response.function_call_arguments.delta", delta, events).await?;
            let done = json!({
                "item_id": id, "output_index": index, "arguments": call.arguments,
                "name": call.name,
            });
            self.event("response.function_call_arguments.done", done, events).await?;
            self.done(item, events).await?;
        }
        let output = std::mem::take(&mut self.output);
        let response = ended(self.head.clone(), output, (&answer.finish, &answer.usage));
        let name = match answer.finish {
            Finish::Length => "response.incomplete",
            _ => "response.completed",
        };
        self.event(name, json!({ "response": response }), events).await
    }

    async fn done(&mut self, item: Value, events: &Events) -> Result<(), Gone> {
        let done = json!({ "output_index": self.output.len(), "item": item });
        self.output.push(item);
        self.event("response.output_item.done", done, events).await
    }

    async fn fail(&mut self, error: &ApiError, events: &Events) -> Result<(), Gone> {
        events.failed(error);
        let mut response = self.head.clone();
        response["status"] = "failed".into();
        response["error"] =
            json!({ "code": error.code.unwrap_or("server_error"), "message": error.message });
        self.event("response.failed", json!({ "response": response }), events).await
    }
}
