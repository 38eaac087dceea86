//! Instructions, decoded.

use crate::functions::Atomic;

/// The threads of a warp.
pub(crate) const LANES: usize = 32;

/// Generic addresses from here on are those of shared memory.
pub(crate) const SHARED_WINDOW: u64 = 1 << 56;

/// A value of each lane. Narrow ones are in the low bits, and zeros above them.
pub(crate) type Lanes = [u64; LANES];

/// A register, by number. Predicates are registers with 0 or 1.
pub(crate) type Register = usize;

/// What an instruction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Register(Register),
    Immediate(u64),
    Special(Special),
}

/// Registers that a thread is born with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    /// Counts up.
    Clock,
    /// Bytes of dynamic shared memory.
    Dynamic,
}

/// A number type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bits,
    Unsigned,
    Signed,
    Float,
    BFloat,
    /// Two half-precision numbers in 32 bits.
    Pair,
    Predicate,
}

impl Type {
    pub(crate) const U32: Type = Type { kind: Kind::Unsigned, bits: 32 };

    /// The type of this name, as in `.u32`.
    pub(crate) fn of(name: &str) -> Option<Type> {
        let (kind, bits) = match name {
            "pred" => (Kind::Predicate, 1),
            "f16x2" | "bf16x2" => (Kind::Pair, 32),
            "bf16" => (Kind::BFloat, 16),
            _ => {
                let kind = match name.as_bytes().first()? {
                    b'b' => Kind::Bits,
                    b'u' => Kind::Unsigned,
                    b's' => Kind::Signed,
                    b'f' => Kind::Float,
                    _ => return None,
                };
                (kind, name[1..].parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?)
            }
        };
        Some(Type { kind, bits })
    }

    pub(crate) fn bytes(self) -> usize {
        self.bits.div_ceil(8) as usize
    }

    /// The bits of a number of this type.
    pub(crate) fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// A number of this type, widened with its sign.
    pub(crate) fn signed(self, x: u64) -> i64 {
        (x << (64 - self.bits)).cast_signed() >> (64 - self.bits)
    }

    /// The number in the low bits of `x`, in 64 bits.
    pub(crate) fn widen(self, x: u64) -> i128 {
        match self.kind {
            Kind::Signed => i128::from(self.signed(x)),
            _ => i128::from(x & self.mask()),
        }
    }
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Global,
    Shared,
    Param,
    /// What the address says.
    Generic,
}

/// `[register + offset]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) base: Operand,
    pub(crate) offset: u64,
}

/// What a shuffle exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// What a vote asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// The shape and the types of a product of fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// `m16n8k32`: bytes, each signed or not, into 32-bit integers.
    Bytes { signed: [bool; 2] },
    /// `m16n8k16` into single precision.
    Halves { bfloat: bool },
}

/// A product of four warps, `m64nNk32`: bytes, each signed or not, into 32-bit integers.
#[derive(Clone, Debug)]
pub(crate) struct GroupProduct {
    pub(crate) signed: [bool; 2],
    pub(crate) out: Vec<Register>,
    pub(crate) a: Vec<Register>,
    /// The descriptor of a matrix in shared memory.
    pub(crate) b: Operand,
    /// Whether what is there is added.
    pub(crate) add: Operand,
}

impl GroupProduct {
    /// Columns of the second matrix, and of the result: 128 threads have half of a row each.
    pub(crate) fn columns(&self) -> usize {
        2 * self.out.len()
    }
}

/// A function of lanes.
#[derive(Clone, Copy)]
pub(crate) enum Function {
    One(fn(Type, &Lanes) -> Lanes),
    Two(fn(Type, &Lanes, &Lanes) -> Lanes),
    Three(fn(Type, &Lanes, &Lanes, &Lanes) -> Lanes),
    Four(fn(Type, &Lanes, &Lanes, &Lanes, &Lanes) -> Lanes),
}

/// An operation.
#[derive(Clone)]
pub(crate) enum Op {
    /// `out = f(of...)`.
    Compute {
        f: Function,
        ty: Type,
        out: Register,
        of: Vec<Operand>,
    },
    /// `cvt`.
    Convert {
        f: fn(u64) -> u64,
        out: Register,
        of: Operand,
    },
    /// `out = test`, and the opposite to the second.
    Compare {
        f: fn(Type, &Lanes, &Lanes) -> Lanes,
        ty: Type,
        out: [Option<Register>; 2],
        of: Vec<Operand>,
    },
    /// Parts of a wide register, the lowest first.
    Pack {
        bits: u32,
        out: Register,
        of: Vec<Operand>,
    },
    Unpack {
        bits: u32,
        out: Vec<Option<Register>>,
        of: Operand,
    },
    Load {
        window: Window,
        ty: Type,
        out: Vec<Option<Register>>,
        at: Address,
        /// Whether what others have left there is known behind it.
        acquires: bool,
    },
    Store {
        window: Window,
        ty: Type,
        of: Vec<Operand>,
        at: Address,
    },
    Atomic {
        window: Window,
        f: Atomic,
        ty: Type,
        out: Option<Register>,
        at: Address,
        of: [Operand; 2],
    },
    Branch(usize),
    Return,
    Trap,
    /// Waits for `threads` of the block, or all; or says only that it has come here.
    Barrier {
        id: Operand,
        threads: Option<Operand>,
        waits: bool,
    },
    WarpBarrier {
        mask: Operand,
    },
    Shuffle {
        how: Shuffle,
        out: Register,
        within: Option<Register>,
        of: [Operand; 3],
        mask: Operand,
    },
    Vote {
        how: Vote,
        out: Register,
        of: Operand,
        negated: bool,
        mask: Operand,
    },
    ActiveMask(Register),
    /// A function over the lanes.
    Reduce {
        f: fn(Type, u64, u64) -> u64,
        ty: Type,
        out: Register,
        of: Operand,
        mask: Operand,
    },
    Multiply {
        product: Product,
        out: Vec<Register>,
        a: Vec<Operand>,
        b: Vec<Operand>,
        c: Vec<Operand>,
    },
    /// `wmma.load`: a matrix `[16, 16]` of numbers of 16 bits in shared memory, whose rows are so many numbers apart.
    LoadTile {
        out: Vec<Register>,
        at: Address,
        stride: Operand,
    },
    /// `wmma.mma`: matrices `[16, 16]`.
    MultiplyTiles {
        bfloat: bool,
        out: Vec<Register>,
        a: Vec<Operand>,
        b: Vec<Operand>,
        c: Vec<Operand>,
    },
    /// `wmma.store`: the same, of single precision.
    StoreTile {
        of: Vec<Operand>,
        at: Address,
        stride: Operand,
    },
    /// `ldmatrix`.
    LoadMatrix {
        transposed: bool,
        out: Vec<Register>,
        at: Address,
    },
    /// `cp.async`: of `bytes`, so many are copied and the others are zeros.
    CopyAsync {
        bytes: usize,
        to: Address,
        from: Address,
        only: Option<Operand>,
    },
    CopyCommit,
    /// Until so many groups are under way at most; all that were ever begun, committed or not, if not given.
    CopyWait(Option<usize>),
    /// `fence.proxy.async`: shows what a thread has written to products of four warps.
    Show,
    GroupMultiply(GroupProduct),
    /// Orders what was done with registers and the products that follow.
    GroupFence,
    GroupCommit,
    /// Until so many groups of products are under way at most.
    GroupWait(usize),
    /// Orders memory: everything happens in order here as it is.
    Nothing,
    /// What was done before can be known behind the next atomic operation.
    Fence,
}

/// An instruction.
#[derive(Clone)]
pub(crate) struct Inst {
    /// Lanes whose predicate is not this do nothing.
    pub(crate) guard: Option<(Register, bool)>,
    pub(crate) op: Op,
    /// From 1.
    pub(crate) line: usize,
}
