//! The kernels by name, and which of them a forward pass takes: also for those who have no GPU.

use std::str::FromStr;

use crate::tiles;

/// Rows that a kernel for few rows takes at once.
pub const VECTORS: usize = 8;

macro_rules! kernels {
    ($($id:ident = $name:literal from $target:literal),* $(,)?) => {
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

            /// The least compute capability of the [targets](TARGETS) that it is compiled for.
            #[must_use]
            pub const fn needs(self) -> (i32, i32) {
                match self {
                    $(KernelId::$id => ($target / 10, $target % 10),)*
                }
            }
        }
    };
}

kernels! {
    RmsNorm = "rmsnorm_f32" from 61,
    RmsNormQuantize = "rmsnorm_quant_i8" from 61,
    Quantize = "quant_i8" from 61,
    GemvDp4a = "i2s_gpu_gemv_dp4a" from 61,
    GemvDp4aGate = "i2s_gpu_gemv_dp4a_gate" from 61,
    GemvMma = "i2s_gpu_gemv_mma_u8s8" from 80,
    GemvMmaGate = "i2s_gpu_gemv_mma_u8s8_gate" from 80,
    GemvNormMma = "i2s_gpu_gemv_mma_u8s8_norm" from 80,
    GemvQuantizeMma = "i2s_gpu_gemv_mma_u8s8_quant" from 80,
    GemvNormMmaGate = "i2s_gpu_gemv_mma_u8s8_norm_gate" from 80,
    Gemm16 = "gemm_i2s_mma_u8s8_16" from 80,
    Gemm16Gate = "gemm_i2s_mma_u8s8_gate_16" from 80,
    Gemm32 = "gemm_i2s_mma_u8s8_32" from 80,
    Gemm32Gate = "gemm_i2s_mma_u8s8_gate_32" from 80,
    Gemm64 = "gemm_i2s_mma_u8s8_64" from 80,
    Gemm64Gate = "gemm_i2s_mma_u8s8_gate_64" from 80,
    GemmWgmma = "gemm_i2s_wgmma_s8" from 90,
    GemmWgmmaGate = "gemm_i2s_wgmma_gate_s8" from 90,
    RopeAppendF32 = "rope_kv_append_f32" from 61,
    RopeAppendF16 = "rope_kv_append_f16" from 61,
    RopeAppendQ8 = "rope_kv_append_q8_0" from 61,
    AttendF32 = "attn_gqa_f32" from 61,
    AttendF16 = "attn_gqa_f16" from 61,
    AttendQ8 = "attn_gqa_q8_0" from 61,
    EmbedF32 = "embed_f32" from 61,
    EmbedF16 = "embed_f16" from 61,
    EmbedBf16 = "embed_bf16" from 61,
    GemvHeadF32 = "gemv_head_f32" from 61,
    GemvHeadF16 = "gemv_head_f16" from 61,
    GemvHeadBf16 = "gemv_head_bf16" from 61,
    GemmHeadF32 = "gemm_head_f32" from 61,
    GemmHeadF16 = "gemm_head_f16" from 61,
    GemmHeadBf16 = "gemm_head_bf16" from 61,
    TopK = "sample_topk" from 61,
    Argmax = "sample_argmax" from 61,
    Advance = "step_advance" from 61,
    Gather = "gather_f32" from 61,
    Add = "add_f32" from 61,
    Gate = "gate_f32" from 61,
    MegaDecode = "i2s_gpu_megadecode" from 80,
    MatmulFp32 = "bitnet_matmul_fp32" from 61,
    MatmulFp16 = "bitnet_matmul_fp16" from 61,
    MatmulBf16 = "bitnet_matmul_bf16" from 61,
    WmmaFp16 = "wmma_matmul_fp16" from 80,
    WmmaBf16 = "wmma_matmul_bf16" from 80,
    ToFp16 = "convert_fp32_to_fp16" from 61,
    FromFp16 = "convert_fp16_to_fp32" from 61,
    ToBf16 = "convert_fp32_to_bf16" from 61,
    FromBf16 = "convert_bf16_to_fp32" from 61,
}

impl KernelId {
    /// The kernel that multiplies so many rows by ternary weights, of those that are compiled for `target`; one that gates,
    /// if it is to.
    #[must_use]
    pub fn product(target: (i32, i32), rows: usize, gate: bool) -> KernelId {
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
        target: (i32, i32),
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

    /// Rows that it multiplies by ternary weights, in one launch: all, or a few.
    #[must_use]
    pub fn rows(self) -> usize {
        match self.tokens() {
            Some(_) => usize::MAX,
            None => VECTORS,
        }
    }

    /// Tokens of a block of one that multiplies many by ternary weights.
    pub(crate) fn tokens(self) -> Option<usize> {
        match self {
            KernelId::Gemm16 | KernelId::Gemm16Gate => Some(16),
            KernelId::Gemm32 | KernelId::Gemm32Gate => Some(32),
            KernelId::Gemm64
            | KernelId::Gemm64Gate
            | KernelId::GemmWgmma
            | KernelId::GemmWgmmaGate => Some(64),
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
    pub fn of(self, target: (i32, i32), (rows, apart): (usize, bool), cols: &[usize]) -> GpuPasses {
        let fits =
            |&cols: &usize| KernelId::prepared(target, (rows, cols), (true, false)).is_some();
        if apart && cols.iter().all(fits) { self } else { GpuPasses::Graph }
    }
}

/// Devices that there are kernels for: their names, and the least compute capability. The best last. Where a name ends with an
/// `a`, it is the only one: instructions of such a target are in no other generation, not in later ones either.
pub const TARGETS: [(&str, (i32, i32)); 3] =
    [("sm_61", (6, 1)), ("sm_80", (8, 0)), ("sm_90a", (9, 0))];

/// Which of the [targets](TARGETS) a device of some compute capability takes its kernels from; none if it is too old.
#[must_use]
pub fn target_of(capability: (i32, i32)) -> Option<usize> {
    TARGETS.iter().rposition(|(name, from)| match name.ends_with('a') {
        true => *from == capability,
        false => *from <= capability,
    })
}

/// Rows of recorded passes: as many as there are, or more that are not there.
#[must_use]
pub fn bucket(rows: usize) -> usize {
    rows.next_power_of_two()
}
