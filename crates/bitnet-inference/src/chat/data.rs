//! Values that templates are given: JSON whose objects keep the order of their keys.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of JSON. Templates print tools as they come, so that objects keep the order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Data>),
    /// An object. Of several values for one key, the last holds.
    Map(Vec<(String, Data)>),
}

impl Data {
    /// The value of a key of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Data> {
        let Data::Map(entries) = self else { return None };
        entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// All strings in it, keys too.
    pub(super) fn strings<'d>(&'d self, take: &mut impl FnMut(&'d str)) {
        match self {
            Data::Text(text) => take(text),
            Data::List(items) => items.iter().for_each(|item| item.strings(take)),
            Data::Map(entries) => entries.iter().for_each(|(key, value)| {
                take(key);
                value.strings(take);
            }),
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) => {}
        }
    }

    /// The same, with other strings.
    pub(super) fn map(&self, change: &impl Fn(&str) -> String) -> Data {
        match self {
            Data::Text(text) => Data::Text(change(text)),
            Data::List(items) => Data::List(items.iter().map(|item| item.map(change)).collect()),
            Data::Map(entries) => {
                let entry = |(key, value): &(String, Data)| (change(key), value.map(change));
                Data::Map(entries.iter().map(entry).collect())
            }
            plain => plain.clone(),
        }
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Data {
        Data::Text(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Data, D::Error> {
        from.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(Data::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Data, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_entry()? {
            entries.push(entry);
        }
        Ok(Data::Map(entries))
    }
}
