//! Metadata values: what the header holds under its keys.
//!
//! Arrays stay encoded, as a shared range of the file that was checked once when it was opened. A
//! vocabulary of 280,000 strings costs one [`Array`], not 280,000 allocations.

use crate::cursor::{Cursor, Part};
use crate::{Bytes, Error};

/// How deep arrays of arrays are followed; files in use have no nesting at all.
const DEPTH_LIMIT: u32 = 4;

/// The type of a metadata value, with the id it has in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    fn from_id(id: u32) -> Option<ValueType> {
        ValueType::ALL.into_iter().find(|&kind| kind as u32 == id)
    }

    /// Name in messages: `u32`, `bool`, `string`.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 13] = [
            "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64",
            "f64",
        ];
        NAMES[self as usize]
    }

    /// The least bytes a value takes: all it takes, but for strings (their length) and arrays
    /// (element type and count).
    fn least_bytes(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
            ValueType::Array => 12,
        }
    }

    /// Whether any bytes of the right number are a valid value.
    fn is_plain(self) -> bool {
        !matches!(self, ValueType::Bool | ValueType::String | ValueType::Array)
    }

    fn is_integer(self) -> bool {
        self.is_plain() && !matches!(self, ValueType::F32 | ValueType::F64)
    }
}

/// A metadata value, for reading and writing.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The type of this value.
    pub fn kind(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// An integer of any width as `T`; `None` for other types and out of range.
    pub(crate) fn integer<T: TryFrom<i128>>(&self) -> Option<T> {
        let wide = match *self {
            Value::U8(value) => value.into(),
            Value::I8(value) => value.into(),
            Value::U16(value) => value.into(),
            Value::I16(value) => value.into(),
            Value::U32(value) => value.into(),
            Value::I32(value) => value.into(),
            Value::U64(value) => value.into(),
            Value::I64(value) => value.into(),
            _ => return None,
        };
        T::try_from(wide).ok()
    }

    /// An f32, or an f64 rounded to one; `None` for other types and when an f64 is too large.
    pub(crate) fn float(&self) -> Option<f32> {
        match *self {
            Value::F32(value) => Some(value),
            Value::F64(value) => {
                Some(value as f32).filter(|near| near.is_finite() || !value.is_finite())
            }
            _ => None,
        }
    }

    /// Type and, where it is short, value: what a message says was found.
    pub(crate) fn describe(&self) -> String {
        let kind = self.kind().name();
        match self {
            Value::F32(value) => format!("{kind} {value}"),
            Value::F64(value) => format!("{kind} {value}"),
            Value::Bool(value) => format!("{kind} {value}"),
            Value::String(text) => format!("a string of {} bytes", text.len()),
            Value::Array(array) => {
                format!("an array of {} {}", array.len(), array.element().name())
            }
            _ => match self.integer::<i128>() {
                Some(value) => format!("{kind} {value}"),
                None => kind.to_owned(),
            },
        }
    }

    /// Reads the type and the value of `key`, and checks all of it.
    pub(crate) fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, Error> {
        let kind = read_type(cursor, key)?;
        read_value(cursor, key, kind)
    }

    /// Appends the bytes this value has in a file, without its type.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(value) => value.encode(out),
            Value::I8(value) => value.encode(out),
            Value::U16(value) => value.encode(out),
            Value::I16(value) => value.encode(out),
            Value::U32(value) => value.encode(out),
            Value::I32(value) => value.encode(out),
            Value::F32(value) => value.encode(out),
            Value::Bool(value) => value.encode(out),
            Value::String(value) => value.as_str().encode(out),
            Value::Array(value) => value.encode(out),
            Value::U64(value) => value.encode(out),
            Value::I64(value) => value.encode(out),
            Value::F64(value) => value.encode(out),
        }
    }
}

/// An array of metadata values of one type, kept as the bytes it has in a file.
///
/// Collect one from an iterator of numbers, booleans, `&str` or arrays to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    element: ValueType,
    len: usize,
    // `len` checked values one after another.
    bytes: Bytes,
}

impl Array {
    /// The type of the elements.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, decoded one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        let mut cursor = Cursor::new("", &self.bytes);
        // The bytes were checked when the array was made, so no read fails.
        (0..self.len).map_while(move |_| read_value(&mut cursor, "", self.element).ok())
    }

    /// The elements when they are strings, without copying.
    pub fn strings(&self) -> Option<Strings<'_>> {
        (self.element == ValueType::String)
            .then(|| Strings { cursor: Cursor::new("", &self.bytes), left: self.len })
    }

    /// The elements when they are integers that fit `T`.
    pub(crate) fn integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        let integers = self.element.is_integer();
        integers.then(|| self.iter().map(|value| value.integer()).collect())?
    }

    /// The elements when they are floats that fit f32.
    pub(crate) fn floats(&self) -> Option<Vec<f32>> {
        let floats = matches!(self.element, ValueType::F32 | ValueType::F64);
        floats.then(|| self.iter().map(|value| value.float()).collect())?
    }
}

/// The strings of an array, borrowed from the file. Knows how many are left.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        // The bytes were checked when the array was made, so no read fails.
        self.cursor.str(Part::Header("a string")).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

fn read_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, Error> {
    let offset = cursor.offset();
    let id = cursor.u32(Part::Value(key))?;
    ValueType::from_id(id).ok_or_else(|| Error::ValueType {
        file: cursor.file(),
        key: key.to_owned(),
        offset,
        id,
    })
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, kind: ValueType) -> Result<Value, Error> {
    let part = Part::Value(key);
    Ok(match kind {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(part)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(part)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(part)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(part)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(cursor.array(part)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(part)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(part)?)),
        ValueType::Bool => Value::Bool(read_bool(cursor, key)?),
        ValueType::String => Value::String(cursor.str(part)?.to_owned()),
        ValueType::Array => Value::Array(read_array(cursor, key)?),
        ValueType::U64 => Value::U64(u64::from_le_bytes(cursor.array(part)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(part)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(part)?)),
    })
}

fn read_bool(cursor: &mut Cursor<'_>, key: &str) -> Result<bool, Error> {
    let offset = cursor.offset();
    match cursor.array(Part::Value(key))? {
        [0] => Ok(false),
        [1] => Ok(true),
        [found] => Err(Error::Bool { file: cursor.file(), key: key.to_owned(), offset, found }),
    }
}

fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, Error> {
    let (element, count) = read_array_head(cursor, key)?;
    let start = cursor.offset();
    skip_elements(cursor, key, element, count, 1)?;
    Ok(Array {
        element,
        // At least one byte each, all of them in memory, so it fits in usize.
        len: count as usize,
        bytes: cursor.since(start),
    })
}

/// Element type and count of an array whose elements can fit in the bytes that are left.
fn read_array_head(cursor: &mut Cursor<'_>, key: &str) -> Result<(ValueType, u64), Error> {
    let element = read_type(cursor, key)?;
    let offset = cursor.offset();
    let count = cursor.u64(Part::Value(key))?;
    cursor.check_count(count, element.least_bytes(), offset, Part::Value(key))?;
    Ok((element, count))
}

/// Moves past the elements of an array that lies `depth` arrays deep and checks them; keeps
/// nothing.
fn skip_elements(
    cursor: &mut Cursor<'_>,
    key: &str,
    element: ValueType,
    count: u64,
    depth: u32,
) -> Result<(), Error> {
    if depth > DEPTH_LIMIT {
        return Err(Error::Depth {
            file: cursor.file(),
            key: key.to_owned(),
            offset: cursor.offset(),
            limit: DEPTH_LIMIT,
        });
    }
    if element.is_plain() {
        // No overflow: the count was checked against the bytes that are left.
        cursor.take(count * element.least_bytes(), Part::Value(key))?;
        return Ok(());
    }
    for _ in 0..count {
        match element {
            ValueType::Bool => {
                read_bool(cursor, key)?;
            }
            ValueType::Array => {
                let (element, count) = read_array_head(cursor, key)?;
                skip_elements(cursor, key, element, count, depth + 1)?;
            }
            _ => {
                cursor.str(Part::Value(key))?;
            }
        }
    }
    Ok(())
}

/// What an array can be collected from.
pub trait Element: sealed::Encode {}

mod sealed {
    /// A type that has an encoding as a metadata value.
    pub trait Encode {
        /// The type in the file.
        const KIND: super::ValueType;
        /// Appends the bytes this value has in a file.
        fn encode(&self, out: &mut Vec<u8>);
    }
}

use sealed::Encode;

macro_rules! numbers {
    ($($number:ty => $kind:ident),*) => {$(
        impl Element for $number {}

        impl Encode for $number {
            const KIND: ValueType = ValueType::$kind;

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl From<$number> for Value {
            fn from(value: $number) -> Value {
                Value::$kind(value)
            }
        }
    )*};
}

numbers!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64
);

impl Element for bool {}

impl Encode for bool {
    const KIND: ValueType = ValueType::Bool;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Element for &str {}

impl Encode for &str {
    const KIND: ValueType = ValueType::String;

    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u64).encode(out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl Element for Array {}

impl Encode for Array {
    const KIND: ValueType = ValueType::Array;

    fn encode(&self, out: &mut Vec<u8>) {
        (self.element as u32).encode(out);
        (self.len as u64).encode(out);
        out.extend_from_slice(&self.bytes);
    }
}

impl<T: Element> FromIterator<T> for Array {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Array {
        let mut bytes = Vec::new();
        let mut len = 0;
        for element in elements {
            element.encode(&mut bytes);
            len += 1;
        }
        Array { element: T::KIND, len, bytes: bytes.into() }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::String(value)
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Value {
        Value::Array(value)
    }
}
