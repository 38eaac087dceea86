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
    /// Library of another engine, or a folder with one: the demo model on the device is held to it, too. What
    /// BITNET_REFERENCE names does not count here.
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
    /// Why there is nothing of it.
    failed: Option<anyhow::Error>,
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

/// Prints what was found of a device, and what another engine has of it; gives whether nothing is wrong.
fn print(
    args: &Args,
    (found, success): (&impl Serialize, bool),
    text: String,
    beside: CrossCheck,
) -> Result<bool> {
    let CrossCheck { report: cross_check, text: more, failed, .. } = beside;
    output::report(&Report { found, cross_check }, args.json, || text + &more)?;
    match failed {
        Some(error) if success => Err(error),
        Some(error) => {
            exit::say(&format!("error: {error:#}"));
            Ok(false)
        }
        None => Ok(success),
    }
}

#[cfg(feature = "ffi")]
fn cross_check(args: &Args) -> CrossCheck {
    let Some(library) = &args.reference else { return CrossCheck::default() };
    let compared = crate::crossval::demo(args.device, library);
    match compared.and_then(|found| Ok((serde_json::to_value(&found)?, found))) {
        Ok((report, found)) => CrossCheck {
            report: Some(report),
            text: found.text(),
            differs: !found.holds(),
            failed: None,
        },
        Err(error) => CrossCheck {
            report: Some(serde_json::json!({"error": format!("{error:#}")})),
            failed: Some(error),
            ..CrossCheck::default()
        },
    }
}

#[cfg(not(feature = "ffi"))]
fn cross_check(_: &Args) -> CrossCheck {
    CrossCheck::default()
}

/// Every kernel of this processor.
fn kernels(args: &Args) -> Result<bool> {
    let (found, beside) = (conformance::run(&Cpu::detect()), cross_check(args));
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
        success: found.failures.is_empty() && !beside.differs,
    };
    let isa = |tested: &Tested| {
        format!("{:<12}{} kernels give the bits of their definitions\n", tested.isa, tested.kernels)
    };
    let wrong = |failed: &Failed| format!("WRONG       {}: {}\n", failed.kernel, failed.case);
    let lines = found.tested.iter().map(isa).chain(found.failures.iter().map(wrong));
    print(args, (&found, found.success), lines.collect(), beside)
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
    let mut found = validator.run(model::demo, !args.no_speed)?;
    let beside = cross_check(args);
    found.success &= !beside.differs;
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
    print(args, (&found, found.success), text, beside)
}
