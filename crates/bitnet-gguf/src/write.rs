//! Writes GGUF files.

use std::io::{self, Write};

use crate::header::{self, ALIGNMENT_KEY, DEFAULT_ALIGNMENT, align};
use crate::resolve;
use crate::types::TensorType;
use crate::value::Value;
use crate::{Bytes, Error};

/// What errors call the file that is being written.
const NAME: &str = "the GGUF being written";

/// Collects metadata and tensors and writes them as one GGUF file.
///
/// The descriptions are kept in memory, the data wherever the caller has them, or nowhere at all
/// ([`Writer::tensor_from`]); nothing is copied before it is written.
pub struct Writer<'a> {
    version: u32,
    metadata: Vec<(String, Value)>,
    tensors: Vec<Input<'a>>,
}

struct Input<'a> {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    payload: Payload<'a>,
}

/// Writes the data of a tensor.
type Produce<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + 'a;

enum Payload<'a> {
    /// Data that are somewhere in memory.
    Bytes(Box<dyn AsRef<[u8]> + Send + 'a>),
    /// Data that are made while they are written, and their length.
    Produced(u64, Box<Produce<'a>>),
}

impl Input<'_> {
    fn length(&self) -> u64 {
        match &self.payload {
            Payload::Bytes(bytes) => (**bytes).as_ref().len() as u64,
            Payload::Produced(length, _) => *length,
        }
    }

    /// Writes the data; they must be as many bytes as [`Input::length`] says.
    fn write_to(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut counted = Counted { out, room: self.length(), found: 0 };
        let written = match &self.payload {
            Payload::Bytes(bytes) => counted.write_all((**bytes).as_ref()),
            Payload::Produced(_, produce) => produce(&mut counted),
        };
        if counted.room > 0 && written.is_ok() || counted.found > self.length() {
            return Err(self.wrong_length(self.length(), counted.found));
        }
        written.map_err(|source| Error::Write { source })
    }

    fn wrong_length(&self, expected: u64, found: u64) -> Error {
        let kind = resolve::usual(self.type_id);
        let type_name = kind.map_or("unknown", TensorType::name);
        Error::Payload { tensor: self.name.clone(), type_name, expected, found }
    }
}

/// Lets no more bytes through than there is room for.
struct Counted<'a, W> {
    out: &'a mut W,
    room: u64,
    /// Bytes written, those that were refused included.
    found: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.room {
            self.found += bytes.len() as u64;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let n = self.out.write(bytes)?;
        self.room -= n as u64;
        self.found += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Writer::new()
    }
}

impl<'a> Writer<'a> {
    /// An empty file of version 3 with an alignment of 32 bytes.
    pub fn new() -> Writer<'a> {
        Writer { version: 3, metadata: Vec::new(), tensors: Vec::new() }
    }

    /// The version of the format: 2 or 3, which differ in this number only.
    #[must_use]
    pub fn version(mut self, version: u32) -> Writer<'a> {
        self.version = version;
        self
    }

    /// Tensor data start at multiples of this many bytes, a power of two from 8 on. It is the
    /// metadata key `general.alignment`; setting that key is the same.
    #[must_use]
    pub fn alignment(self, alignment: u32) -> Writer<'a> {
        self.metadata(ALIGNMENT_KEY, alignment)
    }

    /// Adds a key and its value.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Into<Value>) -> Writer<'a> {
        self.metadata.push((key.to_owned(), value.into()));
        self
    }

    /// Adds a tensor: dimensions fastest first (`[K, M]`), the type id as in the file
    /// ([`TensorType::id`]), and the data, scales included.
    #[must_use]
    pub fn tensor(
        self,
        name: &str,
        dims: &[u64],
        type_id: u32,
        payload: impl AsRef<[u8]> + Send + 'a,
    ) -> Writer<'a> {
        self.add(name, dims, type_id, Payload::Bytes(Box::new(payload)))
    }

    /// Adds a tensor whose `length` bytes `produce` writes when the file is written, so that they
    /// are never all in memory. It may be called more than once, and has to write the same.
    #[must_use]
    pub fn tensor_from(
        self,
        name: &str,
        dims: &[u64],
        type_id: u32,
        (length, produce): (u64, impl Fn(&mut dyn Write) -> io::Result<()> + Send + 'a),
    ) -> Writer<'a> {
        self.add(name, dims, type_id, Payload::Produced(length, Box::new(produce)))
    }

    fn add(mut self, name: &str, dims: &[u64], type_id: u32, payload: Payload<'a>) -> Writer<'a> {
        let (name, dims) = (name.to_owned(), dims.to_owned());
        self.tensors.push(Input { name, dims, type_id, payload });
        self
    }

    /// Writes the file. The tensors stand in the order they were added, each padded with zeros to
    /// the alignment.
    ///
    /// # Errors
    ///
    /// Before the first byte is written, the errors that [`Gguf::open`](crate::Gguf::open) would
    /// give for the result, and [`Error::Payload`] for data that do not fit a shape; data of types 36
    /// to 39 and 42, which have several layouts, and of unknown types may have any length but zero.
    /// [`Error::Write`] when `out` fails, [`Error::Payload`] where data that are made while they
    /// are written turn out to have another length than was said.
    pub fn write_to(&self, out: &mut impl Write) -> Result<(), Error> {
        let value = self.metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY);
        // What does not stand for an alignment is refused by the check below.
        let alignment =
            value.and_then(|(_, value)| header::alignment(value)).unwrap_or(DEFAULT_ALIGNMENT);
        let (head, data_length) = self.head(alignment);
        let head = Bytes::from(head);
        let start = align(head.len() as u64, alignment);
        header::parse(NAME, &head, start.saturating_add(data_length))?;
        for tensor in &self.tensors {
            check_payload(tensor)?;
        }

        let fail = |source| Error::Write { source };
        out.write_all(&head).map_err(fail)?;
        pad(out, head.len() as u64, alignment).map_err(fail)?;
        for tensor in &self.tensors {
            tensor.write_to(out)?;
            pad(out, tensor.length(), alignment).map_err(fail)?;
        }
        Ok(())
    }

    /// The header without its padding, and the length of the padded data.
    fn head(&self, alignment: u64) -> (Vec<u8>, u64) {
        let mut head = b"GGUF".to_vec();
        put_u32(&mut head, self.version);
        put_u64(&mut head, self.tensors.len() as u64);
        put_u64(&mut head, self.metadata.len() as u64);
        for (key, value) in &self.metadata {
            put_str(&mut head, key);
            put_u32(&mut head, value.kind() as u32);
            value.encode(&mut head);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_str(&mut head, &tensor.name);
            put_u32(&mut head, tensor.dims.len() as u32);
            for &dim in &tensor.dims {
                put_u64(&mut head, dim);
            }
            put_u32(&mut head, tensor.type_id);
            put_u64(&mut head, offset);
            offset = offset.saturating_add(align(tensor.length(), alignment));
        }
        (head, offset)
    }
}

/// Holds the data of a tensor to its shape, where the id says the type. The header check before has
/// made sure that the number of elements fits in 64 bits.
fn check_payload(tensor: &Input<'_>) -> Result<(), Error> {
    let known = resolve::usual(tensor.type_id).filter(|kind| !resolve::is_shared(kind.id()));
    let Some(kind) = known else {
        return Ok(());
    };
    let found = tensor.length();
    let expected = kind.payload(&tensor.dims);
    if expected == Some(found) {
        return Ok(());
    }
    Err(tensor.wrong_length(expected.unwrap_or(0), found))
}

/// Zeros behind `length` bytes, up to the alignment.
fn pad(out: &mut impl Write, length: u64, alignment: u64) -> io::Result<()> {
    let padding = align(length, alignment) - length;
    io::copy(&mut io::Read::take(io::repeat(0), padding), out)?;
    Ok(())
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
