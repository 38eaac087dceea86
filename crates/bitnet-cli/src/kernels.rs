//! `bitnet kernels`: every kernel there is, whether it runs here, and what it is used for.

use anyhow::Result;
use bitnet_inference::device_features::{GpuKernel, gpu_kernels};
use bitnet_inference::tuning::Tuning;
use bitnet_kernels::manager::Matrix;
use bitnet_kernels::{Device, Format, KERNELS, KernelId, KernelManager, Line, NoKernel, Operation};
use serde::Serialize;

use crate::exit::End;
use crate::model::How;
use crate::output;
use crate::tune;

/// Flags of `bitnet kernels`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    architecture: &'static str,
    isas: Vec<&'static str>,
    kernels: Vec<Row>,
    /// What `bitnet tune` measured, where that decides.
    tuning: Option<Tuning>,
}

/// A kernel.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    operation: &'static str,
    format: Option<&'static str>,
    target: String,
    runs: bool,
    /// Why it does not run.
    reason: Option<String>,
    /// GPUs of this machine that run it, where it is for GPUs: by their generations, none is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<String>>,
    /// The compute capability that GPUs need for it, at least or exactly as `target` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_capability: Option<String>,
    /// The formats of weights it is chosen for; the operation, where there are no weights; the shapes
    /// of matrices for which measurements chose it.
    selected_for: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let options = args.how.options()?;
    let manager = options.manager()?;
    let tuning = options.tuning.as_ref();
    let here = KERNELS.iter().flat_map(Line::ids).map(|id| Row::new(id, &manager, tuning));
    let rows = here.chain(gpu_kernels().into_iter().map(Row::on_gpu)).collect();
    let report = Report {
        architecture: std::env::consts::ARCH,
        isas: manager.cpu().isas().iter().map(|isa| isa.name()).collect(),
        kernels: rows,
        tuning: options.tuning,
    };
    output::report(&report, args.json, || report.table())?;
    Ok(End::Done)
}

impl Row {
    fn new(id: KernelId, manager: &KernelManager, tuning: Option<&Tuning>) -> Row {
        let reason = manager.availability(id).err();
        Row {
            id: id.to_string(),
            operation: id.operation.name(),
            format: id.format.map(Format::name),
            target: match id.isa.arch() {
                None => "any".to_owned(),
                Some(arch) => format!("{arch} with {}", id.isa),
            },
            runs: reason.is_none(),
            reason: reason.map(|reason| reason.to_string()),
            devices: None,
            compute_capability: None,
            selected_for: selected_for(id, manager)
                .into_iter()
                .map(str::to_owned)
                .chain(tuning.map_or_else(Vec::new, |tuning| measured_for(id, manager, tuning)))
                .collect(),
        }
    }

    /// A kernel for NVIDIA GPUs, where nobody chooses.
    fn on_gpu(GpuKernel { id, devices }: GpuKernel) -> Row {
        let reason = devices.as_ref().err().map(ToString::to_string);
        let devices = devices.iter().flatten().map(ToString::to_string).collect();
        Row {
            id: id.name().to_owned(),
            operation: id.operation(),
            format: None,
            target: format!("NVIDIA GPUs of {}", id.devices()),
            runs: reason.is_none(),
            reason,
            devices: Some(devices),
            compute_capability: Some(id.needs().to_string()),
            selected_for: Vec::new(),
        }
    }
}

/// What a kernel is chosen for. Matrices that tuning knows by their shape may have others.
fn selected_for(id: KernelId, manager: &KernelManager) -> Vec<&'static str> {
    let chosen = |format| -> Result<KernelId, NoKernel> {
        if !id.operation.is_product() {
            let (operation, data) = (id.operation, id.operation.data());
            return Ok(manager.kernel_for(Device::Cpu, format, operation, data)?.kernel.id());
        }
        let product = manager.product(Matrix::typical(format))?;
        Ok(match id.operation {
            Operation::Gemv => product.gemv.kernel.id(),
            _ => product.gemm.kernel.id(),
        })
    };
    let formats: Vec<_> = match id.operation.is_product() {
        true => Format::TERNARY.into_iter().map(Some).collect(),
        false => vec![id.format],
    };
    let ours = formats.into_iter().filter(|&format| chosen(format) == Ok(id));
    ours.map(|format| format.map_or(id.operation.name(), Format::name)).collect()
}

/// The shapes of matrices for which measurements chose a kernel.
fn measured_for(id: KernelId, manager: &KernelManager, tuning: &Tuning) -> Vec<String> {
    let mut shapes = Vec::new();
    for best in &tuning.models {
        let mut manager = manager.clone();
        manager.set_tuned(best.tuned());
        for shape in best.shapes.iter().filter(|shape| shape.operation == id.operation.name()) {
            let matrix = Matrix { format: Some(Format::I2S), rows: shape.rows, cols: shape.cols };
            let ids = manager.product(matrix).map(|p| [p.gemv.kernel.id(), p.gemm.kernel.id()]);
            if ids.is_ok_and(|ids| ids.contains(&id)) {
                shapes.push(format!("{} x {}", shape.rows, shape.cols));
            }
        }
    }
    shapes
}

impl Report {
    /// A line for each kernel.
    fn table(&self) -> String {
        let width = self.kernels.iter().map(|row| row.id.len()).max().unwrap_or(0);
        let mut out = format!("{} with {}\n\n", self.architecture, self.isas.join(", "));
        for Row { id, reason, devices, selected_for, .. } in &self.kernels {
            let what = match (reason, devices) {
                (Some(reason), _) => format!("no: {reason}"),
                (None, Some(devices)) => format!("runs on {}", devices.join(", ")),
                (None, None) if selected_for.is_empty() => "runs".to_owned(),
                (None, None) => format!("used for {}", selected_for.join(", ")),
            };
            out += &format!("{id:width$}  {what}\n");
        }
        for best in self.tuning.iter().flat_map(|tuning| &tuning.models) {
            out += "\nMeasured, for models with matrices of these shapes: ";
            out += &tune::lines(best);
        }
        out
    }
}
