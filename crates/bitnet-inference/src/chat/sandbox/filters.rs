//! The filters and tests that chat templates use. Others are unknown.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value, filters, tests};

use super::python::{self, Style};
use super::text;
use super::value::{Meter, keep, refused};

/// Adds all filters. What they give is [kept](keep).
pub(super) fn add(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = || Arc::clone(meter);
    let mut all = vec![
        // What the engine has, as far as it pays for what it makes.
        ("abs", Value::from_function(filters::abs)),
        ("attr", Value::from_function(filters::attr)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("d", Value::from_function(filters::default)),
        ("default", Value::from_function(filters::default)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("e", Value::from_function(filters::escape)),
        ("escape", Value::from_function(filters::escape)),
        ("first", Value::from_function(filters::first)),
        ("items", Value::from_function(filters::items)),
        ("last", Value::from_function(filters::last)),
        ("list", Value::from_function(filters::list)),
        ("lower", Value::from_function(filters::lower)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("reverse", Value::from_function(filters::reverse)),
        ("round", Value::from_function(filters::round)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("sort", Value::from_function(filters::sort)),
        ("sum", Value::from_function(filters::sum)),
        ("title", Value::from_function(filters::title)),
        ("unique", Value::from_function(filters::unique)),
        ("upper", Value::from_function(filters::upper)),
        // Nothing is escaped, so that everything is safe.
        ("safe", Value::from_function(|value: Value| value)),
        ("count", Value::from_function(length)),
        ("float", Value::from_function(float)),
        ("int", Value::from_function(int)),
        ("length", Value::from_function(length)),
    ];
    let meter_of = m();
    all.push(("string", Value::from_function(move |value: Value| python::text(&meter_of, &value))));
    let meter_of = m();
    all.push((
        "trim",
        Value::from_function(move |value: Value, chars: Option<&str>| {
            Ok::<_, Error>(
                text::strip(&python::text(&meter_of, &value)?, chars, (true, true)).to_owned(),
            )
        }),
    ));
    let meter_of = m();
    all.push((
        "replace",
        Value::from_function(move |value: Value, from: &str, to: &str, count: Option<i64>| {
            text::replace(&meter_of, &python::text(&meter_of, &value)?, (from, to), count)
        }),
    ));
    let meter_of = m();
    all.push((
        "indent",
        Value::from_function(
            move |value: Value,
                  width: Option<Value>,
                  first: Option<bool>,
                  blank: Option<bool>,
                  named: Kwargs| {
                let width = match width {
                    Some(width) => Some(width),
                    None => named.get::<Option<Value>>("width")?,
                };
                let first =
                    first.map_or_else(|| named.get::<Option<bool>>("first"), |is| Ok(Some(is)))?;
                let blank =
                    blank.map_or_else(|| named.get::<Option<bool>>("blank"), |is| Ok(Some(is)))?;
                named.assert_all_used()?;
                let width = width.unwrap_or_else(|| Value::from(4));
                let lines = (first.unwrap_or(false), blank.unwrap_or(false));
                text::indent(&meter_of, &python::text(&meter_of, &value)?, &width, lines)
            },
        ),
    ));
    let meter_of = m();
    all.push((
        "join",
        Value::from_function(
            move |state: &mut State<'_, '_>,
                  items: Value,
                  by: Option<&str>,
                  attribute: Option<Value>,
                  named: Kwargs| {
                let by = by.map_or_else(|| named.get::<Option<&str>>("d"), |by| Ok(Some(by)))?;
                let attribute =
                    attribute.map_or_else(|| named.get("attribute"), |name| Ok(Some(name)))?;
                named.assert_all_used()?;
                let items = match attribute {
                    None => items,
                    Some(name) => {
                        let args = [("attribute", name)].into_iter().collect::<Kwargs>();
                        state.apply_filter("map", &[items, Value::from(args)])?
                    }
                };
                text::join(&meter_of, by.unwrap_or(""), &items)
            },
        ),
    ));
    let meter_of = m();
    all.push((
        "tojson",
        Value::from_function(move |value: Value, indent: Option<Value>, named: Kwargs| {
            let style = style(indent, &named)?;
            python::json(&meter_of, &value, &style)
        }),
    ));
    for (name, filter) in all {
        let meter = m();
        env.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            for arg in args.iter().skip(1) {
                meter.charge(arg.as_str().map_or(0, str::len))?;
            }
            keep(&meter, filter.call(state, &args)?)
        });
    }
}

/// What is not there has no length, and no error.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { filters::length(value) }
}

/// The whole number that a value is or spells, without what is behind its point.
fn int(value: Value, default: Option<Value>) -> Value {
    if let Some(n) = whole(&value) {
        return n;
    }
    match number(&value).map(f64::trunc) {
        // As many as there are of 128 bits.
        Some(x) if x.abs() < 1e38 => Value::from(x as i128),
        _ => default.unwrap_or_else(|| Value::from(0)),
    }
}

/// The number that a value is or spells.
fn float(value: Value, default: Option<Value>) -> Value {
    let default = || default.unwrap_or_else(|| Value::from(0.0));
    number(&value).map_or_else(default, Value::from)
}

fn whole(value: &Value) -> Option<Value> {
    match value.kind() {
        ValueKind::Bool => Some(Value::from(i32::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        _ => value.as_str()?.trim().parse::<i64>().ok().map(Value::from),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        None => f64::try_from(value.clone()).ok(),
    }
}

/// The style of the filter `tojson` of transformers.
fn style(indent: Option<Value>, named: &Kwargs) -> Result<Style, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => named.get::<Option<Value>>("indent")?,
    };
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => {
            let wrong = || refused("an indent of JSON that is no number");
            Some(indent.as_usize().ok_or_else(wrong)?)
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    let separators = match named.get::<Option<Value>>("separators")?.filter(|s| !s.is_none()) {
        None => (comma.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let part =
                |i| pair.get_item_by_index(i).ok().and_then(|s| Some(s.as_str()?.to_owned()));
            let wrong = || refused("separators of JSON that are not two strings");
            (part(0).ok_or_else(wrong)?, part(1).ok_or_else(wrong)?)
        }
    };
    let flag = |name| named.get::<Option<bool>>(name);
    let ascii = flag("ensure_ascii")?.unwrap_or(false);
    let sorted = flag("sort_keys")?.unwrap_or(false);
    named.assert_all_used()?;
    Ok(Style { indent, separators, ascii, sorted })
}

/// Adds all tests.
pub(super) fn add_tests(env: &mut Environment<'_>) {
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", tests::is_none);
    env.add_test("boolean", tests::is_boolean);
    env.add_test("true", tests::is_true);
    env.add_test("false", tests::is_false);
    env.add_test("integer", tests::is_integer);
    env.add_test("float", tests::is_float);
    env.add_test("odd", tests::is_odd);
    env.add_test("even", tests::is_even);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("string", tests::is_string);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("in", tests::is_in);
    // In Python a truth value is a number, and what has a length and items is a sequence.
    let of = |kinds: &'static [ValueKind]| move |value: &Value| kinds.contains(&value.kind());
    use ValueKind as Is;
    env.add_test("number", of(&[Is::Number, Is::Bool]));
    env.add_test("sequence", of(&[Is::Seq, Is::Map, Is::String, Is::Undefined]));
    env.add_test("iterable", of(&[Is::Seq, Is::Map, Is::String, Is::Undefined, Is::Iterable]));
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("endingwith", tests::is_endingwith);
    for name in ["eq", "equalto", "=="] {
        env.add_test(name, tests::is_eq);
    }
    for name in ["ne", "!="] {
        env.add_test(name, tests::is_ne);
    }
    for name in ["lt", "lessthan", "<"] {
        env.add_test(name, tests::is_lt);
    }
    for name in ["gt", "greaterthan", ">"] {
        env.add_test(name, tests::is_gt);
    }
    for name in ["le", "<="] {
        env.add_test(name, tests::is_le);
    }
    for name in ["ge", ">="] {
        env.add_test(name, tests::is_ge);
    }
}
