//! Every kernel, in one table.

use std::fmt;
use std::str::FromStr;

use crate::format::{Bf16, F16, F32, Format, Iq2S, Q2_0, Q4_0, Q4K, Q6K, Q8_0};
use crate::isa::Isa;
use crate::op::{
    Absmean, AbsmeanFn, Add, AddFn, Attend, AttendFn, Condense, CondenseFn, Gate, Gelu, GeluFn,
    Gemm, GemmFn, Gemv, GemvFn, Head, HeadFn, I2SR32, Join, JoinFn, Matmul, MatmulFn, Norm, NormFn,
    Peak, PeakFn, Quantize, QuantizeFn, Read, ReadFn, Refine, RefineFn, Relu2, Relu2Fn, Rope,
    RopeFn, Scan, ScanFn, Silu, SiluFn, Softmax, SoftmaxFn, Store, StoreFn, Ternarize, TernarizeFn,
    TernarizeI2S, Tl2R32,
};
use crate::operation::Operation;
use crate::simd::Token;
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

/// One operation, for one weight format if it has weights: a kernel for each instruction set.
#[derive(Debug)]
pub struct Line {
    /// What is computed.
    pub operation: Operation,
    /// The format of the weights, if there are any.
    pub format: Option<Format>,
    /// The instruction sets that it is written for, those of other architectures too.
    pub isas: &'static [Isa],
    /// The kernels that are compiled for this architecture, the least instruction set first.
    pub kernels: &'static [Kernel],
}

impl Line {
    /// The ids of its kernels, on every architecture.
    pub fn ids(&self) -> impl Iterator<Item = KernelId> {
        let Line { operation, format, .. } = *self;
        self.isas.iter().map(move |&isa| KernelId { operation, format, isa })
    }
}

/// One implementation of one operation, for one weight format if it has weights, on one
/// instruction set. Displays as its id, such as `gemv_i2s_r32_q8_avx2`.
#[derive(Debug)]
pub struct Kernel {
    id: KernelId,
    code: Code,
}

impl Kernel {
    /// Its fields.
    #[must_use]
    pub fn id(&self) -> KernelId {
        self.id
    }

    /// What it computes.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.id.operation
    }

    /// The format of its weights, if it has any.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.id.format
    }

    /// The instruction set it is compiled for.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.id.isa
    }

    /// The function, if `cpu` may run it and it is of type `F`.
    pub fn bind<F: Function>(&self, cpu: &Cpu) -> Option<F> {
        F::of(&self.code)?.bind(cpu)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

/// What tells a kernel from all others, on every architecture. Displays as in receipts:
/// `gemv_i2s_r32_q8_avx2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelId {
    /// What it computes.
    pub operation: Operation,
    /// The format of its weights, or of keys and values; nothing where there are none.
    pub format: Option<Format>,
    /// Its instruction set.
    pub isa: Isa,
}

impl fmt::Display for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KernelId { operation, format, isa } = self;
        write!(f, "{operation}_")?;
        if let Some(format) = format {
            write!(f, "{format}_")?;
        }
        // Keys and values are all that these take.
        if !matches!(operation, Operation::Attend | Operation::Store) {
            write!(f, "{}_", operation.data())?;
        }
        write!(f, "{isa}")
    }
}

/// A name that is no kernel on any architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKernel(pub String);

impl fmt::Display for UnknownKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no kernel `{}`: `bitnet kernels` lists all", self.0)
    }
}

impl std::error::Error for UnknownKernel {}

impl FromStr for KernelId {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<KernelId, UnknownKernel> {
        let known = KERNELS.iter().flat_map(Line::ids).find(|id| id.to_string() == name);
        known.ok_or_else(|| UnknownKernel(name.to_owned()))
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
    Silu: SiluFn,
    Gelu: GeluFn,
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

/// A line with a kernel for each token, the least first.
macro_rules! line {
    ($operation:ident, $format:expr, $op:ty, [$($(#[$meta:meta])* $token:ident),+]) => {
        Line {
            operation: Operation::$operation,
            format: $format,
            isas: &[$(Isa::$token),+],
            kernels: &[$($(#[$meta])* Kernel {
                id: KernelId {
                    operation: Operation::$operation,
                    format: $format,
                    isa: <$token as Token>::ISA,
                },
                code: Code::$operation(gate::<$token, $op>()),
            }),+],
        }
    };
}

/// The line of an operation on [`Bytes`](crate::simd::Bytes).
macro_rules! on_bytes {
    ($operation:ident, $format:expr, $op:ty) => {
        line!(
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

/// The line of an operation on [`Floats`](crate::simd::Floats).
macro_rules! on_floats {
    ($operation:ident, $format:expr, $op:ty) => {
        line!(
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

/// Every kernel of the crate: a line for each operation and format.
pub static KERNELS: &[Line] = &[
    on_bytes!(Gemv, Some(Format::I2SR32), Gemv<I2SR32>),
    on_bytes!(Gemm, Some(Format::I2SR32), Gemm<I2SR32>),
    on_bytes!(Gemv, Some(Format::Tl2R32), Gemv<Tl2R32>),
    on_bytes!(Gemm, Some(Format::Tl2R32), Gemm<Tl2R32>),
    on_floats!(Quantize, None, Quantize),
    on_floats!(Norm, None, Norm),
    on_floats!(Rope, None, Rope),
    on_floats!(Softmax, None, Softmax),
    on_floats!(Relu2, None, Gate<Relu2>),
    on_floats!(Silu, None, Gate<Silu>),
    on_floats!(Gelu, None, Gate<Gelu>),
    on_floats!(Attend, Some(Format::F32), Attend<F32>),
    on_floats!(Attend, Some(Format::F16), Attend<F16>),
    on_floats!(Attend, Some(Format::Q8_0), Attend<Q8_0>),
    on_floats!(Join, None, Join),
    on_floats!(Add, None, Add),
    on_floats!(Head, Some(Format::F32), Head<F32>),
    on_floats!(Head, Some(Format::F16), Head<F16>),
    on_floats!(Head, Some(Format::Bf16), Head<Bf16>),
    on_floats!(Head, Some(Format::Q8_0), Head<Q8_0>),
    on_floats!(Head, Some(Format::Q6K), Head<Q6K>),
    on_floats!(Head, Some(Format::Iq2S), Head<Iq2S>),
    on_floats!(Head, Some(Format::Q4_0), Head<Q4_0>),
    on_floats!(Head, Some(Format::Q4K), Head<Q4K>),
    on_floats!(Head, Some(Format::Q2_0), Head<Q2_0<4>>),
    on_floats!(Head, Some(Format::Q2_0G128), Head<Q2_0<8>>),
    on_floats!(Absmean, None, Absmean),
    on_floats!(Ternarize, None, Ternarize),
    on_floats!(Ternarize, Some(Format::I2S), TernarizeI2S),
    on_floats!(Matmul, None, Matmul),
    on_floats!(Condense, Some(Format::F32), Condense<F32>),
    on_floats!(Condense, Some(Format::F16), Condense<F16>),
    on_floats!(Condense, Some(Format::Bf16), Condense<Bf16>),
    on_floats!(Condense, Some(Format::Q8_0), Condense<Q8_0>),
    on_floats!(Condense, Some(Format::Q6K), Condense<Q6K>),
    on_floats!(Condense, Some(Format::Iq2S), Condense<Iq2S>),
    on_floats!(Condense, Some(Format::Q4_0), Condense<Q4_0>),
    on_floats!(Condense, Some(Format::Q4K), Condense<Q4K>),
    on_floats!(Condense, Some(Format::Q2_0), Condense<Q2_0<4>>),
    on_floats!(Condense, Some(Format::Q2_0G128), Condense<Q2_0<8>>),
    on_bytes!(Scan, None, Scan),
    on_bytes!(Refine, None, Refine),
    on_floats!(Store, Some(Format::F32), Store<F32>),
    on_floats!(Store, Some(Format::F16), Store<F16>),
    on_floats!(Store, Some(Format::Q8_0), Store<Q8_0>),
    on_bytes!(Peak, None, Peak),
    on_floats!(Read, None, Read),
];

/// Every kernel that is compiled for this architecture.
pub fn kernels() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().flat_map(|line| line.kernels)
}

/// A kernel chosen for this processor.
#[derive(Clone, Copy, Debug)]
pub struct Bound<F> {
    /// The row of the table.
    pub kernel: &'static Kernel,
    /// Its function.
    pub run: F,
    /// Which of [`kernels`] it is.
    pub(crate) index: usize,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::env::consts::ARCH;

    use super::*;
    use crate::KernelManager;

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
    fn ids_parse_back_on_every_architecture() {
        for id in KERNELS.iter().flat_map(Line::ids) {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("gemv_tl2_r32_q8_neoni8mm".parse::<KernelId>().is_ok());
        assert!("gemv_tl2_r32_q8_avx512vnni".parse::<KernelId>().is_ok());
        for name in ["", "gemv", "norm_f32_avxvnni", "gemv_f16_q8_scalar", "norm_f32_scalar "] {
            let error = name.parse::<KernelId>().unwrap_err().to_string();
            assert!(error.contains("bitnet kernels"), "{error}");
        }
    }

    #[test]
    fn every_line_is_one_operation_and_starts_with_scalar() {
        let cpu = Cpu::detect();
        for line in KERNELS {
            assert_eq!(line.isas[0], Isa::Scalar);
            let here: Vec<_> = line.kernels.iter().map(Kernel::id).collect();
            let ids: Vec<_> = line.ids().filter(|id| here.contains(id)).collect();
            assert_eq!(here, ids, "in order, and none that the line does not name");
            for pair in here.windows(2) {
                assert!(pair[0].isa.within(pair[1].isa), "{} after {}", pair[1], pair[0]);
            }
            for kernel in line.kernels {
                assert_eq!(kernel.isa().arch().unwrap_or(ARCH), ARCH);
                assert_eq!(runs(kernel, &cpu), cpu.has(kernel.isa()), "{kernel}");
            }
        }
    }

    /// Whether a kernel is given out, as a function of its own operation.
    fn runs(kernel: &Kernel, cpu: &Cpu) -> bool {
        macro_rules! bound {
            ($($function:ty),+) => { $(kernel.bind::<$function>(cpu).is_some())||+ };
        }
        bound!(
            GemvFn,
            GemmFn,
            QuantizeFn,
            NormFn,
            RopeFn,
            SoftmaxFn,
            Relu2Fn,
            SiluFn,
            GeluFn,
            AttendFn,
            JoinFn,
            AddFn,
            HeadFn,
            AbsmeanFn,
            TernarizeFn,
            MatmulFn,
            CondenseFn,
            ScanFn,
            RefineFn,
            StoreFn,
            PeakFn,
            ReadFn
        )
    }

    #[test]
    fn calls_are_counted_by_kernel() {
        let manager = KernelManager::new();
        let norm = manager.select::<NormFn>(None).unwrap();
        let add = manager.select::<AddFn>(None).unwrap();
        let mut calls = Calls::default();
        calls.add(&add, 2);
        calls.add(&norm, 3);
        calls.add(&add, 1);
        let counted: Vec<_> = calls.iter().map(|(kernel, n)| (kernel.operation(), n)).collect();
        assert_eq!(counted, [(Operation::Norm, 3), (Operation::Add, 3)]);
    }
}
