//! Tasks for those who change the project.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;

mod matrix;

/// Tasks for those who change the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Write docs/reference/backend-compatibility-matrix.md from the table of kernels.
    Matrix(matrix::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Matrix(args) => matrix::run(&args),
    }
}
