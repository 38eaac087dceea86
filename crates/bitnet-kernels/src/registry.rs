//! Every kernel, in one table, and how one is chosen.

use std::fmt;

use crate::format::{Bf16, F16, F32, Format, Iq2S, Q6K, Q8_0};
use crate::isa::Isa;
use crate::op::{
    Absmean, AbsmeanFn, Add, AddFn, Attend, AttendFn, Condense, CondenseFn, Gemm, GemmFn, Gemv,
    GemvFn, Head, HeadFn, I2SR32, Join, JoinFn, Matmul, MatmulFn, Norm, NormFn, Peak, PeakFn,
    Quantize, QuantizeFn, Read, ReadFn, Refine, RefineFn, Relu2, Relu2Fn, Rope, RopeFn, Scan,
    ScanFn, Softmax, SoftmaxFn, Store, StoreFn, Ternarize, TernarizeFn, TernarizeI2S, Tl2R32,
};
use crate::simd::cpu::Cpu;
use crate::simd::gate::{Gated, gate};
use crate::simd::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::simd::{
    avx2::Avx2,
    avx512::Avx512,
    vnni::{Avx512Vnni, AvxVnni},
};
#[cfg(target_arch = "aarch64")]
use crate::simd::{
    neon::Neon,
    neondot::{NeonDot, NeonI8mm},
};

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Ternary matrix times one row of 8-bit activations.
    Gemv,
    /// Ternary matrix times many rows of 8-bit activations.
    Gemm,
    /// Activations to 8 bits.
    Quantize,
    /// RMSNorm.
    Norm,
    /// Rotary position embedding.
    Rope,
    /// Softmax.
    Softmax,
    /// Squared-ReLU gate.
    Relu2,
    /// Attention: a part of its result.
    Attend,
    /// The result of attention from its parts.
    Join,
    /// Sum of two vectors.
    Add,
    /// Floating-point matrix times hidden states: the output layer.
    Head,
    /// Sum of absolute values, by blocks.
    Absmean,
    /// Floating-point weights to ternary ones.
    Ternarize,
    /// Ternary weights, one code a byte, times 8-bit activations.
    Matmul,
    /// Rows of the output layer to 5 and 2 bits.
    Condense,
    /// Condensed rows times a hidden state.
    Scan,
    /// What 2 more bits of a condensed row add.
    Refine,
    /// Keys and values into the format of their cache.
    Store,
    /// Multiply-adds from registers, to measure the limit of the machine.
    Peak,
    /// Reads of memory, to measure the limit of the machine.
    Read,
}

impl Operation {
    /// Name of the operation, and of what it reads beside weights; nothing for attention, whose
    /// format is that of the cache.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Operation::Gemv => ("gemv", "q8"),
            Operation::Gemm => ("gemm", "q8"),
            Operation::Quantize => ("quantize", "q8"),
            Operation::Norm => ("norm", "f32"),
            Operation::Rope => ("rope", "f32"),
            Operation::Softmax => ("softmax", "f32"),
            Operation::Relu2 => ("relu2", "f32"),
            Operation::Attend => ("attend", ""),
            Operation::Join => ("join", "f32"),
            Operation::Add => ("add", "f32"),
            Operation::Head => ("head", "f32"),
            Operation::Absmean => ("absmean", "f32"),
            Operation::Ternarize => ("ternarize", "f32"),
            Operation::Matmul => ("matmul_codes", "q8"),
            Operation::Condense => ("condense", "f32"),
            Operation::Scan => ("scan", "q8"),
            Operation::Refine => ("refine", "q8"),
            Operation::Store => ("store", ""),
            Operation::Peak => ("peak", "q8"),
            Operation::Read => ("read", "f32"),
        }
    }
}

/// One implementation of one operation, for one weight format if it has weights, on one
/// instruction set. Displays as its id, such as `gemv_i2s_r32_q8_avx2`.
#[derive(Debug)]
pub struct Kernel {
    operation: Operation,
    format: Option<Format>,
    code: Code,
}

impl Kernel {
    /// What it computes.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The format of its weights, if it has any.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// The instruction set it is compiled for.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.code.isa()
    }

    /// The function, if `cpu` may run it and it is of type `F`.
    pub fn bind<F: Function>(&self, cpu: &Cpu) -> Option<F> {
        F::of(&self.code)?.bind(cpu)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, operand) = self.operation.names();
        write!(f, "{operation}_")?;
        if let Some(format) = self.format {
            write!(f, "{format}_")?;
        }
        if !operand.is_empty() {
            write!(f, "{operand}_")?;
        }
        write!(f, "{}", self.isa())
    }
}

/// The type of a kernel function.
pub trait Function: sealed::Of {
    /// The operation functions of this type compute.
    const OPERATION: Operation;
}

mod sealed {
    /// Kernel functions are those of this crate.
    pub trait Of: Copy + Send + Sync + 'static {
        /// The function of a kernel, if it is of this type.
        #[expect(private_interfaces, reason = "the trait is sealed")]
        fn of(code: &super::Code) -> Option<&super::Gated<Self>>;
    }
}

/// Declares the function types: the code of a kernel is one of them.
macro_rules! functions {
    ($($operation:ident: $function:ty),+ $(,)?) => {
        #[derive(Clone, Copy, Debug)]
        enum Code { $($operation(Gated<$function>)),+ }

        impl Code {
            fn isa(&self) -> Isa {
                match self { $(Code::$operation(gated) => gated.isa()),+ }
            }
        }

        $(
            impl sealed::Of for $function {
                #[expect(private_interfaces, reason = "the trait is sealed")]
                fn of(code: &Code) -> Option<&Gated<Self>> {
                    match code {
                        Code::$operation(gated) => Some(gated),
                        _ => None,
                    }
                }
            }

            impl Function for $function {
                const OPERATION: Operation = Operation::$operation;
            }
        )+
    };
}

functions! {
    Gemv: GemvFn,
    Gemm: GemmFn,
    Quantize: QuantizeFn,
    Norm: NormFn,
    Rope: RopeFn,
    Softmax: SoftmaxFn,
    Relu2: Relu2Fn,
    Attend: AttendFn,
    Join: JoinFn,
    Add: AddFn,
    Head: HeadFn,
    Absmean: AbsmeanFn,
    Ternarize: TernarizeFn,
    Matmul: MatmulFn,
    Condense: CondenseFn,
    Scan: ScanFn,
    Refine: RefineFn,
    Store: StoreFn,
    Peak: PeakFn,
    Read: ReadFn,
}

/// A row for each token, the least first.
macro_rules! rows {
    ($operation:ident, $format:expr, $op:ty, [$($(#[$meta:meta])* $token:ty),+]) => {
        [$($(#[$meta])* Kernel {
            operation: Operation::$operation,
            format: $format,
            code: Code::$operation(gate::<$token, $op>()),
        }),+]
    };
}

/// Rows of an operation on [`Bytes`](crate::simd::Bytes).
macro_rules! on_bytes {
    ($operation:ident, $format:expr, $op:ty) => {
        rows!(
            $operation,
            $format,
            $op,
            [
                Scalar,
                #[cfg(target_arch = "x86_64")]
                Avx2,
                #[cfg(target_arch = "x86_64")]
                AvxVnni,
                #[cfg(target_arch = "x86_64")]
                Avx512,
                #[cfg(target_arch = "x86_64")]
                Avx512Vnni,
                #[cfg(target_arch = "aarch64")]
                Neon,
                #[cfg(target_arch = "aarch64")]
                NeonDot,
                #[cfg(target_arch = "aarch64")]
                NeonI8mm
            ]
        )
    };
}

/// Rows of an operation on [`Floats`](crate::simd::Floats).
macro_rules! on_floats {
    ($operation:ident, $format:expr, $op:ty) => {
        rows!(
            $operation,
            $format,
            $op,
            [
                Scalar,
                #[cfg(target_arch = "x86_64")]
                Avx2,
                #[cfg(target_arch = "x86_64")]
                Avx512,
                #[cfg(target_arch = "aarch64")]
                Neon
            ]
        )
    };
}

/// Every kernel of the crate that is compiled for this architecture. A line is an operation and a
/// format, and holds a row for each instruction set, the least first.
pub static KERNELS: &[&[Kernel]] = &[
    &on_bytes!(Gemv, Some(Format::I2SR32), Gemv<I2SR32>),
    &on_bytes!(Gemm, Some(Format::I2SR32), Gemm<I2SR32>),
    &on_bytes!(Gemv, Some(Format::Tl2R32), Gemv<Tl2R32>),
    &on_bytes!(Gemm, Some(Format::Tl2R32), Gemm<Tl2R32>),
    &on_floats!(Quantize, None, Quantize),
    &on_floats!(Norm, None, Norm),
    &on_floats!(Rope, None, Rope),
    &on_floats!(Softmax, None, Softmax),
    &on_floats!(Relu2, None, Relu2),
    &on_floats!(Attend, Some(Format::F32), Attend<F32>),
    &on_floats!(Attend, Some(Format::F16), Attend<F16>),
    &on_floats!(Attend, Some(Format::Q8_0), Attend<Q8_0>),
    &on_floats!(Join, None, Join),
    &on_floats!(Add, None, Add),
    &on_floats!(Head, Some(Format::F32), Head<F32>),
    &on_floats!(Head, Some(Format::F16), Head<F16>),
    &on_floats!(Head, Some(Format::Bf16), Head<Bf16>),
    &on_floats!(Head, Some(Format::Q8_0), Head<Q8_0>),
    &on_floats!(Head, Some(Format::Q6K), Head<Q6K>),
    &on_floats!(Head, Some(Format::Iq2S), Head<Iq2S>),
    &on_floats!(Absmean, None, Absmean),
    &on_floats!(Ternarize, None, Ternarize),
    &on_floats!(Ternarize, Some(Format::I2S), TernarizeI2S),
    &on_floats!(Matmul, None, Matmul),
    &on_floats!(Condense, Some(Format::F32), Condense<F32>),
    &on_floats!(Condense, Some(Format::F16), Condense<F16>),
    &on_floats!(Condense, Some(Format::Bf16), Condense<Bf16>),
    &on_floats!(Condense, Some(Format::Q8_0), Condense<Q8_0>),
    &on_floats!(Condense, Some(Format::Q6K), Condense<Q6K>),
    &on_floats!(Condense, Some(Format::Iq2S), Condense<Iq2S>),
    &on_bytes!(Scan, None, Scan),
    &on_bytes!(Refine, None, Refine),
    &on_floats!(Store, Some(Format::F32), Store<F32>),
    &on_floats!(Store, Some(Format::F16), Store<F16>),
    &on_floats!(Store, Some(Format::Q8_0), Store<Q8_0>),
    &on_bytes!(Peak, None, Peak),
    &on_floats!(Read, None, Read),
];

/// All rows of [`KERNELS`].
pub fn kernels() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().copied().flatten()
}

/// A kernel chosen for this processor.
#[derive(Clone, Copy, Debug)]
pub struct Bound<F> {
    /// The row of the table.
    pub kernel: &'static Kernel,
    /// Its function.
    pub run: F,
    /// Which of [`kernels`] it is.
    index: usize,
}

/// How often each kernel was called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(Vec<u64>);

impl Calls {
    /// Adds `n` calls of a kernel.
    pub fn add<F>(&mut self, kernel: &Bound<F>, n: u64) {
        if self.0.len() <= kernel.index {
            self.0.resize(kernel.index + 1, 0);
        }
        self.0[kernel.index] += n;
    }

    /// The kernels that were called, in the order of the table, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Kernel, u64)> {
        kernels().zip(self.0.iter().copied()).filter(|&(_, calls)| calls > 0)
    }
}

/// There is no kernel for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKernel {
    /// The operation.
    pub operation: Operation,
    /// The format of the weights.
    pub format: Option<Format>,
}

impl fmt::Display for NoKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} kernel", self.operation.names().0)?;
        match self.format {
            Some(format) => write!(f, " for {format} weights"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NoKernel {}

/// The kernel for the best instruction set of `cpu`.
///
/// `F` says which operation, `format` which weights; `None` for operations without weights.
///
/// # Errors
///
/// [`NoKernel`] where the table has no such row.
pub fn select<F: Function>(format: Option<Format>, cpu: &Cpu) -> Result<Bound<F>, NoKernel> {
    kernels()
        .enumerate()
        .filter(|(_, kernel)| kernel.operation == F::OPERATION && kernel.format == format)
        .filter_map(|(index, kernel)| Some(Bound { kernel, run: kernel.bind(cpu)?, index }))
        .last()
        .ok_or(NoKernel { operation: F::OPERATION, format })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_computed_from_the_row() {
        let ids: BTreeSet<_> = kernels().map(ToString::to_string).collect();
        assert_eq!(ids.len(), kernels().count());
        assert!(ids.contains("gemv_i2s_r32_q8_scalar"));
        assert!(ids.contains("norm_f32_scalar"));
        assert!(ids.contains("attend_q8_0_scalar"));
        assert!(ids.contains("head_q6_k_f32_scalar"));
    }

    #[test]
    fn every_line_is_one_operation_and_starts_with_scalar() {
        for line in KERNELS {
            assert_eq!(line[0].isa(), Isa::Scalar);
            for pair in line.windows(2) {
                assert_eq!(pair[0].operation, pair[1].operation);
                assert_eq!(pair[0].format, pair[1].format);
                assert!(pair[0].isa().within(pair[1].isa()), "{} after {}", pair[1], pair[0]);
            }
        }
    }

    #[test]
    fn selection_follows_the_limit() {
        let cpu = Cpu::detect();
        for &isa in cpu.isas() {
            let cpu = cpu.limit(isa).unwrap();
            let gemv = select::<GemvFn>(Some(Format::I2SR32), &cpu).unwrap();
            assert_eq!(gemv.kernel.isa(), isa);
            assert!(select::<NormFn>(None, &cpu).unwrap().kernel.isa().within(isa));
        }
        let none = select::<GemvFn>(Some(Format::F16), &cpu).unwrap_err();
        assert_eq!(none.to_string(), "no gemv kernel for f16 weights");
    }

    #[test]
    fn calls_are_counted_by_kernel() {
        let cpu = Cpu::detect();
        let (norm, add) = (select::<NormFn>(None, &cpu), select::<AddFn>(None, &cpu));
        let mut calls = Calls::default();
        calls.add(&add.unwrap(), 2);
        calls.add(&norm.unwrap(), 3);
        calls.add(&add.unwrap(), 1);
        let counted: Vec<_> = calls.iter().map(|(kernel, n)| (kernel.operation, n)).collect();
        assert_eq!(counted, [(Operation::Norm, 3), (Operation::Add, 3)]);
    }
}
