//! Whether a receipt can be true.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use bitnet_kernels::shortlist::Shortlist;
use bitnet_kernels::{Device, Format, Isa, KernelId, Operation, packed};

use super::{Model, Outcome, Receipt, SCHEMA, hash, kernels, share};
use crate::generate::Generation;
use crate::session::CHUNK;
use crate::{Config, Engine, Error};

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
    /// Whether the model was there to run it again.
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
/// opened with [`Receipt::options`].
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
        verdict.check("calls of kernels", run.calls(receipt));
        verdict.check("bytes of weights", run.bytes(receipt));
        verdict.check("hashes of the result", run.hashes(receipt));
        verdict.check("times", run.times(receipt));
    }
    if let Some(engine) = engine {
        verdict.check("the model", model(receipt, engine));
        // What is already known to be something else need not be run.
        if verdict.holds() {
            verdict.check("the same run again", rerun(receipt, engine)?);
        }
    }
    Ok(verdict)
}

fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
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
    let ternary = |name: &String| Format::TERNARY.iter().any(|f| f.ggml_name() == name);
    match types.is_empty() || !types.iter().all(ternary) {
        true => Err(format!("{types:?} are no formats of ternary weights")),
        false => Ok(()),
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Numbers that no model and no run exceed, and with which no product below overflows.
fn sizes(receipt: &Receipt) -> Result<(), String> {
    let (model, request) = (&receipt.model, &receipt.request);
    let sizes = [
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

/// Ids of kernels on GPUs start so.
const GPU: [&str; 3] = ["gemm_", "wmma_", "i2s_gpu_"];

/// Whether the kernels are those of the device and of the instruction sets that were in use.
fn device(receipt: &Receipt) -> Result<(), String> {
    let machine = &receipt.machine;
    let device: Device = machine.device.parse().map_err(|e| format!("{e}"))?;
    same("device", &machine.device, &device.to_string())?;
    if device != Device::Cpu {
        let ids = || receipt.kernels.keys();
        if !ids().any(|id| GPU.iter().any(|prefix| id.starts_with(prefix))) {
            return Err(format!("no kernel of a GPU was called ({})", GPU.join(", ")));
        }
        return Err(format!("this version has no kernels for {device}: it cannot be true"));
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
    for id in receipt.kernels.keys() {
        let kernel: KernelId = id.parse().map_err(|e| format!("{e}"))?;
        if !isas.contains(&kernel.isa) {
            return Err(format!("{id} does not run with at most {best}"));
        }
    }
    Ok(())
}

/// The forward passes of a run.
struct Run {
    /// Rows of all passes.
    rows: u64,
    /// Passes over the prompt, of one row and of more.
    prompt: [u64; 2],
    /// Passes of one row after it.
    decode: u64,
    /// Passes after which logits were asked for.
    outputs: u64,
}

impl Run {
    /// The passes that the tokens of a receipt make necessary.
    fn of(receipt: &Receipt) -> Result<Run, String> {
        let (request, result) = (&receipt.request, &receipt.result);
        let (prompt, chunk) = (request.prompt.len() as u64, CHUNK as u64);
        let Outcome { generated, positions, .. } = *result;
        let context = request.context;
        if prompt == 0 || prompt > context || positions > context || generated > request.limit {
            return Err(format!(
                "{prompt} tokens of a prompt and {generated} of {} after it do not make {positions} \
                 in a context of {context}",
                request.limit
            ));
        }
        let vocabulary = receipt.model.vocabulary;
        if let Some(id) = request.prompt.iter().find(|&&id| u64::from(id) >= vocabulary) {
            return Err(format!("token {id} is not in a vocabulary of {vocabulary}"));
        }
        // The last token that is generated is not run; one that ends the text is not counted.
        let all = prompt + generated;
        let expected = match (result.finish.as_str(), generated) {
            ("stop", _) => Some(all).filter(|_| generated < request.limit),
            ("length", 0) => Some(0).filter(|_| request.limit == 0),
            ("length", n) => Some(all - 1).filter(|&run| n == request.limit || run == context),
            // Between two pieces of the prompt.
            ("cancelled", 0) => {
                Some(positions).filter(|&run| run < prompt && run.is_multiple_of(chunk))
            }
            ("cancelled", _) => Some(all - 1).filter(|_| generated < request.limit),
            _ => None,
        };
        let finish = &result.finish;
        let expected = expected.ok_or_else(|| {
            format!("{generated} tokens of {} cannot end by {finish:?}", request.limit)
        })?;
        same("tokens run", &positions, &expected)?;
        let first = positions.min(prompt);
        let (full, rest) = (first / chunk, first % chunk);
        let decode = positions - first;
        Ok(Run {
            rows: positions,
            prompt: [u64::from(rest == 1), full + u64::from(rest > 1)],
            decode,
            outputs: u64::from(first == prompt) + decode,
        })
    }

    /// The calls that [`forward`](crate::arch::forward) makes, and those that follow from the logits.
    fn calls(&self, receipt: &Receipt) -> Result<(), String> {
        let &Model { layers, heads, ref matrices, vocabulary, .. } = &receipt.model;
        let [one, more] = [self.prompt[0] + self.decode, self.prompt[1]];
        // Products are counted with the kernels that each matrix has.
        let mut products: BTreeMap<&str, u64> = BTreeMap::new();
        for matrix in matrices {
            *products.entry(&matrix.gemv).or_default() += layers * one;
            *products.entry(&matrix.gemm).or_default() += layers * more;
        }
        products.retain(|_, calls| *calls > 0);
        let mut head = 0_u64;
        let mut found: BTreeMap<Operation, u64> = BTreeMap::new();
        for (id, &calls) in &receipt.kernels {
            let kernel: KernelId = id.parse().map_err(|e| format!("{e}"))?;
            let mut rest = calls;
            if kernel.operation.is_product() || receipt.dequantized {
                let expected = products.remove(id.as_str()).unwrap_or(0);
                rest = calls.checked_sub(expected).ok_or_else(|| {
                    format!("{id} was called {calls} times, and must have been {expected}")
                })?;
            }
            if calls == 0 || kernel.operation.is_product() && rest > 0 {
                return Err(format!("{id} was called {rest} times too often"));
            }
            match kernel.operation {
                Operation::Gemv | Operation::Gemm => {}
                Operation::Head => head = rest.saturating_add(head),
                // One kernel computes an operation of a run.
                operation => {
                    if found.insert(operation, rest).is_some() {
                        return Err(format!("{operation} has more than one kernel"));
                    }
                }
            }
        }
        if let Some((id, calls)) = products.first_key_value() {
            return Err(format!("{id} was not called, and must have been {calls} times"));
        }
        let mut take = |operation| found.remove(&operation).unwrap_or(0);
        let exact = [
            (Operation::Quantize, 4 * layers * self.rows),
            (Operation::Norm, 4 * layers * self.rows + self.outputs),
            (Operation::Rope, 2 * layers * self.rows),
            (Operation::Store, layers * self.rows),
            (Operation::Attend, layers * self.rows * heads),
            (Operation::Join, layers * self.rows * heads),
            (Operation::Add, 2 * layers * self.rows),
            (Operation::Relu2, layers * self.rows),
            (Operation::Softmax, receipt.request.sampler.softmaxes() * self.outputs),
        ];
        for (operation, expected) in exact {
            same(operation.name(), &take(operation), &expected)?;
        }
        for id in receipt.kernels.keys() {
            let kernel: KernelId = id.parse().map_err(|e| format!("{e}"))?;
            if matches!(kernel.operation, Operation::Attend | Operation::Store) {
                let format = kernel.format.map_or("", Format::name);
                same("format of keys and values", &format, &receipt.request.kv.as_str())?;
            }
        }
        // What the logits cost depends on them: without the model there are only limits.
        let (scan, refine) = (take(Operation::Scan), take(Operation::Refine));
        let hidden = matrices.first().map_or(0, |matrix| matrix.cols);
        if scan > 0 && !Shortlist::suits(vocabulary as usize, hidden as usize) {
            return Err(format!("{scan} scans of an output layer that is too small for it"));
        }
        let whole = self.outputs.checked_sub(scan);
        let least = whole.map(|whole| whole + scan);
        let most = whole.map(|whole| whole + scan * vocabulary);
        if least.is_none_or(|least| head < least) || most.is_none_or(|most| head > most) {
            let outputs = self.outputs;
            return Err(format!("{scan} scans and {head} products for {outputs} logits"));
        }
        if refine > scan * vocabulary {
            return Err(format!("{refine} rows refined in {scan} scans"));
        }
        match found.keys().next() {
            None => Ok(()),
            Some(operation) => Err(format!("no forward pass calls {operation}")),
        }
    }

    /// What the passes read of linear layers.
    fn bytes(&self, receipt: &Receipt) -> Result<(), String> {
        let &Model { layers, ref matrices, .. } = &receipt.model;
        let mut bytes = 0_u64;
        for matrix in matrices {
            let stored = stored(matrix, receipt.dequantized)?;
            bytes = bytes.saturating_add(stored.saturating_mul(layers));
        }
        let read = &receipt.read;
        let prompt = self.prompt.iter().sum::<u64>();
        same("bytes for the prompt", &read.prompt.linear, &bytes.saturating_mul(prompt))?;
        same("bytes after it", &read.decode.linear, &bytes.saturating_mul(self.decode))?;
        let output = [read.prompt.head > 0, read.decode.head > 0];
        let expected = [self.outputs > self.decode, self.decode > 0];
        same("whether an output layer was read", &output, &expected)?;
        let scanned = receipt.kernels.keys().any(|id| id.starts_with("scan_"));
        let one = (read.prompt.head + read.decode.head).checked_div(self.outputs).unwrap_or(0);
        let all = [u64::from(expected[0]) * one, self.decode * one];
        // Without scans each token reads all of it.
        match scanned || [read.prompt.head, read.decode.head] == all {
            true => Ok(()),
            false => Err(format!(
                "{:?} bytes of output layers, of {one} each",
                (read.prompt.head, read.decode.head)
            )),
        }
    }

    fn hashes(&self, receipt: &Receipt) -> Result<(), String> {
        let result = &receipt.result;
        let logits = result.logits_sha256.as_ref();
        same("whether there are logits", &logits.is_some(), &(self.outputs > 0))?;
        let mut hashes = logits.into_iter().chain([&result.tokens_sha256, &receipt.model.sha256]);
        if let Some(wrong) = hashes.find(|hash| !is_hex(hash, 64)) {
            return Err(format!("{wrong:?} is no SHA-256"));
        }
        match result.generated {
            0 => same("hash of no tokens", &result.tokens_sha256, &hash([])),
            _ => Ok(()),
        }
    }

    fn times(&self, receipt: &Receipt) -> Result<(), String> {
        let (times, read) = (&receipt.timings, &receipt.read);
        let all = [times.load_ms, times.prompt_ms, times.first_token_ms, times.decode_ms];
        if all.iter().any(|ms| !ms.is_finite() || *ms < 0.0) {
            return Err(format!("{times:?} are no times"));
        }
        let some = [times.prompt_ms, times.first_token_ms, times.decode_ms].map(|ms| ms > 0.0);
        let result = &receipt.result;
        let expected = [self.outputs > 0, result.generated > 0, self.decode > 0];
        same("whether there are times", &some, &expected)?;
        if result.generated > 0 && times.first_token_ms < times.prompt_ms {
            return Err(format!("the first token came before the prompt ended: {times:?}"));
        }
        if receipt.peak_memory_bytes == Some(0) {
            return Err("a process has memory".to_owned());
        }
        let bandwidth = read.bandwidth_gbps.unwrap_or(0.0);
        if !bandwidth.is_finite() || read.bandwidth_gbps.is_some_and(|gbps| gbps <= 0.0) {
            return Err(format!("{bandwidth} GB/s is no bandwidth"));
        }
        let expected = share(read.decode, times.decode_ms, bandwidth);
        let close = match (read.decode_share, expected) {
            (Some(found), Some(expected)) => (found / expected - 1.0).abs() < 1e-9,
            (found, expected) => found.is_none() && expected.is_none(),
        };
        match close {
            true => Ok(()),
            false => Err(format!(
                "the share of the bandwidth is {:?} and must be {expected:?}",
                read.decode_share
            )),
        }
    }
}

/// Bytes of a matrix in memory.
fn stored(matrix: &super::MatrixUsed, dequantized: bool) -> Result<u64, String> {
    let shape = (usize::try_from(matrix.rows), usize::try_from(matrix.cols));
    let (Ok(rows), Ok(cols)) = shape else {
        return Err(format!("{matrix:?} is too large"));
    };
    let layouts = if dequantized { &[Format::F16][..] } else { &Format::PACKED };
    let layout = layouts.iter().find(|layout| layout.name() == matrix.layout);
    let layout = *layout.ok_or_else(|| format!("{} is no layout of such a run", matrix.layout))?;
    let operations = match dequantized {
        true => [Operation::Head; 2],
        false => [Operation::Gemv, Operation::Gemm],
    };
    for (id, operation) in [&matrix.gemv, &matrix.gemm].into_iter().zip(operations) {
        let kernel: KernelId = id.parse().map_err(|e| format!("{e}"))?;
        if (kernel.operation, kernel.format) != (operation, Some(layout)) {
            return Err(format!("{id} is no {operation} for {layout}"));
        }
    }
    let bytes = match dequantized {
        true => layout.row_bytes(cols).map(|row| row.saturating_mul(rows)),
        false => packed::bytes(layout, rows, cols),
    };
    bytes.map(|bytes| bytes as u64).map_err(|e| e.to_string())
}

/// Whether a model is that of the receipt, whatever its layout in memory.
fn model(receipt: &Receipt, engine: &Engine) -> Result<(), String> {
    let Model { sha256, architecture, types, layers, heads, vocabulary, matrices } =
        Model::new(engine);
    let found = &receipt.model;
    same("hash", &found.sha256, &sha256)?;
    same("architecture", &found.architecture, &architecture)?;
    same("types", &found.types, &types)?;
    same("layers", &found.layers, &layers)?;
    same("heads", &found.heads, &heads)?;
    same("vocabulary", &found.vocabulary, &vocabulary)?;
    let shapes = |matrices: &[super::MatrixUsed]| -> Vec<_> {
        matrices.iter().map(|matrix| (matrix.rows, matrix.cols)).collect()
    };
    same("matrices", &shapes(&found.matrices), &shapes(&matrices))?;
    same("context", &receipt.request.context, &(engine.context() as u64))?;
    same("keys and values", &receipt.request.kv, &engine.kv().to_string())
}

/// Runs what was asked for again, and compares what came out and what it took.
fn rerun(receipt: &Receipt, engine: &Engine) -> Result<Result<(), String>, Error> {
    let (request, result) = (&receipt.request, &receipt.result);
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let mut again = Generation::new(engine, request.prompt.clone(), request.sampler, limit)?;
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
    let found = Outcome::new(&mut again);
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
