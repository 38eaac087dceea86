//! Forward passes on a device: each is recorded when one of its size comes for the first time, and enqueued as a whole
//! from then on.

mod head;
mod pass;
mod work;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bitnet_gpu::cuda::{
    self, CacheShape, Floats, Launches, Parts, Pick, Picks, Plan, Queue, Recorded, SPAN, Step,
};
use bitnet_gpu::kernels::bucket;
use bitnet_kernels::Format;
use bitnet_kernels::shortlist::Candidate;

use super::{OnGpu, See, row};
use crate::arch::Model;
use crate::backend::Row;
use crate::kv::KvCache;
use crate::session::CHUNK;
use crate::state::Buffers;
use crate::{Best, Config, Error, WeightsRead};
use head::Head;
use pass::{Activations, Pass, Size};
use work::Work;

/// Sequences on a device.
#[derive(Debug)]
pub(crate) struct Passes {
    on: Arc<OnGpu>,
    model: Arc<Model>,
    /// Which blocks are whose; what is in them is on the device.
    cache: KvCache,
    /// Blocks of each sequence that the device knows of.
    known: Vec<Vec<u32>>,
    there: cuda::Cache,
    parts: Parts,
    step: Step,
    scratch: cuda::Scratch,
    buffers: Buffers<Floats, Activations>,
    head: Head,
    picks: Picks,
    found: Vec<Vec<Candidate>>,
    recorded: HashMap<(Size, usize), Recorded>,
    launches: Launches,
    work: Work,
    read: WeightsRead,
    /// Bytes of the linear layers, which every pass reads.
    pass_bytes: u64,
    /// Rows of the last pass, if all of them have outputs.
    rows: Vec<cuda::Row>,
    /// Rows of the last pass that have outputs.
    outputs: usize,
    /// The pass that was enqueued before its tokens were known.
    ahead: Option<Ahead>,
    /// Such passes that were not what came next.
    dropped: u64,
}

/// A pass whose tokens the device has drawn. Its sampler draws them again: if others, the pass is dropped.
#[derive(Debug)]
struct Ahead {
    rows: Vec<cuda::Row>,
    launches: Launches,
}

impl Passes {
    pub(super) fn new(
        on: Arc<OnGpu>,
        model: Arc<Model>,
        (cache, sequences, format): (KvCache, usize, Format),
    ) -> Result<Passes, Error> {
        let (gpu, c) = (&on.gpu, &model.config);
        if on.way.passes.of(gpu.target().1, (1, true), &columns(c)) != on.way.passes {
            let what = "passes in one kernel: its kernels are not for this device, or the rows of the model too long; leave out \
                        --gpu-passes kernel";
            return Err(cuda::Error::Unsupported { what: what.to_owned() }.into());
        }
        let plan = Plan::new();
        let buffers = Buffers::new(
            &model,
            |cols| Ok(plan.floats(CHUNK, cols)),
            |cols| Ok(Activations { bytes: plan.quantized(CHUNK, cols), of: None }),
        )?;
        let head = Head::new(&on, &model, &plan, buffers.last)?;
        let shape = CacheShape {
            blocks: cache.used().1,
            block_bytes: cache.block_bytes(),
            sequences,
            context: on.context,
            kv_heads: c.kv_heads,
            size: c.head_size,
            format,
        };
        Ok(Passes {
            there: cuda::Cache::new(gpu, shape)?,
            parts: Parts::new(gpu, CHUNK, c.heads, &shape)?,
            step: Step::new(gpu, CHUNK, on.way.together)?,
            scratch: cuda::Scratch::new(gpu, &plan)?,
            picks: Picks::new(gpu, CHUNK)?,
            known: vec![Vec::new(); sequences],
            buffers,
            head,
            found: Vec::new(),
            recorded: HashMap::new(),
            launches: Launches::default(),
            work: Work::default(),
            read: WeightsRead::default(),
            pass_bytes: model.linears().map(|linear| linear.bytes() as u64).sum(),
            rows: Vec::new(),
            outputs: 0,
            ahead: None,
            dropped: 0,
            cache,
            model,
            on,
        })
    }

    /// The device, and keys and values there.
    pub(super) fn there(&self) -> (&Arc<OnGpu>, &cuda::Cache) {
        (&self.on, &self.there)
    }

    pub(crate) fn cache(&mut self) -> &mut KvCache {
        &mut self.cache
    }

    /// Which blocks are whose.
    pub(crate) fn blocks(&self) -> &KvCache {
        &self.cache
    }

    /// Runs rows whose blocks are reserved, up to the hidden states of those with outputs; or has them run already.
    pub(crate) fn run(
        &mut self,
        of: (&[Row], &[usize]),
        see: Option<See<'_>>,
    ) -> Result<(), Error> {
        self.timed(|passes| passes.enqueue(of, see))
    }

    fn enqueue(
        &mut self,
        (rows, outputs): (&[Row], &[usize]),
        see: Option<See<'_>>,
    ) -> Result<(), Error> {
        (self.outputs, self.head.whole) = (outputs.len(), false);
        let all: Vec<cuda::Row> = rows.iter().map(row).collect();
        self.rows.clear();
        if outputs.len() == rows.len() {
            self.rows.extend(&all);
        }
        match self.ahead.take() {
            Some(ahead) if see.is_none() && ahead.rows == self.rows => {
                self.launches.add_all(&ahead.launches);
                self.head.which = 1 - self.head.which;
            }
            ahead => {
                self.dropped += u64::from(ahead.is_some());
                // What was enqueued before must be done with what it read.
                self.on.gpu.synchronize()?;
                let blocks = all.iter().map(|row| row.sequence).collect::<Vec<_>>();
                self.tell_blocks(&blocks)?;
                self.step.set(&all, outputs);
                let size = size_of(&all, outputs.len(), self.step.cut());
                self.step.send(&self.on.gpu)?;
                match see {
                    Some(see) => {
                        let size = Size { rows: all.len(), outputs: outputs.len(), ..size };
                        self.observed(size, see)?;
                    }
                    None => {
                        let mut launches = Launches::default();
                        self.replay((size, self.head.which), &mut launches)?;
                        self.launches.add_all(&launches);
                    }
                }
            }
        }
        self.read.linear += self.pass_bytes;
        Ok(())
    }

    /// Enqueues the next pass of the same rows, each of which goes on with a token that the device draws as its sampler will, if
    /// there is room for it. `slot` is that of the picks.
    fn run_ahead(&mut self, slot: usize) -> Result<(), Error> {
        let mut rows = self.rows.clone();
        for row in &mut rows {
            row.position += 1;
            let room = row.position < self.on.context;
            if !room || !self.cache.reserve(row.sequence, row.position + 1)? {
                return Ok(());
            }
        }
        let sequences: Vec<_> = rows.iter().map(|row| row.sequence).collect();
        self.tell_blocks(&sequences)?;
        let Passes { on, scratch, picks, step, .. } = &mut *self;
        let mut queue = Queue::new(&on.gpu, scratch);
        picks.enqueue_next(&mut queue, (rows.len(), step), slot)?;
        let mut launches = queue.launches().clone();
        let size = size_of(&rows, rows.len(), self.step.cut());
        self.replay((size, 1 - self.head.which), &mut launches)?;
        self.ahead = Some(Ahead { rows, launches });
        Ok(())
    }

    /// Tells the device where keys and values of the rows' sequences lie.
    fn tell_blocks(&mut self, sequences: &[usize]) -> Result<(), Error> {
        for together in sequences.chunk_by(|a, b| a == b) {
            let sequence = together[0];
            let (table, known) = (self.cache.table(sequence), &mut self.known[sequence]);
            let same = known.iter().zip(table).take_while(|(a, b)| a == b).count();
            if same < table.len() {
                self.there.set_table(&self.on.gpu, sequence, same, &table[same..])?;
            }
            known.clear();
            known.extend(table);
        }
        Ok(())
    }

    /// Enqueues a pass, whose hidden states are of this number.
    fn replay(
        &mut self,
        (size, which): (Size, usize),
        launches: &mut Launches,
    ) -> Result<(), Error> {
        let pass = (size, if size.outputs == 0 { 0 } else { which });
        if !self.recorded.contains_key(&pass) {
            let recorded = self.record(pass)?;
            self.recorded.insert(pass, recorded);
            self.work.recorded += 1;
        } else {
            self.work.repeated += 1;
        }
        if let Some(recorded) = self.recorded.get_mut(&pass) {
            recorded.replay(&self.on.gpu, launches)?;
        }
        Ok(())
    }

    fn record(&mut self, (size, which): (Size, usize)) -> Result<Recorded, Error> {
        let Passes { on, model, there, parts, step, scratch, buffers, head, .. } = self;
        buffers.last = *head.hidden(which);
        let mut failed = None;
        let cols = columns(&model.config);
        let way = on.way.passes.of(on.gpu.target().1, (size.rows, size.apart), &cols);
        let recorded = Recorded::new((&on.gpu, scratch), way, |queue| {
            let mut pass = Pass {
                queue,
                on,
                model,
                there,
                parts,
                step,
                size,
                placed: None,
                turned: Vec::new(),
                failed: None,
            };
            pass.all(buffers, |_, _| {});
            failed = pass.failed.take();
            Ok(())
        })?;
        failed.map_or(Ok(recorded), Err)
    }

    /// The same without a record, and shows the residual stream behind each layer.
    fn observed(&mut self, size: Size, see: See<'_>) -> Result<(), Error> {
        let Passes { on, model, there, parts, step, scratch, buffers, launches, head, .. } = self;
        buffers.last = *head.hidden(head.which);
        let mut queue = Queue::new(&on.gpu, scratch);
        let mut pass = Pass {
            queue: &mut queue,
            on,
            model,
            there,
            parts,
            step,
            size,
            placed: None,
            turned: Vec::new(),
            failed: None,
        };
        let mut read = Ok(());
        pass.all(buffers, |layer, x| match scratch.read(&on.gpu, x, size.rows) {
            Ok(numbers) => see(layer, &numbers),
            Err(error) => read = Err(error.into()),
        });
        let failed = pass.failed.take();
        launches.add_all(queue.launches());
        failed.map_or(read, Err)
    }

    /// The logits of the last pass: `[outputs, vocabulary]`.
    pub(crate) fn logits(&mut self, out: &mut Vec<f32>) -> Result<(), Error> {
        *out = self.timed(Passes::all_logits)?;
        Ok(())
    }

    fn all_logits(&mut self) -> Result<Vec<f32>, Error> {
        let Passes { on, model, scratch, head, launches, read, outputs, .. } = self;
        if !head.whole && *outputs > 0 {
            let mut queue = Queue::new(&on.gpu, scratch);
            let hidden = head.hidden(head.which);
            queue.head(on.table(model), (hidden, *outputs), &head.logits)?;
            launches.add_all(queue.launches());
            read.head += on.read_of_head(model, None);
        }
        head.whole = true;
        Ok(scratch.read(&on.gpu, &head.logits, *outputs)?)
    }

    /// Finds what is wanted of the logits of the last pass, and says whether it could. Where it is likely what comes next, the
    /// device goes on with that.
    pub(crate) fn best(&mut self, wanted: &[Best<'_>]) -> Result<bool, Error> {
        self.timed(|passes| passes.find(wanted))
    }

    fn find(&mut self, wanted: &[Best<'_>]) -> Result<bool, Error> {
        // The tokens in `also` may be among the greatest.
        let pick = |best: &Best<'_>| best.count + best.also.len();
        let picks: Vec<Pick<'_>> = wanted
            .iter()
            .map(|best| Pick {
                count: pick(best),
                also: best.also,
                only: best.only,
                draw: best.draw,
            })
            .collect();
        let slot = self.head.which;
        let Passes { on, model, scratch, launches, head, picks: there, .. } = &mut *self;
        let output = head.output(on, model);
        if !there.enqueue((&on.gpu, scratch), (&output, &picks), slot, launches)? {
            return Ok(false);
        }
        head.whole = output.condensed.is_none();
        // Of two rows of a sequence one is not the last of it.
        let goes_on = !self.rows.is_empty() && are_apart(&self.rows);
        if goes_on
            && self.rows.len() == wanted.len()
            && wanted.iter().all(|best| best.draw.is_some())
        {
            self.run_ahead(slot)?;
        }
        let found = self.picks.collect(slot)?;
        let exact = self.picks.listed(wanted.len(), slot);
        let others: usize = wanted.iter().map(|best| best.also.len()).sum();
        self.read.head += self.on.read_of_head(&self.model, exact.map(|rows| rows + others as u64));
        let Some(found) = found else {
            // What the device has gone on with is none of the tokens.
            self.dropped += u64::from(self.ahead.take().is_some());
            return Ok(false);
        };
        if let Some(ahead) = &mut self.ahead {
            let tokens = self.picks.next(ahead.rows.len(), slot);
            ahead.rows.iter_mut().zip(tokens).for_each(|(row, token)| row.token = token);
        }
        let candidates = |found: Vec<(u32, f32)>| {
            found.into_iter().map(|(id, logit)| Candidate { id, logit }).collect()
        };
        self.found = found.into_iter().map(candidates).collect();
        Ok(true)
    }

    /// What [`Passes::best`] found for a row.
    pub(crate) fn found(&self, row: usize) -> &[Candidate] {
        &self.found[row]
    }

    /// The hidden state behind the last norm of an output: `[hidden]`.
    pub(crate) fn state(&mut self, output: usize) -> Result<Vec<f32>, Error> {
        let hidden = self.model.config.hidden;
        let all = self.timed(|passes| {
            let hidden = passes.head.hidden(passes.head.which);
            passes.scratch.read(&passes.on.gpu, hidden, output + 1)
        })?;
        Ok(all[output * hidden..].to_vec())
    }

    /// Bytes of weights that were read: those of linear layers, and of the output layer or its copy, once for all rows, as there
    /// is no knowing what of the rest comes from the cache of the device.
    pub(crate) fn read(&self) -> WeightsRead {
        self.read
    }

    /// The bytes of a block of keys and values.
    pub(crate) fn block(&self, block: u32) -> Result<Vec<u8>, Error> {
        Ok(self.there.read_block(&self.on.gpu, block)?)
    }

    /// Writes a block of keys and values.
    pub(crate) fn set_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.there.write_block(&self.on.gpu, block, bytes)?)
    }

    /// Drops what was begun for a sequence as it was.
    pub(crate) fn changed(&mut self, sequence: usize) {
        let of = |ahead: &mut Ahead| ahead.rows.iter().any(|row| row.sequence == sequence);
        self.dropped += u64::from(self.ahead.take_if(of).is_some());
    }

    /// Passes that were begun before their tokens were known, and dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + u64::from(self.ahead.is_some())
    }

    /// Kernels that were launched for all others, by name.
    pub(crate) fn launches(&self) -> Vec<(&'static str, u64)> {
        self.launches.iter().map(|(kernel, n)| (kernel.name(), n)).collect()
    }
}

/// What is recorded for some rows, of which attention takes some together: as many as there are, or more that are not there.
fn size_of(rows: &[cuda::Row], outputs: usize, tiles: &[Range<usize>]) -> Size {
    let spans = rows.iter().map(|row| row.position / SPAN + 1).max().unwrap_or(1);
    let some = |n: usize| if n == 0 { 0 } else { bucket(n) };
    Size {
        rows: bucket(rows.len()),
        outputs: some(outputs),
        spans: bucket(spans),
        apart: tiles.is_empty() && are_apart(rows),
        tiles: some(tiles.len()),
        alone: tiles.iter().map(Range::len).sum::<usize>() < rows.len(),
    }
}

/// Whether no two rows are of one sequence.
fn are_apart(rows: &[cuda::Row]) -> bool {
    let mut sequences: Vec<_> = rows.iter().map(|row| row.sequence).collect();
    sequences.sort_unstable();
    sequences.windows(2).all(|two| two[0] != two[1])
}

/// What linear layers of a model multiply is so long.
fn columns(config: &Config) -> [usize; 3] {
    [config.hidden, config.q_size(), config.ffn]
}

impl Drop for Passes {
    /// What is enqueued reads and writes what is given back.
    fn drop(&mut self) {
        // Of a device that has failed nothing goes on.
        let _ = self.on.gpu.synchronize();
    }
}
