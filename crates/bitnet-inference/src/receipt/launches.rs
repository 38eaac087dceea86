//! What the forward passes of a run must have launched on a GPU, as its tokens tell.

use std::collections::BTreeMap;

use bitnet_gpu::kernels::{KernelId, RowTiles, TARGETS, bucket, target_of};
use bitnet_gpu::{CudaComputeCapability, PrecisionMode, tiles};
use bitnet_kernels::{Format, Operation};

use super::passes::Run;
use super::verify::{is_hex, same};
use super::{GpuUsed, MatrixUsed, Receipt};
use crate::KvType;
use crate::arch::{self, Calls};
use crate::session::CHUNK;

/// What a driver that has no GPU gives: it is there for tests.
const FAKE: &str = "face0000";

/// The compute capability of the devices that the kernels of a run were for.
fn target(gpu: &GpuUsed) -> Result<CudaComputeCapability, String> {
    let target = TARGETS.iter().find(|(name, _)| *name == gpu.target);
    target.map(|(_, from)| *from).ok_or_else(|| format!("there are no kernels for {}", gpu.target))
}

/// Whether a device can be what it is said to be.
pub(super) fn device(gpu: &GpuUsed) -> Result<(), String> {
    let capability = gpu.compute_capability.parse::<CudaComputeCapability>().ok();
    let takes = capability.and_then(target_of).map(|target| TARGETS[target]);
    let is_version = gpu.driver.split_once('.').is_some_and(|(major, minor)| {
        [major, minor].iter().all(|number| number.parse::<u32>().is_ok())
    });
    let sound = is_hex(&gpu.uuid, 32) && is_hex(&gpu.ptx_sha256, 64) && !gpu.name.is_empty();
    let is_written_so = capability.is_some_and(|found| found.to_string() == gpu.compute_capability);
    if !sound || !is_version || !is_written_so || takes.map(|(_, from)| from) != Some(target(gpu)?)
    {
        return Err(format!("{gpu:?} is no GPU that kernels could run on"));
    }
    match gpu.uuid.starts_with(FAKE) {
        true => Err(format!("{} is none: its driver computed in place of it", gpu.name)),
        false => Ok(()),
    }
}

/// Bytes of a matrix in the memory of a device.
pub(super) fn stored(matrix: &MatrixUsed, gpu: &GpuUsed) -> Result<u64, String> {
    let target = target(gpu)?;
    let [gemv, gemm] = [1, CHUNK].map(|rows| KernelId::product(target, rows, false).name());
    let found = [&matrix.layout, &matrix.gemv, &matrix.gemm].map(String::as_str);
    same("what computes with a matrix", &found, &[tiles::NAME, gemv, gemm])?;
    let tiles = |n: u64, of: usize| n.div_ceil(of as u64);
    let bytes = tiles(matrix.rows, tiles::ROWS)
        .checked_mul(tiles(matrix.cols, tiles::COLS) * tiles::BYTES as u64);
    bytes.ok_or_else(|| format!("{matrix:?} is too large"))
}

/// Products of a layer.
struct Products {
    /// Numbers of what they multiply.
    cols: usize,
    gate: bool,
    count: u64,
}

/// Those of an architecture: one for the output of attention, one at the end, and all others on the residual stream.
fn products(receipt: &Receipt, form: &Calls) -> Result<[Products; 4], String> {
    let [queries, _, _, output, _, _, down] = &receipt.model.matrices[..] else {
        return Err(format!("{} matrices in a layer", receipt.model.matrices.len()));
    };
    let of = |matrix: &MatrixUsed, gate, count| {
        let cols = usize::try_from(matrix.cols).map_err(|_| format!("{matrix:?} is too large"))?;
        Ok::<_, String>(Products { cols, gate, count })
    };
    let gates = u64::from(form.fused);
    Ok([
        of(queries, false, form.quantize - gates - 2)?,
        of(queries, true, gates)?,
        of(output, false, 1)?,
        of(down, false, 1)?,
    ])
}

impl Run {
    /// The launches of the passes, and the calls that follow from the logits.
    pub(super) fn launches(&self, receipt: &Receipt, gpu: &GpuUsed) -> Result<(), String> {
        let mut found = BTreeMap::new();
        let (mut drawn, layers) = (0, receipt.model.layers);
        for (id, &calls) in &receipt.kernels {
            match id.parse::<bitnet_kernels::KernelId>() {
                Ok(kernel) if kernel.operation == Operation::Softmax => drawn += calls,
                Ok(_) => return Err(format!("a GPU computed, and not {id}")),
                Err(_) => _ = found.insert(id.parse::<KernelId>()?, calls),
            }
        }
        same("softmax", &drawn, &self.softmaxes(receipt))?;
        let mut take =
            |ids: &[KernelId]| -> u64 { ids.iter().filter_map(|id| found.remove(id)).sum() };

        // Passes of one row may be a launch each, up to the output layer.
        let whole = take(&[KernelId::MegaDecode]);
        let sizes: Vec<_> =
            self.sizes().into_iter().filter(|(rows, _)| whole == 0 || *rows > 1).collect();
        let passes = sizes.iter().map(|(_, passes)| passes).sum();
        same("passes in one kernel", &whole, &if whole > 0 { self.passes() - passes } else { 0 })?;
        // Products may do both on the way.
        let [norm, quantize, gate] =
            [KernelId::GemvNormMma, KernelId::GemvQuantizeMma, KernelId::GemvNormMmaGate]
                .map(|id| take(&[id]));
        let both = norm + gate + take(&[KernelId::RmsNormQuantize]);
        let norms = both + take(&[KernelId::RmsNorm]);
        let quantized = both + quantize + take(&[KernelId::Quantize]);
        let blocks = layers * passes;
        let forms = arch::calls(&receipt.model.architecture);
        let form = forms.iter().find(|form| form.quantize * blocks == quantized).or(forms.first());
        let form = form.ok_or_else(|| format!("{} is unknown", receipt.model.architecture))?;
        let apart = if form.fused { 0 } else { blocks };
        let kv = receipt.request.kv.parse::<KvType>()?.format();
        let [rope, attend] = match kv {
            Format::F32 => [KernelId::RopeAppendF32, KernelId::AttendF32],
            Format::F16 => [KernelId::RopeAppendF16, KernelId::AttendF16],
            _ => [KernelId::RopeAppendQ8, KernelId::AttendQ8],
        };
        let row_tiles = row_tiles(receipt, (gpu, kv))?;
        if whole > 0 && row_tiles.precision() != PrecisionMode::Fp32 {
            return Err(format!("passes in one kernel, with attention in {}", gpu.attention));
        }
        let prefill = KernelId::together(row_tiles.precision(), kv);
        let Attended { together, alone, apart: turned } = attended(&sizes, row_tiles);
        let embeddings = [KernelId::EmbedF32, KernelId::EmbedF16, KernelId::EmbedBf16];
        let exact = [
            ("embeddings", take(&embeddings), passes),
            ("norms", norms, form.norm * blocks + self.outputs().saturating_sub(whole)),
            ("rows that became bytes", quantized, form.quantize * blocks),
            (rope.name(), take(&[rope]), layers * (passes - turned)),
            (attend.name(), take(&[attend]), layers * alone),
            (prefill.name(), take(&[prefill]), layers * together),
            (KernelId::Add.name(), take(&[KernelId::Add]), 2 * apart),
            (KernelId::Gate.name(), take(&[KernelId::Gate]), apart),
        ];
        for (what, found, expected) in exact {
            same(what, &found, &expected)?;
        }
        self.logits_on(&mut take)?;
        // A token that the device has chosen is a step of its table.
        let chosen = [KernelId::Draw, KernelId::Advance].map(|id| take(&[id]));
        if chosen[0] != chosen[1] || chosen[0] > self.decode() {
            return Err(format!("{chosen:?} tokens chosen for {} passes", self.decode()));
        }
        if gpu.dropped_passes > self.outputs() {
            return Err(format!("{} passes dropped of {}", gpu.dropped_passes, self.outputs()));
        }
        // Whether there is a norm before has been counted with the norms.
        for (id, launches) in
            [(KernelId::GemvNormMma, norm + quantize), (KernelId::GemvNormMmaGate, gate)]
        {
            if launches > 0 {
                found.insert(id, launches);
            }
        }
        let expected = products_on(target(gpu)?, &sizes, (layers, &products(receipt, form)?));
        same("products", &found, &expected)
    }

    /// Launches for the logits: of all of them, where the sampler wants them, or of those of the copy of the output layer that may be
    /// the greatest. These may turn out to be too many equal ones, and then all are wanted.
    fn logits_on(&self, take: &mut impl FnMut(&[KernelId]) -> u64) -> Result<(), String> {
        let outputs = self.outputs();
        let all = take(&[KernelId::GemvHeadF32, KernelId::GemvHeadF16, KernelId::GemvHeadBf16]);
        let scans = take(&[KernelId::GemvHeadDp4a, KernelId::GemvHeadMma]);
        let steps = [
            take(&[KernelId::HeadQuantize]),
            take(&[KernelId::HeadFloor]),
            take(&[KernelId::RerankF32, KernelId::RerankF16, KernelId::RerankBf16]),
        ];
        let rows = take(&[KernelId::RerankAtF32, KernelId::RerankAtF16, KernelId::RerankAtBf16]);
        let [top, gather] = [KernelId::TopK, KernelId::Gather].map(|id| take(&[id]));
        let sound = steps == [scans; 3]
            && all.saturating_add(scans) >= outputs
            && [all, scans, top].iter().all(|launches| *launches <= outputs)
            && (scans..=outputs).contains(&top)
            && rows <= scans
            && gather <= top - scans;
        match sound {
            true => Ok(()),
            false => Err(format!(
                "{all} products of the output layer, {scans} of its copy with {steps:?} behind them, {rows} of some rows, \
                 {top} choices and {gather} of some logits, for {outputs} tokens"
            )),
        }
    }
}

/// Which rows attention takes together, in the precision that is named.
fn row_tiles(receipt: &Receipt, (gpu, kv): (&GpuUsed, Format)) -> Result<RowTiles, String> {
    let model = &receipt.model;
    let rows = |matrix: usize| model.matrices.get(matrix).map_or(0, |matrix| matrix.rows);
    let size = rows(0).checked_div(model.heads).unwrap_or(0);
    let group = model.heads.checked_div(rows(1).checked_div(size).unwrap_or(0)).unwrap_or(0);
    let [group, size] = [group, size].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let found = RowTiles::choose(attention(gpu)?, (target(gpu)?, kv), (group, size));
    found.ok_or_else(|| {
        let GpuUsed { target, attention, .. } = gpu;
        format!("attention in {attention} with keys and values in {kv} and {group} heads of {size} numbers is not for {target}")
    })
}

/// The precision of what attention multiplied.
pub(super) fn attention(gpu: &GpuUsed) -> Result<PrecisionMode, String> {
    match gpu.attention.parse() {
        Ok(PrecisionMode::Auto) => Err("attention in auto, which is no precision".to_owned()),
        found => found.map_err(|e| e.to_string()),
    }
}

/// Passes.
#[derive(Default)]
struct Attended {
    /// With rows that attention takes together.
    together: u64,
    /// With rows that it takes one by one.
    alone: u64,
    /// With one row, which it takes so.
    apart: u64,
}

/// How attention took the rows of all passes, of so many rows each and so many passes.
fn attended(sizes: &[(usize, u64)], tiles: RowTiles) -> Attended {
    let mut all = Attended::default();
    for &(rows, passes) in sizes {
        let taken: usize = tiles.of(&vec![0; rows]).map(|tile| tile.len()).sum();
        let either = |is_so: bool| if is_so { passes } else { 0 };
        all.together += either(taken > 0);
        all.alone += either(taken < rows);
        all.apart += either(rows == 1 && taken == 0);
    }
    all
}

/// Launches of products in all passes, of so many rows each and so many passes, over so many layers.
fn products_on(
    target: CudaComputeCapability,
    sizes: &[(usize, u64)],
    (layers, products): (u64, &[Products]),
) -> BTreeMap<KernelId, u64> {
    let mut all = BTreeMap::new();
    for &(rows, passes) in sizes {
        let rows = bucket(rows);
        for &Products { cols, gate, count } in products {
            let prepared = KernelId::prepared(target, (rows, cols), (true, gate));
            let kernel = prepared.unwrap_or(KernelId::product(target, rows, gate));
            let parts = rows.div_ceil(kernel.rows()) as u64;
            *all.entry(kernel).or_default() += parts * count * layers * passes;
        }
    }
    all.retain(|_, launches| *launches > 0);
    all
}
