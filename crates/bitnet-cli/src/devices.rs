//! `bitnet devices`: what a model can run on here, what would compute there, and why not elsewhere.

use anyhow::Result;
use bitnet_inference::device_features;
use bitnet_inference::machine::Machine;
use bitnet_kernels::manager::Matrix;
use bitnet_kernels::{Device, Format, KernelManager};
use serde::Serialize;

use crate::exit::End;
use crate::output;

/// Flags of `bitnet devices`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    devices: Vec<Row>,
}

/// A device, or a kind of which there is none.
#[derive(Debug, Serialize)]
struct Row {
    /// What `--device` takes.
    device: String,
    usable: bool,
    /// Why it is not.
    reason: Option<String>,
    /// What it is called.
    name: Option<String>,
    /// What multiplies by ternary weights: one row, and many.
    kernels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<Gpu>,
}

/// What is known of a GPU.
#[derive(Debug, Serialize)]
struct Gpu {
    uuid: String,
    compute_capability: String,
    /// The version of CUDA of the driver.
    driver: String,
    /// Devices that its kernels are compiled for.
    target: Option<&'static str>,
    memory_bytes: usize,
    /// At best, as the driver tells it.
    memory_bandwidth_bytes_per_second: u64,
    l2_cache_bytes: usize,
    multiprocessors: i32,
    max_threads_per_block: i32,
    max_shared_memory_per_block_bytes: usize,
    cooperative_launch: bool,
    fp16: bool,
    bf16: bool,
    /// Devices whose memory it reaches by itself.
    peers: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let mut devices = vec![cpu()?];
    devices.extend(gpus());
    devices.extend([Device::Metal, Device::Llama].map(other));
    let report = Report { devices };
    output::report(&report, args.json, || report.text())?;
    Ok(End::Done)
}

fn cpu() -> Result<Row> {
    let Machine { cpu, .. } = Machine::detect();
    let product = KernelManager::new().product(Matrix::typical(Some(Format::I2S)))?;
    let kernels = [product.gemv.kernel, product.gemm.kernel].map(ToString::to_string).to_vec();
    let device = Device::Cpu.to_string();
    Ok(Row { device, usable: true, reason: None, name: Some(cpu), kernels, gpu: None })
}

/// A device of which nothing more is known than whether it can be used.
fn other(device: Device) -> Row {
    let reason = device_features::open(device).err().map(|error| error.to_string());
    let (device, usable) = (device.to_string(), reason.is_none());
    Row { device, usable, reason, name: None, kernels: Vec::new(), gpu: None }
}

#[cfg(not(feature = "cuda"))]
fn gpus() -> Vec<Row> {
    vec![other(Device::Cuda(0))]
}

/// Each is opened, as a model would be: one that computes wrong cannot be used.
#[cfg(feature = "cuda")]
fn gpus() -> Vec<Row> {
    use bitnet_gpu::cuda::{CudaDeviceInfo, Gpu as Opened, Probe};
    use bitnet_gpu::kernels::KernelId;

    let Probe::Devices { driver, devices } = Probe::get() else {
        return vec![other(Device::Cuda(0))];
    };
    let row = |info: &CudaDeviceInfo| {
        let opened = Opened::open(info.device_id);
        let (target, kernels) = match &opened {
            Ok(gpu) => {
                let names = gpu.product_kernels(bitnet_inference::CHUNK).map(KernelId::name);
                (Some(gpu.target().0), names.map(str::to_owned).to_vec())
            }
            Err(_) => (None, Vec::new()),
        };
        let reason = opened.err().map(|error| error.to_string());
        Row {
            device: Device::Cuda(info.device_id).to_string(),
            usable: reason.is_none(),
            reason,
            name: Some(info.name.clone()),
            kernels,
            gpu: Some(Gpu {
                uuid: info.uuid.clone(),
                compute_capability: info.compute_capability.to_string(),
                driver: bitnet_gpu::cuda::version(*driver),
                target,
                memory_bytes: info.total_memory,
                memory_bandwidth_bytes_per_second: info.memory_bandwidth,
                l2_cache_bytes: info.l2_cache,
                multiprocessors: info.multiprocessor_count,
                max_threads_per_block: info.max_threads_per_block,
                max_shared_memory_per_block_bytes: info.max_shared_memory_per_block,
                cooperative_launch: info.cooperative_launch,
                fp16: info.supports_fp16,
                bf16: info.supports_bf16,
                peers: info.peers.iter().map(|&peer| Device::Cuda(peer).to_string()).collect(),
            }),
        }
    };
    devices.iter().map(row).collect()
}

impl Report {
    /// For people: a block of lines for each device.
    fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.devices {
            for (index, line) in row.lines().into_iter().enumerate() {
                let device = if index == 0 { &row.device[..] } else { "" };
                text += &format!("{device:<8}{line}\n");
            }
        }
        output::plain(&text)
    }
}

impl Row {
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.name.iter().cloned().collect();
        if let Some(gpu) = &self.gpu {
            lines.push(format!(
                "compute capability {}, {:.1} GiB, {:.0} GB/s, {} multiprocessors, CUDA {}",
                gpu.compute_capability,
                gpu.memory_bytes as f64 / f64::from(1 << 30),
                gpu.memory_bandwidth_bytes_per_second as f64 / 1e9,
                gpu.multiprocessors,
                gpu.driver,
            ));
            if !gpu.peers.is_empty() {
                lines.push(format!("reaches the memory of {}", gpu.peers.join(", ")));
            }
        }
        match &self.reason {
            Some(reason) => lines.push(format!("not usable: {reason}")),
            None if self.kernels.is_empty() => lines.push("usable".to_owned()),
            None => lines.push(format!("usable, with {}", self.kernels.join(" and "))),
        }
        lines
    }
}
