//! What kernels compute.

use std::fmt;

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// SiLU gate.
    Silu,
    /// GELU gate.
    Gelu,
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
    /// Its name, as in kernel ids.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Gemv => "gemv",
            Operation::Gemm => "gemm",
            Operation::Quantize => "quantize",
            Operation::Norm => "norm",
            Operation::Rope => "rope",
            Operation::Softmax => "softmax",
            Operation::Relu2 => "relu2",
            Operation::Silu => "silu",
            Operation::Gelu => "gelu",
            Operation::Attend => "attend",
            Operation::Join => "join",
            Operation::Add => "add",
            Operation::Head => "head",
            Operation::Absmean => "absmean",
            Operation::Ternarize => "ternarize",
            Operation::Matmul => "matmul_codes",
            Operation::Condense => "condense",
            Operation::Scan => "scan",
            Operation::Refine => "refine",
            Operation::Store => "store",
            Operation::Peak => "peak",
            Operation::Read => "read",
        }
    }

    /// What it takes, or gives, beside weights.
    #[must_use]
    pub const fn data(self) -> DataType {
        match self {
            Operation::Gemv
            | Operation::Gemm
            | Operation::Quantize
            | Operation::Matmul
            | Operation::Scan
            | Operation::Refine
            | Operation::Peak => DataType::Q8,
            Operation::Norm
            | Operation::Rope
            | Operation::Softmax
            | Operation::Relu2
            | Operation::Silu
            | Operation::Gelu
            | Operation::Attend
            | Operation::Join
            | Operation::Add
            | Operation::Head
            | Operation::Absmean
            | Operation::Ternarize
            | Operation::Condense
            | Operation::Store
            | Operation::Read => DataType::F32,
        }
    }

    /// Whether it is a product with a ternary matrix.
    #[must_use]
    pub const fn is_product(self) -> bool {
        matches!(self, Operation::Gemv | Operation::Gemm)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The type of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// Signed bytes with a scale for each row.
    Q8,
    /// Single precision.
    F32,
}

impl DataType {
    /// Its name, as in kernel ids.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Q8 => "q8",
            DataType::F32 => "f32",
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
