//! Which kernel computes what: every question about kernels is answered here, from the table, the
//! processor, and what the user and measurements prefer.

use std::cmp::Reverse;

use crate::device::Device;
use crate::format::Format;
use crate::isa::{Isa, MissingIsa};
use crate::op::{GemmFn, GemvFn};
use crate::operation::{DataType, Operation};
use crate::registry::{Bound, Function, KERNELS, Kernel, KernelId, Line};
use crate::simd::cpu::Cpu;

mod backend;
mod question;
mod reason;

pub use backend::{Choice, KernelBackend, PreferenceError, UnknownChoice};
use question::{Question, holds, layouts, weights};
pub use reason::{NoKernel, Reason};

/// Chooses kernels, and says why it does not choose others.
///
/// ```
/// use bitnet_kernels::op::NormFn;
/// use bitnet_kernels::{DataType, Device, Format, Isa, KernelManager, Operation};
///
/// let manager = KernelManager::new().limit(Isa::Scalar)?;
/// assert_eq!(manager.select::<NormFn>(None)?.kernel.to_string(), "norm_f32_scalar");
///
/// let gemv = |format| manager.has_kernel_for(Device::Cpu, format, Operation::Gemv, DataType::Q8);
/// assert!(gemv(Some(Format::Tl1)));
/// assert!(!gemv(Some(Format::F16)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KernelManager {
    /// What the processor has.
    detected: Cpu,
    /// What of it may be used.
    cpu: Cpu,
    /// The only layout of ternary matrices that may be used.
    layout: Option<Format>,
    /// The kernels that the user prefers, the first most.
    preferred: Vec<KernelId>,
    /// What was measured.
    tuned: Vec<Tuned>,
}

/// Kernels of a product with a matrix, the fastest first as measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// One of the two products.
    pub operation: Operation,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The kernels.
    pub kernels: Vec<KernelId>,
}

/// What a kernel must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRequirements {
    /// What computes.
    pub device: Device,
    /// What it computes.
    pub operation: Operation,
    /// The format of the weights: that of a file, or a layout of [packed](crate::packed) matrices.
    pub format: Option<Format>,
    /// The type of activations.
    pub data: DataType,
    /// Rows and columns of activations.
    pub input: [usize; 2],
    /// Rows and columns of the result.
    pub output: [usize; 2],
}

/// What a product should be good at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// One row of activations: the next token.
    Latency,
    /// Many rows of activations: prompts and batches.
    Throughput,
}

impl KernelRequirements {
    /// A product of `input` `[tokens, cols]` with a matrix on the processor, which gives `output`
    /// `[tokens, rows]`.
    #[must_use]
    pub fn product(
        format: Format,
        input: [usize; 2],
        output: [usize; 2],
        priority: Priority,
    ) -> KernelRequirements {
        let operation = match priority {
            Priority::Latency => Operation::Gemv,
            Priority::Throughput => Operation::Gemm,
        };
        let (device, data) = (Device::Cpu, DataType::Q8);
        KernelRequirements { device, operation, format: Some(format), data, input, output }
    }
}

/// A kernel that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct KernelHandle {
    /// The row of the table.
    pub kernel: &'static Kernel,
    /// What decided.
    pub because: Because,
    index: usize,
}

/// What decided between kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The user prefers it.
    Preferred,
    /// It was measured to be the fastest.
    Tuned,
    /// It is the best of the table that runs here.
    Best,
}

/// The kernels for a ternary matrix.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// How the matrix has to be packed.
    pub layout: Format,
    /// For one row of activations.
    pub gemv: Bound<GemvFn>,
    /// For several.
    pub gemm: Bound<GemmFn>,
}

/// A ternary matrix, for which kernels are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its format: that of a file, or a layout.
    pub format: Option<Format>,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
}

impl Matrix {
    /// Of a shape that suits every format.
    #[must_use]
    pub const fn typical(format: Option<Format>) -> Matrix {
        Matrix { format, rows: 1 << 12, cols: 1 << 12 }
    }
}

impl Default for KernelManager {
    fn default() -> KernelManager {
        KernelManager::new()
    }
}

impl KernelManager {
    /// Chooses from all that this processor can run.
    #[must_use]
    pub fn new() -> KernelManager {
        let detected = Cpu::detect();
        let (cpu, layout) = (detected.clone(), None);
        KernelManager { detected, cpu, layout, preferred: Vec::new(), tuned: Vec::new() }
    }

    /// The same, without everything better than `isa`.
    ///
    /// # Errors
    ///
    /// [`MissingIsa`] where the processor does not have `isa`.
    pub fn limit(self, isa: Isa) -> Result<KernelManager, MissingIsa> {
        Ok(KernelManager { cpu: self.cpu.limit(isa)?, ..self })
    }

    /// The same, with ternary matrices in `layout`, one of [`Format::PACKED`], and in no other.
    #[must_use]
    pub fn limit_layout(self, layout: Format) -> KernelManager {
        KernelManager { layout: Some(layout), ..self }
    }

    /// Prefers some kernels to others, the first most: of an operation that they name, no other
    /// kernels are used any more. Gemv and gemm go together, since one matrix is packed for both.
    ///
    /// # Errors
    ///
    /// [`PreferenceError`] where none of those for an operation can run; then nothing has changed.
    pub fn set_backend_preference(&mut self, choices: &[Choice]) -> Result<(), PreferenceError> {
        let free = KernelManager { preferred: Vec::new(), ..self.clone() };
        let preferred = backend::expand(choices, &free)?;
        let manager = KernelManager { preferred, ..free };
        backend::check(choices, &manager)?;
        *self = manager;
        Ok(())
    }

    /// Of some choices, those that have no effect on a run with the kernels `used`, and why: they
    /// cannot run, or say nothing about what is computed.
    #[must_use]
    pub fn without_effect(&self, choices: &[Choice], used: &[KernelId]) -> Vec<(Choice, Reason)> {
        let why = |choice: Choice| match choice.availability(self) {
            Ok(()) if choice.concerns(used) => None,
            Ok(()) => Some((choice, Reason::Unused)),
            Err(reason) => Some((choice, reason)),
        };
        choices.iter().filter_map(|&choice| why(choice)).collect()
    }

    /// Takes measured kernels before others. Preferences of the user come first.
    pub fn set_tuned(&mut self, tuned: Vec<Tuned>) {
        self.tuned = tuned;
    }

    /// The instruction sets in use.
    #[must_use]
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Whether a kernel may run.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn availability(&self, id: KernelId) -> Result<(), Reason> {
        let KernelId { operation, format, isa } = id;
        let other = self.layout.filter(|_| operation.is_product() && format != self.layout);
        match isa.arch() {
            Some(arch) if arch != reason::ARCH => Err(Reason::Architecture { needs: arch }),
            _ if !self.detected.has(isa) => Err(Reason::Lacks { isa }),
            _ if !self.cpu.has(isa) => Err(Reason::Excluded { limit: self.best_isa() }),
            _ if !self.is_preferred(id) => Err(Reason::NotPreferred),
            _ => other.map_or(Ok(()), |layout| Err(Reason::OtherLayout { layout })),
        }
    }

    /// The families of kernels of which some may run.
    #[must_use]
    pub fn backends(&self) -> Vec<KernelBackend> {
        let runs = |id: &KernelId| self.availability(*id).is_ok();
        let known = KernelBackend::ALL.into_iter();
        known.filter(|backend| backend.kernels().iter().any(runs)).collect()
    }

    /// The best instruction set that may be used.
    #[must_use]
    pub fn best_isa(&self) -> Isa {
        self.cpu.isas().last().copied().unwrap_or(Isa::Scalar)
    }

    fn is_preferred(&self, id: KernelId) -> bool {
        let mut rivals = self.preferred.iter().filter(|other| rivals(**other, id)).peekable();
        rivals.peek().is_none() || rivals.any(|&other| other == id)
    }

    /// Whether there is a kernel on `device` that computes `operation` with weights in `format` and
    /// activations in `data`; [`KernelManager::kernel_for`] says why not.
    pub fn has_kernel_for(
        &self,
        device: Device,
        format: impl Into<Option<Format>>,
        operation: Operation,
        data: DataType,
    ) -> bool {
        self.kernel_for(device, format, operation, data).is_ok()
    }

    /// The best kernel on `device` that computes `operation` with weights in `format` and
    /// activations in `data`, for matrices of the right shape.
    ///
    /// # Errors
    ///
    /// [`NoKernel`] with the reasons.
    pub fn kernel_for(
        &self,
        device: Device,
        format: impl Into<Option<Format>>,
        operation: Operation,
        data: DataType,
    ) -> Result<KernelHandle, NoKernel> {
        self.choose(Question { device, format: format.into(), operation, data, shape: None })
    }

    /// The best kernel that does what is required.
    ///
    /// # Errors
    ///
    /// [`NoKernel`] with the reasons.
    pub fn select_best_kernel(
        &self,
        wanted: &KernelRequirements,
    ) -> Result<KernelHandle, NoKernel> {
        self.choose(Question::new(wanted))
    }

    /// All kernels that do what is required, the best first.
    #[must_use]
    pub fn find_compatible_kernels(&self, wanted: &KernelRequirements) -> Vec<KernelHandle> {
        let question = Question::new(wanted);
        let mut found: Vec<_> = self.candidates(question).collect();
        found.sort_by_key(|&(rank, _)| rank);
        found.into_iter().map(|(_, handle)| handle).collect()
    }

    /// The best kernel of a line of the table: of an operation, which `F` tells, and the format of
    /// its weights; `None` for operations without weights.
    ///
    /// # Errors
    ///
    /// [`NoKernel`] where there is no such line, or none of it may run.
    pub fn select<F: Function>(&self, format: Option<Format>) -> Result<Bound<F>, NoKernel> {
        let operation = F::OPERATION;
        let (device, data) = (Device::Cpu, operation.data());
        let question = Question { device, format, operation, data, shape: None };
        self.bind(self.choose(question)?, question)
    }

    /// The best kernels for a ternary matrix.
    ///
    /// # Errors
    ///
    /// [`NoKernel`] where files hold no such matrix, or no layout has a gemv and a gemm that may run.
    pub fn product(&self, matrix: Matrix) -> Result<Product, NoKernel> {
        let Matrix { format, rows, cols } = matrix;
        let ask = |operation, layout| Question {
            device: Device::Cpu,
            format: layout,
            operation,
            data: DataType::Q8,
            shape: Some([1, cols, rows]),
        };
        let (gemv, gemm) = (Operation::Gemv, Operation::Gemm);
        let held = format.filter(|_| holds(format, rows, cols).is_ok());
        let both = held.map_or(&[][..], layouts).iter().filter_map(|&layout| {
            let best = |operation| {
                self.candidates(ask(operation, Some(layout))).min_by_key(|&(rank, _)| rank)
            };
            Some((layout, best(gemv)?, best(gemm)?))
        });
        match both.min_by_key(|(_, gemv, _)| gemv.0) {
            Some((layout, (_, first), (_, second))) => Ok(Product {
                layout,
                gemv: self.bind(first, ask(gemv, format))?,
                gemm: self.bind(second, ask(gemm, format))?,
            }),
            None => {
                let mut refusal = self.refusal(ask(gemv, format));
                refusal.reasons.extend(self.refusal(ask(gemm, format)).reasons);
                Err(refusal)
            }
        }
    }

    /// The function of a kernel that answers a question.
    fn bind<F: Function>(
        &self,
        KernelHandle { kernel, index, .. }: KernelHandle,
        question: Question,
    ) -> Result<Bound<F>, NoKernel> {
        // What was chosen may run, and is of the operation that `F` is of.
        let run = kernel.bind(&self.cpu).ok_or_else(|| self.refusal(question))?;
        Ok(Bound { kernel, run, index })
    }

    fn choose(&self, question: Question) -> Result<KernelHandle, NoKernel> {
        let best = self.candidates(question).min_by_key(|&(rank, _)| rank);
        best.map(|(_, handle)| handle).ok_or_else(|| self.refusal(question))
    }

    /// The kernels that answer a question, each with its rank, of which the least is the best.
    fn candidates(&self, question: Question) -> impl Iterator<Item = (Rank, KernelHandle)> {
        // Each line with the number of kernels before it.
        let lines = KERNELS.iter().scan(0, |next, line| {
            let first = *next;
            *next += line.kernels.len();
            Some((first, line))
        });
        let lines = lines.filter(move |(_, line)| {
            question.fits(line) && question.admits((line.operation, line.format)).is_ok()
        });
        let kernels = lines.flat_map(|(first, line)| (first..).zip(line.kernels));
        let answers = kernels.filter(|(_, kernel)| self.availability(kernel.id()).is_ok());
        answers.map(move |(index, kernel)| {
            let rank = self.rank(question, kernel.id(), index);
            (rank, KernelHandle { kernel, because: rank.because(), index })
        })
    }

    fn rank(&self, question: Question, id: KernelId, index: usize) -> Rank {
        let place = |among: &[KernelId]| among.iter().position(|&other| other == id);
        let tuned = question.shape.and_then(|[_, cols, rows]| {
            let of = |t: &&Tuned| (t.operation, t.rows, t.cols) == (id.operation, rows, cols);
            self.tuned.iter().find(of).and_then(|tuned| place(&tuned.kernels))
        });
        let layout = Format::PACKED.iter().position(|&layout| Some(layout) == id.format);
        Rank {
            preferred: place(&self.preferred).unwrap_or(usize::MAX),
            tuned: tuned.unwrap_or(usize::MAX),
            layout: layout.unwrap_or(0),
            index: Reverse(index),
        }
    }

    /// Why nothing answers a question.
    fn refusal(&self, question: Question) -> NoKernel {
        let Question { device, format, operation, data, .. } = question;
        let takes = operation.data();
        let lines = || KERNELS.iter().filter(|line| question.fits(line));
        let reasons = match () {
            () if device != Device::Cpu => vec![(None, Reason::NotCompiled { device })],
            () if data != takes => vec![(None, Reason::Data { takes })],
            () if lines().next().is_none() => {
                vec![(None, Reason::Weights { takes: weights(operation) })]
            }
            () => lines()
                .flat_map(Line::ids)
                .filter_map(|id| {
                    let why = question.admits((id.operation, id.format));
                    let why = why.and_then(|()| self.availability(id));
                    why.err().map(|reason| (Some(id), reason))
                })
                .collect(),
        };
        NoKernel { device, operation, format, reasons }
    }
}

/// Whether a preference for the one says something about the other.
fn rivals(one: KernelId, other: KernelId) -> bool {
    one.operation == other.operation && (one.operation.is_product() || one.format == other.format)
}

/// What is better comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Place among what the user prefers.
    preferred: usize,
    /// Place among what was measured.
    tuned: usize,
    /// Place of its layout among all.
    layout: usize,
    /// The last kernels of a line are the best.
    index: Reverse<usize>,
}

impl Rank {
    fn because(self) -> Because {
        match (self.preferred, self.tuned) {
            (usize::MAX, usize::MAX) => Because::Best,
            (usize::MAX, _) => Because::Tuned,
            _ => Because::Preferred,
        }
    }
}
