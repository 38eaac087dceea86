//! What the forward passes of a run must have called, read and left, as its tokens tell.

use std::collections::BTreeMap;

use bitnet_kernels::shortlist::Shortlist;
use bitnet_kernels::{Format, KernelId, Operation, packed};

use super::launches;
use super::verify::{is_hex, same};
use super::{MatrixUsed, Model, Outcome, Receipt, share};
use crate::arch;
use crate::config::Activation;
use crate::linear::GROUPED;
use crate::session::CHUNK;
use crate::sha256::sha256;

/// The forward passes of a run.
pub(super) struct Run {
    /// Rows of all passes.
    rows: u64,
    /// Passes over the prompt of as many rows as there may be, and rows of one after these.
    prompt: (u64, u64),
    /// Passes of one row after it.
    decode: u64,
    /// Passes after which logits were asked for.
    outputs: u64,
}

impl Run {
    /// The passes that the tokens of a receipt make necessary.
    pub(super) fn of(receipt: &Receipt) -> Result<Run, String> {
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
            // A stop string ends the text with a token that is not run.
            ("stop", 1..) if !request.stop.is_empty() && positions == all - 1 => Some(positions),
            ("stop", _) => Some(all).filter(|_| generated < request.limit),
            ("length", 0) => Some(all).filter(|_| request.limit == 0),
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
            prompt: (full, rest),
            decode,
            outputs: u64::from(first == prompt) + decode,
        })
    }

    /// The passes: rows of each, and how many there are of them.
    pub(super) fn sizes(&self) -> [(usize, u64); 3] {
        let (full, rest) = self.prompt;
        [(CHUNK, full), (rest as usize, u64::from(rest > 0)), (1, self.decode)]
    }

    /// Passes of all sizes.
    pub(super) fn passes(&self) -> u64 {
        self.sizes().iter().map(|(_, passes)| passes).sum()
    }

    /// Passes after which logits were asked for.
    pub(super) fn outputs(&self) -> u64 {
        self.outputs
    }

    /// Passes of one row after the prompt.
    pub(super) fn decode(&self) -> u64 {
        self.decode
    }

    /// What the draws of tokens call.
    pub(super) fn softmaxes(&self, receipt: &Receipt) -> u64 {
        let draws = if receipt.request.limit == 0 { 0 } else { self.outputs };
        receipt.request.sampler.softmaxes() * draws
    }

    /// The calls that [`forward`](crate::arch::forward) makes, and those that follow from the logits.
    pub(super) fn calls(&self, receipt: &Receipt) -> Result<(), String> {
        let &Model { layers, heads, ref architecture, ref activation, .. } = &receipt.model;
        let (head, mut found) = self.beside_linear(receipt)?;
        let blocks = layers * self.rows;
        let forms = arch::calls(architecture);
        let quantized = found.get(&Operation::Quantize).copied().unwrap_or(0);
        let form = forms.iter().find(|form| form.quantize * blocks == quantized);
        let form = form.or(forms.first()).ok_or_else(|| format!("{architecture} is unknown"))?;
        let numbers = receipt.model.matrices.iter().all(is_grouped);
        let quantize = if numbers { 0 } else { form.quantize * blocks };
        let mut take = |operation| found.remove(&operation).unwrap_or(0);
        let gate: Activation = activation.parse()?;
        let exact = [
            (Operation::Quantize, quantize),
            (Operation::Norm, form.norm * blocks + self.outputs),
            (Operation::Rope, 2 * blocks),
            (Operation::Store, blocks),
            (Operation::Attend, blocks * heads),
            (Operation::Join, blocks * heads),
            (Operation::Add, 2 * blocks),
            (gate.operation(), blocks),
            (Operation::Softmax, self.softmaxes(receipt)),
        ];
        for (operation, expected) in exact {
            same(operation.name(), &take(operation), &expected)?;
        }
        self.output_layer(receipt, [head, take(Operation::Scan), take(Operation::Refine)])?;
        match found.keys().next() {
            None => Ok(()),
            Some(operation) => Err(format!("no forward pass calls {operation}")),
        }
    }

    /// The passes of a library, and the calls that follow from the logits.
    pub(super) fn foreign_calls(&self, receipt: &Receipt) -> Result<(), String> {
        let (mut found, mut drawn) = (0, 0);
        for (id, &calls) in &receipt.kernels {
            match id.parse::<KernelId>() {
                Ok(kernel) if kernel.operation == Operation::Softmax => drawn += calls,
                Ok(_) => return Err(format!("a library computed, and not {id}")),
                Err(_) => found += calls,
            }
        }
        same("passes", &found, &self.passes())?;
        same("softmax", &drawn, &self.softmaxes(receipt))
    }

    /// Calls of the kernels of output layers, and of each other operation; those of linear layers, which
    /// have kernels of their own for each matrix, must be all and no more.
    fn beside_linear(&self, receipt: &Receipt) -> Result<(u64, BTreeMap<Operation, u64>), String> {
        let mut products = self.products(&receipt.model);
        let (mut head, mut found) = (0_u64, BTreeMap::new());
        for (id, &calls) in &receipt.kernels {
            let KernelId { operation, format, .. } = id.parse().map_err(|e| format!("{e}"))?;
            let mut rest = calls;
            if let Some(expected) = products.remove(id.as_str()) {
                rest = calls.checked_sub(expected).ok_or_else(|| {
                    format!("{id} was called {calls} times, and must have been {expected}")
                })?;
            }
            if calls == 0 || operation.is_product() && rest > 0 {
                return Err(format!("{id} was called {rest} times too often"));
            }
            if matches!(operation, Operation::Attend | Operation::Store) {
                let format = format.map_or("", Format::name);
                same("format of keys and values", &format, &receipt.request.kv.as_str())?;
            }
            match operation {
                Operation::Gemv | Operation::Gemm => {}
                Operation::Head => head = rest.saturating_add(head),
                // One kernel computes an operation of a run.
                _ if found.insert(operation, rest).is_some() => {
                    return Err(format!("{operation} has more than one kernel"));
                }
                _ => {}
            }
        }
        match products.first_key_value() {
            None => Ok((head, found)),
            Some((id, calls)) => {
                Err(format!("{id} was not called, and must have been {calls} times"))
            }
        }
    }

    /// The calls of the kernels of linear layers.
    fn products<'a>(&self, model: &'a Model) -> BTreeMap<&'a str, u64> {
        let single = |(rows, _): &(usize, u64)| *rows == 1;
        let sizes = self.sizes();
        let one: u64 = sizes.iter().filter(|size| single(size)).map(|(_, passes)| passes).sum();
        let more = self.passes() - one;
        let mut products: BTreeMap<&str, u64> = BTreeMap::new();
        for matrix in &model.matrices {
            *products.entry(&matrix.gemv).or_default() += model.layers * one;
            *products.entry(&matrix.gemm).or_default() += model.layers * more;
        }
        products.retain(|_, calls| *calls > 0);
        products
    }

    /// What the logits cost depends on them: without the model there are only limits.
    fn output_layer(
        &self,
        receipt: &Receipt,
        [head, scan, refine]: [u64; 3],
    ) -> Result<(), String> {
        let &Model { ref matrices, vocabulary, .. } = &receipt.model;
        let hidden = matrices.first().map_or(0, |matrix| matrix.cols);
        if scan > 0 && !Shortlist::suits(vocabulary as usize, hidden as usize) {
            return Err(format!("{scan} scans of an output layer that is too small for it"));
        }
        // A scan leaves one row at least, and all at most.
        let outputs = self.outputs;
        let range = outputs.checked_sub(scan).map(|whole| whole + scan..=whole + scan * vocabulary);
        if !range.is_some_and(|range| range.contains(&head)) {
            return Err(format!("{scan} scans and {head} products for {outputs} logits"));
        }
        if refine > scan * vocabulary {
            return Err(format!("{refine} rows refined in {scan} scans"));
        }
        Ok(())
    }

    /// What the passes read of linear layers.
    pub(super) fn bytes(&self, receipt: &Receipt) -> Result<(), String> {
        let &Model { layers, ref matrices, .. } = &receipt.model;
        let mut bytes = 0_u64;
        for matrix in matrices {
            let stored = match &receipt.machine.gpu {
                Some(gpu) => launches::stored(matrix, gpu)?,
                None => stored(matrix, receipt.dequantized)?,
            };
            bytes = bytes.saturating_add(stored.saturating_mul(layers));
        }
        let read = &receipt.read;
        let prompt = self.passes() - self.decode;
        same("bytes for the prompt", &read.prompt.linear, &bytes.saturating_mul(prompt))?;
        same("bytes after it", &read.decode.linear, &bytes.saturating_mul(self.decode))?;
        let output = [read.prompt.head > 0, read.decode.head > 0];
        let expected = [self.outputs > self.decode, self.decode > 0];
        same("whether an output layer was read", &output, &expected)?;
        let scans = ["scan_", "gemv_head_i8_"];
        let scanned =
            receipt.kernels.keys().any(|id| scans.iter().any(|begin| id.starts_with(begin)));
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

    pub(super) fn hashes(&self, receipt: &Receipt) -> Result<(), String> {
        let result = &receipt.result;
        let logits = result.logits_sha256.as_ref();
        same("whether there are logits", &logits.is_some(), &(self.outputs > 0))?;
        let mut hashes = logits.into_iter().chain([&result.tokens_sha256, &receipt.model.sha256]);
        if let Some(wrong) = hashes.find(|hash| !is_hex(hash, 64)) {
            return Err(format!("{wrong:?} is no SHA-256"));
        }
        match result.generated {
            0 => same("hash of no tokens", &result.tokens_sha256, &sha256([])),
            _ => Ok(()),
        }
    }

    pub(super) fn times(&self, receipt: &Receipt) -> Result<(), String> {
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

/// Whether the weights of a matrix have a scale for each group, and activations are numbers.
fn is_grouped(matrix: &MatrixUsed) -> bool {
    GROUPED.iter().any(|format| format.name() == matrix.layout)
}

/// Bytes of a matrix in memory.
fn stored(matrix: &MatrixUsed, dequantized: bool) -> Result<u64, String> {
    let shape = (usize::try_from(matrix.rows), usize::try_from(matrix.cols));
    let (Ok(rows), Ok(cols)) = shape else {
        return Err(format!("{matrix:?} is too large"));
    };
    let grouped = is_grouped(matrix);
    let layouts = match dequantized {
        true => &[Format::F16][..],
        false if grouped => &GROUPED,
        false => &Format::PACKED,
    };
    let layout = layouts.iter().find(|layout| layout.name() == matrix.layout);
    let layout = *layout.ok_or_else(|| format!("{} is no layout of such a run", matrix.layout))?;
    let numbers = dequantized || grouped;
    let operations = match numbers {
        true => [Operation::Head; 2],
        false => [Operation::Gemv, Operation::Gemm],
    };
    for (id, operation) in [&matrix.gemv, &matrix.gemm].into_iter().zip(operations) {
        let kernel: KernelId = id.parse().map_err(|e| format!("{e}"))?;
        if (kernel.operation, kernel.format) != (operation, Some(layout)) {
            return Err(format!("{id} is no {operation} for {layout}"));
        }
    }
    let bytes = match numbers {
        true => layout.row_bytes(cols).map(|row| row.saturating_mul(rows)),
        false => packed::bytes(layout, rows, cols),
    };
    bytes.map(|bytes| bytes as u64).map_err(|e| e.to_string())
}
