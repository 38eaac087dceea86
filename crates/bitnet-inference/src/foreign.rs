//! A library of a C++ engine in place of the forward pass.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bitnet_ffi::discover::{Discovery, resolve};
use bitnet_ffi::{Host, LibraryInfo, Patience, Reference, Settings};
use bitnet_kernels::Device;
use bitnet_kernels::manager::KernelBackend;

use crate::backend::Row;
use crate::device_features::DeviceError;
use crate::session::CHUNK;
use crate::source::Checkpoint;
use crate::{Error, KvType, Options};

/// Layers on the GPU: all that any model has.
const ALL: i32 = 999;

/// A library that is open, for the sessions of an engine: each has a process of its own.
#[derive(Debug)]
pub(crate) struct Library {
    info: LibraryInfo,
    model: PathBuf,
    settings: Settings,
    /// The process that was opened to look at the library; the first session takes it.
    open: Mutex<Option<Reference>>,
}

impl Library {
    /// Opens the library that the options name, or the first that is found, where the device is a library.
    pub(crate) fn open(
        options: &Options,
        checkpoint: &Checkpoint,
        (context, threads, vocabulary): (usize, usize, usize),
    ) -> Result<Option<Library>, Error> {
        if options.device != Device::Llama {
            return Ok(None);
        }
        check(options)?;
        let model = file(checkpoint)?;
        let path = match &options.library {
            Some(path) => resolve(path)?,
            None => Discovery::find().backend()?.path.clone(),
        };
        let reference = open(&path)?;
        let info = reference.info().clone();
        let settings = Settings {
            context,
            batch: CHUNK,
            threads,
            sequences: 1,
            gpu_layers: if info.cuda { ALL } else { 0 },
            exact_cache: options.kv == KvType::F32,
            layers: false,
            vocabulary,
        };
        Ok(Some(Library { info, model, settings, open: Mutex::new(Some(reference)) }))
    }

    /// The name of the file, and its SHA-256.
    pub(crate) fn file(&self) -> (String, &str) {
        let name = Path::new(&self.info.path).file_name().unwrap_or_default();
        (name.to_string_lossy().into_owned(), &self.info.sha256)
    }

    /// The model, ready to run so many sequences.
    pub(crate) fn session(self: &Arc<Library>, sequences: usize) -> Result<Foreign, Error> {
        let (reference, backend) = self.load(sequences)?;
        let held = vec![0; sequences];
        Ok(Foreign {
            library: Arc::clone(self),
            reference: Some(reference),
            backend,
            held,
            passes: 0,
        })
    }

    /// A process that has loaded the model.
    fn load(&self, sequences: usize) -> Result<(Reference, KernelBackend), Error> {
        let path = Path::new(&self.info.path);
        let taken = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut reference = taken.map_or_else(|| open(path), Ok)?;
        if reference.info().sha256 != self.info.sha256 {
            let what = "it is another than it was; load the model again".to_owned();
            return Err(refused(path, what));
        }
        let settings = Settings { sequences, ..self.settings.clone() };
        let loaded = reference.load(&self.model, &settings)?;
        let backend = match self.info.cuda && loaded.offloads {
            true => KernelBackend::LlamaCuda,
            false => KernelBackend::LlamaCpu,
        };
        Ok((reference, backend))
    }
}

fn refused(library: &Path, what: String) -> Error {
    let last = String::new();
    bitnet_ffi::Error::Refused { library: library.to_owned(), what, last }.into()
}

fn open(path: &Path) -> Result<Reference, Error> {
    Ok(Reference::open(path, Host::this_program()?, Patience::default())?)
}

/// Refuses what a library cannot be told.
fn check(options: &Options) -> Result<(), DeviceError> {
    let asked = [
        (options.kv == KvType::Q8_0, "keys and values in q8_0; take f32 or f16"),
        (options.dequantize, "other weights; leave out --dequantize"),
        (options.isa.is_some(), "a choice of instruction sets; leave out --isa"),
        (!options.kernels.is_empty(), "a choice of kernels; leave out --kernel"),
        (options.layout.is_some(), "a choice of layouts in memory; leave out --layout"),
        (options.read_as.is_some(), "a layout that the file does not tell; leave out --read-as"),
    ];
    match asked.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => Err(DeviceError::Unsupported { device: Device::Llama, what }),
        None => Ok(()),
    }
}

/// The file of a model.
fn file(checkpoint: &Checkpoint) -> Result<PathBuf, Error> {
    let path = PathBuf::from(checkpoint.name());
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Variant {
        file: checkpoint.name().to_owned(),
        what: "--device llama reads a GGUF file: write one with `bitnet convert --to tq2_0`, and give it \
               with -m"
            .to_owned(),
    })
}

/// A model in a library.
#[derive(Debug)]
pub(crate) struct Foreign {
    library: Arc<Library>,
    /// Nothing once its process has failed.
    reference: Option<Reference>,
    backend: KernelBackend,
    /// Tokens that the library may hold of each sequence, as far as anybody knows.
    held: Vec<usize>,
    passes: u64,
}

impl Foreign {
    /// Runs rows, and puts the logits of those in `outputs` in place of what `logits` has.
    pub(crate) fn run(
        &mut self,
        rows: &[Row],
        outputs: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<(), Error> {
        logits.clear();
        if rows.is_empty() {
            return Ok(());
        }
        let mut reference = self.process(rows)?;
        let result = self.pass(&mut reference, rows, outputs, logits);
        let ended = |error: &Error| {
            use bitnet_ffi::Error::{Died, Late, Protocol};
            matches!(error, Error::Library(Died { .. } | Late { .. } | Protocol { .. }))
        };
        if !result.as_ref().is_err_and(ended) {
            self.reference = Some(reference);
        }
        result
    }

    /// The process, or a new one in its place where that has failed and nothing is lost with it.
    fn process(&mut self, rows: &[Row]) -> Result<Reference, Error> {
        if let Some(reference) = self.reference.take() {
            return Ok(reference);
        }
        let mut next = vec![0; self.held.len()];
        for row in rows {
            if row.position > next[row.sequence] {
                let what =
                    "its process has ended, and with it what it held of this text; begin again";
                return Err(refused(Path::new(&self.library.info.path), what.to_owned()));
            }
            next[row.sequence] = row.position + 1;
        }
        let (reference, backend) = self.library.load(self.held.len())?;
        self.backend = backend;
        self.held.fill(0);
        Ok(reference)
    }

    fn pass(
        &mut self,
        reference: &mut Reference,
        rows: &[Row],
        outputs: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<(), Error> {
        for row in rows {
            let held = &mut self.held[row.sequence];
            // What it holds behind is of tokens that have been forgotten here.
            if *held > row.position {
                reference.truncate(row.sequence, row.position)?;
            }
            *held = row.position + 1;
        }
        let mut asked: Vec<_> = rows
            .iter()
            .map(|&Row { sequence, position, token }| bitnet_ffi::Row {
                sequence,
                position,
                token,
                logits: false,
            })
            .collect();
        outputs.iter().for_each(|&index| asked[index].logits = true);
        let values = reference.run(&asked)?.values;
        if !values.iter().all(|logit| logit.is_finite()) {
            let what = "it gave logits that are not finite".to_owned();
            return Err(refused(Path::new(&self.library.info.path), what));
        }
        *logits = values;
        self.passes += 1;
        Ok(())
    }

    /// What it is called in receipts, and its passes so far.
    pub(crate) fn calls(&self) -> (&'static str, u64) {
        (self.backend.name(), self.passes)
    }
}
