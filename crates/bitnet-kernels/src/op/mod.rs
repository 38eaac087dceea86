//! Operations: what a kernel computes, written once for every instruction set.
//!
//! Each operation has an arguments struct and a function type; the functions in
//! [`KERNELS`](crate::KERNELS) have these types. Shapes that do not fit are the caller's mistake:
//! they panic, or give some result without meaning, but touch no memory that is not in the
//! arguments. Whoever binds kernels checks shapes when the model is loaded.

mod add;
mod attend;
mod condense;
mod gate;
mod gemm;
mod head;
mod join;
mod layout;
mod matmul;
mod norm;
mod peak;
mod quantize;
mod read;
mod refine;
mod rope;
mod scan;
mod softmax;
mod store;
mod ternarize;

pub(crate) use add::Add;
pub use add::{AddArgs, AddFn};
pub(crate) use attend::Attend;
pub use attend::{AttendArgs, AttendFn, KV_BLOCK, Keys, QUERIES, SPAN, part};
pub(crate) use condense::Condense;
pub use condense::{CODE_BYTES, CONDENSED, CondenseArgs, CondenseFn, RowNorms};
pub(crate) use gate::Gate;
pub use gate::{GateArgs, Gelu, GeluFn, Relu2, Relu2Fn, Silu, SiluFn};
pub use gemm::{Fours, GemmArgs, GemmFn, GemvArgs, GemvFn, interleave};
pub(crate) use gemm::{Gemm, Gemv};
pub(crate) use head::Head;
pub use head::{HeadArgs, HeadFn};
pub(crate) use join::Join;
pub use join::{JoinArgs, JoinFn};
pub(crate) use layout::{I2SR32, Tl2R32};
pub(crate) use matmul::Matmul;
pub use matmul::{MatmulArgs, MatmulFn};
pub(crate) use norm::Norm;
pub use norm::{NormArgs, NormFn};
pub(crate) use peak::Peak;
pub use peak::{PeakArgs, PeakFn};
pub(crate) use quantize::Quantize;
pub use quantize::{QuantizeArgs, QuantizeFn, RowScale};
pub(crate) use read::Read;
pub use read::{ReadArgs, ReadFn};
pub(crate) use refine::Refine;
pub use refine::{FineActivations, LANE_GROUPS, RefineArgs, RefineFn};
pub(crate) use rope::Rope;
pub use rope::{RopeArgs, RopeFn};
pub(crate) use scan::Scan;
pub use scan::{CODE_GROUPS, GroupScale, ScanArgs, ScanFn};
pub(crate) use softmax::Softmax;
pub use softmax::{SoftmaxArgs, SoftmaxFn};
pub(crate) use store::Store;
pub use store::{Place, StoreArgs, StoreFn};
pub use ternarize::{
    ABSMEAN_BLOCK, AbsmeanArgs, AbsmeanFn, TernarizeArgs, TernarizeFn, TernaryScale,
};
pub(crate) use ternarize::{Absmean, Ternarize, TernarizeI2S};
