//! What the header says about a tensor.

/// A tensor as the header describes it, and where its bytes lie.
///
/// What the bytes mean is decided by [`Gguf::tensor_type`](crate::Gguf::tensor_type), never by
/// `type_id` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tensor {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// One to four dimensions, none zero, fastest first as in the file: a matrix of M rows and K
    /// columns has `[K, M]`.
    pub dims: Vec<u64>,
    /// The type id found in the file. Forks of llama.cpp use the same id for different formats.
    pub type_id: u32,
    /// Byte position of the data, counted from the start of the file; it lies within the file.
    pub offset: u64,
    /// Bytes from `offset` to the next tensor, or to the end of the file: the data and its padding.
    pub room: u64,
}

impl Tensor {
    /// Number of elements: the product of the dimensions, which fits in 64 bits.
    pub fn elements(&self) -> u64 {
        self.dims.iter().fold(1, |product, &dim| product.saturating_mul(dim))
    }

    /// Elements per row: the first dimension.
    pub fn row(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }
}
