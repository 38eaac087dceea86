//! The functions that take the place of what templates make values with.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, functions};

use super::value::{List, Map, Meter, keep, refused};
use super::{Raised, python};
use crate::chat::moment::Moment;

/// A list of the arguments.
pub(super) const LIST: &str = " list";
/// A map of keys and values in turn.
pub(super) const MAP: &str = " map";
/// Two values as one text.
pub(super) const CONCAT: &str = " concat";
/// A value that can be stored.
pub(super) const KEEP: &str = " keep";
/// The value, each character of which is about to be looked at.
pub(super) const CHARGE: &str = " charge";

/// The most numbers that `range` gives, as in jinja2's sandbox.
const LONGEST_RANGE: i64 = 100_000;

/// Adds these functions, and those that templates call by name.
pub(super) fn add(env: &mut Environment<'_>, meter: &Arc<Meter>, now: Moment) {
    let m = Arc::clone(meter);
    env.add_function(LIST, move |items: Rest<Value>| list(&m, &items));
    let m = Arc::clone(meter);
    env.add_function(MAP, move |pairs: Rest<Value>| {
        let pair = |pair: &[Value]| Ok((pair[0].clone(), keep(&m, pair[1].clone())?));
        let pairs = pairs.chunks_exact(2).map(pair).collect::<Result<Vec<_>, Error>>()?;
        Map::make(&m, pairs)
    });
    let m = Arc::clone(meter);
    env.add_function(CONCAT, move |left: Value, right: Value| {
        let length = |value: &Value| value.as_str().map_or(0, str::len);
        m.charge(length(&left).saturating_add(length(&right)))?;
        Ok::<_, Error>(python::text(&m, &left)? + &python::text(&m, &right)?)
    });
    let m = Arc::clone(meter);
    env.add_function(KEEP, move |value: Value| keep(&m, value));
    let m = Arc::clone(meter);
    env.add_function(CHARGE, move |value: Value| {
        m.charge(value.as_str().map_or(0, str::len))?;
        Ok::<_, Error>(value)
    });

    let m = Arc::clone(meter);
    env.add_function("range", move |lower: i64, upper: Option<i64>, step: Option<i64>| {
        range(&m, upper.map_or(0, |_| lower), upper.unwrap_or(lower), step.unwrap_or(1))
    });
    let m = Arc::clone(meter);
    let make = Value::from_function(functions::namespace);
    env.add_function("namespace", move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let pairs = pairs(&m, &args.into_values())?;
        let named =
            pairs.iter().map(|(key, value)| (key.as_str().unwrap_or_default(), value.clone()));
        make.call(state, &[Value::from(named.collect::<Kwargs>())])
    });
    let m = Arc::clone(meter);
    env.add_function("dict", move |args: Rest<ValueOrKwargs>| {
        Map::make(&m, pairs(&m, &args.into_values())?)
    });
    env.add_function("raise_exception", |message: Value| {
        let message = message.as_str().unwrap_or("the template gave up").to_owned();
        Err::<Value, _>(Error::from(ErrorKind::InvalidOperation).with_source(Raised(message)))
    });
    env.add_function("strftime_now", move |format: &str| {
        now.format(format).map_err(|c| refused(format!("%{c} in the format of a time")))
    });
}

fn list(meter: &Arc<Meter>, items: &[Value]) -> Result<Value, Error> {
    let items = items.iter().map(|item| keep(meter, item.clone()));
    List::make(meter, items.collect::<Result<_, _>>()?)
}

fn range(meter: &Arc<Meter>, from: i64, to: i64, step: i64) -> Result<Value, Error> {
    let Some(stride) = usize::try_from(step.unsigned_abs()).ok().filter(|&step| step > 0) else {
        return Err(refused("a range of steps of 0"));
    };
    let length = if step > 0 {
        i128::from(to) - i128::from(from)
    } else {
        i128::from(from) - i128::from(to)
    };
    let count = length.max(0).unsigned_abs().div_ceil(stride as u128);
    if count > LONGEST_RANGE as u128 {
        return Err(refused(format!("a range of more than {LONGEST_RANGE} numbers")));
    }
    // No number of those is beyond `to`.
    let numbers = (0..count as i64).map(|i| Value::from(from.wrapping_add(i.wrapping_mul(step))));
    List::make(meter, numbers.collect())
}

/// The entries of the maps among some arguments, those that are given by name last.
fn pairs(meter: &Arc<Meter>, args: &[Value]) -> Result<Vec<(Value, Value)>, Error> {
    let mut pairs = Vec::new();
    for arg in args {
        if arg.downcast_object_ref::<Map>().is_none() && !arg.is_kwargs() {
            return Err(refused(format!("a map of `{}`", super::value::name(arg))));
        }
        for pair in arg.as_object().and_then(|map| map.try_iter_pairs()).into_iter().flatten() {
            pairs.push((pair.0, keep(meter, pair.1)?));
        }
    }
    Ok(pairs)
}
