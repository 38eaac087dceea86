//! Whether a receipt can be true.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use bitnet_gpu::PrecisionMode;
use bitnet_gpu::kernels::KernelId as GpuKernelId;
use bitnet_kernels::manager::KernelBackend;
use bitnet_kernels::{Device, Format, Isa, KernelId};

use super::launches;
use super::passes::Run;
use super::{GpuUsed, Model, Outcome, Receipt, SCHEMA, kernels};
use crate::generate::Generation;
use crate::session::CHUNK;
use crate::{Config, Engine, Error, WeightsRead};

/// What was looked at, and what is wrong with it, if anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// What is wrong.
    pub wrong: Option<String>,
}

/// What came of checking a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every check that was made.
    pub checks: Vec<Check>,
    /// Whether the model was there to run it again, and what gives the same result.
    pub rerun: bool,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.wrong.is_none())
    }

    fn check(&mut self, what: &'static str, result: Result<(), String>) {
        self.checks.push(Check { what, wrong: result.err() });
    }
}

/// One line for each check.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { what, wrong } in &self.checks {
            match wrong {
                None => writeln!(f, "ok    {what}")?,
                Some(wrong) => writeln!(f, "WRONG {what}: {wrong}")?,
            }
        }
        Ok(())
    }
}

/// Checks a receipt by arithmetic, and with the model by running it again. The engine must have been
/// opened with [`Receipt::options`]. Where attention on a GPU was not in single precision, only kernels of the same text on a GPU of
/// the same generation run it again.
///
/// # Errors
///
/// Where the run fails that is to be repeated.
pub fn verify(receipt: &Receipt, engine: Option<&Engine>) -> Result<Verdict, Error> {
    let mut verdict = Verdict { checks: Vec::new(), rerun: engine.is_some() };
    verdict.check("version of the format", same("version", &receipt.schema, &SCHEMA));
    verdict.check("hash of the receipt", same("hash", &receipt.sha256, &receipt.digest()));
    verdict.check("the program", program(receipt));
    verdict.check(
        "no GPU is faked",
        match receipt.faked {
            true => Err("BITNET_GPU_FAKE was set".to_owned()),
            false => Ok(()),
        },
    );
    verdict.check("kernels of the device", device(receipt));
    let sampler = receipt.request.sampler.check();
    verdict.check("the kind of model", known(receipt));
    verdict.check("the sampler", sampler.map_err(|error| error.to_string()));
    let run = sizes(receipt).and_then(|()| Run::of(receipt));
    verdict.check("tokens", run.as_ref().map(|_| ()).map_err(Clone::clone));
    if let Ok(run) = run {
        if receipt.machine.library.is_some() {
            verdict.check("passes of the library", run.foreign_calls(receipt));
            let none = WeightsRead::default();
            let read = [receipt.read.prompt, receipt.read.decode];
            verdict.check("bytes of weights", same("what is known of them", &read, &[none; 2]));
        } else {
            verdict.check(
                "calls of kernels",
                match &receipt.machine.gpu {
                    Some(gpu) => run.launches(receipt, gpu),
                    None => run.calls(receipt),
                },
            );
            verdict.check("bytes of weights", run.bytes(receipt));
        }
        verdict.check("hashes of the result", run.hashes(receipt));
        verdict.check("times", run.times(receipt));
    }
    if let Some(engine) = engine {
        let used = super::MachineUsed::new(engine, 0);
        verdict.check("the library", same("library", &receipt.machine.library, &used.library));
        verdict.check("the model", model(receipt, engine));
        verdict.rerun =
            receipt.machine.gpu.as_ref().is_none_or(|gpu| repeats(gpu, used.gpu.as_ref()));
        // What is already known to be something else need not be run.
        if verdict.rerun && verdict.holds() {
            verdict.check("the same run again", rerun(receipt, engine)?);
        }
    }
    Ok(verdict)
}

pub(super) fn same<T: PartialEq + fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what} is {found:?} and must be {expected:?}")),
    }
}

fn program(receipt: &Receipt) -> Result<(), String> {
    let program = &receipt.engine;
    same("name", &program.name.as_str(), &"bitnet")?;
    let numbers: Vec<_> = program.version.split('.').collect();
    let digits = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    let sound = numbers.len() == 3 && numbers.iter().all(|n| digits(n));
    let commit = program.commit.as_deref().map(|commit| commit.trim_end_matches("-changed"));
    let commit = commit.is_none_or(|commit| is_hex(commit, 40));
    match sound && commit {
        true => Ok(()),
        false => Err(format!("{program:?} is no release or commit")),
    }
}

/// Whether a model is one of those whose passes are known.
fn known(receipt: &Receipt) -> Result<(), String> {
    let Model { architecture, types, .. } = &receipt.model;
    if !Config::ARCHITECTURES.contains(&architecture.as_str()) {
        return Err(format!("architecture {architecture:?} is unknown"));
    }
    // Those of numbers are made ternary when they are loaded.
    let mut formats = Format::TERNARY.iter().chain(&Format::FLOAT);
    let known = |name: &String| formats.any(|format| format.ggml_name() == name);
    match types.is_empty() || !types.iter().all(known) {
        true => Err(format!("{types:?} are no formats of weights")),
        false => Ok(()),
    }
}

pub(super) fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Numbers that no model and no run exceed, and with which no product below overflows.
fn sizes(receipt: &Receipt) -> Result<(), String> {
    let (model, request) = (&receipt.model, &receipt.request);
    let of_matrices = model.matrices.iter().flat_map(|matrix| [matrix.rows, matrix.cols]);
    let sizes = [
        ("rows and columns of a matrix", of_matrices.max().unwrap_or(0), 1 << 32),
        ("calls of a kernel", receipt.kernels.values().copied().max().unwrap_or(0), 1 << 48),
        ("layers", model.layers, 1 << 16),
        ("heads", model.heads, 1 << 16),
        ("matrices", model.matrices.len() as u64, 1 << 8),
        ("vocabulary", model.vocabulary, 1 << 32),
        ("context", request.context, 1 << 24),
        ("generated", receipt.result.generated, 1 << 24),
        ("bytes of the output layer", receipt.read.prompt.head, 1 << 62),
        ("bytes of the output layer", receipt.read.decode.head, 1 << 62),
    ];
    match sizes.into_iter().find(|&(_, size, most)| size > most) {
        None => Ok(()),
        Some((what, size, most)) => Err(format!("{what}: {size}, of {most} at most")),
    }
}

/// The kernels that multiply by ternary weights on GPUs begin so.
const GPU: [&str; 3] = ["gemm_", "wmma_", "i2s_gpu_"];

/// Whether the kernels are those of the device and of the instruction sets that were in use.
fn device(receipt: &Receipt) -> Result<(), String> {
    let machine = &receipt.machine;
    let device: Device = machine.device.parse().map_err(|e| format!("{e}"))?;
    same("device", &machine.device, &device.to_string())?;
    if device == Device::Llama || machine.library.is_some() {
        library(receipt, device)?;
    } else if let Device::Cuda(_) = device {
        let is_of_gpu = |id: &String| {
            let known = id.parse::<GpuKernelId>().is_ok();
            known && GPU.iter().any(|prefix| id.starts_with(prefix))
        };
        if !receipt.kernels.keys().any(is_of_gpu) {
            return Err(format!("no kernel of a GPU was called ({})", GPU.join(", ")));
        }
        let gpu =
            machine.gpu.as_ref().ok_or_else(|| format!("{device} is a GPU, and none is named"))?;
        launches::device(gpu)?;
        if receipt.dequantized {
            return Err(format!("{device} computes with no floating-point weights"));
        }
    } else if device != Device::Cpu || machine.gpu.is_some() {
        return Err(format!(
            "this version has no kernels for {device} on a GPU: it cannot be true"
        ));
    }
    let isas = machine.isas.iter().map(|isa| isa.parse::<Isa>());
    let isas: Vec<_> = isas.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let needs = |isa: Isa| match isa {
        Isa::Scalar => None,
        Isa::Avx2 | Isa::Neon => Some(Isa::Scalar),
        Isa::AvxVnni | Isa::Avx512 => Some(Isa::Avx2),
        Isa::Avx512Vnni => Some(Isa::Avx512),
        Isa::NeonDot => Some(Isa::Neon),
        Isa::NeonI8mm => Some(Isa::NeonDot),
    };
    let sound = |isa: &Isa| {
        let here = isa.arch().is_none_or(|arch| arch == machine.architecture);
        here && needs(*isa).is_none_or(|needed| isas.contains(&needed))
    };
    let ordered = isas.windows(2).all(|pair| pair[0] < pair[1]);
    if isas.first() != Some(&Isa::Scalar) || !ordered || !isas.iter().all(sound) {
        let super::MachineUsed { architecture, isas, .. } = machine;
        return Err(format!("no {architecture} has the instruction sets {}", isas.join(", ")));
    }
    if machine.threads == 0 || machine.cpu.is_empty() || machine.architecture.is_empty() {
        return Err("a machine has a name and threads".to_owned());
    }
    if machine.tuning.as_ref().is_some_and(|tuning| !is_hex(tuning, 64)) {
        return Err(format!("{:?} is no SHA-256 of measurements", machine.tuning));
    }
    let best = isas.last().copied().unwrap_or(Isa::Scalar);
    let is_other = |id: &String| {
        let launched = machine.gpu.is_some() && id.parse::<GpuKernelId>().is_ok();
        launched || LIBRARIES.contains(&id.as_str())
    };
    for id in receipt.kernels.keys().filter(|id| !is_other(id)) {
        let kernel: KernelId = id.parse().map_err(|e| format!("{e}"))?;
        if !isas.contains(&kernel.isa) {
            return Err(format!("{id} does not run with at most {best}"));
        }
    }
    Ok(())
}

/// What the passes of libraries are called.
const LIBRARIES: [&str; 2] = [KernelBackend::LlamaCpu.name(), KernelBackend::LlamaCuda.name()];

/// Whether a library is named, and is what computed.
fn library(receipt: &Receipt, device: Device) -> Result<(), String> {
    let found = receipt.machine.library.as_ref().filter(|_| device == Device::Llama);
    let library = found.ok_or_else(|| format!("a library computes on {}", Device::Llama))?;
    if let Some(gpu) = &receipt.machine.gpu {
        return Err(format!("a library computed, and not {}", gpu.name));
    }
    if library.file.is_empty() || !is_hex(&library.sha256, 64) {
        return Err(format!("{library:?} is no file of a library"));
    }
    match LIBRARIES.iter().filter(|name| receipt.kernels.contains_key(**name)).count() {
        1 => Ok(()),
        found => Err(format!("{found} of {} computed", LIBRARIES.join(" and "))),
    }
}

/// Whether a model is that of the receipt, whatever its layout in memory.
fn model(receipt: &Receipt, engine: &Engine) -> Result<(), String> {
    let Model { sha256, architecture, types, layers, heads, vocabulary, activation, matrices } =
        Model::new(engine, 0);
    let found = &receipt.model;
    same("hash", &found.sha256, &sha256)?;
    same("architecture", &found.architecture, &architecture)?;
    same("types", &found.types, &types)?;
    same("layers", &found.layers, &layers)?;
    same("heads", &found.heads, &heads)?;
    same("vocabulary", &found.vocabulary, &vocabulary)?;
    same("activation", &found.activation, &activation)?;
    let shapes = |matrices: &[super::MatrixUsed]| -> Vec<_> {
        matrices.iter().map(|matrix| (matrix.rows, matrix.cols)).collect()
    };
    same("matrices", &shapes(&found.matrices), &shapes(&matrices))?;
    same("context", &receipt.request.context, &(engine.context() as u64))?;
    same("keys and values", &receipt.request.kv, &engine.kv().to_string())
}

/// Whether what a GPU computed comes out again on what is here.
fn repeats(gpu: &GpuUsed, here: Option<&GpuUsed>) -> bool {
    fn of(gpu: &GpuUsed) -> [&str; 3] {
        [&gpu.attention, &gpu.compute_capability, &gpu.ptx_sha256]
    }
    launches::attention(gpu) == Ok(PrecisionMode::Fp32)
        || here.is_some_and(|here| of(here) == of(gpu))
}

/// Runs what was asked for again, and compares what came out and what it took.
fn rerun(receipt: &Receipt, engine: &Engine) -> Result<Result<(), String>, Error> {
    let (request, result) = (&receipt.request, &receipt.result);
    let mut again = Generation::new(engine, request.again())?;
    // Asked before each forward pass: a run that was cancelled is cancelled there again.
    let passes = match (result.finish.as_str(), result.generated) {
        ("cancelled", 0) => result.positions / CHUNK as u64,
        ("cancelled", n) => (request.prompt.len().div_ceil(CHUNK)) as u64 + n - 1,
        _ => u64::MAX,
    };
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > passes
    };
    while again.generated().len() as u64 <= result.generated && again.next(stop)?.is_some() {}
    let (calls, [prompt, decode]) = (kernels(&again), again.read());
    let found = Outcome::new(&mut again)?;
    // Results are the same bits on the processor, where a receipt of a GPU is run again; calls are not.
    if receipt.machine.gpu.is_some() {
        return Ok(same("result", result, &found));
    }
    Ok(same("result", result, &found)
        .and_then(|()| same("calls", &by_operation(&receipt.kernels), &by_operation(&calls)))
        .and_then(|()| {
            let read = [receipt.read.prompt.head, receipt.read.decode.head];
            same("bytes of the output layer", &read, &[prompt.head, decode.head])
        }))
}

/// Calls whatever the instruction set and the layout of ternary weights are.
fn by_operation(calls: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (id, calls) in calls {
        let name = match id.parse::<KernelId>() {
            Ok(id) if id.operation.is_product() => id.operation.to_string(),
            Ok(id) => KernelId { isa: Isa::Scalar, ..id }.to_string(),
            Err(_) => id.clone(),
        };
        let sum = sums.entry(name).or_insert(0_u64);
        *sum = sum.saturating_add(*calls);
    }
    sums
}
