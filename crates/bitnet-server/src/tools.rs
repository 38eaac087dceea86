//! Functions that the model can call: which it may, and what of its text is a call.

use bitnet_inference::Constraint;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// What begins and ends a call, in the models that say so.
const MARKS: (&str, &str) = ("<tool_call>", "</tool_call>");
/// Functions at most.
const MOST: usize = 128;

fn wrong(param: &str, why: &str) -> ApiError {
    ApiError::invalid(format!("{param}: {why}")).code("invalid_tools").param(param)
}

/// The functions of a request, and which of them is to be called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    /// As the client sent them.
    pub(crate) all: Vec<Value>,
    choice: Choice,
    /// Whether there may be several calls in an answer.
    parallel: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Choice {
    /// The model may call, or not.
    #[default]
    Auto,
    /// It must not.
    Nothing,
    /// It must call one.
    Any,
    /// It must call this.
    One(String),
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON.
    pub(crate) arguments: String,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    parallel_tool_calls: Option<bool>,
}

impl Tools {
    /// Those of a request of `chat/completions`.
    pub(crate) fn of(body: &Value) -> Result<Tools, ApiError> {
        let fields: Fields = crate::options::read(body)?;
        let all = fields.tools.unwrap_or_default();
        if all.len() > MOST {
            return Err(wrong("tools", &format!("there may be {MOST}")));
        }
        for (index, tool) in all.iter().enumerate() {
            let name = tool.pointer("/function/name").and_then(Value::as_str);
            if name.is_none_or(str::is_empty) {
                return Err(wrong(&format!("tools[{index}].function.name"), "it is missing"));
            }
        }
        let choice = match &fields.tool_choice {
            None | Some(Value::Null) => Choice::Auto,
            Some(Value::String(choice)) => match choice.as_str() {
                "auto" => Choice::Auto,
                "none" => Choice::Nothing,
                "required" | "any" => Choice::Any,
                _ => return Err(wrong("tool_choice", "it is none of auto, none and required")),
            },
            Some(one) => {
                let name = one.pointer("/function/name").or_else(|| one.get("name"));
                let name = name.and_then(Value::as_str);
                let name = name.ok_or_else(|| wrong("tool_choice", "it names no function"))?;
                Choice::One(name.to_owned())
            }
        };
        Tools::new(all, choice, fields.parallel_tool_calls.unwrap_or(true))
    }

    fn new(all: Vec<Value>, choice: Choice, parallel: bool) -> Result<Tools, ApiError> {
        let tools = Tools { all, choice, parallel };
        match &tools.choice {
            Choice::One(name) if tools.named(name).is_none() => {
                Err(wrong("tool_choice", &format!("there is no function {name}")))
            }
            Choice::Any if tools.all.is_empty() => {
                Err(wrong("tool_choice", "a call is required, and there are no functions"))
            }
            _ => Ok(tools),
        }
    }

    fn named(&self, name: &str) -> Option<&Value> {
        let is_named = |tool: &&Value| function(tool).0 == name;
        self.all.iter().find(is_named)
    }

    /// Those that the template is told of.
    pub(crate) fn told(&self) -> &[Value] {
        if self.choice == Choice::Nothing { &[] } else { &self.all }
    }

    /// Whether an answer may have calls in it.
    pub(crate) fn is_there(&self) -> bool {
        !self.told().is_empty()
    }

    /// What the text must be, where a call is required.
    pub(crate) fn constraint(&self) -> Option<Constraint> {
        // Parameters are schemas of their own, whose references begin at their root.
        let mut roots = Map::new();
        let mut call = |tool: &Value| {
            let (name, mut parameters) = function(tool);
            let root = format!("function{}", roots.len());
            rebase(&mut parameters, &format!("#/$defs/{root}"));
            let arguments = json!({ "$ref": format!("#/$defs/{root}") });
            roots.insert(root, parameters);
            json!({
                "type": "object",
                "properties": { "name": { "const": name }, "arguments": arguments },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        };
        let mut schema = match &self.choice {
            Choice::Auto | Choice::Nothing => return None,
            Choice::Any => json!({ "anyOf": self.all.iter().map(&mut call).collect::<Vec<_>>() }),
            Choice::One(name) => call(self.named(name)?),
        };
        // Nobody reads it: small models lose their way in white space.
        schema["x-guidance"] = json!({ "whitespace_flexible": false });
        schema["$defs"] = Value::Object(roots);
        Some(Constraint::JsonSchema(schema))
    }

    /// Whether the whole text is a call.
    pub(crate) fn is_required(&self) -> bool {
        matches!(self.choice, Choice::Any | Choice::One(_))
    }

    /// What an answer says before its calls, and the calls. An answer that only looks like one stays text.
    pub(crate) fn parse(&self, text: &str) -> (String, Vec<Call>) {
        if !self.is_there() {
            return (text.to_owned(), Vec::new());
        }
        // A text that is bound to be a call has marks in its strings only.
        let (said, mut calls) = match text.contains(MARKS.0) && !self.is_required() {
            true => self.marked(text),
            false => (String::new(), self.bare(text.trim())),
        };
        if calls.is_empty() {
            return (text.to_owned(), calls);
        }
        if !self.parallel {
            calls.truncate(1);
        }
        (said, calls)
    }

    /// Calls between marks, and the text around them. What is no call between marks stays text.
    fn marked(&self, text: &str) -> (String, Vec<Call>) {
        let (mut said, mut calls, mut rest) = (String::new(), Vec::new(), text);
        while let Some((before, after)) = rest.split_once(MARKS.0) {
            said.push_str(before);
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<Value>();
            let call = values.next().and_then(|value| self.call(&value.ok()?));
            rest = match call {
                Some(call) => {
                    calls.push(call);
                    let after = after[values.byte_offset()..].trim_start();
                    after.strip_prefix(MARKS.1).unwrap_or(after)
                }
                None => {
                    said.push_str(MARKS.0);
                    after
                }
            };
        }
        said.push_str(rest);
        said.truncate(said.trim_end().len());
        (said, calls)
    }

    /// Calls of a text that is nothing but them: an object, an array of some, or one after another.
    fn bare(&self, text: &str) -> Vec<Call> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let mut calls = Vec::new();
        for value in values {
            let found = match &value {
                Ok(Value::Array(values)) => values.iter().map(|value| self.call(value)).collect(),
                Ok(value) => self.call(value).map(|call| vec![call]),
                Err(_) => None,
            };
            match found {
                Some(found) => calls.extend::<Vec<_>>(found),
                None => return Vec::new(),
            }
        }
        calls
    }

    /// A call, if this is one of a function that there is.
    fn call(&self, value: &Value) -> Option<Call> {
        let value = value.get("function").filter(|it| it.is_object()).unwrap_or(value);
        let name = value.get("name")?.as_str()?;
        self.named(name)?;
        let arguments = value.get("arguments").or_else(|| value.get("parameters"));
        let arguments = match arguments {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(Value::String(text)) => serde_json::from_str(text).ok()?,
            Some(value) => value.clone(),
        };
        Some(Call { name: name.to_owned(), arguments: arguments.to_string() })
    }

    /// How much of a text that may go on is no part of a call, whatever comes.
    fn certain(&self, text: &str) -> usize {
        if !self.is_there() {
            return text.len();
        }
        let begins = text.trim_start();
        if self.is_required() || begins.is_empty() || begins.starts_with(['{', '[']) {
            return 0;
        }
        match text.find(MARKS.0) {
            Some(at) => text[..at].trim_end().len(),
            None => {
                // The beginning of a mark may be at the end, and space before it.
                let held = (0..MARKS.0.len()).rev().find(|&n| text.ends_with(&MARKS.0[..n]));
                text[..text.len() - held.unwrap_or(0)].trim_end().len()
            }
        }
    }
}

/// How much of a text has gone out. What may still become a call is kept back.
#[derive(Debug, Default)]
pub(crate) struct Sent(usize);

impl Sent {
    /// What can go out now of a text so far.
    pub(crate) fn more<'t>(&mut self, tools: &Tools, text: &'t str) -> &'t str {
        let from = self.0;
        self.0 = tools.certain(text).max(from);
        &text[from..self.0]
    }

    /// What is left of all that an answer says.
    pub(crate) fn rest<'t>(&self, said: &'t str) -> &'t str {
        said.get(self.0..).unwrap_or_default()
    }
}

/// Has the references of a schema begin elsewhere than at the root.
fn rebase(schema: &mut Value, root: &str) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(to) if name == "$ref" && to.starts_with('#') => {
                        *to = format!("{root}{}", &to[1..]);
                    }
                    value => rebase(value, root),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rebase(value, root)),
        _ => {}
    }
}

/// The name and the parameters of a function.
fn function(tool: &Value) -> (&str, Value) {
    let function = tool.get("function").unwrap_or(tool);
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    let parameters = function.get("parameters").or_else(|| function.get("input_schema"));
    let parameters = parameters.filter(|it| it.is_object()).cloned();
    (name, parameters.unwrap_or_else(|| json!({ "type": "object" })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dice() -> Vec<Value> {
        vec![json!({ "type": "function", "function": { "name": "dice" } })]
    }

    #[test]
    fn calls_are_found_and_nothing_is_lost() {
        let tools = Tools::new(dice(), Choice::Auto, true).unwrap();
        let call = |arguments: &str| Call { name: "dice".into(), arguments: arguments.into() };
        let one = r#"{"name": "dice", "arguments": {"n": 3}}"#;
        for (text, said, calls) in [
            ("a tale", "a tale", vec![]),
            (one, "", vec![call(r#"{"n":3}"#)]),
            (&format!("[{one}, {one}]"), "", vec![call(r#"{"n":3}"#), call(r#"{"n":3}"#)]),
            (&format!("Well. <tool_call>{one}</tool_call>"), "Well.", vec![call(r#"{"n":3}"#)]),
            (&format!("<tool_call>{one}</tool_call> Done."), " Done.", vec![call(r#"{"n":3}"#)]),
            (
                &format!("<tool_call>\n{one}\n</tool_call>\n<tool_call>{one}"),
                "",
                vec![call(r#"{"n":3}"#); 2],
            ),
            ("<tool_call>a king</tool_call>", "<tool_call>a king</tool_call>", vec![]),
            (
                r#"{"name": "cards", "arguments": {}}"#,
                r#"{"name": "cards", "arguments": {}}"#,
                vec![],
            ),
            ("{\"a\": ", "{\"a\": ", vec![]),
            (
                r#"<tool_call>{"name": "dice", "arguments": {"s": "</tool_call>"}}</tool_call>"#,
                "",
                vec![call(r#"{"s":"</tool_call>"}"#)],
            ),
        ] {
            assert_eq!(tools.parse(text), (said.to_owned(), calls), "{text}");
        }
        let required = Tools::new(dice(), Choice::Any, true).unwrap();
        let marked = r#"{"name": "dice", "arguments": {"s": "<tool_call>"}}"#;
        assert_eq!(required.parse(marked).1, [call(r#"{"s":"<tool_call>"}"#)]);
        let single = Tools::new(dice(), Choice::Auto, false).unwrap();
        assert_eq!(single.parse(&format!("{one}{one}")).1.len(), 1);
    }

    /// What has gone out stays, whatever comes.
    #[test]
    fn what_is_certain_stays() {
        let tools = Tools::new(dice(), Choice::Auto, true).unwrap();
        for text in [
            "A king said <b> and <tool_call>{\"name\": \"dice\"}</tool_call> after.",
            "  {\"name\": \"dice\"}",
            "no <tool_call> at all <tool_",
        ] {
            let (said, _) = tools.parse(text);
            let (mut sent, mut out) = (Sent::default(), String::new());
            for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
                out += sent.more(&tools, &text[..end]);
                assert!(said.starts_with(&out), "{text}");
            }
            assert_eq!(out + sent.rest(&said), said, "{text}");
        }
    }
}
