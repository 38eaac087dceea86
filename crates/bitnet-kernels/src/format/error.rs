//! What can be wrong with the bytes of a matrix.

use std::fmt;

use super::{Format, MOST_COLS, Tiling};

/// Bytes that are no matrix of the format they are said to be. Offsets are within the matrix.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FormatError {
    /// The number of columns does not suit the format.
    Columns {
        /// The format.
        format: Format,
        /// Columns of the matrix.
        cols: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// The number of rows does not suit the format.
    Rows {
        /// The format.
        format: Format,
        /// Rows of the matrix.
        rows: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// The number of weights does not suit the format.
    Elements {
        /// The format.
        format: Format,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// What their product must be a multiple of.
        multiple: usize,
    },
    /// No columns, or more than [`MOST_COLS`].
    Width {
        /// Columns of the matrix.
        cols: usize,
    },
    /// More or fewer bytes than the shape needs.
    Length {
        /// The format.
        format: Format,
        /// Bytes the shape needs.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A 2-bit code that stands for no weight.
    Code {
        /// The byte that holds it.
        offset: usize,
    },
    /// A number that stands for no weights, in TL1 or TL2.
    Index {
        /// The byte that holds it.
        offset: usize,
        /// The byte: two of them.
        value: u8,
    },
    /// A byte behind the codes that should be zero.
    Padding {
        /// Where it is.
        offset: usize,
        /// What it is.
        value: u8,
    },
    /// A matrix that does not come apart into tiles.
    Tiling {
        /// The format.
        format: Format,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// The tiles.
        tiling: Tiling,
    },
    /// Bytes of a row were asked for, of a format that interleaves rows.
    Interleaved {
        /// The format.
        format: Format,
    },
    /// A scale that is not a finite number.
    Scale {
        /// Where it is.
        offset: usize,
        /// What it is.
        value: f32,
    },
    /// Blocks of a ternary matrix with different scales: the kernels know one scale a matrix.
    Scales {
        /// Where the second scale is.
        offset: usize,
        /// The scale of the blocks before.
        first: f32,
        /// The scale that differs.
        second: f32,
    },
    /// The system has no memory for the matrix in the layout that kernels read.
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// More or fewer weights to encode than the shape has.
    Weights {
        /// Weights of the shape.
        expected: usize,
        /// Weights there are.
        found: usize,
    },
    /// A scale to encode that is not finite, or out of the range of the format.
    Unscalable {
        /// The format.
        format: Format,
        /// The scale.
        value: f32,
    },
    /// A number to encode that is not finite, or out of the range of the format.
    Number {
        /// Its index.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A weight to encode that is not -1, 0 or 1.
    Weight {
        /// Its index in the row-major matrix.
        index: usize,
        /// What it is.
        value: i8,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Columns { format, cols, multiple } => {
                write!(f, "{cols} columns are not a multiple of {multiple}, as {format} needs")
            }
            FormatError::Rows { format, rows, multiple } => {
                write!(f, "{rows} rows are not a multiple of {multiple}, as {format} needs")
            }
            FormatError::Elements { format, rows, cols, multiple } => write!(
                f,
                "{rows} x {cols} weights are not a multiple of {multiple}, as {format} needs"
            ),
            FormatError::Width { cols } => {
                write!(f, "{cols} columns; from 1 to {MOST_COLS} are supported")
            }
            FormatError::Length { format, expected, found } => {
                write!(f, "{found} bytes; the shape needs {expected} in {format}")
            }
            FormatError::Code { offset } => {
                write!(
                    f,
                    "byte {offset} holds a 2-bit code that is no ternary weight: the file is \
                     damaged, or was written with another layout"
                )
            }
            FormatError::Index { offset, value } => write!(
                f,
                "byte {offset}, {value:#04x}, stands for no weights: the file is damaged, or was \
                 written with another tiling"
            ),
            FormatError::Padding { offset, value } => write!(
                f,
                "byte {offset} behind the codes is {value:#04x}, not zero: the file is damaged, or \
                 was written with another tiling"
            ),
            FormatError::Tiling { format, rows, cols, tiling } => write!(
                f,
                "a {rows} x {cols} matrix in {format} does not come apart into tiles of {} x {} \
                 with strips of {}",
                tiling.rows, tiling.cols, tiling.strip
            ),
            FormatError::Interleaved { format } => {
                write!(f, "rows in {format} are interleaved: none has bytes of its own")
            }
            FormatError::Scale { offset, value } => {
                write!(
                    f,
                    "scale {value} at byte {offset} is not a finite number: the file is damaged"
                )
            }
            FormatError::Scales { offset, first, second } => write!(
                f,
                "block scale {second} at byte {offset} differs from {first} before it: only one \
                 scale a matrix is supported, as ternary training gives it"
            ),
            FormatError::Memory { bytes } => {
                write!(f, "no memory for its {bytes} bytes: close other programs")
            }
            FormatError::Weights { expected, found } => {
                write!(f, "{found} weights; the shape has {expected}")
            }
            FormatError::Unscalable { format, value } => {
                write!(f, "scale {value} is not finite or out of range for {format}")
            }
            FormatError::Number { index, value } => {
                write!(f, "number {value} at index {index} is not finite or out of range")
            }
            FormatError::Weight { index, value } => {
                write!(f, "weight {value} at index {index} is not ternary")
            }
        }
    }
}

impl std::error::Error for FormatError {}
