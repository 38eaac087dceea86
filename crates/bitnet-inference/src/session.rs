//! Sequences in progress: tokens in, logits out.

use std::borrow::Cow;
use std::sync::Arc;

use bitnet_gpu::Draw;
use bitnet_kernels::Calls;
use bitnet_kernels::shortlist::Candidate;

use crate::arch::{Model, forward};
use crate::backend::Row;
use crate::backend::cpu::{CpuBackend, WeightsRead};
use crate::device_features::DeviceError;
use crate::foreign::Foreign;
use crate::gpu::{Lent, Passes};
use crate::kv::KvCache;
use crate::state::{Buffers, Floats, Quantized, Scratch};
use crate::{Engine, Error, PerformanceStats};

/// Rows of a forward pass at most: enough to use each weight often, few enough to stop between.
pub const CHUNK: usize = 128;

/// A token to run, and whether its logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// The sequence it continues.
    pub sequence: usize,
    /// Its id.
    pub token: u32,
    /// Whether to give the logits after it.
    pub logits: bool,
}

/// One or more sequences, with their keys and values.
///
/// What comes out for a sequence depends on its tokens alone, not on how they are cut into calls
/// or on the other sequences.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    backend: CpuBackend,
    scratch: Scratch<CpuBackend>,
    /// Tokens in each sequence.
    lengths: Vec<usize>,
    context: usize,
    rows: Vec<Row>,
    /// Indices of rows whose logits are wanted.
    outputs: Vec<usize>,
    logits: Vec<f32>,
    /// What computes in place of the backend, where the device is none of ours.
    foreign: Option<Foreign>,
    /// The same where it is a GPU.
    gpu: Option<Passes>,
}

impl Session {
    /// Empty sequences on a device of the engine, with so many blocks of keys and values for all together at most.
    pub(crate) fn new(
        engine: &Engine,
        replica: usize,
        (sequences, blocks): (usize, usize),
    ) -> Result<Session, Error> {
        let backend = engine.backend(sequences, blocks);
        Ok(Session {
            scratch: Buffers::new(
                &engine.model,
                |cols| Floats::new(CHUNK, cols),
                |cols| Quantized::new(CHUNK, cols),
            )?,
            model: Arc::clone(&engine.model),
            backend,
            lengths: vec![0; sequences],
            context: engine.context(),
            rows: Vec::with_capacity(CHUNK),
            outputs: Vec::with_capacity(CHUNK),
            logits: Vec::new(),
            foreign: engine.foreign(sequences)?,
            gpu: engine.passes(replica, (sequences, blocks))?,
        })
    }

    /// Tokens a sequence can hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens that a sequence holds.
    #[must_use]
    pub fn len(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// Forgets the tokens of a sequence behind the first `length`, if it has more.
    ///
    /// # Panics
    ///
    /// If there is no such sequence.
    pub fn truncate(&mut self, sequence: usize, length: usize) {
        // What the cache holds behind them is written again before it is read.
        if length < self.lengths[sequence] {
            self.lengths[sequence] = length;
            self.changed(sequence);
        }
    }

    /// Kernels called so far.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.backend.calls
    }

    /// Bytes of weights read so far.
    #[must_use]
    pub fn read(&self) -> WeightsRead {
        self.gpu.as_ref().map_or(self.backend.read, Passes::read)
    }

    /// What a GPU did so far, and what it took; nothing where none computes.
    #[must_use]
    pub fn performance_stats(&self) -> Option<PerformanceStats> {
        self.gpu.as_ref().map(Passes::performance_stats)
    }

    /// Passes that a library of another engine has computed, and what it is called in receipts.
    pub(crate) fn foreign_calls(&self) -> Option<(&'static str, u64)> {
        self.foreign.as_ref().map(Foreign::calls)
    }

    /// Kernels of a GPU that were launched so far, by name.
    pub(crate) fn launches(&self) -> Vec<(&'static str, u64)> {
        self.gpu.as_ref().map_or_else(Vec::new, Passes::launches)
    }

    /// Passes that a GPU began before their tokens were known, and dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.gpu.as_ref().map_or(0, Passes::dropped)
    }

    /// All logits after the last token for which logits were asked; nothing before the first.
    ///
    /// # Errors
    ///
    /// Where a GPU fails.
    pub fn last_logits(&mut self) -> Result<Option<&[f32]>, Error> {
        if self.outputs.is_empty() {
            return Ok(None);
        }
        self.output_layer()?;
        Ok(Some(&self.logits[self.logits.len() - self.model.output().rows..]))
    }

    /// Computes all logits of the last forward pass, where they are not there as it is.
    fn output_layer(&mut self) -> Result<(), Error> {
        if let Some(gpu) = &mut self.gpu {
            gpu.logits(&mut self.logits)?;
        } else if self.foreign.is_none() {
            let head = self.model.output();
            self.logits.resize(self.outputs.len() * head.rows, 0.0);
            if !self.outputs.is_empty() {
                self.backend.head(head, &self.scratch.last, &mut self.logits);
            }
        }
        Ok(())
    }

    /// Runs some tokens, at most [`CHUNK`], in one forward pass. Those of one sequence must be in
    /// order. The result is `[inputs with logits, vocabulary]`.
    ///
    /// # Errors
    ///
    /// Where a token is not in the vocabulary, a sequence would not fit its context, or memory
    /// runs out; then nothing has changed.
    ///
    /// # Panics
    ///
    /// If there are more than [`CHUNK`] inputs, or one of a sequence that does not exist.
    pub fn run(&mut self, inputs: &[Input]) -> Result<&[f32], Error> {
        self.forward(inputs)?;
        self.output_layer()?;
        Ok(&self.logits)
    }

    /// As [`Session::run`], and shows the residual stream behind each layer, by its number: `[inputs, hidden]`.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    ///
    /// # Panics
    ///
    /// As [`Session::run`].
    pub fn run_observed(
        &mut self,
        inputs: &[Input],
        see: impl FnMut(usize, &[f32]),
    ) -> Result<&[f32], Error> {
        self.observed(inputs, Some(see))?;
        self.output_layer()?;
        Ok(&self.logits)
    }

    /// Continues a sequence by some tokens, in chunks of up to [`CHUNK`], and gives the embedding of what
    /// it holds: the hidden state of the last token behind the final norm, of length 1. `[hidden]`.
    ///
    /// # Errors
    ///
    /// As [`Session::run`], and [`Error::NotFinite`] where there is no such direction.
    ///
    /// # Panics
    ///
    /// If there is no such sequence.
    pub fn embed(&mut self, sequence: usize, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        if self.foreign.is_some() {
            return Err(DeviceError::NO_EMBEDDINGS.into());
        }
        self.append(sequence, tokens, || false)?;
        let mut state = match &mut self.gpu {
            Some(gpu) => gpu.state(0)?,
            None => self.scratch.last.row(0).to_vec(),
        };
        let squares: f64 = state.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let length = squares.sqrt() as f32;
        if !(length.is_finite() && length > 0.0) {
            return Err(Error::NotFinite);
        }
        state.iter_mut().for_each(|x| *x /= length);
        Ok(state)
    }

    /// A forward pass up to the output layer.
    fn forward(&mut self, inputs: &[Input]) -> Result<(), Error> {
        self.observed(inputs, None::<fn(usize, &[f32])>)
    }

    /// The same, and shows the residual stream behind each layer, if somebody wants to see it.
    fn observed(
        &mut self,
        inputs: &[Input],
        mut see: Option<impl FnMut(usize, &[f32])>,
    ) -> Result<(), Error> {
        assert!(inputs.len() <= CHUNK, "at most {CHUNK} rows");
        let vocabulary = self.model.embedding.rows;
        let mut lengths = self.lengths.clone();
        self.rows.clear();
        self.outputs.clear();
        for (index, input) in inputs.iter().enumerate() {
            let Input { sequence, token, logits } = *input;
            if token as usize >= vocabulary {
                return Err(Error::Token { id: token, vocabulary });
            }
            self.rows.push(Row { sequence, position: lengths[sequence], token });
            lengths[sequence] += 1;
            if logits {
                self.outputs.push(index);
            }
        }
        if let Some(&tokens) = lengths.iter().find(|&&length| length > self.context) {
            return Err(Error::Context { tokens, context: self.context });
        }
        for (sequence, &positions) in lengths.iter().enumerate() {
            let cache = self.gpu.as_mut().map_or(&mut self.backend.cache, Passes::cache);
            if !cache.reserve(sequence, positions)? {
                let bytes = cache.block_bytes();
                return Err(Error::Memory { what: "key-value cache", bytes });
            }
        }
        if let Some(foreign) = &mut self.foreign {
            if let Err(error) = foreign.run(&self.rows, &self.outputs, &mut self.logits) {
                // There are no logits of them.
                self.outputs.clear();
                return Err(error);
            }
            self.lengths = lengths;
        } else if inputs.is_empty() {
            // There is nothing to do.
        } else if let Some(gpu) = &mut self.gpu {
            let see = see.as_mut().map(|see| see as &mut dyn FnMut(usize, &[f32]));
            if let Err(error) = gpu.run((&self.rows, &self.outputs), see) {
                self.outputs.clear();
                return Err(error);
            }
            self.lengths = lengths;
        } else {
            let (rows, outputs) = (&self.rows, &self.outputs);
            let see = |layer, x: &Floats| {
                if let Some(see) = &mut see {
                    see(layer, x.rows(rows.len()));
                }
            };
            forward(&mut self.backend, &self.model, &mut self.scratch, (rows, outputs), see);
            self.lengths = lengths;
        }
        Ok(())
    }

    /// Continues a sequence by some tokens, in chunks of up to [`CHUNK`], and gives the logits
    /// after the last one that are `wanted`. `stop` is asked before each chunk; true ends early,
    /// with nothing.
    ///
    /// # Errors
    ///
    /// As [`Session::run`]; the tokens of chunks before the failure have been added. Where there
    /// are no tokens, or all together would not fit, nothing has run.
    ///
    /// # Panics
    ///
    /// If there is no such sequence.
    pub fn extend(
        &mut self,
        sequence: usize,
        tokens: &[u32],
        wanted: Wanted<'_>,
        stop: impl FnMut() -> bool,
    ) -> Result<Option<Logits<'_>>, Error> {
        if !self.append(sequence, tokens, stop)? {
            return Ok(None);
        }
        self.find(&[wanted])?;
        Ok(Some(self.found(0)))
    }

    /// Runs some tokens, at most [`CHUNK`], in one forward pass, as [`Session::run`], and finds the logits
    /// that are `wanted`: one entry for each input that asks for logits, in order. [`Session::found`]
    /// gives them. So a token of each of many sequences costs one pass.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    ///
    /// # Panics
    ///
    /// As [`Session::run`], and if `wanted` has not as many entries.
    pub fn step(&mut self, inputs: &[Input], wanted: &[Wanted<'_>]) -> Result<(), Error> {
        let asked = inputs.iter().filter(|input| input.logits).count();
        assert_eq!(wanted.len(), asked, "an entry for each input with logits");
        self.forward(inputs)?;
        if !wanted.is_empty() {
            self.find(wanted)?;
        }
        Ok(())
    }

    /// The logits that entry `index` of the last [`Session::step`] wanted.
    ///
    /// # Panics
    ///
    /// If there was no such entry.
    #[must_use]
    pub fn found(&self, index: usize) -> Logits<'_> {
        let rows = self.model.output().rows;
        match self.logits.is_empty() {
            true => {
                let gpu = self.gpu.as_ref().map(|gpu| gpu.found(index));
                Logits::Best(gpu.unwrap_or_else(|| self.backend.found(index)))
            }
            false => Logits::All(&self.logits[index * rows..][..rows]),
        }
    }

    /// Finds what is wanted of the logits of each output of the last forward pass.
    fn find(&mut self, wanted: &[Wanted<'_>]) -> Result<(), Error> {
        if self.foreign.is_some() {
            return Ok(());
        }
        let head = self.model.output();
        self.logits.clear();
        // Who wants all of some rows reads the whole output layer in any case.
        let best = wanted.iter().map(|wanted| match wanted {
            Wanted::All => None,
            Wanted::Best(best) => Some(*best),
        });
        if let Some(best) = best.collect::<Option<Vec<_>>>() {
            let found = match &mut self.gpu {
                Some(gpu) => gpu.best(&best)?,
                None => self.backend.best(head, &self.scratch.last, &best),
            };
            if found {
                return Ok(());
            }
        }
        self.output_layer()
    }

    /// Blocks of keys and values: those in use, and all.
    pub(crate) fn blocks(&self) -> (usize, usize) {
        self.gpu.as_ref().map_or(&self.backend.cache, Passes::blocks).used()
    }

    /// The keys and values of all sequences.
    pub(crate) fn cache(&mut self) -> &mut KvCache {
        self.gpu.as_mut().map_or(&mut self.backend.cache, Passes::cache)
    }

    /// The keys and values of a sequence, block by block.
    pub(crate) fn saved(&self, sequence: usize) -> Result<Vec<Cow<'_, [u8]>>, Error> {
        match &self.gpu {
            Some(gpu) => gpu
                .blocks()
                .table(sequence)
                .iter()
                .map(|&block| Ok(gpu.block(block)?.into()))
                .collect(),
            None => Ok(self.backend.cache.bytes(sequence).map(Cow::Borrowed).collect()),
        }
    }

    /// Fills block `index` of a sequence with what [`Session::saved`] gave.
    pub(crate) fn fill(
        &mut self,
        sequence: usize,
        index: usize,
        bytes: &[u8],
    ) -> Result<(), Error> {
        match &mut self.gpu {
            Some(gpu) => {
                let block = gpu.blocks().table(sequence)[index];
                gpu.set_block(block, bytes)?;
            }
            None => self.backend.cache.block_mut(sequence, index).copy_from_slice(bytes),
        }
        Ok(())
    }

    /// Lets others copy the blocks that were written by now, if they are on a GPU.
    pub(crate) fn lend(&self) -> Result<Option<Lent>, Error> {
        self.gpu.as_ref().map(Passes::lend).transpose()
    }

    /// Copies blocks that were lent: pairs of the block there and the block here.
    pub(crate) fn borrow_blocks(&self, lent: &Lent, pairs: &[(u32, u32)]) -> Result<(), Error> {
        self.gpu.as_ref().map_or(Ok(()), |gpu| gpu.borrow_blocks(lent, pairs))
    }

    /// Copies from the memory of other GPUs to this one so far.
    pub(crate) fn peer_copies(&self) -> u64 {
        self.gpu.as_ref().map_or(0, Passes::peer_copies)
    }

    /// Has a sequence begin with tokens whose keys and values are in the cache.
    pub(crate) fn begin(&mut self, sequence: usize, length: usize) {
        self.lengths[sequence] = length;
        self.changed(sequence);
    }

    /// Empties a sequence and gives its keys and values back.
    pub(crate) fn release(&mut self, sequence: usize) {
        self.cache().release(sequence);
        self.lengths[sequence] = 0;
        self.changed(sequence);
    }

    /// A sequence is no longer what a pass may have been begun with.
    fn changed(&mut self, sequence: usize) {
        if let Some(gpu) = &mut self.gpu {
            gpu.changed(sequence);
        }
    }

    /// Runs some tokens in chunks, and says whether it came to the end of them.
    fn append(
        &mut self,
        sequence: usize,
        tokens: &[u32],
        mut stop: impl FnMut() -> bool,
    ) -> Result<bool, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let total = self.lengths[sequence] + tokens.len();
        if total > self.context {
            return Err(Error::Context { tokens: total, context: self.context });
        }
        let mut inputs = Vec::with_capacity(tokens.len().min(CHUNK));
        let mut left = tokens.len();
        for chunk in tokens.chunks(CHUNK) {
            if stop() {
                return Ok(false);
            }
            inputs.clear();
            for &token in chunk {
                left -= 1;
                inputs.push(Input { sequence, token, logits: left == 0 });
            }
            self.forward(&inputs)?;
        }
        Ok(true)
    }
}

/// Which logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted<'a> {
    /// Those of all tokens.
    All,
    /// Enough for the greatest, which costs less in a large vocabulary. All may come all the same.
    Best(Best<'a>),
}

/// The greatest logits, and some others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best<'a> {
    /// So many of the greatest, the tokens in `also` not counted.
    pub count: usize,
    /// Those of these tokens.
    pub also: &'a [u32],
    /// Of these tokens only: token `i` where bit `i % 32` of word `i / 32` is set.
    pub only: Option<&'a [u32]>,
    /// How the next token will be drawn of them, if that is known: a device goes on with it by itself, before it is asked to.
    pub draw: Option<Draw>,
}

/// Logits after a token. They are the same bits in either form.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// Those of all tokens `[vocabulary]`.
    All(&'a [f32]),
    /// Those of some tokens, each once, in no order; all others of which one could be asked for are less
    /// than the least of those that were.
    Best(&'a [Candidate]),
}
