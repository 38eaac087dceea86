//! `cargo xtask matrix`: what runs where, from the tables of kernels.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bitnet_gpu::kernels::KernelId;
use bitnet_kernels::{Format, Isa, KERNELS, Line};

/// Where it is written.
const FILE: &str = "docs/reference/backend-compatibility-matrix.md";

const HEAD: &str = "\
# What runs where

Made by `cargo xtask matrix` from the table of kernels, [`registry.rs`](../../crates/bitnet-kernels/src/registry.rs), and the list of those
for GPUs, [`kernels.rs`](../../crates/bitnet-gpu/src/kernels.rs); CI fails where it is not what these say. What runs on a machine, and why something does not, is what `bitnet kernels` says there.

A cell is how CI tests a kernel against the plain definition of its operation, bit for bit
([`conformance/`](../../crates/bitnet-kernels/src/conformance/mod.rs)):

| cell | tested |
|---|---|
";

const TERNARY: &str = "
## Ternary weights

Every format of files is checked, decoded and packed at load into one of two layouts
([`packed.rs`](../../crates/bitnet-kernels/src/packed.rs)), for which gemv and gemm are written: so every matrix runs everywhere, as
fast in any format. Columns that fill no block of a layout are packed with zeros, and activations are padded likewise. I2_S_ARM and
I2_S_R4 are what some builds of bitnet.cpp write as I2_S: no file says so, who has one must. HF_PACKED is the tensors of checkpoints
of Hugging Face. Encoding is [`ternarize.rs`](../../crates/bitnet-kernels/src/ternarize.rs).

";

const LAYOUTS: &str = "
Layouts in memory:

";

const ALL: &str = "
## All kernels

Operations without integers have no kernels of their own for instruction sets that only add integer products; there they run as said.

";

const GPUS: &str = "
## NVIDIA GPUs

In builds with the feature `cuda`, for models whose ternary weights become one layout whatever their format in the file
([`tiles.rs`](../../crates/bitnet-gpu/src/tiles.rs)). CI runs each in an interpreter of their text and holds it to the kernels of the
processor, bit for bit (`attn_prefill_mma_` and products of floats to bounds); none of that was done on a device. Operations are those above where they have their names.

";

const TAIL: &str = "
IQ2_S is ggml's, a format of floating-point numbers that has no zero: no ternary matrix can be written in it. What files may hold today is in the [README](../../README.md); these tables are of the library.
";

/// Flags of `cargo xtask matrix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail if the file is not what would be written, and write nothing.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let (path, text) = (root.join(FILE), page());
    if !args.check {
        return fs::write(&path, text).with_context(|| format!("cannot write {FILE}"));
    }
    let found = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    // Files may be checked out with other ends of lines.
    if found.lines().ne(text.lines()) {
        bail!("{FILE} is not what the table of kernels says: run `cargo xtask matrix`");
    }
    Ok(())
}

/// How CI tests the kernels of an instruction set.
fn tested(isa: Isa) -> (&'static str, &'static str) {
    match isa {
        Isa::Scalar | Isa::Avx2 => ("native", "on the processor of CI"),
        Isa::AvxVnni => {
            ("native*", "on the processor of CI where it has the instructions, else only compiled")
        }
        Isa::Avx512 | Isa::Avx512Vnni => (
            "emulated",
            "on the processor of CI where it has the instructions, else in Bochs, an emulator",
        ),
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => ("qemu", "in qemu, an emulator"),
    }
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    let mut said = Vec::new();
    for (cell, how) in Isa::ALL.map(tested) {
        if !said.contains(&cell) {
            said.push(cell);
            out += &format!("| {cell} | {how} |\n");
        }
    }
    out += "| by ... | as that instruction set, whose kernel runs |\n";
    out += TERNARY;
    let names: Vec<_> = Isa::ALL.iter().map(|isa| format!("`{isa}`")).collect();
    out += &table(
        [&["format".to_owned()], &names[..], &["shape: a multiple of".to_owned()]].concat(),
        Format::TERNARY.iter().map(|&format| {
            let name = format.ggml_name().to_owned();
            [&[name], &product()[..], &[shape(format)]].concat()
        }),
    );
    out += LAYOUTS;
    out += &table(
        ["layout", "bits a weight"].map(str::to_owned).to_vec(),
        Format::PACKED.iter().map(|layout| {
            let (weights, bytes) = layout.block();
            vec![format!("`{layout}`"), format!("{:.2}", 8.0 * bytes as f64 / weights as f64)]
        }),
    );
    out += ALL;
    out += &table(
        [&["kernel".to_owned()], &names[..]].concat(),
        KERNELS.iter().map(|line| {
            let name = match line.format {
                Some(format) => format!("`{}` `{format}`", line.operation),
                None => format!("`{}`", line.operation),
            };
            [&[name], &cells(line)[..]].concat()
        }),
    );
    out += GPUS;
    out += &table(
        ["kernel", "operation", "device"].map(str::to_owned).to_vec(),
        KernelId::ALL.iter().map(|id| {
            let name = format!("`{}`", id.name());
            vec![name, id.operation().to_owned(), id.devices().to_string()]
        }),
    );
    out + TAIL
}

/// How products run on each instruction set: in every layout alike.
fn product() -> Vec<String> {
    let mut lines = KERNELS.iter().filter(|line| line.operation.is_product()).map(cells);
    let first = lines.next().unwrap_or_default();
    let same = lines.all(|cells| cells == first);
    assert!(same, "products differ from layout to layout: this table must tell them apart");
    first
}

/// How a line runs on each instruction set.
fn cells(line: &Line) -> Vec<String> {
    Isa::ALL.iter().map(|&isa| cell(line, isa)).collect()
}

/// How a line runs on an instruction set.
fn cell(line: &Line, isa: Isa) -> String {
    if line.isas.contains(&isa) {
        return tested(isa).0.to_owned();
    }
    match line.isas.iter().rfind(|other| other.within(isa)) {
        Some(other) => format!("by `{other}`"),
        None => "absent".to_owned(),
    }
}

/// What the shape of a matrix must be a multiple of.
fn shape(format: Format) -> String {
    let [columns, rows, all] = format.multiples();
    let parts = [(columns, "columns"), (rows, "rows"), (all, "weights in all")];
    let mut said: Vec<_> =
        parts.iter().filter(|(n, _)| *n > 1).map(|(n, of)| format!("{n} {of}")).collect();
    if matches!(format, Format::Tl1 | Format::Tl2) {
        said.push("as its tiling says".to_owned());
    }
    said.join(", ")
}

/// A table in Markdown.
fn table(head: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let rule = format!("{}|\n", "|---".repeat(head.len()));
    line(head) + &rule + &rows.map(line).collect::<String>()
}
