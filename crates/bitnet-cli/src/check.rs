//! `bitnet check`: whether what computes on a device computes right.

#[cfg(feature = "ffi")]
use std::path::PathBuf;

use anyhow::Result;
use bitnet_inference::device_features;
use bitnet_kernels::{Cpu, Device, Isa, conformance};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{self, End, Usage};
use crate::output;

/// Flags of `bitnet check`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Device to look at: cpu, or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t, env = "BITNET_DEVICE")]
    device: Device,
    /// Measure nothing: on a GPU, how fast products are, and its memory.
    #[arg(long)]
    no_speed: bool,
    /// Library of another engine, or a folder with one: the demo model on the device is held to it, too.
    #[cfg(feature = "ffi")]
    #[arg(long, value_name = "LIB")]
    reference: Option<PathBuf>,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<T> {
    #[serde(flatten)]
    found: T,
    /// What the library of another engine, where one is named, computes of the demo model.
    #[serde(skip_serializing_if = "Option::is_none")]
    cross_check: Option<Value>,
}

/// The demo model on a device beside the same in another engine.
#[derive(Debug, Default)]
struct CrossCheck {
    report: Option<Value>,
    text: String,
    differs: bool,
}

/// What is printed of a processor.
#[derive(Debug, Serialize)]
struct Kernels {
    device: String,
    /// Kernels that were held to their definitions, bit for bit, by instruction set.
    tested: Vec<Tested>,
    /// Those that this processor cannot run.
    skipped: Vec<String>,
    /// Those that are wrong, with the first case.
    failures: Vec<Failed>,
    /// Whether nothing is wrong.
    success: bool,
}

#[derive(Debug, Serialize)]
struct Tested {
    isa: &'static str,
    kernels: usize,
}

#[derive(Debug, Serialize)]
struct Failed {
    kernel: String,
    case: String,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    device_features::open(args.device).map_err(bitnet_inference::Error::from)?;
    let success = match args.device {
        Device::Cpu => kernels(args)?,
        Device::Cuda(number) => gpu(args, number)?,
        device => {
            let what =
                format!("{device} has no kernels of ours: `bitnet crossval` compares libraries");
            return Err(Usage(what).into());
        }
    };
    if success {
        return Ok(End::Done);
    }
    exit::say(&format!("{} computes wrong", args.device));
    Ok(End::Refuted)
}

/// Prints what was found of a device, and what another engine has of it. A library that fails does so behind that.
fn print(args: &Args, found: &impl Serialize, text: String) -> Result<bool> {
    let beside = cross_check(args);
    let (failed, CrossCheck { report: cross_check, text: more, differs }) = match beside {
        Ok(beside) => (None, beside),
        Err(error) => (Some(error), CrossCheck::default()),
    };
    output::report(&Report { found, cross_check }, args.json, || text + &more)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(!differs),
    }
}

#[cfg(feature = "ffi")]
fn cross_check(args: &Args) -> Result<CrossCheck> {
    let Some(library) = &args.reference else { return Ok(CrossCheck::default()) };
    let found = crate::crossval::demo(args.device, library)?;
    let report = Some(serde_json::to_value(&found)?);
    Ok(CrossCheck { report, text: found.text(), differs: !found.holds() })
}

#[cfg(not(feature = "ffi"))]
#[expect(clippy::unnecessary_wraps, reason = "with libraries it can fail")]
fn cross_check(_: &Args) -> Result<CrossCheck> {
    Ok(CrossCheck::default())
}

/// Every kernel of this processor.
fn kernels(args: &Args) -> Result<bool> {
    let found = conformance::run(&Cpu::detect());
    let tested = |isa: &Isa| Tested { isa: isa.name(), kernels: found.tested_on(*isa) };
    let found = Kernels {
        device: args.device.to_string(),
        tested: Isa::ALL.iter().map(tested).filter(|tested| tested.kernels > 0).collect(),
        skipped: found.skipped.iter().map(ToString::to_string).collect(),
        failures: found
            .failures
            .iter()
            .map(|failure| Failed {
                kernel: failure.kernel.to_string(),
                case: failure.case.clone(),
            })
            .collect(),
        success: found.failures.is_empty(),
    };
    let isa = |tested: &Tested| {
        format!("{:<12}{} kernels give the bits of their definitions\n", tested.isa, tested.kernels)
    };
    let wrong = |failed: &Failed| format!("WRONG       {}: {}\n", failed.kernel, failed.case);
    let lines = found.tested.iter().map(isa).chain(found.failures.iter().map(wrong));
    Ok(print(args, &found, lines.collect())? && found.success)
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: &Args, _: usize) -> Result<bool> {
    Err(Usage("this build has no kernels for GPUs: build it with --features cuda".to_owned())
        .into())
}

#[cfg(feature = "cuda")]
fn gpu(args: &Args, number: usize) -> Result<bool> {
    use bitnet_inference::{AccuracyResult, GpuValidator};

    use crate::model;

    let validator = GpuValidator::new(number)?;
    let found = validator.run(model::demo, !args.no_speed)?;
    let mut lines =
        vec![format!("{}, CUDA {}, kernels for {}", found.device, found.driver, found.target)];
    lines.extend(found.accuracy_results.iter().map(|result| {
            let AccuracyResult { what, compared, different, distance, bound } = result;
            match (result.is_right(), different) {
                (true, 0) => format!("ok    {what}: {compared} numbers, bit for bit"),
                (true, _) => {
                    format!("ok    {what}: {compared} numbers, {distance:.1e} apart, of {bound:.0e} at most")
                }
                (false, different) => format!(
                    "WRONG {what}: {different} of {compared} numbers differ, {distance:.1e} apart, of {bound:.0e} at most"
                ),
            }
        }));
    lines.extend(found.performance_stats.iter().map(|stats| {
            format!(
                "      for one of these: {} launches, {} passes recorded and {} repeated, {} bytes there and {} back",
                stats.total_kernel_launches,
                stats.cache_misses,
                stats.cache_hits,
                stats.bytes_transferred_h2d,
                stats.bytes_transferred_d2h
            )
        }));
    lines.extend(found.memory_results.iter().map(|memory| {
        let sound = memory.wrong_bytes == 0 && memory.leaked_bytes == 0;
        format!(
            "{} memory: {} bytes written and read, {} wrong, {} not given back",
            if sound { "ok   " } else { "WRONG" },
            memory.tested_bytes,
            memory.wrong_bytes,
            memory.leaked_bytes
        )
    }));
    lines.extend(
        found
            .copy_bytes_per_second
            .map(|rate| format!("      copies within its memory: {:.0} GB/s", rate / 1e9)),
    );
    lines.extend(found.performance_results.iter().map(|result| {
        format!(
            "      {}, {}: {:.2} us, {:.0} GB/s, {:.0} % of that",
            result.kernel,
            result.what,
            result.microseconds,
            result.bytes_per_second / 1e9,
            100.0 * result.share
        )
    }));
    let text = lines.into_iter().map(|line| line + "\n").collect();
    Ok(print(args, &found, text)? && found.success)
}
