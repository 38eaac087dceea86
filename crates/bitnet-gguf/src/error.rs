//! What can be wrong with a GGUF file: found what, where, and what to do next.

use std::io;

/// Why a file cannot be opened, read or written.
///
/// Every message names the file; `offset` is a byte position in it. Names that come from the file
/// are quoted and escaped, so a message is safe to print.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, map or inspect the file.
    #[error("{file}: cannot be read: {source}; check the path and the permissions")]
    Io {
        /// Path of the file.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The path is a directory, a pipe or a device.
    #[error("{file}: is not a regular file; give the path of a .gguf file")]
    NotAFile {
        /// The path.
        file: String,
    },
    /// Writing the bytes of a GGUF failed.
    #[error("the GGUF cannot be written: {source}; check the free space and the permissions")]
    Write {
        /// What the operating system said.
        source: io::Error,
    },
    /// A tensor handed to the writer has not the size its type and shape ask for.
    #[error(
        "the GGUF cannot be written: tensor {tensor:?} has {found} bytes of data, its {type_name} \
         elements take {expected}; pass the data that belongs to the shape"
    )]
    Payload {
        /// Name of the tensor.
        tensor: String,
        /// Name of its type.
        type_name: &'static str,
        /// Bytes its shape asks for.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// The first four bytes are not `GGUF`.
    #[error(
        "{file}: found {found:?} at byte 0 where a GGUF file has \"GGUF\": this is {looks_like}; \
         {next}"
    )]
    BadMagic {
        /// Path or name of the file.
        file: String,
        /// The bytes found, escaped.
        found: String,
        /// What such bytes usually are.
        looks_like: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// The file is written in big-endian byte order.
    #[error(
        "{file}: found version bytes of a big-endian GGUF file at byte {offset}; download or \
         convert the little-endian file"
    )]
    BigEndian {
        /// Path or name of the file.
        file: String,
        /// Byte position of the version.
        offset: u64,
    },
    /// The version of the format is neither 2 nor 3.
    #[error(
        "{file}: found GGUF version {version} at byte {offset}, versions 2 and 3 can be read; \
         {next}"
    )]
    Version {
        /// Path or name of the file.
        file: String,
        /// Byte position of the version.
        offset: u64,
        /// The version found.
        version: u32,
        /// What to do.
        next: &'static str,
    },
    /// The file ends before something that should be in it.
    #[error(
        "{file}: {what} at byte {offset} takes {needed} bytes and {available} are left: the file \
         is cut off or its header is damaged; download it again"
    )]
    Truncated {
        /// Path or name of the file.
        file: String,
        /// What was being read.
        what: String,
        /// Where it starts.
        offset: u64,
        /// Bytes it takes.
        needed: u64,
        /// Bytes left in the file.
        available: u64,
    },
    /// A count says there are more items than the rest of the file can hold.
    #[error(
        "{file}: found a count of {count} in {what} at byte {offset}, more than the {available} \
         bytes that are left can hold: the file is cut off or its header is damaged; download it \
         again"
    )]
    Count {
        /// Path or name of the file.
        file: String,
        /// What is counted.
        what: String,
        /// Byte position of the count.
        offset: u64,
        /// The count found.
        count: u64,
        /// Bytes left after the count.
        available: u64,
    },
    /// A metadata key or a tensor name is longer than the format allows.
    #[error(
        "{file}: found a length of {length} in {what} at byte {offset}, the format allows {limit}: \
         the header is damaged; download the file again"
    )]
    NameLength {
        /// Path or name of the file.
        file: String,
        /// What was being read.
        what: String,
        /// Byte position of the length.
        offset: u64,
        /// The length found, in bytes.
        length: u64,
        /// The longest allowed, in bytes.
        limit: u64,
    },
    /// A string is not UTF-8.
    #[error(
        "{file}: {what} is not UTF-8 at byte {offset}: the header is damaged; download the file \
         again"
    )]
    NotUtf8 {
        /// Path or name of the file.
        file: String,
        /// What was being read.
        what: String,
        /// Byte position of the first bad byte.
        offset: u64,
    },
    /// A metadata value has a type the format does not know.
    #[error(
        "{file}: found type {id} of key {key:?} at byte {offset}, the format has 0 to 12: the \
         header is damaged; download the file again"
    )]
    ValueType {
        /// Path or name of the file.
        file: String,
        /// The metadata key.
        key: String,
        /// Byte position of the type.
        offset: u64,
        /// The type found.
        id: u32,
    },
    /// A boolean metadata value is neither 0 nor 1.
    #[error(
        "{file}: found {found} as a boolean of key {key:?} at byte {offset}, it can be 0 or 1: the \
         header is damaged; download the file again"
    )]
    Bool {
        /// Path or name of the file.
        file: String,
        /// The metadata key.
        key: String,
        /// Byte position of the boolean.
        offset: u64,
        /// The byte found.
        found: u8,
    },
    /// Arrays are nested deeper than this crate follows.
    #[error(
        "{file}: found arrays nested more than {limit} deep in key {key:?} at byte {offset}; \
         remove the key or flatten it"
    )]
    Depth {
        /// Path or name of the file.
        file: String,
        /// The metadata key.
        key: String,
        /// Byte position of the array that is too deep.
        offset: u64,
        /// The deepest nesting read.
        limit: u32,
    },
    /// Two metadata entries have the same key.
    #[error("{file}: found key {key:?} a second time at byte {offset}; convert the model again")]
    DuplicateKey {
        /// Path or name of the file.
        file: String,
        /// The metadata key.
        key: String,
        /// Byte position of the second one.
        offset: u64,
    },
    /// `general.alignment` is not a power of two and a multiple of 8.
    #[error(
        "{file}: found {found} as general.alignment at byte {offset}, it must be a power of two \
         and a multiple of 8; convert the model again"
    )]
    Alignment {
        /// Path or name of the file.
        file: String,
        /// Byte position of the value.
        offset: u64,
        /// Type and value found.
        found: String,
    },
    /// A metadata key is missing.
    #[error(
        "{file}: has no metadata key {key:?}; use a file that has it, or convert the model again"
    )]
    MissingKey {
        /// Path or name of the file.
        file: String,
        /// The metadata key.
        key: String,
    },
    /// A metadata value is of another type than the one asked for, or out of its range.
    #[error(
        "{file}: found {found} in key {key:?} at byte {offset} where {expected} is needed; convert \
         the model again"
    )]
    WrongType {
        /// Path or name of the file.
        file: String,
        /// The metadata key.
        key: String,
        /// Byte position of the value.
        offset: u64,
        /// The type asked for.
        expected: &'static str,
        /// Type and value found.
        found: String,
    },
    /// A tensor has no dimensions or more than four.
    #[error(
        "{file}: found {found} dimensions of tensor {tensor:?} at byte {offset}, there can be 1 to \
         4: the header is damaged; download the file again"
    )]
    DimCount {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of the number.
        offset: u64,
        /// The number found.
        found: u32,
    },
    /// A dimension of a tensor is zero.
    #[error(
        "{file}: found a dimension of 0 in tensor {tensor:?} at byte {offset}: the header is \
         damaged or the conversion was wrong; download the file again or convert the model again"
    )]
    ZeroDim {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of the dimension.
        offset: u64,
    },
    /// The product of a tensor's dimensions does not fit in 64 bits.
    #[error(
        "{file}: found dimensions {dims:?} of tensor {tensor:?} at byte {offset}, more elements \
         than can be counted: the header is damaged; download the file again"
    )]
    TooManyElements {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of the dimensions.
        offset: u64,
        /// The dimensions found.
        dims: Vec<u64>,
    },
    /// Two tensors have the same name.
    #[error(
        "{file}: found tensor {tensor:?} a second time at byte {offset}; convert the model again"
    )]
    DuplicateTensor {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of the second description.
        offset: u64,
    },
    /// The data of a tensor does not start at a multiple of the alignment.
    #[error(
        "{file}: found data offset {found} of tensor {tensor:?} at byte {offset}, not a multiple \
         of the alignment {alignment}: the header is damaged or the conversion was wrong; download \
         the file again or convert the model again"
    )]
    Misaligned {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of the offset in the header.
        offset: u64,
        /// The offset found, counted from the start of the data.
        found: u64,
        /// The alignment of the file in bytes.
        alignment: u64,
    },
    /// The data of a tensor starts behind the end of the file.
    #[error(
        "{file}: found data offset {found} of tensor {tensor:?} at byte {offset}, behind the end \
         of the file, which has {length} bytes: it is cut off or its header is damaged; download \
         it again"
    )]
    Outside {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of the offset in the header.
        offset: u64,
        /// The offset found, counted from the start of the data.
        found: u64,
        /// Length of the file in bytes.
        length: u64,
    },
    /// The data of two tensors overlap.
    #[error(
        "{file}: tensor {tensor:?} at byte {offset} takes at least {needed} bytes, but tensor \
         {other:?} starts {room} bytes behind it: the header is damaged; download the file again"
    )]
    Overlap {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor that starts first.
        tensor: String,
        /// Byte position of its data.
        offset: u64,
        /// Bytes its type and shape take at least.
        needed: u64,
        /// Name of the tensor that starts too early.
        other: String,
        /// Bytes between the two starts.
        room: u64,
    },
    /// The type of a tensor cannot be read.
    #[error(
        "{file}: tensor {tensor:?} at byte {offset} has type {id} ({name}), which cannot be read; \
         {next}"
    )]
    UnsupportedType {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of its data.
        offset: u64,
        /// Type id found in the file.
        id: u32,
        /// Names the id is known by.
        name: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// The type id of a tensor has several meanings, and by architecture and size it is none that can
    /// be read.
    #[error(
        "{file}: tensor {tensor:?} at byte {offset} has type {id} and {found} bytes in a file of \
         architecture {architecture:?}; with its shape that type takes {sizes}; {next}"
    )]
    SharedType {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of its data.
        offset: u64,
        /// Type id found in the file.
        id: u32,
        /// Architecture of the file.
        architecture: Box<str>,
        /// Bytes to the next tensor or to the end of the file.
        found: u64,
        /// All layouts of the id and the bytes they take, and which are found.
        sizes: Box<str>,
        /// What to do.
        next: &'static str,
    },
    /// The elements of a tensor do not divide into blocks of its type.
    #[error(
        "{file}: tensor {tensor:?} at byte {offset} has {length} {counted}, {type_name} needs a \
         multiple of {block}; convert the model again with a type that fits, such as F16"
    )]
    Block {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of its data.
        offset: u64,
        /// Name of the type.
        type_name: &'static str,
        /// What is counted: elements per row, or rows.
        counted: &'static str,
        /// Number of elements found.
        length: u64,
        /// Elements in a block.
        block: u64,
    },
    /// The bytes a tensor has in the file do not fit its type and shape.
    #[error(
        "{file}: tensor {tensor:?} at byte {offset} has {found} bytes in the file, its {type_name} \
         elements take {expected}: another format under the same type id, or bytes that do not \
         belong there; convert the model again"
    )]
    Size {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of its data.
        offset: u64,
        /// Name of the type.
        type_name: &'static str,
        /// Bytes the shape asks for.
        expected: u64,
        /// Bytes to the next tensor or to the end of the file.
        found: u64,
    },
    /// The tensor asked for does not lie within this file: it was taken from another one.
    #[error(
        "{file}: has {length} bytes and no tensor {tensor:?} at byte {offset}; ask the file that \
         the tensor was taken from"
    )]
    ForeignTensor {
        /// Path or name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Byte position of its data.
        offset: u64,
        /// Length of the file in bytes.
        length: u64,
    },
}
