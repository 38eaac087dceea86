//! An inference engine for ternary (BitNet b1.58) language models.
//!
//! [`Engine`] is a loaded model, [`Generation`] continues a text with it, [`Scheduler`] many at once, [`Replicas`] on several devices;
//! [`Session`] is what lies beneath: sequences of tokens in, logits out. A forward pass is one function per architecture, in
//! `arch/`, written over the operations of the trait in `backend/`.
#![forbid(unsafe_code)]

mod arch;
mod backend;
pub mod chat;
mod config;
mod constraint;
pub mod convert;
pub mod device_features;
mod difference;
mod engine;
mod error;
#[cfg(feature = "ffi")]
mod foreign;
#[cfg(not(feature = "ffi"))]
#[path = "foreign/absent.rs"]
mod foreign;
mod generate;
#[cfg(feature = "cuda")]
mod gpu;
#[cfg(not(feature = "cuda"))]
#[path = "gpu/absent.rs"]
mod gpu;
mod kv;
mod linear;
pub mod machine;
mod matrix;
mod performance;
mod perplexity;
pub mod receipt;
mod sample;
mod schedule;
mod session;
mod sha256;
mod source;
mod state;
mod statistics;
pub mod synth;
mod text;
pub mod tokenizer;
pub mod tuning;

pub use backend::cpu::WeightsRead;
pub use bitnet_gpu::{Cut, Draw};
pub use config::{Activation, Config};
pub use constraint::{Compiled, Constraint};
pub use difference::{Difference, Kind as DifferenceKind, TensorDifference};
pub use engine::{Engine, KvType, Layout, Options};
pub use error::{Error, Notice};
pub use generate::Generation;
#[cfg(feature = "cuda")]
pub use gpu::{AccuracyResult, GpuValidator, MemoryResults, PerformanceResult, ValidationResults};
pub use linear::QuantizedLinear;
pub use performance::PerformanceStats;
pub use perplexity::{Base, Divergence, Estimate, Perplexity, Score, Windows, quantile};
pub use sample::{Dry, LogProbabilities, Sampler, Sampling, Stage};
pub use schedule::{
    Capacity, DeviceStatus, End, Event, Finish, Replicas, Request, RequestId, Scheduler, Timings,
    Token, Usage,
};
pub use session::{Best, CHUNK, Input, Logits, Session, Wanted};
pub use sha256::sha256;
pub use source::{
    Checkpoint, Contents, Metadata, ReadAs, StoredTensor, TernaryMatrix, ternary_sha256,
};
pub use statistics::TernaryStatistics;
pub use text::read_text;

pub use bitnet_gpu::PrecisionMode;
pub use bitnet_gpu::kernels::GpuPasses;
pub use bitnet_kernels::shortlist::Candidate;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
