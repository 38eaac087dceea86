//! A library as a second backend.

use std::path::{Path, PathBuf};

use bitnet_kernels::manager::KernelBackend;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::contract::{Contract, Validated, validate_ffi_library};
use crate::discover::{Name, within};
use crate::process::{Host, Patience, Process};
use crate::symbols::{detect_kernel_backends, read};
use crate::wire::{Loaded, Request, Response, Row, Settings, bytes, numbers};

/// What is known of a library that is open.
#[derive(Clone, Debug, Serialize)]
pub struct LibraryInfo {
    /// The file.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What it keeps to.
    pub contract: Contract,
    /// What it says of its version, by the functions that say it.
    pub versions: Vec<(String, String)>,
    /// The builds of llama.cpp that have its `llama_model_params` and `llama_context_params`.
    pub layouts: Vec<String>,
    /// The families of kernels that it and the libraries of its build have.
    pub backends: Vec<&'static str>,
    /// Whether there is anything for CUDA in its build.
    pub cuda: bool,
}

/// Logits that a library computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// `[rows that wanted some, vocabulary]`.
    pub values: Vec<f32>,
    /// The output of layers, by their numbers, where it was asked for.
    pub layers: Vec<(usize, Vec<f32>)>,
    /// How long the library took.
    pub nanoseconds: u64,
}

/// A library in a process of its own: if it fails, that process ends, and there is an error.
#[derive(Debug)]
pub struct Reference {
    host: Host,
    patience: Patience,
    process: Process,
    info: LibraryInfo,
    /// The model, and how it was loaded.
    model: Option<(PathBuf, Settings)>,
}

impl Reference {
    /// Checks a library, and opens it.
    ///
    /// # Errors
    ///
    /// As [`validate_ffi_library`]; where it cannot be opened, or its structures are not known; where its process
    /// cannot be started, ends or does not answer.
    pub fn open(path: &Path, host: Host, patience: Patience) -> Result<Reference, Error> {
        let path = place(path);
        let Validated { contract, analysis, .. } = validate_ffi_library(&path)?;
        let mut process = Process::start(&host, &path, patience)?;
        let library = text(&path)?;
        let request = Request::Open { library, contract };
        let (versions, layouts) = match process.call(&request, &[])? {
            (Response::Opened { versions, layouts }, _) => (versions, layouts),
            (other, _) => return Err(process.protocol(&other)),
        };
        let layouts = layouts.map_err(|what| Error::Layout { path: path.clone(), what })?;
        let data = read(&path)?;
        let backends = detect_kernel_backends(&analysis.with_build());
        let info = LibraryInfo {
            path: path.display().to_string(),
            sha256: hex(&Sha256::digest(&data)),
            contract,
            versions,
            layouts,
            cuda: backends.contains(&KernelBackend::LlamaCuda),
            backends: backends.into_iter().map(KernelBackend::name).collect(),
        };
        Ok(Reference { host, patience, process, info, model: None })
    }

    /// What is known of the library.
    #[must_use]
    pub fn info(&self) -> &LibraryInfo {
        &self.info
    }

    /// Loads a model in place of the one before.
    ///
    /// # Errors
    ///
    /// Where the library refuses it, ends or does not answer.
    pub fn load(&mut self, model: &Path, settings: &Settings) -> Result<Loaded, Error> {
        self.model = None;
        let request = Request::Load { model: text(model)?, settings: settings.clone() };
        match self.process.call(&request, &[])? {
            (Response::Loaded(loaded), _) => {
                self.model = Some((model.to_owned(), settings.clone()));
                Ok(loaded)
            }
            (other, _) => Err(self.process.protocol(&other)),
        }
    }

    /// Takes another library in place of this one, with the model that is loaded. Where that fails, all is as it
    /// was. Nobody can be in the middle of a call: it would have `self`.
    ///
    /// # Errors
    ///
    /// As [`Reference::open`] and [`Reference::load`].
    pub fn reload_backend(&mut self, path: &Path) -> Result<(), Error> {
        let mut other = Reference::open(path, self.host.clone(), self.patience)?;
        if let Some((model, settings)) = &self.model {
            other.load(model, settings)?;
        }
        *self = other;
        Ok(())
    }

    /// The tokens of a text; `special` puts those around it that the model wants, `parse` takes special tokens
    /// that are written out as such.
    ///
    /// # Errors
    ///
    /// Where the library refuses it, ends or does not answer.
    pub fn tokenize(&mut self, text: &str, special: bool, parse: bool) -> Result<Vec<u32>, Error> {
        let request = Request::Tokenize { text: text.to_owned(), special, parse };
        match self.process.call(&request, &[])? {
            (Response::Tokens(tokens), _) => Ok(tokens),
            (other, _) => Err(self.process.protocol(&other)),
        }
    }

    /// Runs tokens, and gives the logits of those that want them.
    ///
    /// # Errors
    ///
    /// As [`Reference::tokenize`].
    pub fn run(&mut self, rows: &[Row]) -> Result<Logits, Error> {
        match self.process.call(&Request::Run { rows: rows.to_vec() }, &[])? {
            (Response::Ran(ran), data) => {
                let mut values = numbers(&data);
                let expected =
                    ran.logits + ran.layers.iter().map(|(_, count)| count).sum::<usize>();
                if values.len() != expected {
                    let what = format!("{} numbers, not {expected}", values.len());
                    return Err(Error::Protocol { library: self.info.path.clone().into(), what });
                }
                let mut rest = values.split_off(ran.logits);
                let mut layers = Vec::with_capacity(ran.layers.len());
                for (layer, count) in ran.layers {
                    let behind = rest.split_off(count);
                    layers.push((layer, rest));
                    rest = behind;
                }
                Ok(Logits { values, layers, nanoseconds: ran.nanoseconds })
            }
            (other, _) => Err(self.process.protocol(&other)),
        }
    }

    /// Forgets the tokens of a sequence from a position on.
    ///
    /// # Errors
    ///
    /// As [`Reference::tokenize`].
    pub fn truncate(&mut self, sequence: usize, length: usize) -> Result<(), Error> {
        match self.process.call(&Request::Truncate { sequence, length }, &[])? {
            (Response::Done, _) => Ok(()),
            (other, _) => Err(self.process.protocol(&other)),
        }
    }

    /// Which of these functions of ggml there are, and the library with those for this processor, where it is
    /// one of its own.
    ///
    /// # Errors
    ///
    /// As [`Reference::tokenize`].
    pub fn has(&mut self, names: &[&str]) -> Result<(Vec<bool>, Option<String>), Error> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        match self.process.call(&Request::Has { names }, &[])? {
            (Response::Has { found, processor }, _) => Ok((found, processor)),
            (other, _) => Err(self.process.protocol(&other)),
        }
    }

    /// `dequantize_row_*` of ggml: `count` numbers from their bytes.
    ///
    /// # Errors
    ///
    /// As [`Reference::tokenize`].
    pub fn dequantize(&mut self, name: &str, data: &[u8], count: usize) -> Result<Vec<f32>, Error> {
        let request = Request::Dequantize { name: name.to_owned(), count };
        match self.process.call(&request, data)? {
            (Response::Data, data) => Ok(numbers(&data)),
            (other, _) => Err(self.process.protocol(&other)),
        }
    }

    /// `quantize_*` of ggml: rows of numbers as so many bytes.
    ///
    /// # Errors
    ///
    /// As [`Reference::tokenize`].
    pub fn quantize(
        &mut self,
        name: &str,
        values: &[f32],
        (rows, len): (usize, usize),
    ) -> Result<Vec<u8>, Error> {
        let request = Request::Quantize { name: name.to_owned(), rows, bytes: len };
        match self.process.call(&request, &bytes(values))? {
            (Response::Data, data) => Ok(data),
            (other, _) => Err(self.process.protocol(&other)),
        }
    }

    /// `ggml_vec_dot_*` of ggml: the products of rows of weights with one row of numbers, which is quantised by the
    /// function `activation`, and the nanoseconds that the fastest of so many rounds took.
    ///
    /// # Errors
    ///
    /// As [`Reference::tokenize`].
    pub fn dot(
        &mut self,
        (name, activation): (&str, &str),
        (weights, rows): (&[u8], usize),
        values: &[f32],
        rounds: usize,
    ) -> Result<(u64, Vec<f32>), Error> {
        let (name, activation) = (name.to_owned(), activation.to_owned());
        let request = Request::Dot { name, activation, rows, cols: values.len(), rounds };
        match self.process.call(&request, &[&bytes(values), weights].concat())? {
            (Response::Dotted { nanoseconds }, data) => Ok((nanoseconds, numbers(&data))),
            (other, _) => Err(self.process.protocol(&other)),
        }
    }
}

/// Where a library is, in full. What belongs to it lies beside it; beside a link, if that is where it is.
fn place(path: &Path) -> PathBuf {
    let named = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let beside = |path: &Path| {
        let found = path.parent().and_then(within).unwrap_or_default();
        found.iter().any(|library| library.name == Name::Ggml)
    };
    match named.canonicalize() {
        Ok(real) if !beside(&named) => real,
        _ => named,
    }
}

/// A path for the process, which gets it as text.
fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::Read {
        path: path.to_owned(),
        source: std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "the path is not UTF-8, as the process with the library wants it",
        ),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
