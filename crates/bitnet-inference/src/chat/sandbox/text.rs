//! The methods of Python's strings, lists and maps that chat templates use. Others are unknown.

use std::collections::HashSet;
use std::sync::Arc;

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, Value};

use super::python;
use super::value::{List, Map, Meter, keep, refused};

/// `value.name(args)`. The engine has paid for a walk over a string that has methods.
pub(super) fn call(
    meter: &Arc<Meter>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    for arg in args {
        meter.charge(arg.as_str().map_or(0, str::len))?;
    }
    if let Some(text) = value.as_str() {
        return string(meter, text, name, args);
    }
    if let Some(map) = value.downcast_object_ref::<Map>() {
        return of_map(meter, map, name, args);
    }
    match (value.downcast_object_ref::<List>(), name) {
        (Some(list), "index" | "count") => {
            let (item,): (&Value,) = from_args(args)?;
            meter.charge(if list.walk() { 0 } else { usize::MAX })?;
            if name == "count" {
                return Ok(Value::from(list.items.iter().filter(|other| *other == item).count()));
            }
            let place = list.items.iter().position(|other| other == item);
            place.map(Value::from).ok_or_else(|| refused("the index of what is not in the list"))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn of_map(meter: &Arc<Meter>, map: &Map, name: &str, args: &[Value]) -> Result<Value, Error> {
    if name == "get" {
        let (key, default): (&Value, Option<Value>) = from_args(args)?;
        return Ok(map.entries.get(key).cloned().or(default).unwrap_or_else(|| Value::from(())));
    }
    let () = from_args(args)?;
    meter.charge(if map.walk() { 0 } else { usize::MAX })?;
    let items = match name {
        "keys" => map.entries.keys().cloned().collect(),
        "values" => map.entries.values().cloned().collect(),
        "items" => {
            let pair = |(key, value): (&Value, &Value)| {
                List::make(meter, vec![key.clone(), value.clone()])
            };
            map.entries.iter().map(pair).collect::<Result<_, _>>()?
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    List::make(meter, items)
}

fn string(meter: &Arc<Meter>, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let plain = || from_args::<()>(args);
    let chars = |which: fn(char) -> bool| !text.is_empty() && text.chars().all(which);
    Ok(match name {
        "upper" | "lower" | "capitalize" | "title" => {
            plain()?;
            let lower = || text.to_lowercase();
            Value::from(match name {
                "upper" => text.to_uppercase(),
                "lower" => lower(),
                "capitalize" => capitalized(&lower()),
                _ => {
                    lower().split_inclusive(|c: char| !c.is_alphabetic()).map(capitalized).collect()
                }
            })
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(text, chars, (name != "rstrip", name != "lstrip")))
        }
        "startswith" | "endswith" => {
            let (of,): (&Value,) = from_args(args)?;
            let is = |of: &str| {
                if name == "startswith" { text.starts_with(of) } else { text.ends_with(of) }
            };
            let any = |list: &List| list.items.iter().filter_map(Value::as_str).any(is);
            match (of.as_str(), of.downcast_object_ref::<List>()) {
                (Some(of), _) => Value::from(is(of)),
                (None, Some(list)) if list.walk() => Value::from(any(list)),
                _ => return Err(refused(format!("`{name}` of anything but strings"))),
            }
        }
        "removeprefix" | "removesuffix" => {
            let (of,): (&str,) = from_args(args)?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(of) } else { text.strip_suffix(of) };
            Value::from(rest.unwrap_or(text))
        }
        "find" | "rfind" | "count" => {
            let (of,): (&str,) = from_args(args)?;
            let place = match name {
                "find" => text.find(of),
                "rfind" => text.rfind(of),
                _ => return Ok(Value::from(text.matches(of).count())),
            };
            place.map_or(Value::from(-1), |place| Value::from(text[..place].chars().count()))
        }
        "replace" => {
            let (from, to, count): (&str, &str, Option<i64>) = from_args(args)?;
            Value::from(replace(meter, text, (from, to), count)?)
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            Value::from(join(meter, text, items)?)
        }
        "split" | "rsplit" => {
            let (by, most): (Option<Value>, Option<i64>) = from_args(args)?;
            let by = by.filter(|by| !by.is_none());
            let by = by.as_ref().map(|by| by.as_str().ok_or_else(|| refused("to split by this")));
            split(meter, text, by.transpose()?, most, name == "rsplit")?
        }
        "splitlines" => {
            plain()?;
            meter.charge(text.lines().count().saturating_mul(64))?;
            keep(meter, Value::from(text.lines().map(Value::from).collect::<Vec<_>>()))?
        }
        "isdigit" => Value::from(chars(char::is_numeric)),
        "isalpha" => Value::from(chars(char::is_alphabetic)),
        "isalnum" => Value::from(chars(char::is_alphanumeric)),
        "isspace" => Value::from(chars(char::is_whitespace)),
        "isupper" | "islower" => {
            let (upper, lower) =
                (text.contains(char::is_uppercase), text.contains(char::is_lowercase));
            Value::from(if name == "isupper" { upper && !lower } else { lower && !upper })
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The text without the characters at its ends, which are spaces if not given.
pub(super) fn strip<'t>(
    text: &'t str,
    chars: Option<&str>,
    (left, right): (bool, bool),
) -> &'t str {
    let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let is = |c: char| chars.as_ref().map_or_else(|| c.is_whitespace(), |chars| chars.contains(&c));
    let text = if left { text.trim_start_matches(is) } else { text };
    if right { text.trim_end_matches(is) } else { text }
}

/// The text with so many occurrences replaced, or all.
pub(super) fn replace(
    meter: &Arc<Meter>,
    text: &str,
    (from, to): (&str, &str),
    count: Option<i64>,
) -> Result<String, Error> {
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let found = text.matches(from).take(count).count();
    meter.charge(text.len().saturating_add(found.saturating_mul(to.len())))?;
    Ok(text.replacen(from, to, count))
}

/// The items, with a text between them.
pub(super) fn join(meter: &Arc<Meter>, by: &str, items: &Value) -> Result<String, Error> {
    let mut joined = String::new();
    for (i, item) in items.try_iter()?.checked().enumerate() {
        let item = python::text(meter, &item?)?;
        meter.charge(item.len().saturating_add(by.len()).saturating_add(1))?;
        joined.push_str(if i > 0 { by } else { "" });
        joined.push_str(&item);
    }
    Ok(joined)
}

/// The text with spaces before each line: also before the first, also before lines without text.
pub(super) fn indent(
    meter: &Arc<Meter>,
    text: &str,
    width: &Value,
    (first, blank): (bool, bool),
) -> Result<String, Error> {
    let space = match (width.as_str(), width.as_usize()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(width)) => {
            meter.charge(width)?;
            " ".repeat(width)
        }
        _ => return Err(refused("an indent that is no number and no string")),
    };
    let mut indented = String::new();
    for (i, line) in text.split('\n').enumerate() {
        let before = if (i > 0 || first) && (!line.is_empty() || blank) { &*space } else { "" };
        meter.charge(before.len() + line.len() + 1)?;
        indented.push_str(if i > 0 { "\n" } else { "" });
        indented.push_str(before);
        indented.push_str(line);
    }
    Ok(indented)
}

/// The parts of a text between separators, which are runs of spaces if not given: of no more than
/// `most` separators, counted from the end if `back`.
fn split(
    meter: &Arc<Meter>,
    text: &str,
    by: Option<&str>,
    most: Option<i64>,
    back: bool,
) -> Result<Value, Error> {
    let most = most
        .and_then(|most| usize::try_from(most).ok())
        .map_or(usize::MAX, |n| n.saturating_add(1));
    // They are paid for before there is a list of them.
    let parts = match by {
        Some("") => return Err(refused("to split by nothing")),
        Some(by) => text.matches(by).count(),
        None if most == usize::MAX => text.split_whitespace().count(),
        None => return Err(refused("to split by spaces only so often")),
    };
    meter.charge(parts.min(most).saturating_mul(64))?;
    let mut parts: Vec<&str> = match by {
        Some(by) if back => text.rsplitn(most, by).collect(),
        Some(by) => text.splitn(most, by).collect(),
        None => text.split_whitespace().collect(),
    };
    if back && by.is_some() {
        parts.reverse();
    }
    keep(meter, Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
}
