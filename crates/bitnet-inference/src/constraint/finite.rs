//! Schemas of which no value ends.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::NOTHING;

/// Values that are looked at, at most: what takes more is not refused.
const STEPS: usize = 20_000_000;

/// Refuses a schema all whose values are within themselves again and again. What is not certain is not
/// refused.
///
/// # Errors
///
/// That there are no texts of it.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    let mut targets = targets(schema);
    let places = targets.iter().map(|&target| (target, target_of(schema, target)));
    let mut search = Search {
        places: places.filter_map(|(target, place)| Some((target, place?))).collect(),
        ends: HashSet::new(),
        steps: 0,
    };
    // Whatever is known to end may make others end, in either direction.
    loop {
        let before = search.ends.len();
        targets.reverse();
        for &target in &targets {
            if let Some(&place) = search.places.get(target)
                && search.ends(place)
            {
                search.ends.insert(target);
            }
        }
        if search.ends.contains("#") || search.steps > STEPS {
            return Ok(());
        }
        if search.ends.len() == before {
            return Err(format!("its values have no end: {NOTHING}"));
        }
    }
}

/// The schema and what is referred to in it, each once, in the order in which it is found.
fn targets(schema: &Value) -> Vec<&str> {
    let (mut targets, mut known) = (vec!["#"], HashSet::from(["#"]));
    let mut todo = vec![schema];
    while let Some(value) = todo.pop() {
        match value {
            Value::Array(values) => todo.extend(values),
            Value::Object(fields) => {
                let reference = fields.get("$ref").and_then(Value::as_str);
                targets.extend(reference.filter(|&reference| known.insert(reference)));
                todo.extend(fields.values());
            }
            _ => {}
        }
    }
    targets
}

/// What a reference within a schema refers to.
fn target_of<'s>(schema: &'s Value, reference: &str) -> Option<&'s Value> {
    reference.strip_prefix('#').and_then(|path| schema.pointer(path))
}

struct Search<'s> {
    places: HashMap<&'s str, &'s Value>,
    /// The references of which there are values that end.
    ends: HashSet<&'s str>,
    steps: usize,
}

impl Search<'_> {
    /// Whether a value of this may end, as far as is known.
    fn ends(&mut self, schema: &Value) -> bool {
        self.steps += 1;
        let Value::Object(fields) = schema else { return true };
        if fields.contains_key("enum") || fields.contains_key("const") {
            return true;
        }
        let reference = fields.get("$ref").and_then(Value::as_str);
        if let Some(reference) = reference
            && self.places.contains_key(reference)
            && !self.ends.contains(reference)
        {
            return false;
        }
        let list = |name| fields.get(name).and_then(Value::as_array).map(Vec::as_slice);
        if !list("allOf").unwrap_or_default().iter().all(|part| self.ends(part)) {
            return false;
        }
        for name in ["anyOf", "oneOf"] {
            let some = list(name).unwrap_or_default();
            if !some.is_empty() && !some.iter().any(|part| self.ends(part)) {
                return false;
            }
        }
        match only_type(fields) {
            Some("object") => self.object_ends(fields),
            Some("array") => self.array_ends(fields),
            _ => true,
        }
    }

    fn object_ends(&mut self, fields: &Map<String, Value>) -> bool {
        let required = fields.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str).all(|name| {
            let property = fields.get("properties").and_then(|named| named.get(name));
            // A pattern may be for any name.
            let is_other = property.is_none() && !fields.contains_key("patternProperties");
            let other = fields.get("additionalProperties").filter(|_| is_other);
            property.or(other).is_none_or(|part| self.ends(part))
        })
    }

    fn array_ends(&mut self, fields: &Map<String, Value>) -> bool {
        let least = fields.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let least = usize::try_from(least).unwrap_or(usize::MAX);
        let items = fields.get("items");
        let first = fields.get("prefixItems").or(items).and_then(Value::as_array);
        let first = first.map(Vec::as_slice).unwrap_or_default();
        let items = items.filter(|items| items.is_object() && least > first.len());
        first.iter().take(least).all(|part| self.ends(part))
            && items.is_none_or(|part| self.ends(part))
    }
}

/// The type of a schema that allows no other.
fn only_type(fields: &Map<String, Value>) -> Option<&str> {
    match fields.get("type")? {
        Value::Array(types) => match &types[..] {
            [one] => one.as_str(),
            _ => None,
        },
        one => one.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_without_end() {
        let next = json!({ "$ref": "#/$defs/next" });
        let object =
            json!({ "type": "object", "properties": { "next": next }, "required": ["next"] });
        let within = |schema: Value, next: &Value| {
            let mut schema = schema;
            schema["$defs"] = json!({ "next": next });
            schema
        };
        for schema in [
            json!({ "$ref": "#" }),
            json!({ "type": "array", "items": { "$ref": "#" }, "minItems": 1 }),
            json!({ "type": ["array"], "prefixItems": [{}, { "$ref": "#" }], "minItems": 2 }),
            json!({ "type": "object", "properties": { "next": { "$ref": "#" } }, "required": ["next"] }),
            json!({ "type": "object", "additionalProperties": { "$ref": "#" }, "required": ["x"] }),
            json!({ "anyOf": [{ "$ref": "#" }, { "type": "array", "items": { "$ref": "#" }, "minItems": 2 }] }),
            json!({ "allOf": [{ "type": "object" }, { "$ref": "#" }] }),
            within(next.clone(), &object),
            within(json!({ "type": "array", "items": next, "minItems": 1 }), &object),
            within(next.clone(), &json!({ "oneOf": [object, next] })),
            within(next.clone(), &json!({ "$ref": "#" })),
        ] {
            let why = "its values have no end: there is no text that it describes";
            assert_eq!(check(&schema).unwrap_err(), why, "{schema}");
        }
    }

    #[test]
    fn values_within_themselves_that_end() {
        let root = json!({ "$ref": "#" });
        let next = |next: Value, required: Value| json!({ "type": "object", "properties": { "next": next }, "required": required });
        for schema in [
            json!(true),
            json!({}),
            json!({ "$ref": "#/$defs/x" }),
            json!({ "$ref": "https://example.com/x.json" }),
            json!({ "properties": { "next": root }, "required": ["next"] }),
            json!({ "type": ["array", "null"], "items": root, "minItems": 1 }),
            json!({ "type": "array", "items": root }),
            json!({ "type": "array", "prefixItems": [{}], "items": root, "minItems": 1 }),
            json!({ "type": "array", "items": root, "minItems": 1, "const": [[]] }),
            next(root.clone(), json!([])),
            next(json!({ "anyOf": [root, { "type": "null" }] }), json!(["next"])),
            next(json!({ "oneOf": [{ "const": 3 }, root] }), json!(["next"])),
            next(json!({ "type": "array", "items": root }), json!(["next"])),
            next(root.clone(), json!(["other"])),
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": root, "minItems": 2 }] }),
            json!({ "allOf": [{ "$ref": "#/$defs/tree" }], "$defs": { "tree": next(
                json!({ "type": "array", "items": { "$ref": "#/$defs/tree" }, "minItems": 0 }),
                json!(["next"]),
            ) } }),
        ] {
            assert_eq!(check(&schema), Ok(()), "{schema}");
        }
    }

    /// Each ends because the next does.
    #[test]
    fn long_chains() {
        for (last, ends) in [(json!({ "type": "null" }), true), (json!({ "$ref": "#" }), false)] {
            let link = |i| {
                let next = json!({ "$ref": format!("#/$defs/d{}", i + 1) });
                (format!("d{i}"), json!({ "type": "array", "items": next, "minItems": 1 }))
            };
            let links: Map<_, _> = (0..2000).map(link).collect();
            let mut schema = json!({ "$ref": "#/$defs/d0", "$defs": links });
            schema["$defs"]["d2000"] = last;
            assert_eq!(check(&schema).is_ok(), ends);
        }
    }
}
