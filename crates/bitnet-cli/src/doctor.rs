//! `bitnet doctor`: what this machine has, what would run on it, and what would make it faster.

#[cfg(feature = "ffi")]
mod libraries;
#[cfg(not(feature = "ffi"))]
#[path = "doctor/no_libraries.rs"]
mod libraries;
mod system;

use std::num::NonZeroUsize;

use anyhow::Result;
use bitnet_inference::device_features::{self, GPU_FAKE};
use bitnet_inference::machine::Machine;
use bitnet_inference::tuning::{Found, Tuning};
use bitnet_kernels::manager::Matrix;
use bitnet_kernels::op::{PeakFn, ReadFn};
use bitnet_kernels::{Device, Format, KernelManager, Pool, limits};
use serde::Serialize;

use crate::exit::End;
use crate::model::{How, Library, Source};
use crate::output;
use libraries::Libraries;
use system::System;

/// Flags of `bitnet doctor`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    library: Library,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    commit: Option<&'static str>,
    /// Whether the program is compiled with optimisation.
    optimized: bool,
    machine: Machine,
    system: System,
    measured: Vec<Measured>,
    gpus: Gpus,
    libraries: Libraries,
    formats: Vec<Chosen>,
    tuning: Kept,
    warnings: Vec<String>,
}

/// What the machine does at best.
#[derive(Debug, Serialize)]
struct Measured {
    threads: usize,
    /// What measured it: nothing better than `--isa` allows.
    kernels: [String; 2],
    /// Reads of memory, GB/s.
    bandwidth_gbps: f64,
    /// 8-bit multiply-adds, 10^9 a second.
    peak_gmacs: f64,
}

#[derive(Debug, Serialize)]
struct Gpus {
    /// Those that could be used.
    found: Vec<String>,
    /// Why there is none.
    reason: Option<String>,
}

/// What a format of files would run on.
#[derive(Debug, Serialize)]
pub(crate) struct Chosen {
    pub(crate) format: &'static str,
    /// In memory.
    pub(crate) layout: &'static str,
    /// The kernel for a token.
    pub(crate) gemv: String,
    /// The kernel for a prompt.
    pub(crate) gemm: String,
}

/// What is known of measurements.
#[derive(Debug, Serialize)]
struct Kept {
    path: Option<String>,
    /// Whether they are of this machine, for the models that were measured.
    usable: bool,
    /// Why not.
    reason: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let (tuning, kept) = kept(&args.how.tuning);
    let manager = args.how.measured(tuning).manager()?;
    let machine = Machine::detect();
    let (system, libraries) = (System::detect(), Libraries::find(&args.library));
    let mut threads = vec![1, machine.threads()];
    threads.dedup();
    let measured =
        threads.into_iter().map(|threads| measure(&manager, threads)).collect::<Result<_>>()?;
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        commit: bitnet_inference::receipt::COMMIT,
        optimized: !cfg!(debug_assertions),
        measured,
        gpus: gpus(),
        formats: Format::TERNARY.iter().map(|&f| chosen(f, &manager)).collect::<Result<_>>()?,
        warnings: warnings(&machine, &system, &kept),
        machine,
        system,
        libraries,
        tuning: kept,
    };
    output::report(&report, args.json, || report.text())?;
    Ok(End::Done)
}

/// Measurements that are kept, and what is to be said of them.
fn kept(source: &Source) -> (Option<Tuning>, Kept) {
    let path = source.path();
    let (tuning, reason) = match path.as_deref().map(Tuning::load) {
        None if *source == Source::Nowhere => (None, None),
        None => (None, Some("there is no place for it".to_owned())),
        Some(Ok(Found::Tuning(tuning))) => (Some(tuning), None),
        Some(Ok(Found::Other(notice))) => (None, Some(notice.to_string())),
        Some(Ok(Found::Nothing)) => (None, Some("nothing was measured yet".to_owned())),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    let path = path.map(|path| path.display().to_string());
    let kept = Kept { path, usable: tuning.is_some(), reason };
    (tuning, kept)
}

/// About a second.
fn measure(manager: &KernelManager, threads: usize) -> Result<Measured> {
    const READS: usize = 5;
    const PEAKS: usize = 25;
    let pool = Pool::new(NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN))?;
    let bandwidth = limits::read_rates(manager, &pool, limits::STREAMED, READS)?;
    let peak = limits::peak_rates(manager, &pool, PEAKS)?;
    Ok(Measured {
        threads,
        kernels: [
            manager.select::<ReadFn>(None)?.kernel.to_string(),
            manager.select::<PeakFn>(None)?.kernel.to_string(),
        ],
        bandwidth_gbps: limits::median(&bandwidth),
        peak_gmacs: limits::median(&peak),
    })
}

fn gpus() -> Gpus {
    let device = Device::Cuda(0);
    match device_features::open(device) {
        Ok(()) => Gpus { found: vec![device.to_string()], reason: None },
        Err(error) => Gpus { found: Vec::new(), reason: Some(error.to_string()) },
    }
}

/// What a format of files would run on.
pub(crate) fn chosen(format: Format, manager: &KernelManager) -> Result<Chosen> {
    let product = manager.product(Matrix::typical(Some(format)))?;
    Ok(Chosen {
        format: format.ggml_name(),
        layout: product.layout.name(),
        gemv: product.gemv.kernel.to_string(),
        gemm: product.gemm.kernel.to_string(),
    })
}

/// What is worth doing something about.
fn warnings(machine: &Machine, system: &System, kept: &Kept) -> Vec<String> {
    let mut out = Vec::new();
    if cfg!(debug_assertions) {
        out.push("this program is compiled for tests: build it with --release".to_owned());
    }
    if machine.isas.len() == 1 {
        out.push(format!(
            "plain code only: this processor ({}) has none of the instruction sets there are kernels \
             for",
            machine.architecture
        ));
    }
    // A quota of more is among what makes fewer threads allowed.
    if let Some(quota) = system.cpu_quota.filter(|quota| *quota < 1.0) {
        out.push(format!("a quota of {quota} CPUs: even one thread is stopped in turns; raise it"));
    }
    if machine.allowed < machine.cores {
        let Machine { allowed, cores, .. } = machine;
        out.push(format!(
            "only {allowed} of {cores} cores may be used by this process: see its affinity and its \
             quota of processor time"
        ));
    }
    if let Some(load) = system.load_average.filter(|load| *load > 0.5 * machine.allowed as f64) {
        out.push(format!(
            "a load of {load:.1} on {} processors in the last minute: while others work, figures are \
             lower",
            machine.allowed
        ));
    }
    if system.available_memory_bytes.is_some_and(|bytes| bytes < 2 << 30) {
        out.push("less than 2 GiB of memory are free: large models will not load".to_owned());
    }
    if system.huge_pages.as_deref() == Some("never") {
        out.push(
            "transparent huge pages are off: /sys/kernel/mm/transparent_hugepage/enabled should be \
             madvise"
                .to_owned(),
        );
    }
    if system.governor.as_deref() == Some("powersave") {
        out.push("the processor saves power: set the governor to performance".to_owned());
    }
    if let Some(reason) = &kept.reason {
        out.push(format!("{reason}: `bitnet tune` measures what is fastest here in seconds"));
    }
    if device_features::gpu_faked() {
        out.push(format!("{GPU_FAKE} is set: receipts will not verify"));
    }
    out
}

impl Report {
    /// For people.
    fn text(&self) -> String {
        let Report { machine, system, measured, gpus, libraries, formats, tuning, .. } = self;
        let mut lines = vec![
            format!("bitnet {}, commit {}", self.version, self.commit.unwrap_or("unknown")),
            String::new(),
            format!("processor   {} ({})", machine.cpu, machine.architecture),
            format!("            {}", machine.isas.join(", ")),
            format!("cores       {}, of which {} may be used", machine.cores, machine.allowed),
        ];
        if let Some(quota) = system.cpu_quota {
            lines.push(format!("            a quota of {quota} CPUs"));
        }
        for cache in &system.caches {
            let kib = cache.bytes >> 10;
            lines.push(format!(
                "cache       {} {kib} KiB for {} threads",
                cache.name, cache.threads
            ));
        }
        let gib = |bytes: Option<u64>| {
            bytes
                .map_or("unknown".to_owned(), |b| format!("{:.1} GiB", b as f64 / (1 << 30) as f64))
        };
        let (all, free) = (gib(system.memory_bytes), gib(system.available_memory_bytes));
        lines.push(format!("memory      {all}, {free} free"));
        for Measured { threads, kernels: [read, peak], bandwidth_gbps, peak_gmacs } in measured {
            lines.push(format!(
                "measured    {threads} threads: {bandwidth_gbps:.1} GB/s ({read}), {peak_gmacs:.0} \
                 GMAC/s ({peak})"
            ));
        }
        let none = || gpus.reason.clone().unwrap_or_default();
        let found = if gpus.found.is_empty() { none() } else { gpus.found.join(", ") };
        lines.push(format!("GPUs        {found}"));
        for (index, line) in libraries.text().into_iter().enumerate() {
            lines.push(format!("{:<12}{line}", if index == 0 { "C++" } else { "" }));
        }
        let path = tuning.path.as_deref().unwrap_or("nowhere");
        let used = if tuning.usable { "for the models that were measured" } else { "not used" };
        lines.push(format!("tuning      {path}: {used}"));
        lines.push(String::new());
        for Chosen { format, gemv, gemm, .. } in formats {
            lines.push(format!("{format:<11} {gemv}, {gemm}"));
        }
        if !self.warnings.is_empty() {
            lines.push(String::new());
            lines.extend(self.warnings.iter().map(|warning| format!("! {warning}")));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> (Machine, System, Kept) {
        let machine = Machine {
            cpu: "some".to_owned(),
            architecture: "x86_64".to_owned(),
            isas: vec!["scalar".to_owned(), "avx2".to_owned()],
            cores: 8,
            allowed: 16,
        };
        (machine, System::default(), Kept { path: None, usable: true, reason: None })
    }

    fn said(machine: &Machine, system: &System, kept: &Kept) -> Vec<String> {
        let all = warnings(machine, system, kept).into_iter();
        // Of this build and this environment.
        all.filter(|w| !w.contains("--release") && !w.contains(GPU_FAKE)).collect()
    }

    #[test]
    fn a_sound_machine_has_no_warnings() {
        let (machine, system, kept) = quiet();
        assert_eq!(said(&machine, &system, &kept), Vec::<String>::new());
    }

    #[test]
    fn what_makes_a_machine_slow_is_said() {
        let (plain, calm, kept) = quiet();
        let system = System {
            cpu_quota: Some(0.5),
            load_average: Some(9.0),
            available_memory_bytes: Some(1 << 30),
            huge_pages: Some("never".to_owned()),
            governor: Some("powersave".to_owned()),
            ..calm
        };
        let machine = Machine { isas: vec!["scalar".to_owned()], allowed: 3, ..plain };
        let kept =
            Kept { usable: false, reason: Some("nothing was measured yet".to_owned()), ..kept };
        let found = said(&machine, &system, &kept).join("\n");
        for words in
            ["plain code", "0.5 CPUs", "3 of 8", "9.0 on", "2 GiB", "madvise", "governor", "tune"]
        {
            assert!(found.contains(words), "{words} in {found}");
        }
    }
}
