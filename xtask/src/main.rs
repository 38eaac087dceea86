//! Tasks for those who change the project.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;

mod analyze;
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
    /// Draw docs/chat.svg: a terminal with a conversation.
    #[cfg(unix)]
    Picture(picture::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Matrix(args) => matrix::run(&args),
        Task::AnalyzeLibrary(args) => analyze::run(&args),
        #[cfg(unix)]
        Task::Picture(args) => picture::run(&args),
    }
}
