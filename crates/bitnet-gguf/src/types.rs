//! Tensor types: names, ids, and how many bytes a shape takes.

use std::fmt;

/// The tensor types that can be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TensorType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// An f16 scale and 32 four-bit values: 18 bytes.
    Q4_0,
    /// 32 int8 and an f16 scale: 34 bytes.
    Q8_0,
    /// 256 four-bit values with eight six-bit scales and minima, and two f16 scales: 144 bytes.
    Q4K,
    /// 256 six-bit values with sixteen int8 scales and an f16 scale: 210 bytes.
    Q6K,
    /// 256 values from a grid, with signs, sixteen four-bit scales and an f16 scale: 82 bytes.
    Iq2S,
    /// PrismML's format of two bits: an f16 scale and 64 values, 18 bytes.
    Q2_0,
    /// Its older form under the same id: an f16 scale and 128 values, 34 bytes.
    Q2_0G128,
    /// bitnet.cpp's ternary format: 128 elements in 32 bytes over the whole tensor, then one f32
    /// scale in a tail of 32 bytes.
    I2S,
    /// BitNet-rs's ternary format under the id of I2_S: 32 elements in 8 bytes and an f16 scale.
    BitNet32F16,
    /// bitnet.cpp's ternary format for lookup tables on ARM: pairs of elements in four bits, in tiles,
    /// then one f32 scale in a tail of 32 bytes.
    Tl1,
    /// bitnet.cpp's ternary format for lookup tables on x86: triples of elements in five bits, in
    /// tiles, with space as if 256 columns were pairs, then one f32 scale in a tail of 32 bytes.
    Tl2,
    /// 256 ternary values in base 3 and an f16 scale: 54 bytes.
    Tq1_0,
    /// 256 ternary values of two bits and an f16 scale: 66 bytes.
    Tq2_0,
    /// ik_llama.cpp's ternary rows: an f16 scale, then 64 values in 13 bytes.
    Iq1Bn,
    /// ik_llama.cpp's ternary rows: an f32 scale, then 64 values in 16 bytes.
    Iq2Bn,
    /// [`TensorType::Iq2Bn`] with four rows interleaved.
    Iq2BnR4,
}

/// A row of the table of types.
pub(crate) struct Layout {
    id: u32,
    name: &'static str,
    /// Elements in a block.
    pub(crate) elements: u64,
    /// Bytes of a block.
    pub(crate) bytes: u64,
}

impl TensorType {
    pub(crate) const ALL: [TensorType; 19] = {
        use TensorType::*;
        [
            F32,
            F16,
            Bf16,
            Q4_0,
            Q8_0,
            Q4K,
            Q6K,
            Iq2S,
            Q2_0,
            Q2_0G128,
            I2S,
            BitNet32F16,
            Tl1,
            Tl2,
            Tq1_0,
            Tq2_0,
            Iq1Bn,
            Iq2Bn,
            Iq2BnR4,
        ]
    };

    pub(crate) const fn layout(self) -> Layout {
        let (id, name, elements, bytes) = match self {
            TensorType::F32 => (0, "F32", 1, 4),
            TensorType::F16 => (1, "F16", 1, 2),
            TensorType::Q4_0 => (2, "Q4_0", 32, 18),
            TensorType::Q8_0 => (8, "Q8_0", 32, 34),
            TensorType::Q4K => (12, "Q4_K", 256, 144),
            TensorType::Q6K => (14, "Q6_K", 256, 210),
            TensorType::Iq2S => (22, "IQ2_S", 256, 82),
            TensorType::Bf16 => (30, "BF16", 1, 2),
            TensorType::Tq1_0 => (34, "TQ1_0", 256, 54),
            TensorType::Tq2_0 => (35, "TQ2_0", 256, 66),
            TensorType::I2S => (36, "I2_S", 128, 32),
            TensorType::BitNet32F16 => (36, "BitNet32F16", 32, 10),
            TensorType::Tl1 => (38, "TL1", 8, 2),
            TensorType::Tl2 => (39, "TL2", 96, 20),
            TensorType::Q2_0 => (42, "Q2_0", 64, 18),
            TensorType::Q2_0G128 => (42, "Q2_0_G128", 128, 34),
            TensorType::Iq1Bn => (134, "IQ1_BN", 64, 13),
            TensorType::Iq2Bn => (135, "IQ2_BN", 64, 16),
            TensorType::Iq2BnR4 => (335, "IQ2_BN_R4", 64, 16),
        };
        Layout { id, name, elements, bytes }
    }

    /// The type of this name, as [`TensorType::name`] gives it.
    pub fn named(name: &str) -> Option<TensorType> {
        TensorType::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The id this type is written with.
    pub const fn id(self) -> u32 {
        self.layout().id
    }

    /// The public name: `F32`, `I2_S`, `TQ1_0`. Q2_0 in its older form, which shares the name, is
    /// `Q2_0_G128` here.
    pub const fn name(self) -> &'static str {
        self.layout().name
    }

    /// Elements in a block. Blocks divide rows, but for I2_S, whose blocks run over the whole
    /// tensor, and TL2, whose last columns are in other blocks.
    pub const fn block(self) -> u64 {
        self.layout().elements
    }

    /// Bytes that a tensor of these dimensions, fastest first, takes, scales included; `None` when it
    /// does not come apart into blocks or the number does not fit in 64 bits.
    pub fn payload(self, dims: &[u64]) -> Option<u64> {
        if self.misfit(dims).is_some() {
            return None;
        }
        let (row, rows) = shape(dims)?;
        let elements = row.checked_mul(rows)?;
        let Layout { elements: block, bytes, .. } = self.layout();
        let of_rows =
            |head: u64| rows.checked_mul((row / block).checked_mul(bytes)?.checked_add(head)?);
        match self {
            TensorType::I2S | TensorType::Tl1 => (elements / 4).checked_add(TAIL),
            TensorType::Tl2 => tl2(rows, row)?.checked_add(TAIL),
            TensorType::Iq1Bn => of_rows(2),
            TensorType::Iq2Bn | TensorType::Iq2BnR4 => of_rows(4),
            _ => of_rows(0),
        }
    }

    /// What a tensor of these dimensions has of which it should have a multiple, how many, and of what
    /// they should be one.
    pub(crate) fn misfit(self, dims: &[u64]) -> Option<(&'static str, u64, u64)> {
        let (row, rows) = shape(dims).unwrap_or((1, 1));
        let (row, rows) = (("elements per row", row), ("rows", rows));
        let all = ("elements", row.1.saturating_mul(rows.1));
        let multiples = match self {
            TensorType::I2S => [(all, self.block()), (rows, 1)],
            TensorType::Tl1 | TensorType::Tl2 => [(row, 8), (rows, 32)],
            TensorType::Iq2BnR4 => [(row, self.block()), (rows, 4)],
            _ => [(row, self.block()), (rows, 1)],
        };
        let wrong = multiples.into_iter().find(|((_, n), of)| !n.is_multiple_of(*of))?;
        let ((counted, length), multiple) = wrong;
        Some((counted, length, multiple))
    }
}

/// Bytes behind the codes of I2_S, TL1 and TL2.
const TAIL: u64 = 32;

/// Elements per row, and rows.
fn shape(dims: &[u64]) -> Option<(u64, u64)> {
    let (&row, rest) = dims.split_first()?;
    Some((row, rest.iter().try_fold(1u64, |rows, &dim| rows.checked_mul(dim))?))
}

/// Bytes of the codes of TL2, as bitnet.cpp reserves them, up to a multiple of 32. With fewer columns
/// than 256 the first part is negative.
fn tl2(rows: u64, cols: u64) -> Option<u64> {
    // The elements fit in 64 bits, so that nothing here overflows.
    let (rows, cols) = (i128::from(rows), i128::from(cols));
    let bytes = (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8;
    u64::try_from((bytes + 31) / 32 * 32).ok()
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
