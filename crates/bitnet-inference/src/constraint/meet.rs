//! Patterns that a string has to meet at once: how long llguidance takes to find out whether a string can
//! meet them all multiplies with each, before it looks at what it has spent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ptr;

use serde_json::{Map, Value};

/// Patterns that a string may have to meet at once.
const PATTERNS: usize = 8;
/// The alternatives of patterns that are met at once, multiplied, at most.
const WAYS: u64 = 100_000;
/// The alternatives of what a `format` describes, about.
const FORMAT: u64 = 32;
/// Places of a schema at most, each with the schemas that what is there has to meet.
const PLACES: usize = 300_000;
/// Combinations of alternatives that are looked at one by one.
const COMBINATIONS: usize = 1000;

/// How many ways a regular expression can go on, about.
fn ways(regex: &str) -> u64 {
    1 + regex.bytes().filter(|byte| b"|*+?{".contains(byte)).count() as u64
}

/// Refuses what has to meet too many patterns.
fn check(count: usize, ways: u64) -> Result<(), String> {
    match count {
        0 | 1 => Ok(()),
        _ if count > PATTERNS => {
            Err(format!("a string has to meet {count} patterns at once, of {PATTERNS} at most"))
        }
        _ if ways > WAYS => Err(format!(
            "{count} patterns that a string has to meet at once have too many alternatives together"
        )),
        _ => Ok(()),
    }
}

/// Refuses a schema in which a string has to meet too many patterns.
///
/// # Errors
///
/// What is too much.
pub(super) fn check_schema(schema: &Value) -> Result<(), String> {
    let mut search = Search { schema, seen: HashSet::new(), todo: Vec::new() };
    search.add(Place { known: Vec::new(), new: vec![schema] })?;
    while let Some(place) = search.todo.pop() {
        search.look(place)?;
    }
    Ok(())
}

/// The schemas that a value has to meet.
struct Place<'s> {
    /// Those whose parts are there too.
    known: Vec<&'s Value>,
    new: Vec<&'s Value>,
}

struct Search<'s> {
    schema: &'s Value,
    seen: HashSet<Vec<*const Value>>,
    todo: Vec<Place<'s>>,
}

impl<'s> Search<'s> {
    fn add(&mut self, place: Place<'s>) -> Result<(), String> {
        let mut key: Vec<_> =
            place.known.iter().chain(&place.new).map(|&value| ptr::from_ref(value)).collect();
        key.sort_unstable();
        key.dedup();
        if self.seen.insert(key) {
            self.todo.push(place);
        }
        match self.seen.len() {
            0..=PLACES => Ok(()),
            _ => Err("its alternatives have too many combinations".into()),
        }
    }

    /// Finds all that a value has to meet, for each combination of alternatives.
    fn look(&mut self, place: Place<'s>) -> Result<(), String> {
        let (mut all, mut new) = (place.known, place.new);
        let mut known: HashSet<_> = all.iter().map(|&value| ptr::from_ref(value)).collect();
        let mut choices: Vec<&[Value]> = Vec::new();
        while let Some(value) = new.pop() {
            if !known.insert(ptr::from_ref(value)) {
                continue;
            }
            all.push(value);
            let list = |name| value.get(name).and_then(Value::as_array);
            new.extend(list("allOf").into_iter().flatten());
            choices.extend(["anyOf", "oneOf"].into_iter().filter_map(list).map(Vec::as_slice));
            let reference = value.get("$ref").and_then(Value::as_str);
            let path = reference.and_then(|reference| reference.strip_prefix('#'));
            new.extend(path.and_then(|path| self.schema.pointer(path)));
        }
        if choices.is_empty() {
            return self.meet(&all);
        }
        let count = choices.iter().fold(1_usize, |count, some| count.saturating_mul(some.len()));
        let combinations = match (&choices[..], count) {
            ([some], _) => some.iter().map(|one| vec![one]).collect(),
            (_, 0..=COMBINATIONS) => choices.iter().fold(vec![Vec::new()], |before, some| {
                let with = |one| before.iter().map(move |all| [&all[..], &[one]].concat());
                some.iter().flat_map(with).collect()
            }),
            _ => vec![choices.iter().copied().flatten().collect()],
        };
        combinations.into_iter().try_for_each(|new| self.add(Place { known: all.clone(), new }))
    }

    /// Looks at what a value has to meet, without alternatives.
    fn meet(&mut self, all: &[&'s Value]) -> Result<(), String> {
        let fields: Vec<_> = all.iter().filter_map(|value| value.as_object()).collect();
        let texts = |name| fields.iter().filter_map(move |fields| fields.get(name)?.as_str());
        let patterns: HashSet<_> = texts("pattern").collect();
        let formats: HashSet<_> = texts("format").collect();
        let each = patterns.iter().map(|pattern| ways(pattern));
        let each = each.chain(formats.iter().map(|_| FORMAT));
        check(patterns.len() + formats.len(), each.fold(1, u64::saturating_mul))?;
        let mut parts = BTreeMap::<(&str, &str), Vec<&Value>>::new();
        for fields in &fields {
            for (name, list) in
                ["properties", "patternProperties"].map(|name| (name, named(fields, name)))
            {
                for (key, part) in list {
                    parts.entry((name, key)).or_default().push(part);
                }
            }
            for name in ["additionalProperties", "items"] {
                parts.entry((name, "")).or_default().extend(fields.get(name));
            }
            for part in fields.get("prefixItems").and_then(Value::as_array).into_iter().flatten() {
                parts.entry(("items", "")).or_default().push(part);
            }
        }
        // What one schema says of a name, others may say of all that have none, or one that matches.
        if let [_, _, ..] = fields[..] {
            for (&(name, key), values) in &mut parts {
                let others = fields.iter().filter(|_| name == "properties");
                for fields in others {
                    if fields.get(name).and_then(|named| named.get(key)).is_none() {
                        values.extend(fields.get("additionalProperties"));
                    }
                    values.extend(named(fields, "patternProperties").map(|(_, part)| part));
                }
            }
        }
        parts.into_values().try_for_each(|new| self.add(Place { known: Vec::new(), new }))
    }
}

/// The fields of an object within another.
fn named<'s>(
    fields: &'s Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = (&'s str, &'s Value)> + use<'s> {
    let list = fields.get(name).and_then(Value::as_object);
    list.into_iter().flatten().map(|(key, part)| (key.as_str(), part))
}

/// Refuses a grammar of llguidance in which `&` joins too many patterns, and schemas in it.
///
/// # Errors
///
/// What is too much.
pub(super) fn check_lark(grammar: &str) -> Result<(), String> {
    let mut definitions = HashMap::<&str, Definition<'_>>::new();
    let mut current = Definition::default();
    let mut name = "";
    for line in grammar.lines() {
        if let Some((head, rest)) = definition(line) {
            definitions.insert(name, std::mem::take(&mut current));
            name = head;
            current.read(rest);
        } else {
            current.read(line);
        }
    }
    definitions.insert(name, current);
    let mut known = HashMap::new();
    definitions.keys().try_for_each(|name| weigh(name, &definitions, &mut known).map(|_| ()))
}

/// The name that a line defines, and what is behind it.
fn definition(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && !"_-!?".contains(c))?;
    let (head, rest) = line.split_at(end);
    let (before, rest) = rest.split_once(':')?;
    let is_name = !head.is_empty() && !before.contains(['"', '/', '|', '&']);
    is_name.then_some((head.trim_start_matches(['!', '?']), rest))
}

/// What a name of a grammar stands for: what `&` joins.
struct Definition<'g>(Vec<(u64, Vec<&'g str>)>);

impl Default for Definition<'_> {
    fn default() -> Self {
        Definition(vec![(1, Vec::new())])
    }
}

impl<'g> Definition<'g> {
    fn read(&mut self, mut line: &'g str) {
        while let Some(c) = line.chars().next() {
            let word = line.find(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c));
            let length = match c {
                '#' => return,
                '/' if line.starts_with("//") => return,
                '"' | '/' => quoted(line, c),
                _ if word != Some(0) => word.unwrap_or(line.len()),
                _ => c.len_utf8(),
            };
            let (part, rest) = line.split_at(length);
            line = rest;
            match (c, self.0.last_mut()) {
                ('&', _) => self.0.push((1, Vec::new())),
                ('"', _) | (_, None) => {}
                (_, Some((_, names))) if word != Some(0) => names.push(part),
                (_, Some((sum, _))) => *sum += ways(part) - 1,
            }
        }
    }
}

/// Bytes up to the end of something in quotes.
fn quoted(line: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let end = line.char_indices().skip(1).find(|&(_, c)| {
        let is_end = c == quote && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(line.len(), |(at, _)| at + 1)
}

/// How many patterns a name stands for at once, and in how many ways it can go on.
fn weigh<'g>(
    name: &'g str,
    definitions: &HashMap<&'g str, Definition<'g>>,
    known: &mut HashMap<&'g str, (usize, u64)>,
) -> Result<(usize, u64), String> {
    let Some(definition) = definitions.get(name) else { return Ok((1, 1)) };
    if let Some(&weight) = known.get(name) {
        return Ok(weight);
    }
    known.insert(name, (1, 1));
    let (mut count, mut product) = (0, 1_u64);
    for (own, names) in &definition.0 {
        let (mut most, mut sum) = (1, *own);
        for name in names {
            let (count, ways) = weigh(name, definitions, known)?;
            most = most.max(count);
            sum = sum.saturating_add(ways);
        }
        count += most;
        product = product.saturating_mul(sum);
    }
    if definition.0.len() > 1 {
        check(count, product)?;
    }
    known.insert(name, (count, product));
    Ok((count, product))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// So many patterns, each of so many alternatives.
    fn patterns(count: usize, alternatives: usize) -> Vec<Value> {
        let one = |i| {
            let parts: Vec<_> = (0..alternatives).map(|j| format!("a{i}{j}")).collect();
            json!({ "type": "string", "pattern": parts.join("|") })
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn strings_that_have_to_meet_too_much() {
        let nine = patterns(9, 1);
        let by_name = |name: &str| -> Vec<_> {
            nine.iter().map(|pattern| json!({ name: { "x": pattern } })).collect()
        };
        let references: Vec<_> =
            (0..9).map(|i| json!({ "$ref": format!("#/$defs/{i}") })).collect();
        let defs: Value =
            nine.iter().cloned().enumerate().map(|(i, p)| (i.to_string(), p)).collect();
        let nested = nine.iter().fold(json!({}), |inner, one| json!({ "allOf": [one, inner] }));
        for schema in [
            json!({ "allOf": nine }),
            json!({ "items": { "allOf": nine } }),
            json!({ "format": "email", "allOf": nine[..8] }),
            json!({ "allOf": by_name("properties") }),
            json!({ "allOf": by_name("patternProperties") }),
            json!({ "allOf": [{ "allOf": by_name("properties")[..5] }, { "allOf": by_name("patternProperties")[5..] }] }),
            json!({ "allOf": nine.iter().map(|p| json!({ "items": p })).collect::<Vec<_>>() }),
            json!({ "allOf": references, "$defs": defs }),
            json!({ "allOf": nine.iter().map(|p| json!({ "anyOf": [p, p] })).collect::<Vec<_>>() }),
            json!({ "pattern": "x", "allOf": nine[..7], "anyOf": [{ "type": "null" }, nine[8]], "oneOf": [{ "format": "uri" }] }),
            nested,
        ] {
            let why = check_schema(&schema).unwrap_err();
            assert!(why.contains("patterns at once, of 8 at most"), "{schema}: {why}");
        }
        let many = json!({ "allOf": patterns(3, 50) });
        assert!(check_schema(&many).unwrap_err().contains("too many alternatives together"));
    }

    #[test]
    fn strings_that_have_to_meet_enough() {
        let nine = patterns(9, 1);
        let of_own: Value =
            nine.iter().cloned().enumerate().map(|(i, p)| (i.to_string(), p)).collect();
        for schema in [
            json!({ "allOf": nine[..8] }),
            json!({ "allOf": vec![&nine[0]; 20] }),
            json!({ "anyOf": nine, "oneOf": nine }),
            json!({ "properties": of_own, "additionalProperties": nine[0] }),
            json!({ "allOf": nine.iter().enumerate().map(|(i, p)| json!({ "properties": { format!("p{i}"): p } })).collect::<Vec<_>>() }),
            json!({ "pattern": patterns(1, 10_000)[0]["pattern"], "minLength": 3 }),
            json!({ "allOf": patterns(2, 200) }),
            json!({ "allOf": [{ "$ref": "#" }, { "items": { "$ref": "#" } }], "pattern": "x" }),
        ] {
            assert_eq!(check_schema(&schema), Ok(()), "{schema}");
        }
    }

    #[test]
    fn grammars_that_join_too_much() {
        let joined = |n| (0..n).map(|i| format!("/.*a.{{{i}}}b/")).collect::<Vec<_>>().join(" & ");
        let named = |n| {
            let names: String =
                (0..n).map(|i| format!("T{i}: /.*a.{{{i}}}b.*/ | \"&\"\n")).collect();
            let all: Vec<_> = (0..n).map(|i| format!("T{i}")).collect();
            format!("start: X\n{names}X: {}\n", all.join("\n & "))
        };
        let alternatives = "(a|b)".repeat(400);
        for grammar in [
            format!("start: X\nX: {}", joined(9)),
            format!("X.1: /a/ | ({})\nstart: X", joined(9)),
            named(9),
            "A: B & B\nB: C & C\nC: D & D\nD: /a/ & /b/".to_owned(),
            format!("A: /{alternatives}/ & B\nB: /{alternatives}/"),
        ] {
            assert!(check_lark(&grammar).unwrap_err().contains("patterns"), "{grammar}");
        }
        let entities = "start: (\"&lt;\" | /&(gt|amp|quot)+;/ // & & & & & & & & &\n | T)*\n";
        for grammar in [
            format!("start: X\nX: {}", joined(5)),
            named(5),
            entities.repeat(20),
            "A: B & /b/\nB: A & /c/".to_owned(),
            format!("A: /{alternatives}/ B\nB: /{alternatives}/"),
        ] {
            assert_eq!(check_lark(&grammar), Ok(()), "{grammar}");
        }
    }
}
