//! What was measured on a machine, so that what runs fastest there is used: kernels for matrices of
//! each shape, threads, the size of tiles. Results are the same bits whatever it says.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bitnet_kernels::KernelId;
use bitnet_kernels::manager::Tuned;
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use crate::engine::MOST_THREADS;
use crate::linear::Tiles;
use crate::machine::Machine;
use crate::sha256::sha256;
use crate::text::read_text;
use crate::{Error, Notice};

mod measure;

pub use measure::{Shape, measure};

/// The version of the format.
const SCHEMA: u32 = 1;

/// Bytes of a file at most: a model has some thousand.
const LONGEST: u64 = 16 << 20;

/// What was measured on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    schema: u32,
    /// The version of this program: another one has other kernels.
    version: String,
    /// Where it was measured.
    machine: Machine,
    /// For each model that was measured, or others of the same shapes.
    pub models: Vec<Best>,
    /// SHA-256 of all the rest as compact JSON with sorted keys.
    sha256: String,
}

/// What is best for models whose matrices have some shapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Threads that generate fastest.
    pub threads: usize,
    /// Multiply-adds of a tile.
    pub tile: usize,
    /// The kernels for each shape.
    pub shapes: Vec<Measured>,
}

impl Best {
    /// Whether it is for models with matrices of just these shapes.
    fn is_for(&self, shapes: &[Shape]) -> bool {
        let has = |rows, cols| shapes.iter().any(|s| (s.rows, s.cols) == (rows, cols));
        let known = |s: &Shape| self.shapes.iter().any(|m| (m.rows, m.cols) == (s.rows, s.cols));
        self.shapes.iter().all(|m| has(m.rows, m.cols)) && shapes.iter().all(known)
    }

    /// The kernels, as a [`KernelManager`](bitnet_kernels::KernelManager) takes them.
    #[must_use]
    pub fn tuned(&self) -> Vec<Tuned> {
        let shapes = self.shapes.iter().map(|shape| {
            let kernels: Vec<KernelId> =
                shape.kernels.iter().filter_map(|kernel| kernel.id.parse().ok()).collect();
            let operation = kernels.first()?.operation;
            Some(Tuned { operation, rows: shape.rows, cols: shape.cols, kernels })
        });
        shapes.flatten().collect()
    }
}

/// The kernels of a product with matrices of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// `gemv` or `gemm`.
    pub operation: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The fastest first.
    pub kernels: Vec<Candidate>,
}

/// A kernel, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// For a matrix, in nanoseconds.
    pub nanoseconds: u64,
}

/// What a file of measurements is good for.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// For this machine.
    Tuning(Tuning),
    /// For another machine or version: a notice for the user.
    Other(Notice),
    /// There is none.
    Nothing,
}

impl Tuning {
    /// Of what was measured on this machine.
    #[must_use]
    pub(crate) fn new(best: Best) -> Tuning {
        Tuning {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::detect(),
            models: vec![best],
            sha256: String::new(),
        }
        .sealed()
    }

    /// Where measurements are kept: `bitnet/tuning.json` in the user's folder for configuration.
    #[must_use]
    pub fn path() -> Option<PathBuf> {
        let folder = etcetera::choose_base_strategy().ok()?.config_dir();
        Some(folder.join("bitnet").join("tuning.json"))
    }

    /// What a file says of this machine.
    ///
    /// # Errors
    ///
    /// [`Error::Tuning`] where the file cannot be read or is damaged.
    pub fn load(path: &Path) -> Result<Found, Error> {
        let fail = |what: String| Error::Tuning { path: path.to_owned(), what };
        let text = match File::open(path).and_then(|file| read_text(file, LONGEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(fail(error.to_string())),
        };
        let other = |what: String| Found::Other(Notice::Tuning { path: path.to_owned(), what });
        // Another version may have other fields: it must be known before they are read.
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        if let Some(version) = value["version"].as_str()
            && version != env!("CARGO_PKG_VERSION")
        {
            return Ok(other(format!("it is of version {version:?}")));
        }
        let tuning: Tuning = serde_json::from_value(value).map_err(|e| fail(e.to_string()))?;
        tuning.check().map_err(fail)?;
        let machine = Machine::detect();
        if tuning.machine != machine {
            let Machine { cpu, cores, allowed, .. } = &tuning.machine;
            return Ok(other(format!("it is of {cpu:?}, {allowed} threads on {cores} cores")));
        }
        Ok(Found::Tuning(tuning))
    }

    /// Writes a file, whose folder is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Tuning`] where it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        // As a whole or not at all, whoever reads it meanwhile.
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.and_then(|()| fs::write(&part, json));
        let written = written.and_then(|()| fs::rename(&part, path));
        written.map_err(|e| Error::Tuning { path: path.to_owned(), what: e.to_string() })
    }

    /// With older measurements, of models that these are not for.
    #[must_use]
    pub fn and(mut self, older: Tuning, shapes: &[Shape]) -> Tuning {
        self.models.extend(older.models.into_iter().filter(|best| !best.is_for(shapes)));
        self.sealed()
    }

    /// What is best for a model with matrices of some shapes.
    #[must_use]
    pub fn best(&self, shapes: &[Shape]) -> Option<&Best> {
        self.models.iter().find(|best| best.is_for(shapes))
    }

    /// SHA-256 of the measurements.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    fn sealed(mut self) -> Tuning {
        self.sha256 = self.digest();
        self
    }

    fn digest(&self) -> String {
        let rest = Tuning { sha256: String::new(), ..self.clone() };
        sha256(serde_json::to_value(&rest).unwrap_or_default().to_string())
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("format {} is unknown", self.schema));
        }
        if self.sha256 != self.digest() {
            return Err("it was changed after it was written".to_owned());
        }
        for &Best { threads, tile, .. } in &self.models {
            if !(1..=MOST_THREADS).contains(&threads) || !Tiles::RANGE.contains(&tile) {
                return Err(format!("{threads} threads and tiles of {tile} make no sense"));
            }
        }
        for shape in self.models.iter().flat_map(|best| &best.shapes) {
            for Candidate { id, .. } in &shape.kernels {
                let kernel: KernelId = id.parse().map_err(|e| format!("{e}"))?;
                if !kernel.operation.is_product() || kernel.operation.name() != shape.operation {
                    return Err(format!("{id} is no kernel for {}", shape.operation));
                }
            }
        }
        Ok(())
    }
}
