//! Kernels for GPUs: from CUDA C++ to the text that the project has, and what NVIDIA's assembler makes of it.
//!
//! The compiler is NVRTC, as a package of Python has it; neither it nor anything else of CUDA is needed to build the project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

use anyhow::{Context, Result, bail, ensure};
use bitnet_gpu::CudaComputeCapability;
use bitnet_gpu::kernels::{KernelId, TARGETS};
use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};

/// The sources, from the root of the project.
const SOURCES: &str = "crates/bitnet-gpu/src/cuda/kernels";
/// The texts.
const TEXTS: &str = "crates/bitnet-gpu/src/cuda/ptx";
/// What each kernel takes of a device.
const BUDGET: &str = "crates/bitnet-gpu/src/cuda/ptx/budget.tsv";
/// Devices that each text is assembled for: one of each generation that runs it, or could.
const DEVICES: [&[&str]; TARGETS.len()] =
    [&["sm_61", "sm_75"], &["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"], &["sm_90a"]];
/// Devices too old for the program that shows what was assembled.
const TOO_OLD: [&str; 1] = ["sm_61"];

/// Flags of `cargo xtask gpu-build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// Write nothing; fail if a text is not what the sources give.
    #[arg(long)]
    check: bool,
}

/// Flags of `cargo xtask gpu-sass`.
#[derive(Debug, clap::Args)]
pub(crate) struct Sass {
    /// The assembler.
    #[arg(long, default_value = "ptxas")]
    ptxas: PathBuf,
    /// What shows what it made.
    #[arg(long, default_value = "nvdisasm")]
    nvdisasm: PathBuf,
    /// Write what the kernels take down as what they may take.
    #[arg(long)]
    write: bool,
}

fn text_of(target: &str) -> PathBuf {
    Path::new(TEXTS).join(format!("bitnet.{target}.ptx"))
}

pub(crate) fn build(args: &Build) -> Result<()> {
    let found = env::var_os("LD_LIBRARY_PATH").is_some_and(|paths| {
        env::split_paths(&paths).any(|path| path.join("libnvrtc.so.12").exists())
    });
    ensure!(
        found,
        "no libnvrtc.so.12 where LD_LIBRARY_PATH leads: pip install nvidia-cuda-nvrtc-cu12, of the version that \
         .ci/gpu.sh names, and set it to the folder nvidia/cuda_nvrtc/lib of that"
    );
    for (target, _) in TARGETS {
        let source = Path::new(SOURCES).join("bitnet.cu");
        let code = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
        let options = CompileOptions {
            // Sums are those of the processor: products are not fused with them, unless the source says so.
            fmad: Some(false),
            options: vec![
                format!("--gpu-architecture={}", target.replace("sm_", "compute_")),
                "--std=c++17".to_owned(),
                "-default-device".to_owned(),
            ],
            include_paths: vec![SOURCES.to_owned()],
            name: Some("bitnet.cu".to_owned()),
            ..CompileOptions::default()
        };
        let ptx = compile_ptx_with_opts(code, options).map_err(|error| said(&error))?;
        let (path, text) = (text_of(target), ptx.to_src());
        if !args.check {
            fs::write(&path, text)?;
        } else if fs::read_to_string(&path)? != text {
            bail!("{} is not what the sources give: run `cargo xtask gpu-build`", path.display());
        }
    }
    Ok(())
}

/// What the compiler says is wrong.
fn said(error: &CompileError) -> anyhow::Error {
    match error {
        CompileError::CompileError { log, .. } => anyhow::anyhow!("{}", log.to_string_lossy()),
        other => anyhow::anyhow!("{other}"),
    }
}

/// What a kernel takes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// Of each thread.
    registers: u32,
    /// Bytes of shared memory of a block, without what a launch asks for besides.
    shared: u32,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}", self.registers, self.shared)
    }
}

/// By device and kernel.
type Table = BTreeMap<(String, String), Taken>;

pub(crate) fn sass(args: &Sass) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut table = Table::new();
    for ((target, from), devices) in TARGETS.iter().zip(DEVICES) {
        for device in devices {
            let cubin = folder.path().join(device);
            let said = assemble(&args.ptxas, (&text_of(target), device), &cubin)?;
            let before = table.len();
            read(&said, (device, *from), &mut table)?;
            println!("{device}: {} kernels assembled", table.len() - before);
            if !TOO_OLD.contains(device) {
                look(&run(Command::new(&args.nvdisasm).arg("-c").arg(&cubin))?, device)?;
            }
        }
    }
    if args.write {
        return Ok(fs::write(BUDGET, written(&table))?);
    }
    compare(&table, &fs::read_to_string(BUDGET)?)
}

/// What a program says, on either way out.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let said = [&output.stdout, &output.stderr]
        .map(|said| String::from_utf8_lossy(said).into_owned())
        .concat();
    ensure!(output.status.success(), "{name}: {}\n{said}", output.status);
    Ok(said)
}

fn assemble(ptxas: &Path, (text, device): (&Path, &str), to: &Path) -> Result<String> {
    let mut command = Command::new(ptxas);
    run(command.arg("-v").arg(format!("-arch={device}")).arg(text).arg("-o").arg(to))
}

/// The number before some words.
fn before(line: &str, words: &str) -> Option<u32> {
    let (number, _) = line.split_once(words)?;
    number.rsplit([' ', ',']).find(|word| !word.is_empty())?.parse().ok()
}

/// Reads what the assembler says of each kernel, of a text for devices from `from` on. None may keep registers, or anything else
/// of a thread, in memory, nor have its products wait for one another.
fn read(
    said: &str,
    (device, from): (&str, CudaComputeCapability),
    table: &mut Table,
) -> Result<()> {
    let mut kernel = "";
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().unwrap_or_default();
        }
        ensure!(!line.contains("are serialized"), "{device}: {}", line.trim());
        let stack = ["bytes stack frame", "bytes spill stores", "bytes spill loads"];
        let spilled =
            stack.iter().find(|what| before(line, &format!(" {what}")).is_some_and(|n| n > 0));
        if let Some(what) = spilled {
            bail!("{device}: {kernel} has {what}: {}", line.trim());
        }
        if let Some(registers) = before(line, " registers") {
            let taken = Taken { registers, shared: before(line, " bytes smem").unwrap_or(0) };
            table.insert((device.to_owned(), kernel.to_owned()), taken);
        }
    }
    let missing = KernelId::ALL.iter().find(|id| {
        id.needs() <= from && !table.contains_key(&(device.to_owned(), id.name().to_owned()))
    });
    match missing {
        Some(id) => bail!("{device}: nothing is said of {}", id.name()),
        None => Ok(()),
    }
}

/// Whether what was assembled has the instructions that the kernels are written for, and none that reach slow memory.
fn look(listing: &str, device: &str) -> Result<()> {
    let parts = listing.split(".section\t.text.").skip(1);
    let mut seen = 0;
    for part in parts {
        let name: String =
            part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let has = |instruction: &str| {
            part.lines()
                .any(|line| line.split_whitespace().any(|word| word.starts_with(instruction)))
        };
        let mut wanted = Vec::new();
        if name.starts_with("wmma") || name.starts_with("attn_prefill_mma") {
            wanted.push("HMMA");
        } else if name.contains("wgmma") {
            wanted.push("IGMMA");
        } else if name.contains("mma") {
            wanted.push("IMMA");
        }
        if name.contains("dp4a") {
            wanted.push("IDP.4A");
        }
        if name.starts_with("gemm_i2s") || name.starts_with("attn_prefill_mma") {
            wanted.push("LDGSTS");
        }
        if let Some(lacks) = wanted.into_iter().find(|instruction| !has(instruction)) {
            bail!("{device}: {name} has no {lacks}");
        }
        if let Some(slow) = ["LDL", "STL"].into_iter().find(|instruction| has(instruction)) {
            bail!("{device}: {name} has {slow}");
        }
        seen += 1;
    }
    ensure!(seen > 0, "{device}: no kernels in what was assembled");
    Ok(())
}

fn written(table: &Table) -> String {
    let rows =
        table.iter().map(|((device, kernel), taken)| format!("{device}\t{kernel}\t{taken}\n"));
    "device\tkernel\tregisters\tshared\n".to_owned() + &rows.collect::<String>()
}

/// Whether no kernel takes more than is written down.
fn compare(table: &Table, budget: &str) -> Result<()> {
    let mut allowed = Table::new();
    for line in budget.lines().skip(1) {
        let fields: Vec<_> = line.split('\t').collect();
        let [device, kernel, registers, shared] = fields[..] else { bail!("{BUDGET}: {line}") };
        let taken = Taken { registers: registers.parse()?, shared: shared.parse()? };
        allowed.insert((device.to_owned(), kernel.to_owned()), taken);
    }
    for ((device, kernel), taken) in table {
        match allowed.get(&(device.clone(), kernel.clone())) {
            Some(most) if taken.registers <= most.registers && taken.shared <= most.shared => {}
            Some(most) => bail!("{device}: {kernel} takes {taken:?}, of {most:?} at most"),
            None => {
                bail!("{device}: {kernel} is not in {BUDGET}: run `cargo xtask gpu-sass --write`")
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "ptxas info    : Compiling entry function 'gate_f32' for 'sm_86'\n\
        ptxas info    : Function properties for gate_f32\n    \
        0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 21 registers, used 1 barriers, 2048 bytes smem\n";

    fn taken(said: &str) -> (Result<()>, Table) {
        let mut table = Table::new();
        (read(said, ("sm_86", CudaComputeCapability::new(8, 0)), &mut table), table)
    }

    #[test]
    fn what_the_assembler_says_is_understood() {
        let (result, table) = taken(SAID);
        assert!(result.unwrap_err().to_string().contains("nothing is said of"));
        let gate = table[&("sm_86".to_owned(), "gate_f32".to_owned())];
        assert_eq!(gate, Taken { registers: 21, shared: 2048 });
        let spilled = SAID.replace("0 bytes spill loads", "16 bytes spill loads");
        assert!(
            taken(&spilled).0.unwrap_err().to_string().contains("gate_f32 has bytes spill loads")
        );
        let slow = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized";
        assert!(taken(slow).0.unwrap_err().to_string().contains("are serialized"));
    }

    #[test]
    fn kernels_may_take_less_and_not_more() {
        let table = taken(SAID).1;
        let budget = written(&table);
        assert!(compare(&table, &budget).is_ok());
        assert!(compare(&table, &budget.replace("\t21\t", "\t22\t")).is_ok());
        assert!(compare(&table, &budget.replace("\t21\t", "\t20\t")).is_err());
        assert!(compare(&table, &budget.replace("2048", "2047")).is_err());
        assert!(compare(&table, &budget.replace("gate_f32", "other")).is_err());
    }

    #[test]
    fn instructions_are_looked_for_in_each_kernel() {
        let listing = |name: &str, code: &str| {
            format!("\t.section\t.text.{name},\"ax\"\n/*0000*/ {code} ;\n")
        };
        let sound =
            listing("i2s_gpu_gemv_dp4a", "IDP.4A.S8.S8 R1, R2") + &listing("gate_f32", "FADD R1");
        assert!(look(&sound, "sm_90").is_ok());
        assert!(look(&listing("i2s_gpu_gemv_dp4a", "FADD R1"), "sm_90").is_err());
        assert!(look(&listing("gate_f32", "LDL R1"), "sm_90").is_err());
        let together = |code: &str| listing("gemm_i2s_wgmma_s8", "LDGSTS.E") + "/*0010*/ " + code;
        assert!(look(&together("IGMMA.64x64x32.U8.S8 R24"), "sm_90a").is_ok());
        assert!(look(&together("IMMA.16832.U8.S8 R24"), "sm_90a").is_err());
        assert!(look("", "sm_90").is_err());
    }
}
