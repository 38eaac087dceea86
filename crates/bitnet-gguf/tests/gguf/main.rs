//! Reads what was written, and refuses what is damaged.

mod cut;
mod demo;
mod mutated;
mod raw;
mod refused;
mod round_trip;
mod sample;
mod types;
