//! Model files: what loads, and what is refused and how.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod bad_input;
#[path = "../common/mod.rs"]
mod common;
#[path = "../exact/mod.rs"]
mod exact;
mod folders;
mod formats;
mod found;
#[path = "../../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "these are the functions of another crate")]
mod fuzz;
mod parts;
mod synth;
mod tokenizers;
mod variants;
