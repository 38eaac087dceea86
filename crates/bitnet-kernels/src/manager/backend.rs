//! What users prefer: kernels by their ids, or families of them by the names of the project's brief.

use std::fmt;
use std::str::FromStr;

use super::KernelManager;
use super::reason::Reason;
use crate::format::Format;
use crate::isa::Isa;
use crate::operation::Operation;
use crate::registry::{KERNELS, KernelId, Line, kernels};

/// A family of kernels, by a name of the brief (`I2S_QK256_AVX2`).
///
/// The names say what weights a kernel was thought to read. Here weights of every ternary format
/// are packed into one of two layouts, so the names of I2_S and TL1 mean the products in
/// [`Format::I2SR32`], and those of TL2 the products in [`Format::Tl2R32`], with every instruction
/// set of the family. `QK256` is in the names only: blocks of I2_S have 128 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelBackend {
    /// `I2S_QK256_Scalar`.
    I2sScalar,
    /// `I2S_QK256_AVX2`: with AVX-VNNI, too.
    I2sAvx2,
    /// `I2S_QK256_AVX512`: with VNNI, too.
    I2sAvx512,
    /// `I2S_QK256_NEON`: with dot products and matrix products, too.
    I2sNeon,
    /// `TL1_ARM_NEON`.
    Tl1Neon,
    /// `TL1_X86_AVX2`.
    Tl1Avx2,
    /// `TL1_X86_AVX512`.
    Tl1Avx512,
    /// `TL2_X86_AVX512`.
    Tl2Avx512,
    /// `IQ2S_GGML_CPU`: the output layer in ggml's IQ2_S.
    Iq2sCpu,
    /// `IQ2S_GGML_CUDA`.
    Iq2sCuda,
    /// `I2S_QK256_CUDA`: on NVIDIA GPUs, of which the crate `bitnet-gpu` has the kernels.
    I2sCuda,
    /// `Llama_CUDA`: llama.cpp on a GPU.
    LlamaCuda,
    /// `Llama_CPU`: llama.cpp on the processor.
    LlamaCpu,
}

const SCALAR: &[Isa] = &[Isa::Scalar];
const AVX2: &[Isa] = &[Isa::AvxVnni, Isa::Avx2];
const AVX512: &[Isa] = &[Isa::Avx512Vnni, Isa::Avx512];
const NEON: &[Isa] = &[Isa::NeonI8mm, Isa::NeonDot, Isa::Neon];

impl KernelBackend {
    /// All of them.
    pub const ALL: [KernelBackend; 13] = [
        KernelBackend::I2sScalar,
        KernelBackend::I2sAvx2,
        KernelBackend::I2sAvx512,
        KernelBackend::I2sNeon,
        KernelBackend::Tl1Neon,
        KernelBackend::Tl1Avx2,
        KernelBackend::Tl1Avx512,
        KernelBackend::Tl2Avx512,
        KernelBackend::Iq2sCpu,
        KernelBackend::Iq2sCuda,
        KernelBackend::I2sCuda,
        KernelBackend::LlamaCuda,
        KernelBackend::LlamaCpu,
    ];

    /// Its name in the brief.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            KernelBackend::I2sScalar => "I2S_QK256_Scalar",
            KernelBackend::I2sAvx2 => "I2S_QK256_AVX2",
            KernelBackend::I2sAvx512 => "I2S_QK256_AVX512",
            KernelBackend::I2sNeon => "I2S_QK256_NEON",
            KernelBackend::Tl1Neon => "TL1_ARM_NEON",
            KernelBackend::Tl1Avx2 => "TL1_X86_AVX2",
            KernelBackend::Tl1Avx512 => "TL1_X86_AVX512",
            KernelBackend::Tl2Avx512 => "TL2_X86_AVX512",
            KernelBackend::Iq2sCpu => "IQ2S_GGML_CPU",
            KernelBackend::Iq2sCuda => "IQ2S_GGML_CUDA",
            KernelBackend::I2sCuda => "I2S_QK256_CUDA",
            KernelBackend::LlamaCuda => "Llama_CUDA",
            KernelBackend::LlamaCpu => "Llama_CPU",
        }
    }

    /// Its kernels on the processor, the best first; none where this version has none.
    #[must_use]
    pub fn kernels(self) -> Vec<KernelId> {
        let (operations, format, isas) = match self {
            KernelBackend::I2sScalar => (PRODUCTS, Format::I2SR32, SCALAR),
            KernelBackend::I2sAvx2 | KernelBackend::Tl1Avx2 => (PRODUCTS, Format::I2SR32, AVX2),
            KernelBackend::I2sAvx512 | KernelBackend::Tl1Avx512 => {
                (PRODUCTS, Format::I2SR32, AVX512)
            }
            KernelBackend::I2sNeon | KernelBackend::Tl1Neon => (PRODUCTS, Format::I2SR32, NEON),
            KernelBackend::Tl2Avx512 => (PRODUCTS, Format::Tl2R32, AVX512),
            KernelBackend::Iq2sCpu => {
                (HEAD, Format::Iq2S, &[Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Scalar][..])
            }
            KernelBackend::Iq2sCuda
            | KernelBackend::I2sCuda
            | KernelBackend::LlamaCuda
            | KernelBackend::LlamaCpu => return Vec::new(),
        };
        let id = |operation, isa| KernelId { operation, format: Some(format), isa };
        isas.iter().flat_map(|&isa| operations.iter().map(move |&op| id(op, isa))).collect()
    }
}

const PRODUCTS: &[Operation] = &[Operation::Gemv, Operation::Gemm];
const HEAD: &[Operation] = &[Operation::Head];

impl fmt::Display for KernelBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel or a family of kernels that a user prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// A kernel, by its id.
    Kernel(KernelId),
    /// A family, by its name.
    Backend(KernelBackend),
}

impl Choice {
    fn kernels(self) -> Vec<KernelId> {
        match self {
            Choice::Kernel(id) => vec![id],
            Choice::Backend(backend) => backend.kernels(),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Kernel(id) => id.fmt(f),
            Choice::Backend(backend) => backend.fmt(f),
        }
    }
}

/// A name that is neither a kernel nor a family of kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownChoice(pub String);

impl fmt::Display for UnknownChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = crate::Cpu::detect();
        let runs = |kernel: &&crate::Kernel| cpu.has(kernel.isa());
        let names: Vec<_> = kernels().filter(runs).map(ToString::to_string).collect();
        write!(f, "there is no kernel `{}`; this processor runs {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownChoice {}

impl FromStr for Choice {
    type Err = UnknownChoice;

    /// Letters may be of either case.
    fn from_str(name: &str) -> Result<Choice, UnknownChoice> {
        let name = name.trim();
        let backend = KernelBackend::ALL.into_iter().find(|b| b.name().eq_ignore_ascii_case(name));
        match backend {
            Some(backend) => Ok(Choice::Backend(backend)),
            None => name
                .to_ascii_lowercase()
                .parse()
                .map(Choice::Kernel)
                .map_err(|_| UnknownChoice(name.to_owned())),
        }
    }
}

/// Of the kernels that a user prefers for an operation, none can run.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferenceError {
    /// What was preferred, and why each cannot run.
    pub refused: Vec<(Choice, Reason)>,
    /// What could have been preferred.
    pub available: Vec<KernelId>,
}

impl fmt::Display for PreferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (choice, reason) in &self.refused {
            write!(f, "{choice}: {reason}; ")?;
        }
        let names: Vec<_> = self.available.iter().map(ToString::to_string).collect();
        write!(f, "those that can run are {}", names.join(", "))
    }
}

impl std::error::Error for PreferenceError {}

/// What a choice is about: products, or another operation with weights of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Products,
    Other(Operation, Option<Format>),
}

impl Subject {
    fn of(id: KernelId) -> Subject {
        match id.operation.is_product() {
            true => Subject::Products,
            false => Subject::Other(id.operation, id.format),
        }
    }
}

impl Choice {
    fn subject(self) -> Subject {
        // Families without kernels are about products, as their names say.
        self.kernels().first().map_or(Subject::Products, |&id| Subject::of(id))
    }

    /// Whether it is about one of the kernels `used`.
    pub(super) fn concerns(self, used: &[KernelId]) -> bool {
        used.iter().any(|&id| Subject::of(id) == self.subject())
    }

    /// Whether one of its kernels may run, or why the best may not.
    pub(super) fn availability(self, manager: &KernelManager) -> Result<(), Reason> {
        let answers: Vec<_> =
            self.kernels().into_iter().map(|id| manager.availability(id)).collect();
        match answers.iter().any(Result::is_ok) {
            true => Ok(()),
            false => answers.into_iter().next().unwrap_or(Err(match self {
                Choice::Backend(KernelBackend::I2sCuda) => Reason::OnGpu,
                _ => Reason::Absent,
            })),
        }
    }
}

/// The kernels of some choices, in order, of which one at least may run for each subject.
pub(super) fn expand(
    choices: &[Choice],
    manager: &KernelManager,
) -> Result<Vec<KernelId>, PreferenceError> {
    for subject in choices.iter().map(|choice| choice.subject()) {
        let of = choices.iter().filter(|choice| choice.subject() == subject);
        let mut refused = Vec::new();
        for &choice in of.clone() {
            refused.extend(choice.availability(manager).err().map(|reason| (choice, reason)));
        }
        if refused.len() == of.count() {
            return Err(PreferenceError { refused, available: available(subject, manager) });
        }
    }
    Ok(choices.iter().flat_map(|choice| choice.kernels()).collect())
}

/// Products that are preferred must have a layout in common, since a matrix is packed once.
pub(super) fn check(choices: &[Choice], manager: &KernelManager) -> Result<(), PreferenceError> {
    let runs = |operation, format| {
        let format = Some(format);
        let mut ids = KERNELS.iter().flat_map(Line::ids);
        ids.any(|id| {
            (id.operation, id.format) == (operation, format) && manager.availability(id).is_ok()
        })
    };
    if Format::PACKED.iter().any(|&layout| PRODUCTS.iter().all(|&op| runs(op, layout))) {
        return Ok(());
    }
    let products = choices.iter().filter(|choice| choice.subject() == Subject::Products);
    let refused = products.map(|&choice| (choice, Reason::Layouts)).collect();
    Err(PreferenceError { refused, available: available(Subject::Products, manager) })
}

/// The kernels for a subject that may run.
fn available(subject: Subject, manager: &KernelManager) -> Vec<KernelId> {
    let free = KernelManager { preferred: Vec::new(), ..manager.clone() };
    let ids = kernels().map(crate::Kernel::id).filter(|&id| Subject::of(id) == subject);
    ids.filter(|&id| free.availability(id).is_ok()).collect()
}
