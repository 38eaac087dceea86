//! Tasks for those who change the project.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;

mod analyze;
#[cfg(unix)]
mod check;
#[cfg(unix)]
mod gpu;
mod matrix;
#[cfg(unix)]
mod picture;

/// Tasks for those who change the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Write docs/reference/backend-compatibility-matrix.md from the table of kernels.
    Matrix(matrix::Args),
    /// Tell what a library of C++ has, and which kernels: shared libraries and static archives of all systems.
    AnalyzeLibrary(analyze::Args),
    /// Compile the kernels for NVIDIA GPUs, with the compiler that LD_LIBRARY_PATH leads to.
    #[cfg(unix)]
    GpuBuild(gpu::Build),
    /// Assemble them for every generation of GPUs, and look at what comes out.
    #[cfg(unix)]
    GpuSass(gpu::Sass),
    /// Look at a GPU that is there: results, texts, and speed.
    #[cfg(unix)]
    GpuCheck(check::Check),
    /// Draw docs/chat.svg: a terminal with a conversation.
    #[cfg(unix)]
    Picture(picture::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Matrix(args) => matrix::run(&args),
        Task::AnalyzeLibrary(args) => analyze::run(&args),
        #[cfg(unix)]
        Task::GpuBuild(args) => gpu::build(&args),
        #[cfg(unix)]
        Task::GpuSass(args) => gpu::sass(&args),
        #[cfg(unix)]
        Task::GpuCheck(args) => check::run(&args),
        #[cfg(unix)]
        Task::Picture(args) => picture::run(&args),
    }
}
