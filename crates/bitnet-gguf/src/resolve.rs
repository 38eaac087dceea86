//! What a type id means in a given file.
//!
//! Ids are not unique: bitnet.cpp's I2_S took 36, which was IQ4_NL_4_4 in llama.cpp, its TL2 took
//! 39, which is MXFP4 there, and forks write other layouts under 36. So such an id is a hint, and the
//! architecture and the size of the data decide.

use crate::Error;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// An id that several programs use.
struct Shared {
    id: u32,
    /// What can be read, the most common first. Tensors of a thousand elements or less may be of the
    /// size of several, padding included: they are taken for the first. Matrices of models are larger.
    readings: &'static [TensorType],
    /// What cannot.
    others: &'static [Other],
    /// Whether the readings are found only where [`is_ternary`] says so.
    ternary: bool,
}

/// A layout that is not read.
struct Other {
    name: &'static str,
    /// Elements in a block, and its bytes.
    block: (u64, u64),
    next: &'static str,
}

/// A layout of llama.cpp, not of ternary weights.
const fn quantised(name: &'static str, block: (u64, u64)) -> Other {
    Other { name, block, next: AGAIN_QUANTISED }
}

const AGAIN_TERNARY: &str = "convert the model again to I2_S, TQ1_0 or TQ2_0";
const AGAIN_QUANTISED: &str = "convert the model again to F16, BF16, Q8_0 or Q6_K";
const CUT: &str = "if this is the last tensor the file may be cut off: download it again; otherwise \
     convert the model again with a tool that appends the scale";
const UNLIKE: &str = "if this is the last tensor the file may be cut off: download it again; otherwise \
     convert the model again";
const DOWNLOAD: &str = "download the file again, or update this program if the type is new";
const ARCHITECTURES: &str = "types 36 to 39 are ternary in files of architecture bitnet*, llama, \
     falcon, qwen3 and gemma3 only; use a file of one of these, or convert the model to TQ1_0 or TQ2_0";

const SHARED: [Shared; 5] = [
    Shared {
        id: 36,
        readings: &[TensorType::I2S, TensorType::BitNet32F16],
        others: &[
            Other { name: "I2_S without its scale", block: (4, 1), next: CUT },
            quantised("IQ4_NL_4_4, removed from llama.cpp", (32, 18)),
        ],
        ternary: true,
    },
    Shared {
        id: 37,
        readings: &[],
        others: &[
            Other { name: "I8_S, of activations", block: (1, 1), next: AGAIN_TERNARY },
            quantised("IQ4_NL_4_8, removed from llama.cpp", (32, 18)),
        ],
        ternary: true,
    },
    Shared {
        id: 38,
        readings: &[TensorType::Tl1],
        others: &[quantised("IQ4_NL_8_8, removed from llama.cpp", (32, 18))],
        ternary: true,
    },
    Shared {
        id: 39,
        readings: &[TensorType::Tl2],
        others: &[quantised("MXFP4", (32, 17))],
        ternary: true,
    },
    Shared {
        id: 42,
        readings: &[TensorType::Q2_0, TensorType::Q2_0G128],
        others: &[],
        ternary: false,
    },
];

/// Whether files of an architecture have the ternary types of bitnet.cpp: its own, and those it and
/// the BitNet embedding models store ternary weights under.
fn is_ternary(architecture: &str) -> bool {
    architecture.starts_with("bitnet")
        || ["llama", "falcon", "qwen3", "gemma3"].contains(&architecture)
}

impl Shared {
    fn find(id: u32) -> Option<&'static Shared> {
        SHARED.iter().find(|shared| shared.id == id)
    }

    /// Every layout with the bytes that the tensor takes in it, as a message has them.
    fn sizes(&self, tensor: &Tensor, fits: impl Fn(u64) -> bool) -> String {
        let readings = self.readings.iter().map(|kind| (kind.name(), kind.payload(&tensor.dims)));
        let others = self.others.iter().map(|other| (other.name, other.bytes(tensor)));
        let size = |(name, bytes): (&str, Option<u64>)| match bytes {
            Some(bytes) if fits(bytes) => format!("{bytes} bytes, as here, in {name}"),
            Some(bytes) => format!("{bytes} bytes in {name}"),
            None => format!("no whole blocks in {name}"),
        };
        readings.chain(others).map(size).collect::<Vec<_>>().join(", ")
    }

    /// What the bytes of `tensor` are, where `fits` says which sizes they may have.
    fn resolve(
        &self,
        (file, architecture): (&str, &str),
        tensor: &Tensor,
        fits: impl Fn(u64) -> bool,
    ) -> Result<(TensorType, u64), Error> {
        let known = !self.ternary || is_ternary(architecture);
        let sized =
            |kind: &TensorType| Some((*kind, kind.payload(&tensor.dims).filter(|&n| fits(n))?));
        if let (true, Some(found)) = (known, self.readings.iter().find_map(sized)) {
            return Ok(found);
        }
        let other = self.others.iter().find(|other| other.bytes(tensor).is_some_and(&fits));
        let next = match other {
            _ if !known => ARCHITECTURES,
            Some(other) => other.next,
            None => UNLIKE,
        };
        Err(Error::SharedType {
            file: file.to_owned(),
            tensor: tensor.name.clone(),
            offset: tensor.offset,
            id: self.id,
            architecture: architecture.into(),
            found: tensor.room,
            sizes: self.sizes(tensor, fits).into(),
            next,
        })
    }
}

impl Other {
    fn bytes(&self, tensor: &Tensor) -> Option<u64> {
        let (elements, (block, bytes)) = (tensor.elements(), self.block);
        elements.is_multiple_of(block).then(|| (elements / block).checked_mul(bytes)).flatten()
    }
}

/// Whether an id has several meanings.
pub(crate) fn is_shared(id: u32) -> bool {
    Shared::find(id).is_some()
}

/// The type an id stands for in most files, if it can be read. Only [`resolve`] knows what it is in
/// this one.
pub(crate) fn usual(id: u32) -> Option<TensorType> {
    TensorType::ALL.into_iter().find(|kind| kind.id() == id)
}

/// The bytes that a tensor takes in every reading of its id, or 1.
pub(crate) fn least_bytes(tensor: &Tensor) -> u64 {
    let (id, elements) = (tensor.type_id, tensor.elements());
    let shared = Shared::find(id);
    let only = usual(id).filter(|_| shared.is_none());
    if let Some(bytes) = only.and_then(|kind| kind.payload(&tensor.dims)) {
        return bytes;
    }
    let kinds = TensorType::ALL.into_iter().filter(|kind| kind.id() == id);
    let kinds = kinds.map(|kind| (kind.layout().elements, kind.layout().bytes));
    let others = shared.map_or(&[][..], |shared| shared.others);
    let blocks = kinds.chain(others.iter().map(|other| other.block));
    blocks.map(|(block, bytes)| (elements / block).saturating_mul(bytes)).min().unwrap_or(1).max(1)
}

/// What the bytes of `tensor` are, and how many of them there are. The architecture matters for ids
/// with several meanings only.
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
    let fits = |bytes: u64| bytes <= tensor.room && tensor.room - bytes < alignment;
    if let Some(shared) = Shared::find(tensor.type_id) {
        return shared.resolve((file, architecture), tensor, fits);
    }
    let Some(kind) = usual(tensor.type_id) else {
        return Err(unsupported(file, tensor));
    };
    let (file, name, type_name) = (file.to_owned(), tensor.name.clone(), kind.name());
    if let Some((counted, length, block)) = kind.misfit(&tensor.dims) {
        let (tensor, offset) = (name, tensor.offset);
        return Err(Error::Block { file, tensor, offset, type_name, counted, length, block });
    }
    match kind.payload(&tensor.dims) {
        Some(bytes) if fits(bytes) => Ok((kind, bytes)),
        // More bytes than can be counted are more than there are.
        expected => Err(Error::Size {
            file,
            tensor: name,
            offset: tensor.offset,
            type_name,
            expected: expected.unwrap_or(u64::MAX),
            found: tensor.room,
        }),
    }
}

/// Ternary types that are not read.
const TERNARY: [(u32, &str); 2] = [(142, "PQ2_0"), (143, "PTQ1_0")];

/// Other types that are not read.
const QUANTISED: [(u32, &str); 26] = [
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
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

/// A type that is not read, by its name.
fn unsupported(file: &str, tensor: &Tensor) -> Error {
    let id = tensor.type_id;
    let find =
        |table: &[(u32, &'static str)]| table.iter().find(|row| row.0 == id).map(|&(_, name)| name);
    let (name, next) = if let Some(name) = find(&TERNARY) {
        (name, AGAIN_TERNARY)
    } else if let Some(name) = find(&QUANTISED) {
        (name, AGAIN_QUANTISED)
    } else {
        ("a type without a known name", DOWNLOAD)
    };
    let (file, offset) = (file.to_owned(), tensor.offset);
    Error::UnsupportedType { file, tensor: tensor.name.clone(), offset, id, name, next }
}
