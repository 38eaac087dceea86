//! Tensor types: names, block and byte sizes, and what a type id means in a given file.
//!
//! Ids are not unique: bitnet.cpp's I2_S took 36, which was IQ4_NL_4_4 in llama.cpp, its TL2 took
//! 39, which is MXFP4 there, and forks write other layouts under 36. So an id is a hint, and the
//! architecture and the size of the data decide.

use std::fmt;

use crate::Error;
use crate::tensor::Tensor;

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
    /// 32 int8 and an f16 scale: 34 bytes.
    Q8_0,
    /// 256 six-bit values with sixteen int8 scales and an f16 scale: 210 bytes.
    Q6K,
    /// bitnet.cpp's ternary format: 128 elements in 32 bytes over the whole tensor, then one f32
    /// scale in a tail of 32 bytes.
    I2S,
    /// 256 ternary values in base 3 and an f16 scale: 54 bytes.
    Tq1_0,
    /// 256 ternary values of two bits and an f16 scale: 66 bytes.
    Tq2_0,
}

/// A row of the table of types.
struct Layout {
    id: u32,
    name: &'static str,
    /// Elements in a block.
    elements: u64,
    /// Bytes of a block.
    bytes: u64,
    /// Bytes after the last block.
    tail: u64,
}

impl TensorType {
    const ALL: [TensorType; 8] = {
        use TensorType::*;
        [F32, F16, Bf16, Q8_0, Q6K, I2S, Tq1_0, Tq2_0]
    };

    const fn layout(self) -> Layout {
        let (id, name, elements, bytes, tail) = match self {
            TensorType::F32 => (0, "F32", 1, 4, 0),
            TensorType::F16 => (1, "F16", 1, 2, 0),
            TensorType::Q8_0 => (8, "Q8_0", 32, 34, 0),
            TensorType::Q6K => (14, "Q6_K", 256, 210, 0),
            TensorType::Bf16 => (30, "BF16", 1, 2, 0),
            TensorType::Tq1_0 => (34, "TQ1_0", 256, 54, 0),
            TensorType::Tq2_0 => (35, "TQ2_0", 256, 66, 0),
            TensorType::I2S => (36, "I2_S", 128, 32, 32),
        };
        Layout { id, name, elements, bytes, tail }
    }

    /// The type of this name, as [`TensorType::name`] gives it.
    pub fn named(name: &str) -> Option<TensorType> {
        TensorType::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The type an id stands for in most files. Only [`resolve`] knows what it is in this one.
    pub(crate) fn usual(id: u32) -> Option<TensorType> {
        TensorType::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// The type an id stands for in every file; `None` when it is not known or has several
    /// meanings.
    pub(crate) fn unambiguous(id: u32) -> Option<TensorType> {
        TensorType::usual(id).filter(|&kind| kind != TensorType::I2S)
    }

    /// The id this type is written with.
    pub const fn id(self) -> u32 {
        self.layout().id
    }

    /// The public name: `F32`, `I2_S`, `TQ1_0`.
    pub const fn name(self) -> &'static str {
        self.layout().name
    }

    /// Elements in a block. Blocks divide rows, but for I2_S, whose blocks run over the whole
    /// tensor.
    pub const fn block(self) -> u64 {
        self.layout().elements
    }

    /// Bytes that `elements` elements take, scales included; `None` when they are not whole blocks
    /// or the number does not fit in 64 bits.
    pub const fn payload(self, elements: u64) -> Option<u64> {
        let layout = self.layout();
        if !elements.is_multiple_of(layout.elements) {
            return None;
        }
        match (elements / layout.elements).checked_mul(layout.bytes) {
            Some(blocks) => blocks.checked_add(layout.tail),
            None => None,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The bytes that `elements` elements of type `id` take in every reading of the id, or 1.
pub(crate) fn least_bytes(id: u32, elements: u64) -> u64 {
    let Some(kind) = TensorType::usual(id) else {
        return 1;
    };
    // All layouts known under the id of I2_S take at least a quarter byte per element, and only
    // I2_S has the tail.
    let layout = kind.layout();
    (elements / layout.elements).saturating_mul(layout.bytes).max(1)
}

/// What the bytes of `tensor` are, and how many of them there are. The architecture matters for the
/// id of I2_S only.
///
/// Between tensors there is padding to the alignment and nothing else, as llama.cpp writes and
/// demands it. The same is asked of the end of the file: it may be padded or not, but other bytes
/// there would make the size of the last tensor, which decides its type, a guess.
pub(crate) fn resolve(
    file: &str,
    architecture: &str,
    tensor: &Tensor,
    alignment: u64,
) -> Result<(TensorType, u64), Error> {
    let Some(kind) = TensorType::usual(tensor.type_id) else {
        let (name, next) = public_name(tensor.type_id);
        return Err(unsupported(file, tensor, name, next));
    };
    let fits = |bytes: u64| bytes <= tensor.room && tensor.room - bytes < alignment;
    let payload = kind.payload(tensor.elements());
    if kind == TensorType::I2S {
        if !uses_i2s(architecture) {
            return Err(unsupported(file, tensor, "I2_S or IQ4_NL_4_4", I2S_UNKNOWN));
        }
        if !payload.is_some_and(fits)
            && let Some((name, next)) = i2s_lookalike(tensor.elements(), fits)
        {
            return Err(unsupported(file, tensor, name, next));
        }
    } else if !tensor.row().is_multiple_of(kind.block()) {
        return Err(block(file, tensor, kind, "elements per row", tensor.row()));
    }
    match payload {
        None => Err(block(file, tensor, kind, "elements", tensor.elements())),
        Some(bytes) if fits(bytes) => Ok((kind, bytes)),
        Some(expected) => Err(Error::Size {
            file: file.to_owned(),
            tensor: tensor.name.clone(),
            offset: tensor.offset,
            type_name: kind.name(),
            expected,
            found: tensor.room,
        }),
    }
}

/// Architectures whose files have type 36 as I2_S: bitnet.cpp's own, and those it and the BitNet
/// embedding models store ternary weights under.
fn uses_i2s(architecture: &str) -> bool {
    architecture.starts_with("bitnet")
        || ["llama", "falcon", "qwen3", "gemma3"].contains(&architecture)
}

const I2S_UNKNOWN: &str = "type 36 is I2_S in files of architecture bitnet*, llama, falcon, qwen3 \
     and gemma3 only; use a file of one of these, or convert the model to TQ1_0 or TQ2_0";

/// Other layouts written under the id of I2_S, known by their size. Up to 512 elements the padding
/// hides some of the differences; a model has larger tensors, which tell.
fn i2s_lookalike(
    elements: u64,
    fits: impl Fn(u64) -> bool,
) -> Option<(&'static str, &'static str)> {
    let blocks = elements / 32;
    if !elements.is_multiple_of(32) {
        None
    } else if fits(blocks.saturating_mul(8)) {
        Some((
            "I2_S without its scale",
            "if this is the last tensor the file may be cut off: download it again; otherwise \
             convert the model again with a tool that appends the scale",
        ))
    } else if fits(blocks.saturating_mul(10)) {
        Some((
            "BitNet32F16 of BitNet-rs",
            "convert the model again to bitnet.cpp's I2_S, TQ1_0 or TQ2_0",
        ))
    } else if fits(blocks.saturating_mul(18)) {
        Some(("IQ4_NL_4_4, removed from llama.cpp", "convert the model again to F16, Q8_0 or Q6_K"))
    } else {
        None
    }
}

/// Ternary types that are not read yet; where two names are given, programs disagree.
const TERNARY: [(u32, &str); 9] = [
    (37, "I8_S or IQ4_NL_4_8"),
    (38, "TL1 or IQ4_NL_8_8"),
    (39, "TL2 or MXFP4"),
    (42, "Q2_0"),
    (134, "IQ1_BN"),
    (135, "IQ2_BN"),
    (142, "PQ2_0"),
    (143, "PTQ1_0"),
    (335, "IQ2_BN_R4"),
];

/// Other types that are not read.
const QUANTISED: [(u32, &str); 29] = [
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4, removed from llama.cpp"),
    (32, "Q4_0_4_8, removed from llama.cpp"),
    (33, "Q4_0_8_8, removed from llama.cpp"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// The name of a type that is not read, and what to do about it.
fn public_name(id: u32) -> (&'static str, &'static str) {
    let find =
        |table: &[(u32, &'static str)]| table.iter().find(|row| row.0 == id).map(|&(_, name)| name);
    if let Some(name) = find(&TERNARY) {
        (name, "convert the model again to I2_S, TQ1_0 or TQ2_0")
    } else if let Some(name) = find(&QUANTISED) {
        (name, "convert the model again to F16, BF16, Q8_0 or Q6_K")
    } else {
        let next = "download the file again, or update this program if the type is new";
        ("a type without a known name", next)
    }
}

fn unsupported(file: &str, tensor: &Tensor, name: &'static str, next: &'static str) -> Error {
    Error::UnsupportedType {
        file: file.to_owned(),
        tensor: tensor.name.clone(),
        offset: tensor.offset,
        id: tensor.type_id,
        name,
        next,
    }
}

fn block(
    file: &str,
    tensor: &Tensor,
    kind: TensorType,
    counted: &'static str,
    length: u64,
) -> Error {
    Error::Block {
        file: file.to_owned(),
        tensor: tensor.name.clone(),
        offset: tensor.offset,
        type_name: kind.name(),
        counted,
        length,
        block: kind.block(),
    }
}
