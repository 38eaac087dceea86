//! Messages as clients send them, and as templates want them.

use bitnet_inference::chat::{Conversation, Data, Moment};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The roles that messages can have.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

fn wrong(param: &str, why: &str) -> ApiError {
    ApiError::invalid(format!("{param}: {why}")).code("invalid_messages").param(param)
}

/// The conversation that some messages make, each with the field that it comes from; with functions that
/// the model can call and what else its template is to know.
pub(crate) fn conversation<'m>(
    messages: impl IntoIterator<Item = (String, &'m Value)>,
    tools: &[Value],
    variables: &Map<String, Value>,
) -> Result<Conversation, ApiError> {
    let read = messages.into_iter().map(|(place, message)| one(&place, message));
    let read = read.collect::<Result<Vec<_>, _>>()?;
    if read.is_empty() {
        return Err(wrong("messages", "there are none"));
    }
    let mut conversation = Conversation::new(read, Moment::now());
    conversation.tools = tools.iter().map(data).collect();
    conversation.variables =
        variables.iter().map(|(name, value)| (name.clone(), data(value))).collect();
    Ok(conversation)
}

/// The same value, as templates have it.
pub(crate) fn data(value: &Value) -> Data {
    // There is no JSON that cannot be one.
    Data::deserialize(value).unwrap_or(Data::Null)
}

/// Messages as clients of OpenAI send them, with their places.
pub(crate) fn placed(messages: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    messages.iter().enumerate().map(|(index, message)| (format!("messages[{index}]"), message))
}

/// One message.
fn one(place: &str, message: &Value) -> Result<Data, ApiError> {
    let place = |field: &str| format!("{place}{field}");
    let Value::Object(fields) = message else {
        return Err(wrong(&place(""), "it is no object"));
    };
    let role = match fields.get("role") {
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => role.as_str(),
        Some(Value::String(_)) => {
            return Err(wrong(&place(".role"), &format!("it is none of {}", ROLES.join(", "))));
        }
        _ => return Err(wrong(&place(".role"), "it is missing, or no string")),
    };
    // What OpenAI calls the developer is the system to all templates.
    let role = if role == "developer" { "system" } else { role };
    let mut entries = vec![("role".to_owned(), Data::from(role))];
    for (name, value) in fields.iter().filter(|(name, _)| *name != "role") {
        let value = match name.as_str() {
            "content" => content(value).map_err(|why| wrong(&place(".content"), why))?,
            "tool_calls" => calls(value).map_err(|why| wrong(&place(".tool_calls"), why))?,
            _ => data(value),
        };
        entries.push((name.clone(), value));
    }
    let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    if !has("content") {
        if !has("tool_calls") && !has("function_call") {
            return Err(wrong(&place(".content"), "it is missing"));
        }
        // Templates print it.
        entries.retain(|(name, _)| name != "content");
        entries.push(("content".to_owned(), Data::from("")));
    }
    Ok(Data::Map(entries))
}

/// A text, or the texts of its parts one after another.
fn content(value: &Value) -> Result<Data, &'static str> {
    let parts = match value {
        Value::String(text) => return Ok(Data::from(text.as_str())),
        Value::Null => return Ok(Data::Null),
        Value::Array(parts) => parts,
        _ => return Err("it is neither a string nor an array of parts"),
    };
    let mut text = String::new();
    for part in parts {
        match part.get("type").and_then(Value::as_str) {
            Some("text" | "input_text" | "output_text" | "refusal") => {
                let said = part.get("text").or_else(|| part.get("refusal"));
                text.push_str(said.and_then(Value::as_str).ok_or("a part has no text")?);
            }
            Some(_) => return Err("a part is no text: the model reads nothing else"),
            None => return Err("a part has no type"),
        }
    }
    Ok(Data::Text(text))
}

/// Calls of functions. Their arguments come as JSON in a string, and templates want what it says.
fn calls(value: &Value) -> Result<Data, &'static str> {
    let mut value = value.clone();
    let Value::Array(calls) = &mut value else {
        return if value.is_null() { Ok(Data::Null) } else { Err("it is no array") };
    };
    for call in calls {
        let function = call.get_mut("function").ok_or("a call has no function")?;
        if let Some(arguments) = function.get_mut("arguments")
            && let Value::String(text) = arguments
        {
            let text = if text.is_empty() { "{}" } else { text.as_str() };
            *arguments =
                serde_json::from_str(text).map_err(|_| "the arguments of a call are no JSON")?;
        }
    }
    Ok(data(&value))
}
