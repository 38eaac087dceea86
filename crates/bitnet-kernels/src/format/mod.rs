//! Weight formats: how a matrix is laid out in bytes.
//!
//! A matrix is `[rows, cols]` (rows = output features), row-major. Ternary formats hold codes
//! `t + 1` with `t` in `{-1, 0, 1}` and one scale `d` for the whole matrix: the weight is `d * t`.
//! [`encode`] and [`decode`] are the plain definition of each layout. Kernels read the formats of
//! floating-point matrices as they are in the file; ternary ones are [packed](crate::packed) first.

use std::fmt;

use crate::simd::Floats;

mod bitnet32_f16;
mod encoding;
mod error;
mod float;
mod hf_packed;
mod i2_s;
mod iq1_bn;
mod iq2_bn;
mod iq2_bn_r4;
mod iq2_s;
mod iq2_s_grid;
mod narrow;
mod q2_0;
mod q4_0;
mod q4_k;
mod q6_k;
mod q8_0;
mod tiling;
mod tl1;
mod tl2;
mod tq1_0;
mod tq2_0;

pub(crate) use self::encoding::decode_rows;
pub use self::encoding::{Encoding, check, decode, encode, payload};
pub use self::error::FormatError;
pub(crate) use self::float::{Bf16, F16, F32};
pub(crate) use self::i2_s::blocks as i2_s_blocks;
pub(crate) use self::iq2_s::Iq2S;
pub use self::iq2_s::encode_iq2_s;
pub(crate) use self::iq2_s_grid::GRID as IQ2_S_GRID;
pub use self::narrow::narrow;
pub(crate) use self::q2_0::Q2_0;
pub(crate) use self::q4_0::Q4_0;
pub(crate) use self::q4_k::Q4K;
pub(crate) use self::q6_k::Q6K;
pub(crate) use self::q8_0::Q8_0;
pub use self::tiling::Tiling;

/// The widest rows: their sums of codes times activations cannot overflow 32 bits.
pub const MOST_COLS: usize = 1 << 22;

/// A weight format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// bitnet.cpp I2_S: blocks of 128 codes in 32 bytes, one `f32` scale behind the matrix. Blocks run
    /// over the ends of rows.
    I2S,
    /// I2_S as builds of bitnet.cpp for ARM write it: blocks of 64 codes in 16 bytes. Nothing in a file
    /// tells it from I2_S.
    I2SArm,
    /// I2_S as builds of bitnet.cpp without `ACT_PARALLEL` write it: the codes of four rows to a byte.
    /// Nothing in a file tells it from I2_S.
    I2SR4,
    /// ggml TQ1_0: blocks of 256 codes, five to a byte, and an `f16` scale.
    Tq1_0,
    /// ggml TQ2_0: blocks of 256 codes, four to a byte, and an `f16` scale.
    Tq2_0,
    /// The layout that ternary kernels read: I2_S with the four bytes of 32 rows interleaved, see
    /// [`packed`](crate::packed). Not a format of files.
    I2SR32,
    /// The denser layout that ternary kernels read: the three weights of TL2 in a nibble and a sign,
    /// interleaved likewise. Not a format of files.
    Tl2R32,
    /// bitnet.cpp TL1: pairs of codes in 4 bits, tiled, one `f32` scale behind the matrix.
    Tl1,
    /// bitnet.cpp TL2: triples of codes in 5 bits, tiled, one `f32` scale behind the matrix.
    Tl2,
    /// ik_llama.cpp IQ1_BN: rows of an `f16` scale and blocks of 64 codes in 13 bytes.
    Iq1Bn,
    /// ik_llama.cpp IQ2_BN: rows of an `f32` scale and blocks of 64 codes in 16 bytes.
    Iq2Bn,
    /// ik_llama.cpp IQ2_BN_R4: IQ2_BN with the blocks of four rows interleaved.
    Iq2BnR4,
    /// BitNet-rs: blocks of 32 codes in 8 bytes and an `f16` scale.
    BitNet32F16,
    /// Bytes of checkpoints of Hugging Face: the codes of four rows to a byte, a quarter of the matrix
    /// apart. The scale is elsewhere: here it is 1, see [`Packed::scaled`](crate::Packed::scaled).
    HfPacked,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// ggml Q8_0: blocks of 32 signed bytes and an `f16` scale.
    Q8_0,
    /// ggml Q6_K: blocks of 256 6-bit numbers, sixteen 8-bit scales and an `f16` scale.
    Q6K,
    /// ggml IQ2_S: blocks of 256 numbers from a grid of 1024 times eight magnitudes, with signs,
    /// 4-bit scales and an `f16` scale.
    Iq2S,
    /// ggml Q4_0: blocks of 32 numbers of 4 bits and an `f16` scale.
    Q4_0,
    /// ggml Q4_K: blocks of 256 numbers of 4 bits, eight 6-bit scales and minima, and `f16` scales of
    /// both.
    Q4K,
    /// PrismML Q2_0: blocks of 64 numbers -1, 0, 1 and 2 and an `f16` scale.
    Q2_0,
    /// PrismML Q2_0 as it was once: blocks of 128 numbers.
    Q2_0G128,
}

impl Format {
    /// The ternary formats of files.
    pub const TERNARY: [Format; 12] = [
        Format::I2S,
        Format::Tq1_0,
        Format::Tq2_0,
        Format::Tl1,
        Format::Tl2,
        Format::Iq1Bn,
        Format::Iq2Bn,
        Format::Iq2BnR4,
        Format::BitNet32F16,
        Format::HfPacked,
        Format::I2SArm,
        Format::I2SR4,
    ];
    /// The layouts of [packed](crate::packed) matrices.
    pub const PACKED: [Format; 2] = [Format::I2SR32, Format::Tl2R32];
    /// The formats of other matrices: embeddings, the head.
    pub const FLOAT: [Format; 10] = [
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::Q8_0,
        Format::Q6K,
        Format::Iq2S,
        Format::Q4_0,
        Format::Q4K,
        Format::Q2_0,
        Format::Q2_0G128,
    ];

    /// Its names, and the weights and bytes of a block.
    const fn facts(self) -> (&'static str, &'static str, (usize, usize)) {
        match self {
            Format::I2S => ("i2s", "I2_S", (128, 32)),
            Format::I2SArm => ("i2s_arm", "I2_S_ARM", (64, 16)),
            Format::I2SR4 => ("i2s_r4", "I2_S_R4", (4, 1)),
            Format::Tq1_0 => ("tq1_0", "TQ1_0", (256, 54)),
            Format::Tq2_0 => ("tq2_0", "TQ2_0", (256, 66)),
            Format::I2SR32 => ("i2s_r32", "I2_S_R32", (128, 32)),
            Format::Tl2R32 => ("tl2_r32", "TL2_R32", (96, 20)),
            Format::Tl1 => ("tl1", "TL1", (8, 2)),
            Format::Tl2 => ("tl2", "TL2", (96, 20)),
            Format::Iq1Bn => ("iq1_bn", "IQ1_BN", (64, 13)),
            Format::Iq2Bn => ("iq2_bn", "IQ2_BN", (64, 16)),
            Format::Iq2BnR4 => ("iq2_bn_r4", "IQ2_BN_R4", (64, 16)),
            Format::BitNet32F16 => ("bitnet32_f16", "BitNet32F16", (32, 10)),
            Format::HfPacked => ("hf_packed", "HF_PACKED", (4, 1)),
            Format::F32 => ("f32", "F32", (16, 64)),
            Format::F16 => ("f16", "F16", (16, 32)),
            Format::Bf16 => ("bf16", "BF16", (16, 32)),
            Format::Q8_0 => ("q8_0", "Q8_0", (32, 34)),
            Format::Q6K => ("q6_k", "Q6_K", (256, 210)),
            Format::Iq2S => ("iq2_s", "IQ2_S", (256, 82)),
            Format::Q4_0 => ("q4_0", "Q4_0", (32, 18)),
            Format::Q4K => ("q4_k", "Q4_K", (256, 144)),
            Format::Q2_0 => ("q2_0", "Q2_0", (64, 18)),
            Format::Q2_0G128 => ("q2_0_g128", "Q2_0_G128", (128, 34)),
        }
    }

    /// The name used in kernel ids.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The name that ggml and other tools give the format; of those that have none, one like it.
    #[must_use]
    pub const fn ggml_name(self) -> &'static str {
        self.facts().1
    }

    /// Weights and bytes of the smallest piece of a row, or of rows that are interleaved: a block, or
    /// sixteen numbers of the formats that have none. What a row or a matrix has besides is not counted.
    #[must_use]
    pub const fn block(self) -> (usize, usize) {
        self.facts().2
    }

    /// What the columns, the rows and the weights in all of a matrix must be multiples of. The tiles
    /// of TL1 and TL2 ask for more.
    #[must_use]
    pub const fn multiples(self) -> [usize; 3] {
        match self {
            Format::I2S | Format::I2SArm => [1, 1, self.block().0],
            Format::I2SR4 | Format::HfPacked => [1, 4, 1],
            Format::Iq2BnR4 => [64, 4, 1],
            Format::Tl1 | Format::Tl2 => [8, 32, 1],
            _ => [self.block().0, 1, 1],
        }
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    ///
    /// [`FormatError::Columns`] where the format has no rows of `cols` weights with bytes of their own,
    /// [`FormatError::Width`] where it is more than [`MOST_COLS`], [`FormatError::Interleaved`] for
    /// formats in which no row has.
    pub fn row_bytes(self, cols: usize) -> Result<usize, FormatError> {
        self.check_cols(cols, self.multiples()[0])?;
        let (weights, bytes) = self.block();
        let head = match self {
            Format::Tl1 | Format::Tl2 | Format::Iq2BnR4 | Format::I2SR4 | Format::HfPacked => {
                return Err(FormatError::Interleaved { format: self });
            }
            Format::Iq1Bn => iq1_bn::HEAD,
            Format::Iq2Bn => iq2_bn::HEAD,
            _ => 0,
        };
        self.check_cols(cols, weights)?;
        Ok(head + cols / weights * bytes)
    }

    /// Whether a matrix `[rows, cols]` can be in this format; of TL1 and TL2, whether one can with some
    /// tiles.
    ///
    /// # Errors
    ///
    /// [`FormatError::Columns`], [`FormatError::Rows`] or [`FormatError::Elements`] where it has to be a
    /// multiple of something, [`FormatError::Width`] where rows are too wide.
    pub fn check_shape(self, rows: usize, cols: usize) -> Result<(), FormatError> {
        let [columns, down, all] = self.multiples();
        self.check_cols(cols, columns)?;
        if !rows.is_multiple_of(down) {
            return Err(FormatError::Rows { format: self, rows, multiple: down });
        }
        // The product itself may be too great to count.
        if !((rows % all) * (cols % all)).is_multiple_of(all) {
            return Err(FormatError::Elements { format: self, rows, cols, multiple: all });
        }
        Ok(())
    }

    fn check_cols(self, cols: usize, multiple: usize) -> Result<(), FormatError> {
        if cols == 0 || !cols.is_multiple_of(multiple) {
            return Err(FormatError::Columns { format: self, cols, multiple });
        }
        if cols > MOST_COLS {
            return Err(FormatError::Width { cols });
        }
        Ok(())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A row of a matrix of one of [`Format::FLOAT`], widened to `f32`, into `out`.
///
/// # Panics
///
/// If `format` is a ternary one, or `row` is not a row of as many numbers as `out` has.
pub fn widen(format: Format, row: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => widen_row::<F32>(row, out),
        Format::F16 => widen_row::<F16>(row, out),
        Format::Bf16 => widen_row::<Bf16>(row, out),
        Format::Q8_0 => widen_row::<Q8_0>(row, out),
        Format::Q6K => widen_row::<Q6K>(row, out),
        Format::Iq2S => widen_row::<Iq2S>(row, out),
        Format::Q4_0 => widen_row::<Q4_0>(row, out),
        Format::Q4K => widen_row::<Q4K>(row, out),
        Format::Q2_0 => widen_row::<Q2_0<4>>(row, out),
        Format::Q2_0G128 => widen_row::<Q2_0<8>>(row, out),
        _ => panic!("{format} is a ternary format"),
    }
}

fn widen_row<F: Float>(row: &[u8], out: &mut [f32]) {
    let (out, rest) = out.as_chunks_mut::<16>();
    assert!(rest.is_empty() && out.len() * F::BYTES == row.len() * F::CHUNKS, "row length");
    for (i, out) in out.iter_mut().enumerate() {
        *out = F::load(crate::simd::scalar::Scalar, row, i);
    }
}

/// A format of floating-point numbers, as kernels read it.
pub(crate) trait Float: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Chunks of sixteen numbers in a block.
    const CHUNKS: usize;

    /// Numbers `16 i .. 16 i + 16` of a row.
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F;
}

/// The one scale of a ternary matrix that stores several.
///
/// Writers give a block without weights the scale 0: it agrees with any, if the block holds nothing
/// but zeros.
#[derive(Default)]
struct OneScale(Option<f32>);

impl OneScale {
    /// The scale of the next block.
    fn see(
        &mut self,
        value: f32,
        offset: usize,
        empty: impl FnOnce() -> bool,
    ) -> Result<(), FormatError> {
        if !value.is_finite() {
            return Err(FormatError::Scale { offset, value });
        }
        if value == 0.0 && empty() {
            return Ok(());
        }
        let first = *self.0.get_or_insert(value);
        match first == value {
            true => Ok(()),
            false => Err(FormatError::Scales { offset, first, second: value }),
        }
    }

    fn get(self) -> f32 {
        self.0.unwrap_or(0.0)
    }
}

/// The one scale of a matrix whose blocks of `N` bytes end in an `f16` scale each.
fn block_scale<const N: usize>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Vec<i8>,
) -> Result<f32, FormatError> {
    let mut one = OneScale::default();
    for (i, block) in bytes.as_chunks::<N>().0.iter().enumerate() {
        let value = half::f16::from_le_bytes([block[N - 2], block[N - 1]]).to_f32();
        one.see(value, (i + 1) * N - 2, || decode(block).iter().all(|&t| t == 0))?;
    }
    Ok(one.get())
}

/// The weights of a 2-bit code `t + 1` of each byte, the one that starts at bit `shift`.
#[inline(always)]
fn crumbs(bytes: &[u8], shift: usize) -> impl Iterator<Item = i8> {
    bytes.iter().map(move |byte| ((byte >> shift) & 3).cast_signed() - 1)
}

/// The first byte that holds a 2-bit code 3.
#[inline]
fn invalid_crumb(bytes: &[u8]) -> Option<usize> {
    first(bytes, |b| b & (b >> 1) & 0x55 != 0)
}

/// The first of some bytes or weights that is `bad`.
#[inline(always)]
fn first<T: Copy>(all: &[T], bad: impl Fn(T) -> bool + Copy) -> Option<usize> {
    // Without an early exit the inner loop is vectorised: whole matrices are checked at load.
    let dirty = |chunk: &[T]| chunk.iter().fold(false, |seen, &x| seen | bad(x));
    let chunk = 4096;
    let at = all.chunks(chunk).position(dirty)? * chunk;
    all[at..].iter().position(|&x| bad(x)).map(|i| at + i)
}
