//! Model files: what loads, and what is refused and how.

mod bad_input;
#[path = "../common/mod.rs"]
mod common;
mod parts;
mod variants;
