//! What can be wrong with a program or a run of it.

use std::fmt;

/// Where in a grid something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line of the PTX text, from 1, and what it says.
    pub line: (usize, String),
    /// Coordinates of the block.
    pub block: [u32; 3],
    /// The thread in the block, counted along x, then y, then z.
    pub thread: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line: (number, text), block: [x, y, z], thread } = self;
        write!(f, "line {number} `{text}`, block ({x}, {y}, {z}), thread {thread}")
    }
}

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// What all threads and the host share.
    Global,
    /// What the threads of a block share.
    Shared,
    /// Arguments of a launch.
    Param,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Param => "parameter",
        })
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no PTX that is understood.
    #[error("line {line}: {what}: `{text}`")]
    Syntax {
        /// From 1.
        line: usize,
        /// What is not understood.
        what: String,
        /// What the line says.
        text: String,
    },
    /// There is no such kernel.
    #[error("there is no kernel `{0}` in the module")]
    NoEntry(String),
    /// The arguments are not those of the kernel.
    #[error("`{kernel}` takes {expected} bytes of arguments, not {given}")]
    Arguments {
        /// The kernel.
        kernel: String,
        /// Bytes of its parameters.
        expected: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// The launch is one that the kernel, or no device, can take.
    #[error("`{kernel}` cannot be launched: {what}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// Why not.
        what: String,
    },
    /// An access outside of what is allocated.
    #[error("{bytes} bytes of {space} memory at {address:#x} are not there: {place}")]
    OutOfBounds {
        /// Of which memory.
        space: Space,
        /// The first byte.
        address: u64,
        /// The length of the access.
        bytes: usize,
        /// Where.
        place: Place,
    },
    /// An access at an address that is no multiple of its length.
    #[error("{bytes} bytes at {address:#x} are not aligned: {place}")]
    Misaligned {
        /// The first byte.
        address: u64,
        /// The length of the access.
        bytes: usize,
        /// Where.
        place: Place,
    },
    /// A read of memory that nobody has written.
    #[error("{space} memory at {address:#x} is read before it is written: {place}")]
    Uninitialized {
        /// Of which memory.
        space: Space,
        /// The byte.
        address: u64,
        /// Where.
        place: Place,
    },
    /// Two blocks access a byte of memory, one of them writes, and nothing orders them.
    #[error("memory at {address:#x}: {what} block {other} are not ordered: {place}")]
    RaceOfBlocks {
        /// The access.
        address: u64,
        /// The two accesses.
        what: &'static str,
        /// The block of the first, by number.
        other: usize,
        /// The second.
        place: Place,
    },
    /// Two threads access a byte of shared memory, one of them writes, and nothing orders them.
    #[error(
        "shared memory at {address:#x}: {what} thread {other} of the block is not ordered: {place}"
    )]
    Race {
        /// The byte.
        address: u64,
        /// The two accesses.
        what: &'static str,
        /// The first thread.
        other: u32,
        /// The second.
        place: Place,
    },
    /// What a product of four warps has is used before that is done: a register, or shared memory.
    #[error("{what} belongs to a product that nobody has waited for: {place}")]
    InFlight {
        /// The name of the register, or the address.
        what: String,
        /// Where.
        place: Place,
    },
    /// A product of four warps is of something that was written without a fence behind it.
    #[error("{what} was written, and no fence is between that and the product: {place}")]
    Unfenced {
        /// The name of the register, or the address.
        what: String,
        /// Where the product is.
        place: Place,
    },
    /// A register is read that nothing was written to.
    #[error("register {register} is read before it is written: {place}")]
    UndefinedRegister {
        /// Its name.
        register: String,
        /// Where.
        place: Place,
    },
    /// Threads that must execute an instruction together do not.
    #[error("{what}: {place}")]
    Divergence {
        /// What is missing.
        what: String,
        /// Where.
        place: Place,
    },
    /// Nobody can go on.
    #[error("no thread can go on: {place}")]
    Deadlock {
        /// Where one of them waits.
        place: Place,
    },
    /// It runs longer than it may.
    #[error("still not done after {instructions} instructions of warps: {place}")]
    Endless {
        /// As many as were run.
        instructions: u64,
        /// Where one of them is.
        place: Place,
    },
    /// The program says that it must not get here, or an instruction has no meaning for its operands.
    #[error("{what}: {place}")]
    Trap {
        /// Why.
        what: String,
        /// Where.
        place: Place,
    },
}
