//! `cargo xtask analyze-library`: what a library of C++ has.

use std::path::PathBuf;

use anyhow::Result;
use bitnet_ffi::analyze_library;

/// Flags of `cargo xtask analyze-library`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The library.
    path: PathBuf,
    /// Count what the libraries of ggml beside it have, too.
    #[arg(long)]
    build: bool,
    /// Print all symbols, not the first of each kind.
    #[arg(long)]
    all: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Symbols of each kind that are shown.
const SHOWN: usize = 5;

pub(crate) fn run(args: &Args) -> Result<()> {
    let alone = analyze_library(&args.path)?;
    let analysis = if args.build { alone.with_build() } else { alone };
    if args.json {
        let mut json = serde_json::to_value(&analysis)?;
        json["exported"] = analysis.exported.len().into();
        json["imported"] = analysis.imported.len().into();
        json["detected"] = serde_json::to_value(analysis.evidence())?;
        println!("{json}");
    } else {
        print!("{}", analysis.report(if args.all { usize::MAX } else { SHOWN }));
    }
    Ok(())
}
