//! The kernels by name, and which of them a forward pass takes: also for those who have no GPU.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bitnet_kernels::Format;

use crate::{CudaComputeCapability, PrecisionMode, tiles};

/// Rows that a kernel for few rows takes at once.
pub const VECTORS: usize = 8;

macro_rules! kernels {
    ($($id:ident = $name:literal from $target:literal does $operation:literal),* $(,)?) => {
        /// A kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum KernelId {
            $(#[doc = concat!("`", $name, "`")] $id,)*
        }

        impl KernelId {
            /// All, in the order in which they are declared.
            pub const ALL: &[KernelId] = &[$(KernelId::$id),*];

            /// Its name, in the module and in receipts.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(KernelId::$id => $name,)*
                }
            }

            /// What it computes: operations of the processor's table by their names there, one after another, or one of its own.
            #[must_use]
            pub const fn operation(self) -> &'static str {
                match self {
                    $(KernelId::$id => $operation,)*
                }
            }

            /// The least compute capability of the [targets](TARGETS) that it is compiled for.
            #[must_use]
            pub const fn needs(self) -> CudaComputeCapability {
                match self {
                    $(KernelId::$id => CudaComputeCapability::new($target / 10, $target % 10),)*
                }
            }
        }
    };
}

kernels! {
    RmsNorm = "rmsnorm_f32" from 61 does "norm",
    RmsNormQuantize = "rmsnorm_quant_i8" from 61 does "norm, quantize",
    Quantize = "quant_i8" from 61 does "quantize",
    GemvDp4a = "i2s_gpu_gemv_dp4a" from 61 does "gemv",
    GemvDp4aGate = "i2s_gpu_gemv_dp4a_gate" from 61 does "gemv, gate",
    GemvMma = "i2s_gpu_gemv_mma_u8s8" from 80 does "gemv",
    GemvMmaGate = "i2s_gpu_gemv_mma_u8s8_gate" from 80 does "gemv, gate",
    GemvNormMma = "i2s_gpu_gemv_mma_u8s8_norm" from 80 does "norm, quantize, gemv",
    GemvQuantizeMma = "i2s_gpu_gemv_mma_u8s8_quant" from 80 does "quantize, gemv",
    GemvNormMmaGate = "i2s_gpu_gemv_mma_u8s8_norm_gate" from 80 does "norm, quantize, gemv, gate",
    Gemm16 = "gemm_i2s_mma_u8s8_16" from 80 does "gemm",
    Gemm16Gate = "gemm_i2s_mma_u8s8_gate_16" from 80 does "gemm, gate",
    Gemm32 = "gemm_i2s_mma_u8s8_32" from 80 does "gemm",
    Gemm32Gate = "gemm_i2s_mma_u8s8_gate_32" from 80 does "gemm, gate",
    Gemm64 = "gemm_i2s_mma_u8s8_64" from 80 does "gemm",
    Gemm64Gate = "gemm_i2s_mma_u8s8_gate_64" from 80 does "gemm, gate",
    GemmWgmma = "gemm_i2s_wgmma_s8" from 90 does "gemm",
    GemmWgmmaGate = "gemm_i2s_wgmma_gate_s8" from 90 does "gemm, gate",
    RopeAppendF32 = "rope_kv_append_f32" from 61 does "rope, store",
    RopeAppendF16 = "rope_kv_append_f16" from 61 does "rope, store",
    RopeAppendQ8 = "rope_kv_append_q8_0" from 61 does "rope, store",
    AttendF32 = "attn_gqa_f32" from 61 does "attend, join",
    AttendF16 = "attn_gqa_f16" from 61 does "attend, join",
    AttendQ8 = "attn_gqa_q8_0" from 61 does "attend, join",
    PrefillF32 = "attn_prefill_f32" from 61 does "attend, join",
    PrefillF16 = "attn_prefill_f16" from 61 does "attend, join",
    PrefillQ8 = "attn_prefill_q8_0" from 61 does "attend, join",
    BlendF16 = "attn_prefill_mma_f16" from 80 does "attend, join",
    BlendBf16 = "attn_prefill_mma_bf16" from 80 does "attend, join",
    EmbedF32 = "embed_f32" from 61 does "embed",
    EmbedF16 = "embed_f16" from 61 does "embed",
    EmbedBf16 = "embed_bf16" from 61 does "embed",
    GemvHeadF32 = "gemv_head_f32" from 61 does "head",
    GemvHeadF16 = "gemv_head_f16" from 61 does "head",
    GemvHeadBf16 = "gemv_head_bf16" from 61 does "head",
    GemmHeadF32 = "gemm_head_f32" from 61 does "head",
    GemmHeadF16 = "gemm_head_f16" from 61 does "head",
    GemmHeadBf16 = "gemm_head_bf16" from 61 does "head",
    CondenseF32 = "head_condense_f32" from 61 does "condense",
    CondenseF16 = "head_condense_f16" from 61 does "condense",
    CondenseBf16 = "head_condense_bf16" from 61 does "condense",
    HeadQuantize = "head_quant_i8x2" from 61 does "quantize",
    GemvHeadDp4a = "gemv_head_i8_dp4a" from 61 does "scan",
    GemvHeadMma = "gemv_head_i8_mma" from 80 does "scan",
    GemmHeadMma = "gemm_head_i8_mma" from 80 does "scan",
    HeadFloor = "head_floor" from 61 does "floor",
    RerankF32 = "head_rerank_f32" from 61 does "head",
    RerankF16 = "head_rerank_f16" from 61 does "head",
    RerankBf16 = "head_rerank_bf16" from 61 does "head",
    RerankAtF32 = "head_rerank_at_f32" from 61 does "head",
    RerankAtF16 = "head_rerank_at_f16" from 61 does "head",
    RerankAtBf16 = "head_rerank_at_bf16" from 61 does "head",
    TopK = "sample_topk" from 61 does "select",
    Draw = "sample_draw" from 61 does "draw",
    Advance = "step_advance" from 61 does "advance",
    Gather = "gather_f32" from 61 does "gather",
    Add = "add_f32" from 61 does "add",
    Gate = "gate_f32" from 61 does "gate",
    MegaDecode = "i2s_gpu_megadecode" from 80 does "pass",
    MatmulFp32 = "bitnet_matmul_fp32" from 61 does "matmul",
    MatmulFp16 = "bitnet_matmul_fp16" from 61 does "matmul",
    MatmulBf16 = "bitnet_matmul_bf16" from 61 does "matmul",
    WmmaFp16 = "wmma_matmul_fp16" from 80 does "matmul",
    WmmaBf16 = "wmma_matmul_bf16" from 80 does "matmul",
    ToFp16 = "convert_fp32_to_fp16" from 61 does "convert",
    FromFp16 = "convert_fp16_to_fp32" from 61 does "convert",
    ToBf16 = "convert_fp32_to_bf16" from 61 does "convert",
    FromBf16 = "convert_bf16_to_fp32" from 61 does "convert",
}

impl KernelId {
    /// The devices that it is for.
    #[must_use]
    pub fn devices(self) -> Needs {
        let least = self.needs();
        let alone = TARGETS.iter().any(|(name, from)| *from == least && is_alone(name));
        Needs { least, alone, cooperative: self == KernelId::MegaDecode }
    }

    /// Whether devices of a compute capability take it: it is in the text of the kernels that they load.
    #[must_use]
    pub fn is_for(self, capability: CudaComputeCapability) -> bool {
        target_of(capability).is_some_and(|target| self.needs() <= TARGETS[target].1)
    }

    /// The kernel that multiplies so many rows by ternary weights, of those that are compiled for `target`; one that gates,
    /// if it is to.
    #[must_use]
    pub fn product(target: CudaComputeCapability, rows: usize, gate: bool) -> KernelId {
        let pick = |plain, gated| if gate { gated } else { plain };
        match rows {
            _ if target < KernelId::GemvMma.needs() => {
                pick(KernelId::GemvDp4a, KernelId::GemvDp4aGate)
            }
            0..=VECTORS => pick(KernelId::GemvMma, KernelId::GemvMmaGate),
            9..=16 => pick(KernelId::Gemm16, KernelId::Gemm16Gate),
            17..=32 => pick(KernelId::Gemm32, KernelId::Gemm32Gate),
            64.. if target >= KernelId::GemmWgmma.needs() => {
                pick(KernelId::GemmWgmma, KernelId::GemmWgmmaGate)
            }
            _ => pick(KernelId::Gemm64, KernelId::Gemm64Gate),
        }
    }

    /// The kernel that multiplies so many rows of `cols` floats by ternary weights, after it has made them 8-bit activations by itself: of
    /// what a norm gives, or as they are. None where it must be given these, as the rows would not fit into the shared memory
    /// that all devices of the target have.
    #[must_use]
    pub fn prepared(
        target: CudaComputeCapability,
        (rows, cols): (usize, usize),
        (norm, gate): (bool, bool),
    ) -> Option<KernelId> {
        let fits = target >= KernelId::GemvNormMma.needs()
            && rows <= VECTORS
            && cols <= PREPARED
            && prepared_bytes(rows, cols) <= PREPARED;
        match (norm, gate) {
            (true, true) => Some(KernelId::GemvNormMmaGate),
            (true, false) => Some(KernelId::GemvNormMma),
            (false, false) => Some(KernelId::GemvQuantizeMma),
            (false, true) => None,
        }
        .filter(|_| fits)
    }

    /// Rows that it multiplies in one launch, by ternary weights: as many as there can be blocks for, or a few.
    #[must_use]
    pub fn rows(self) -> usize {
        self.tokens().map_or(VECTORS, |tokens| 65_535 * tokens)
    }

    /// The kernel that multiplies so many hidden states by the copy of an output layer, of those that are compiled for `target`.
    #[must_use]
    pub fn scan(target: CudaComputeCapability, rows: usize) -> KernelId {
        match rows {
            _ if target < KernelId::GemvHeadMma.needs() => KernelId::GemvHeadDp4a,
            0..=VECTORS => KernelId::GemvHeadMma,
            _ => KernelId::GemmHeadMma,
        }
    }

    /// The kernel for attention of several rows together, in a precision that is not [`PrecisionMode::Auto`]; in less than single precision,
    /// keys and values are stored in half.
    #[must_use]
    pub fn together(precision: PrecisionMode, kv: Format) -> KernelId {
        match (precision, kv) {
            (PrecisionMode::Fp16, _) => KernelId::BlendF16,
            (PrecisionMode::Bf16, _) => KernelId::BlendBf16,
            (_, Format::F32) => KernelId::PrefillF32,
            (_, Format::F16) => KernelId::PrefillF16,
            (..) => KernelId::PrefillQ8,
        }
    }

    /// Tokens of a block of one that multiplies many, by ternary weights or by the copy of an output layer.
    pub(crate) fn tokens(self) -> Option<usize> {
        match self {
            KernelId::Gemm16 | KernelId::Gemm16Gate => Some(16),
            KernelId::Gemm32 | KernelId::Gemm32Gate => Some(32),
            KernelId::Gemm64
            | KernelId::Gemm64Gate
            | KernelId::GemmWgmma
            | KernelId::GemmWgmmaGate
            | KernelId::GemmHeadMma => Some(64),
            _ => None,
        }
    }
}

/// Bytes of shared memory of a kernel that [prepares](KernelId::prepared) its rows: the rows, and their bytes.
pub(crate) fn prepared_bytes(rows: usize, cols: usize) -> usize {
    /// Behind the bytes of each row.
    const PAD: usize = 16;
    rows * (4 * cols + tiles::width(cols) + PAD)
}

/// The most of these: devices of compute capability 8.6 have the least, 99 KiB for a block, of which the kernels have up to 18 for
/// sums.
const PREPARED: usize = 80 << 10;

impl FromStr for KernelId {
    type Err = String;

    fn from_str(name: &str) -> Result<KernelId, String> {
        let found = KernelId::ALL.iter().find(|id| id.name() == name);
        found.copied().ok_or_else(|| format!("there is no kernel {name} for GPUs"))
    }
}

/// How passes of a few rows of different sequences are enqueued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GpuPasses {
    /// As a graph, with a kernel for each operation.
    #[default]
    Graph,
    /// As one kernel that does one operation after another, where the rows fit into shared memory.
    Kernel,
}

impl FromStr for GpuPasses {
    type Err = String;

    fn from_str(name: &str) -> Result<GpuPasses, String> {
        match name {
            "graph" => Ok(GpuPasses::Graph),
            "kernel" => Ok(GpuPasses::Kernel),
            _ => Err(format!("passes are a graph or a kernel, and not {name:?}")),
        }
    }
}

impl GpuPasses {
    /// How a pass of so many rows is enqueued, by a model that multiplies rows as long as these; `apart` says
    /// whether they are of different sequences.
    #[must_use]
    pub fn of(
        self,
        target: CudaComputeCapability,
        (rows, apart): (usize, bool),
        cols: &[usize],
    ) -> GpuPasses {
        let fits =
            |&cols: &usize| KernelId::prepared(target, (rows, cols), (true, false)).is_some();
        if apart && cols.iter().all(fits) { self } else { GpuPasses::Graph }
    }
}

/// Devices that there are kernels for: their names, and the least compute capability. The best last. Where a name ends with an
/// `a`, it is the only one: instructions of such a target are in no other generation, not in later ones either.
pub const TARGETS: [(&str, CudaComputeCapability); 3] = [
    ("sm_61", CudaComputeCapability::new(6, 1)),
    ("sm_80", CudaComputeCapability::new(8, 0)),
    ("sm_90a", CudaComputeCapability::new(9, 0)),
];

/// The devices that a kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Needs {
    /// The least compute capability.
    pub least: CudaComputeCapability,
    /// Whether it is for devices of that one alone.
    pub alone: bool,
    /// Whether they must let kernels wait for all of their blocks.
    pub cooperative: bool,
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Needs { least, alone, cooperative } = self;
        let or = if *alone { "and no other" } else { "or later" };
        let also = if *cooperative { ", and cooperative launches" } else { "" };
        write!(f, "compute capability {least} {or}{also}")
    }
}

/// Which of the [targets](TARGETS) a device of some compute capability takes its kernels from; none if it is too old.
#[must_use]
pub fn target_of(capability: CudaComputeCapability) -> Option<usize> {
    TARGETS.iter().rposition(|(name, from)| match is_alone(name) {
        true => *from == capability,
        false => *from <= capability,
    })
}

/// Whether a target is that of one generation alone.
fn is_alone(target: &str) -> bool {
    target.ends_with('a')
}

/// Which rows of a pass attention takes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTiles {
    precision: PrecisionMode,
    least: usize,
    most: usize,
}

impl RowTiles {
    /// The greatest head of which it takes several rows.
    const HEAD: usize = 128;

    /// In a precision that is not [`PrecisionMode::Auto`], where so many queries of a row share keys and values, in heads of so many
    /// numbers.
    #[must_use]
    pub fn new(precision: PrecisionMode, group: usize, size: usize) -> RowTiles {
        // The exact kernels have others for rows that are alone. Queries of a block, and what a head must be a multiple of:
        // `QUERIES` of `prefill.cu`, `BLEND_QUERIES` of `blend.cu`.
        let (least, queries, unit): (_, usize, _) = match precision {
            PrecisionMode::Fp32 => (2, 32, 4),
            _ => (1, 64, 16),
        };
        let fits = size <= RowTiles::HEAD && size.is_multiple_of(unit);
        let most = if fits { queries.checked_div(group).unwrap_or(0) } else { 0 };
        RowTiles { precision, least, most }
    }

    /// Those of a model in a precision, on devices whose kernels are compiled for `target`; none where they have none for it. Where the
    /// precision is to be chosen it is half, in which keys and values lose nothing, or else single.
    #[must_use]
    pub fn choose(
        mode: PrecisionMode,
        (target, kv): (CudaComputeCapability, Format),
        (group, size): (usize, usize),
    ) -> Option<RowTiles> {
        let of = |precision| RowTiles::new(precision, group, size);
        let halves = target >= KernelId::BlendF16.needs()
            && kv == Format::F16
            && of(PrecisionMode::Fp16).most > 0;
        match mode {
            PrecisionMode::Fp32 => Some(of(mode)),
            PrecisionMode::Auto if halves => Some(of(PrecisionMode::Fp16)),
            PrecisionMode::Auto => Some(of(PrecisionMode::Fp32)),
            _ => halves.then(|| of(mode)),
        }
    }

    /// The precision.
    #[must_use]
    pub fn precision(self) -> PrecisionMode {
        self.precision
    }

    /// Rows of a tile; with fewer than one, or than two in single precision, there are none.
    #[must_use]
    pub fn most(self) -> usize {
        self.most
    }

    /// The tiles of a pass, by the sequences of its rows: pieces of those of one sequence, which stand next to each other.
    pub fn of(self, sequences: &[usize]) -> impl Iterator<Item = Range<usize>> {
        let RowTiles { least, most, .. } = self;
        let mut next = 0;
        let runs = sequences.chunk_by(|a, b| a == b).map(move |run| {
            let first = next;
            next += run.len();
            first..next
        });
        let pieces = runs.flat_map(move |run| {
            let end = run.end;
            run.step_by(most.max(1)).map(move |first| first..end.min(first + most))
        });
        pieces.filter(move |tile| tile.len() >= least)
    }
}

/// Rows of recorded passes: as many as there are, or more that are not there.
#[must_use]
pub fn bucket(rows: usize) -> usize {
    rows.next_power_of_two()
}

#[cfg(test)]
mod tests {
    use bitnet_kernels::Operation;

    use super::*;

    const GENERATIONS: [(u32, u32); 10] =
        [(5, 2), (6, 0), (6, 1), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)];

    /// What is said of a kernel in words is what devices are asked for.
    #[test]
    fn kernels_are_for_the_devices_that_they_say() {
        for (major, minor) in GENERATIONS {
            let has = CudaComputeCapability::new(major, minor);
            for id in KernelId::ALL {
                let Needs { least, alone, .. } = id.devices();
                let expected = if alone { has == least } else { has >= least };
                assert_eq!(id.is_for(has), expected, "{} on {has}", id.name());
            }
        }
        let said = |id: KernelId| id.devices().to_string();
        assert_eq!(said(KernelId::Add), "compute capability 6.1 or later");
        assert_eq!(said(KernelId::GemmWgmma), "compute capability 9.0 and no other");
        assert!(said(KernelId::MegaDecode).ends_with("8.0 or later, and cooperative launches"));
    }

    #[test]
    fn rows_of_a_sequence_are_taken_together() {
        let exact = |group, size| RowTiles::new(PrecisionMode::Fp32, group, size);
        let tiles = |sequences: &[usize], group| exact(group, 64).of(sequences).collect::<Vec<_>>();
        assert_eq!(tiles(&[3; 5], 16), [0..2, 2..4]);
        assert_eq!(tiles(&[0, 0, 0, 1, 2, 2], 4), [0..3, 4..6]);
        assert_eq!(tiles(&[7; 9], 8), [0..4, 4..8]);
        assert_eq!(
            (tiles(&[], 8), tiles(&[1, 1], 32), tiles(&[1, 1], 64)),
            (vec![], vec![], vec![])
        );
        assert_eq!(
            [(4, 128), (3, 64), (32, 80), (4, 130), (4, 256), (0, 64)]
                .map(|(group, size)| exact(group, size).most()),
            [8, 10, 1, 0, 0, 0]
        );
        let halves = |group, size| RowTiles::new(PrecisionMode::Fp16, group, size);
        assert_eq!(halves(32, 64).of(&[3, 3, 3, 1]).collect::<Vec<_>>(), [0..2, 2..3, 3..4]);
        assert_eq!([(4, 128), (65, 64), (4, 72)].map(|(g, s)| halves(g, s).most()), [16, 0, 0]);
    }

    #[test]
    fn precisions_are_of_devices_keys_and_heads() {
        let (old, new) = (CudaComputeCapability::new(6, 1), CudaComputeCapability::new(8, 0));
        let chosen = |mode, (target, kv), size| {
            RowTiles::choose(mode, (target, kv), (4, size)).map(RowTiles::precision)
        };
        let [single, half, brain, auto] = PrecisionMode::ALL;
        for (of, size) in
            [((old, Format::F16), 128), ((new, Format::F32), 128), ((new, Format::F16), 72)]
        {
            let found = PrecisionMode::ALL.map(|mode| chosen(mode, of, size));
            assert_eq!(found, [Some(single), None, None, Some(single)], "{of:?} {size}");
        }
        let found = [single, half, brain, auto].map(|mode| chosen(mode, (new, Format::F16), 128));
        assert_eq!(found, [Some(single), Some(half), Some(brain), Some(half)]);
    }

    /// Names are those of the processor's operations, where it has the same.
    #[test]
    fn operations_have_the_names_that_they_have_elsewhere() {
        let theirs = [
            Operation::Gemv,
            Operation::Gemm,
            Operation::Quantize,
            Operation::Norm,
            Operation::Rope,
            Operation::Store,
            Operation::Attend,
            Operation::Join,
            Operation::Add,
            Operation::Head,
            Operation::Condense,
            Operation::Scan,
        ]
        .map(Operation::name);
        let own = [
            "gate", "embed", "select", "draw", "advance", "gather", "floor", "pass", "matmul",
            "convert",
        ];
        for id in KernelId::ALL {
            for name in id.operation().split(", ") {
                assert!(theirs.contains(&name) || own.contains(&name), "{}: {name}", id.name());
            }
        }
    }
}
