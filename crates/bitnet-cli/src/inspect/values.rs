//! Values of metadata, for people and for programs.

use bitnet_gguf::Value;
use bitnet_inference::Metadata;
use serde::Serializer;
use serde_json::json;

/// Elements of an array that are in JSON; longer ones, vocabularies as a rule, are described.
const MOST_ELEMENTS: usize = 64;

/// An object of all keys.
pub(super) fn to_json<S: Serializer>(metadata: &Metadata, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(metadata.iter().map(|(key, value)| (key, json_of(value))))
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Array(array) if array.len() > MOST_ELEMENTS => {
            json!({ "array": array.element().name(), "length": array.len() })
        }
        Value::Array(array) => array.iter().map(|value| json_of(&value)).collect(),
        Value::String(text) => text.as_str().into(),
        Value::Bool(is) => (*is).into(),
        // The digits of numbers are those of their own precision.
        number => serde_json::from_str(&text_of(number)).unwrap_or_default(),
    }
}

/// A value in a line: what is long is cut, and nothing in it moves the cursor.
pub(super) fn short(value: &Value) -> String {
    /// Characters shown at most.
    const MOST: usize = 100;
    let text = text_of(value);
    let mut shown: String = text.chars().take(MOST).flat_map(escape).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters as escapes.
fn escape(c: char) -> Vec<char> {
    if c.is_control() { c.escape_debug().collect() } else { vec![c] }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Array(array) => {
            let first: Vec<_> = array.iter().take(4).map(|value| text_of(&value)).collect();
            let more = if array.len() > first.len() { ", …" } else { "" };
            let kind = array.element().name();
            format!("{} {kind} values: [{}{more}]", array.len(), first.join(", "))
        }
        Value::String(text) => text.clone(),
        Value::U8(n) => n.to_string(),
        Value::I8(n) => n.to_string(),
        Value::U16(n) => n.to_string(),
        Value::I16(n) => n.to_string(),
        Value::U32(n) => n.to_string(),
        Value::I32(n) => n.to_string(),
        Value::U64(n) => n.to_string(),
        Value::I64(n) => n.to_string(),
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
    }
}
