//! The committed PTX of every kernel, run by the interpreter and held against the kernels of the processor.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod attend;
mod condensed;
mod draw;
mod gpu;
mod head;
mod linear;
mod mixed;
mod mutants;
mod norm;
mod prepare;
mod rows;
mod texts;
mod together;
