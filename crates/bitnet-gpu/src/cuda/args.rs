//! What kernels take.

/// The bytes of the arguments of a launch, as C lays them out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args(Vec<u8>);

impl Args {
    pub(crate) fn new(first: &impl Argument) -> Args {
        Args::default().with(first)
    }

    pub(crate) fn with(mut self, next: &impl Argument) -> Args {
        next.put(&mut self);
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }
}

/// As kernels take sizes: those that would not fit have no memory.
pub(crate) fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// What a kernel takes.
pub(crate) trait Argument {
    /// Adds its bytes, where it may begin.
    fn put(&self, args: &mut Args);
}

macro_rules! plain {
    ($($ty:ty)*) => {
        $(impl Argument for $ty {
            fn put(&self, args: &mut Args) {
                args.align(size_of::<$ty>());
                args.0.extend(self.to_le_bytes());
            }
        })*
    };
}

plain!(i32 u64 f32);

impl<T: Argument, const N: usize> Argument for [T; N] {
    fn put(&self, args: &mut Args) {
        self.iter().for_each(|one| one.put(args));
    }
}

/// Declares what a kernel takes by value: all of it begins at a multiple of eight, as it has addresses in it.
macro_rules! parameter {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq)]
            pub(crate) struct $name {
                $(pub(crate) $field: $ty,)*
            }

            impl Argument for $name {
                fn put(&self, args: &mut Args) {
                    args.align(8);
                    $(self.$field.put(args);)*
                    args.align(8);
                }
            }
        )*
    };
}

parameter! {
    /// `Norm` of `norm.cu`.
    Norm { x: u64, weight: u64, which: u64, eps: f32, cols: i32 }
    /// `Input` of `prepare.cu`.
    Input { x: u64, weight: u64, eps: f32, cols: i32 }
    /// `Quantized` of `norm.cu`.
    Quantized { q: u64, scale: u64, sum: u64, width: i32 }
    /// `Matrix` of `linear.cuh`.
    Matrix { weights: u64, y: u64, scale: f32, rows: i32 }
    /// `Product` of `linear.cuh`.
    Product {
        of: [Matrix; 3],
        x: u64,
        x_scale: u64,
        x_sum: u64,
        tokens: i32,
        width: i32,
        add: i32,
        activation: i32,
    }
    /// `Rows` of `step.cuh`.
    Rows { token: u64, sequence: u64, position: u64 }
    /// `Cache` of `step.cuh`.
    Cache { blocks: u64, tables: u64, block_bytes: u64, table: i32, layer: i32, kv_heads: i32, size: i32 }
    /// `Rope` of `attend.cu`.
    Rope { q: u64, k: u64, v: u64, cos: u64, sin: u64, heads: i32 }
    /// `Attend` of `attend.cu`.
    Attend { q: u64, out: u64, parts: u64, counters: u64, scale: f32, group: i32 }
    /// `Matmul` of `mixed.cu`.
    Matmul { a: u64, b: u64, c: u64, m: i32, n: i32, k: i32 }
    /// `Listed` of `select.cu`.
    Listed { token: u64, count: u64, most: i32 }
    /// `Select` of `select.cu`.
    Select {
        logits: u64,
        listed: Listed,
        only: u64,
        count: u64,
        found: u64,
        token: u64,
        logit: u64,
        vocabulary: i32,
        most: i32,
    }
    /// `Scan` of `condensed.cu`.
    Scan {
        codes: u64,
        rows_of: u64,
        x: u64,
        tokens_of: u64,
        only: u64,
        most: u64,
        least: u64,
        rows: i32,
        cols: i32,
        tokens: i32,
    }
    /// `Rerank` of `condensed.cu`.
    Rerank {
        table: u64,
        x: u64,
        logits: u64,
        floor: u64,
        only: u64,
        listed: u64,
        token: u64,
        rows: i32,
        cols: i32,
        most: i32,
    }
}
