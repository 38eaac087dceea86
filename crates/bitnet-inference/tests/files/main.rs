//! Model files: what loads, and what is refused and how.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod bad_input;
#[path = "../common/mod.rs"]
mod common;
mod folders;
mod formats;
mod parts;
mod synth;
mod tokenizers;
mod variants;
