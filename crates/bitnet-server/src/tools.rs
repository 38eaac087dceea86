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
        let call = |tool: &Value| {
            let (name, parameters) = function(tool);
            json!({
                "type": "object",
                "properties": { "name": { "const": name }, "arguments": parameters },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        };
        let mut schema = match &self.choice {
            Choice::Auto | Choice::Nothing => return None,
            Choice::Any => json!({ "anyOf": self.all.iter().map(call).collect::<Vec<_>>() }),
            Choice::One(name) => call(self.named(name)?),
        };
        // Nobody reads it: small models lose their way in white space.
        schema["x-guidance"] = json!({ "whitespace_flexible": false });
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
        let (said, mut calls) = match text.split_once(MARKS.0) {
            Some((said, rest)) => {
                let calls = rest.split(MARKS.0).filter_map(|part| {
                    let json = part.split_once(MARKS.1).map_or(part, |(json, _)| json);
                    self.call(&serde_json::from_str(json.trim()).ok()?)
                });
                (said.trim_end(), calls.collect())
            }
            None => ("", self.bare(text.trim())),
        };
        if calls.is_empty() {
            return (text.to_owned(), calls);
        }
        if !self.parallel {
            calls.truncate(1);
        }
        (said.to_owned(), calls)
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
    pub(crate) fn certain(&self, text: &str) -> usize {
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

/// The name and the parameters of a function.
fn function(tool: &Value) -> (&str, Value) {
    let function = tool.get("function").unwrap_or(tool);
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    let parameters = function.get("parameters").or_else(|| function.get("input_schema"));
    let parameters = parameters.filter(|it| it.is_object()).cloned();
    (name, parameters.unwrap_or_else(|| json!({ "type": "object" })))
}
