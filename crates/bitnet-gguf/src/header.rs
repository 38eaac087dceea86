//! The header: magic, version, counts, metadata, tensor descriptions, in this order, little endian.
//!
//! Every allocation made here is a copy of a key, a name, a short value or a dimension that was
//! just read, so it is bounded by a small multiple of the bytes walked so far; no count is trusted.

use std::collections::HashMap;

use crate::cursor::{Cursor, Part};
use crate::resolve::least_bytes;
use crate::tensor::Tensor;
use crate::value::Value;
use crate::{Bytes, Error};

/// The metadata key of the alignment, and the alignment without it.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;

/// The least bytes of a metadata entry: empty key (8), type (4), one byte of value.
const LEAST_ENTRY: u64 = 13;
/// The least bytes of a tensor description: empty name (8), number of dimensions (4), one dimension
/// (8), type (4), offset (8).
const LEAST_TENSOR: u64 = 32;

/// All that stands before the data.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) alignment: u64,
    pub(crate) entries: Vec<Entry>,
    /// Key to index in `entries`.
    pub(crate) keys: HashMap<String, usize>,
    pub(crate) tensors: Vec<Tensor>,
    /// Name to index in `tensors`.
    pub(crate) names: HashMap<String, usize>,
}

/// A metadata entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Byte position of the type and value.
    pub(crate) offset: u64,
    pub(crate) value: Value,
}

/// A tensor description before it is known where the data start.
struct Described {
    tensor: Tensor,
    /// Offset of the data from the start of all data, and the byte position it was read at.
    relative: u64,
    at: u64,
}

/// Parses and checks the header of a file of `length` bytes that starts with `bytes`. The writer
/// gives the header only, the reader the whole file.
pub(crate) fn parse(file: &str, bytes: &Bytes, length: u64) -> Result<Header, Error> {
    let mut cursor = Cursor::new(file, bytes);
    check_magic(&mut cursor)?;
    let version = read_version(&mut cursor)?;
    let tensor_count = read_count(&mut cursor, LEAST_TENSOR, "the tensors")?;
    let entry_count = read_count(&mut cursor, LEAST_ENTRY, "the metadata")?;

    let (entries, keys) = read_metadata(&mut cursor, entry_count)?;
    let alignment = match keys.get(ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some(&index) => alignment(&entries[index].value).ok_or_else(|| Error::Alignment {
            file: file.to_owned(),
            offset: entries[index].offset,
            found: entries[index].value.describe(),
        })?,
    };

    let (described, names) = read_tensors(&mut cursor, tensor_count)?;
    let start = align(cursor.offset(), alignment);
    let tensors = place(file, described, start, alignment, length)?;
    Ok(Header { version, alignment, entries, keys, tensors, names })
}

/// `offset`, or the next multiple of `alignment`. Both are far from the limits of u64: an offset is
/// at most the size of a file, an alignment fits in u32.
pub(crate) fn align(offset: u64, alignment: u64) -> u64 {
    offset.next_multiple_of(alignment)
}

/// The alignment a value of `general.alignment` stands for, if it can.
pub(crate) fn alignment(value: &Value) -> Option<u64> {
    value
        .integer::<u32>()
        .filter(|found| found.is_power_of_two() && found.is_multiple_of(8))
        .map(u64::from)
}

fn check_magic(cursor: &mut Cursor<'_>) -> Result<(), Error> {
    let found: [u8; 4] = cursor.array(Part::Header("the magic number"))?;
    let (looks_like, next) = match &found {
        b"GGUF" => return Ok(()),
        b"FUGG" => {
            ("a GGUF file of the other byte order", "download or convert the little-endian file")
        }
        b"lmgg" | b"fmgg" | b"tjgg" => (
            "a model in a format older than GGUF",
            "download the GGUF file of the model or convert it again",
        ),
        b"vers" => ("a Git LFS pointer, not the file itself", "fetch the file with `git lfs pull`"),
        b"<!DO" | b"<!do" | b"<htm" | b"{\"er" | b"Inva" | b"Entr" => {
            ("the error page of a web server", "check the address and download again")
        }
        [b'P', b'K', 3, 4] => {
            ("a PyTorch checkpoint or another zip archive", "convert the model to GGUF")
        }
        _ => ("not a GGUF file", "give the path of a .gguf file, or download it again"),
    };
    Err(Error::BadMagic {
        file: cursor.file(),
        found: found.escape_ascii().to_string(),
        looks_like,
        next,
    })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, Error> {
    let offset = cursor.offset();
    let version = cursor.u32(Part::Header("the version"))?;
    let next = match version {
        2 | 3 => return Ok(version),
        0 => "the header is damaged: download the file again",
        1 => "version 1 was in use in August 2023 only: download a newer file or convert it again",
        // A small number with its bytes reversed.
        _ if version.trailing_zeros() >= 16 => {
            let file = cursor.file();
            return Err(Error::BigEndian { file, offset });
        }
        _ => "update this program, or download the file again if it should be older",
    };
    Err(Error::Version { file: cursor.file(), offset, version, next })
}

/// A count of items that take at least `least` bytes each.
fn read_count(cursor: &mut Cursor<'_>, least: u64, what: &'static str) -> Result<u64, Error> {
    let offset = cursor.offset();
    let count = cursor.u64(Part::Header("a count of the header"))?;
    cursor.check_count(count, least, offset, Part::Header(what))?;
    Ok(count)
}

type Index = HashMap<String, usize>;

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<(Vec<Entry>, Index), Error> {
    let mut entries = Vec::new();
    let mut keys = Index::new();
    for index in 0..count as usize {
        let start = cursor.offset();
        let key = cursor.name(Part::Header("a metadata key"))?.to_owned();
        if keys.insert(key.clone(), index).is_some() {
            return Err(Error::DuplicateKey { file: cursor.file(), key, offset: start });
        }
        let offset = cursor.offset();
        let value = Value::read(cursor, &key)?;
        entries.push(Entry { key, offset, value });
    }
    Ok((entries, keys))
}

fn read_tensors(cursor: &mut Cursor<'_>, count: u64) -> Result<(Vec<Described>, Index), Error> {
    let mut described = Vec::new();
    let mut names = Index::new();
    for index in 0..count as usize {
        let offset = cursor.offset();
        let name = cursor.name(Part::Header("a tensor name"))?.to_owned();
        if names.insert(name.clone(), index).is_some() {
            return Err(Error::DuplicateTensor { file: cursor.file(), tensor: name, offset });
        }
        described.push(read_tensor(cursor, name)?);
    }
    Ok((described, names))
}

/// The description of tensor `name`, from the number of dimensions on.
fn read_tensor(cursor: &mut Cursor<'_>, name: String) -> Result<Described, Error> {
    let part = Part::Tensor(&name);
    let dims = read_dims(cursor, &name)?;
    let type_id = cursor.u32(part)?;
    let at = cursor.offset();
    let relative = cursor.u64(part)?;
    Ok(Described { tensor: Tensor { name, dims, type_id, offset: 0, room: 0 }, relative, at })
}

/// One to four dimensions, none zero, whose product fits in 64 bits.
fn read_dims(cursor: &mut Cursor<'_>, tensor: &str) -> Result<Vec<u64>, Error> {
    let part = Part::Tensor(tensor);
    let start = cursor.offset();
    let rank = cursor.u32(part)?;
    if !(1..=4).contains(&rank) {
        return Err(Error::DimCount {
            file: cursor.file(),
            tensor: tensor.to_owned(),
            offset: start,
            found: rank,
        });
    }
    let mut dims = Vec::new();
    for _ in 0..rank {
        let offset = cursor.offset();
        let dim = cursor.u64(part)?;
        if dim == 0 {
            return Err(Error::ZeroDim { file: cursor.file(), tensor: tensor.to_owned(), offset });
        }
        dims.push(dim);
    }
    let product = dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim));
    if product.is_none() {
        return Err(Error::TooManyElements {
            file: cursor.file(),
            tensor: tensor.to_owned(),
            offset: start,
            dims,
        });
    }
    Ok(dims)
}

/// Gives every tensor its place in the file: aligned, within it, and apart from the others.
fn place(
    file: &str,
    described: Vec<Described>,
    start: u64,
    alignment: u64,
    length: u64,
) -> Result<Vec<Tensor>, Error> {
    let mut tensors = Vec::with_capacity(described.len());
    for item in described {
        let Described { mut tensor, relative, at } = item;
        if relative % alignment != 0 {
            return Err(Error::Misaligned {
                file: file.to_owned(),
                tensor: tensor.name,
                offset: at,
                found: relative,
                alignment,
            });
        }
        match start.checked_add(relative).filter(|&end| end < length) {
            Some(offset) => tensor.offset = offset,
            None => {
                return Err(Error::Outside {
                    file: file.to_owned(),
                    tensor: tensor.name,
                    offset: at,
                    found: relative,
                    length,
                });
            }
        }
        tensors.push(tensor);
    }
    measure(file, &mut tensors, length)?;
    Ok(tensors)
}

/// Sets the room of every tensor, and refuses what is certain to be too small for it.
fn measure(file: &str, tensors: &mut [Tensor], length: u64) -> Result<(), Error> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| tensors[index].offset);
    for (position, &index) in order.iter().enumerate() {
        let next = order.get(position + 1).map(|&next| &tensors[next]);
        let tensor = &tensors[index];
        let room = next.map_or(length, |next| next.offset) - tensor.offset;
        let needed = least_bytes(tensor);
        if room < needed {
            return Err(match next {
                Some(next) => Error::Overlap {
                    file: file.to_owned(),
                    tensor: tensor.name.clone(),
                    offset: tensor.offset,
                    needed,
                    other: next.name.clone(),
                    room,
                },
                None => Error::Truncated {
                    file: file.to_owned(),
                    what: format!("the data of tensor {:?}", tensor.name),
                    offset: tensor.offset,
                    needed,
                    available: room,
                },
            });
        }
        tensors[index].room = room;
    }
    Ok(())
}
