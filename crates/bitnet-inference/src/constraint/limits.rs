//! What llguidance would take too long for, or calculate wrongly, found before it begins.

use serde_json::{Map, Value};

use super::regex;

/// Values within each other at most.
const NESTING: usize = 128;
/// Values of a schema, and bytes of its strings, at most.
const VALUES: usize = 200_000;
const BYTES: usize = 4 << 20;
/// Levels at most on which a schema can be, one within the other, when references are followed.
pub(super) const LEVELS: usize = 5000;
/// Properties of an object that may be left out, at most.
const OPTIONAL: usize = 400;
/// Patterns of names of properties at most: each is compared with all others of its object.
const PATTERNS: usize = 100;
/// Properties and patterns at most: each is compared with all others.
const NAMES: usize = 10_000;
/// Bounds of numbers are at most so far from zero: llguidance calculates with 64 bits.
const FARTHEST: f64 = 1e18;
/// The largest divisor, without its point: llguidance calculates with 32 bits.
const DIVISOR: f64 = 1e8;
/// Bytes of a grammar of llguidance at most.
const LARK: usize = 1 << 20;

/// Refuses a schema that is too large.
///
/// # Errors
///
/// What of it is too large.
pub(super) fn check_schema(schema: &Value) -> Result<(), String> {
    let mut check = Check {
        values: 0,
        bytes: 0,
        references: Vec::new(),
        patterns: 0,
        divisor: (1, 0),
        names: 0,
    };
    let mut levels = check.value(schema)?;
    check.references.sort_unstable();
    check.references.dedup();
    for reference in &check.references {
        let to = reference.strip_prefix('#').and_then(|path| schema.pointer(path));
        levels += to.map_or(0, height);
    }
    match levels {
        0..=LEVELS => Ok(()),
        _ => Err(format!("its references go through more than {LEVELS} levels")),
    }
}

struct Check<'s> {
    values: usize,
    bytes: usize,
    references: Vec<&'s str>,
    /// Patterns of names of properties.
    patterns: usize,
    /// The least number that all divisors divide, and its digits behind the point.
    divisor: (u64, u32),
    /// Properties and patterns.
    names: usize,
}

impl<'s> Check<'s> {
    /// Looks at a value and all within. Gives how many levels it has.
    fn value(&mut self, schema: &'s Value) -> Result<usize, String> {
        let (mut todo, mut levels) = (vec![(schema, 1)], 0);
        while let Some((value, level)) = todo.pop() {
            if level > NESTING {
                return Err(format!("it has more than {NESTING} values within each other"));
            }
            levels = levels.max(level);
            self.values += 1;
            if let Value::Object(fields) = value {
                self.bytes += fields.keys().map(String::len).sum::<usize>();
                self.fields(fields)?;
            }
            self.bytes += value.as_str().map_or(0, str::len);
            if self.values > VALUES || self.bytes > BYTES {
                return Err(format!(
                    "it is too large: it may have {VALUES} values and {BYTES} bytes of text"
                ));
            }
            todo.extend(parts(value).map(|part| (part, level + 1)));
        }
        Ok(levels)
    }

    fn fields(&mut self, fields: &'s Map<String, Value>) -> Result<(), String> {
        self.references.extend(fields.get("$ref").and_then(Value::as_str));
        let count = |name, what: fn(&Value) -> Option<usize>| fields.get(name).and_then(what);
        let properties = count("properties", |value| Some(value.as_object()?.len())).unwrap_or(0);
        let required = count("required", |value| Some(value.as_array()?.len())).unwrap_or(0);
        if properties.saturating_sub(required) > OPTIONAL {
            return Err(format!(
                "an object has more than {OPTIONAL} properties that are not required"
            ));
        }
        let strings = ["pattern", "format"].iter().filter(|&&name| fields.contains_key(name));
        self.names += properties.max(required) + strings.count();
        if self.names > NAMES {
            return Err(format!("it has more than {NAMES} properties and patterns"));
        }
        let patterns = fields.get("patternProperties").and_then(Value::as_object);
        self.patterns += patterns.map_or(0, Map::len);
        if self.patterns > PATTERNS {
            return Err(format!("it has more than {PATTERNS} patternProperties"));
        }
        let patterns = patterns.into_iter().flat_map(Map::keys).map(String::as_str);
        let mut patterns = patterns.chain(fields.get("pattern").and_then(Value::as_str));
        if patterns.any(|pattern| pattern.len() > regex::LONGEST) {
            return Err(format!("a pattern has more than {} bytes", regex::LONGEST));
        }
        for name in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
            let bound = fields.get(name).and_then(Value::as_f64).unwrap_or(0.0);
            if bound.abs() > FARTHEST {
                return Err(format!("{name} is {bound:e}: it can be {FARTHEST:e} away from 0"));
            }
        }
        match fields.get("multipleOf").and_then(Value::as_f64) {
            Some(divisor) if divisor.is_finite() => self.divisor(divisor),
            _ => Ok(()),
        }
    }

    /// Notes a divisor. Any two may be for the same number.
    fn divisor(&mut self, divisor: f64) -> Result<(), String> {
        let text = divisor.abs().to_string();
        let digits = text.split_once('.').map_or(0, |(_, digits)| digits.len() as u32);
        let error =
            || format!("multipleOf {divisor:e} takes too many digits, alone or with others");
        let whole = |value: f64, digits: u32| {
            let value = (value * 10_f64.powi(digits as i32)).round();
            if digits <= 8 && value <= DIVISOR { Ok(value as u64) } else { Err(error()) }
        };
        if divisor == 0.0 {
            return Err("multipleOf is 0: nothing is a multiple of it".into());
        }
        let (known, of) = self.divisor;
        let most = digits.max(of);
        let one = whole(divisor.abs(), digits)?.saturating_mul(10_u64.pow(most - digits));
        let other = known.saturating_mul(10_u64.pow(most - of));
        let (mut a, mut b) = (one, other);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let both = (one / a.max(1)).saturating_mul(other);
        if both > DIVISOR as u64 {
            return Err(error());
        }
        self.divisor = (both, most);
        Ok(())
    }
}

/// What is directly within a value.
fn parts(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// How many levels a value has.
fn height(value: &Value) -> usize {
    let (mut todo, mut most) = (vec![(value, 1)], 0);
    while let Some((value, level)) = todo.pop() {
        most = most.max(level);
        todo.extend(parts(value).map(|part| (part, level + 1)));
    }
    most
}

/// Refuses a grammar of llguidance that is too large.
///
/// # Errors
///
/// What of it is too large.
pub(super) fn check_lark(grammar: &str) -> Result<(), String> {
    if grammar.len() > LARK {
        return Err(format!("it has {} bytes, of {LARK} at most", grammar.len()));
    }
    // Of what is none, llguidance says so.
    for (at, mark) in grammar.match_indices("%json") {
        let rest = &grammar[at + mark.len()..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        if let Some(Ok(schema)) = values.next() {
            check_schema(&schema)?;
            super::meet::check_schema(&schema)?;
        }
    }
    // Each is a level that others may be in.
    let levels = grammar.bytes().filter(|byte| b"\n([{".contains(byte)).count();
    match levels {
        0..=LEVELS => Ok(()),
        _ => Err(format!("its lines and brackets are {levels}, of {LEVELS} at most")),
    }
}
