//! An open file: its metadata and its tensors.

use std::path::Path;

use crate::header::{self, Header};
use crate::resolve;
use crate::types::TensorType;
use crate::value::{Array, Strings, Value};
use crate::{Bytes, Error, Tensor};

const ARCHITECTURE_KEY: &str = "general.architecture";

/// A GGUF file whose header has been read and checked.
///
/// Opening walks the header once; the data are not touched until they are used.
#[derive(Debug)]
pub struct Gguf {
    name: String,
    bytes: Bytes,
    header: Header,
}

impl Gguf {
    /// Maps a file into memory, read only, and reads its header.
    ///
    /// While the `Gguf` or any [`Bytes`] of it lives, nobody may write to the file or shorten it:
    /// the first gives results without meaning, the second ends the process on most systems.
    /// Replace a model by renaming another file over it, or read it with [`Gguf::from_vec`] if
    /// that cannot be ruled out.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::NotAFile`] when it cannot be mapped, and one error for each thing
    /// that can be wrong with a header. Tensors of unknown types are no error yet: see
    /// [`Gguf::tensor_type`].
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, Error> {
        let path = path.as_ref();
        let (name, bytes) = (path.display().to_string(), Bytes::open(path)?);
        Gguf::parse(name, bytes)
    }

    /// Reads the header of a file that is part of the program, as `include_bytes!` makes it. `name`
    /// is what messages call it.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`], but for those of the operating system.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Gguf, Error> {
        Gguf::parse(name.to_owned(), Bytes::from_static(bytes))
    }

    /// Reads the header of a file that was read or built in memory. `name` is what messages call
    /// it.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`], but for those of the operating system.
    pub fn from_vec(name: &str, bytes: Vec<u8>) -> Result<Gguf, Error> {
        Gguf::parse(name.to_owned(), Bytes::from(bytes))
    }

    fn parse(name: String, bytes: Bytes) -> Result<Gguf, Error> {
        let header = header::parse(&name, &bytes, bytes.len() as u64)?;
        Ok(Gguf { name, bytes, header })
    }

    /// The path, or the name given: what messages call this file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Tensor data start at multiples of this many bytes: `general.alignment`, or 32.
    pub fn alignment(&self) -> u64 {
        self.header.alignment
    }

    /// The whole file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The model architecture: the value of `general.architecture`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingKey`] or [`Error::WrongType`].
    pub fn architecture(&self) -> Result<&str, Error> {
        self.require_str(ARCHITECTURE_KEY)
    }

    /// Keys and values, in the order of the file.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        let entries = self.header.entries.iter();
        entries.map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// The value of a key, whatever its type.
    pub fn value(&self, key: &str) -> Option<&Value> {
        let index = *self.header.keys.get(key)?;
        Some(&self.header.entries[index].value)
    }

    /// An integer of any width that fits u32; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type and for an integer out of range.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.get(key, "an integer that fits u32", Value::integer)
    }

    /// An f32, or an f64 rounded to the nearest f32; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type and for an f64 beyond the range of f32.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.get(key, "a float that fits f32", Value::float)
    }

    /// A boolean; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.get(key, "a boolean", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A string; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.get(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An array of strings, without copying it; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type.
    pub fn strings(&self, key: &str) -> Result<Option<Strings<'_>>, Error> {
        self.array(key, "an array of strings", Array::strings)
    }

    /// An array of integers of any width that all fit i32; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type and when an element is out of range.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, Error> {
        self.array(key, "an array of integers that fit i32", Array::integers)
    }

    /// An array of integers of any width that all fit u32; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type and when an element is out of range.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        self.array(key, "an array of integers that fit u32", Array::integers)
    }

    /// An array of f32, or of f64 rounded to the nearest f32; `None` when there is no such key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] for another type and for an f64 beyond the range of f32.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        self.array(key, "an array of floats that fit f32", Array::floats)
    }

    /// As [`Gguf::u32`], of a key that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::MissingKey`] when it is not, and those of [`Gguf::u32`].
    pub fn require_u32(&self, key: &str) -> Result<u32, Error> {
        self.u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Gguf::f32`], of a key that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::MissingKey`] when it is not, and those of [`Gguf::f32`].
    pub fn require_f32(&self, key: &str) -> Result<f32, Error> {
        self.f32(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Gguf::str`], of a key that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::MissingKey`] when it is not, and those of [`Gguf::str`].
    pub fn require_str(&self, key: &str) -> Result<&str, Error> {
        self.str(key)?.ok_or_else(|| self.missing(key))
    }

    /// As [`Gguf::strings`], of a key that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::MissingKey`] when it is not, and those of [`Gguf::strings`].
    pub fn require_strings(&self, key: &str) -> Result<Strings<'_>, Error> {
        self.strings(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Error {
        Error::MissingKey { file: self.name.clone(), key: key.to_owned() }
    }

    fn array<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Array) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.get(key, expected, |value| match value {
            Value::Array(array) => convert(array),
            _ => None,
        })
    }

    fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(&index) = self.header.keys.get(key) else {
            return Ok(None);
        };
        let entry = &self.header.entries[index];
        match convert(&entry.value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::WrongType {
                file: self.name.clone(),
                key: key.to_owned(),
                offset: entry.offset,
                expected,
                found: entry.value.describe(),
            }),
        }
    }

    /// All tensors, in the order of their descriptions.
    pub fn tensors(&self) -> &[Tensor] {
        &self.header.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let index = *self.header.names.get(name)?;
        Some(&self.header.tensors[index])
    }

    /// What the bytes of a tensor are, judged by the architecture of the file and the size of the
    /// data.
    ///
    /// # Errors
    ///
    /// [`Error::UnsupportedType`] and [`Error::SharedType`] for a type that is not read here,
    /// [`Error::Block`] and [`Error::Size`] when the type does not fit the shape or the bytes in the
    /// file,
    /// [`Error::MissingKey`] when the architecture is needed to tell and missing.
    pub fn tensor_type(&self, tensor: &Tensor) -> Result<TensorType, Error> {
        self.resolve(tensor).map(|(kind, _)| kind)
    }

    /// The data of a tensor: exactly the bytes its type and shape take, without padding.
    ///
    /// They start at a multiple of [`alignment`](Gguf::alignment) in the file, so also in memory
    /// for a mapped file; one that is part of the program or in a vector can lie anywhere.
    ///
    /// # Errors
    ///
    /// As [`Gguf::tensor_type`], and [`Error::ForeignTensor`] for a tensor of another file that
    /// does not lie within this one.
    pub fn data(&self, tensor: &Tensor) -> Result<Bytes, Error> {
        let (_, payload) = self.resolve(tensor)?;
        let start = usize::try_from(tensor.offset).ok();
        let end = usize::try_from(tensor.offset.saturating_add(payload)).ok();
        let range = start.zip(end);
        range.and_then(|(start, end)| self.bytes.get(start..end)).ok_or_else(|| {
            Error::ForeignTensor {
                file: self.name.clone(),
                tensor: tensor.name.clone(),
                offset: tensor.offset,
                length: self.bytes.len() as u64,
            }
        })
    }

    /// Type and size of a tensor's data in bytes.
    fn resolve(&self, tensor: &Tensor) -> Result<(TensorType, u64), Error> {
        let architecture = match resolve::is_shared(tensor.type_id) {
            true => self.architecture()?,
            false => "",
        };
        resolve::resolve(&self.name, architecture, tensor, self.header.alignment)
    }
}
