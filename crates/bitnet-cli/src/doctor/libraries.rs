//! Libraries of C++ engines on this machine: what there is, and whether it could be a second backend.

use bitnet_ffi::discover::{Discovery, Library, resolve};
use bitnet_ffi::symbols::Evidence;
use bitnet_ffi::{Error, SymbolAnalysis, analyze_library, validate_ffi_library};
use serde::Serialize;

use crate::model;

/// Symbols of each kind that are shown.
const SHOWN: usize = 3;

/// What was looked at, what was found, and the first that could be a second backend.
#[derive(Debug, Serialize)]
pub(super) struct Libraries {
    #[serde(flatten)]
    discovery: Discovery,
    backend: Option<Backend>,
    /// Why there is none.
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Backend {
    path: String,
    /// What it keeps to, by its functions.
    contract: Option<&'static str>,
    /// Why it cannot be used.
    wrong: Option<String>,
    detected: Vec<Evidence>,
    #[serde(skip)]
    analysis: SymbolAnalysis,
}

impl Libraries {
    pub(super) fn find(asked: &model::Library) -> Libraries {
        let discovery = Discovery::find();
        let path = match asked.path() {
            Some(path) => resolve(&path),
            None => discovery.backend().map(|library| library.path.clone()),
        };
        let backend = path.and_then(|path| {
            let analysis = analyze_library(&path)?.with_build();
            let (contract, wrong) = match validate_ffi_library(&path) {
                Ok(validated) => (Some(validated.contract.name()), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let (path, detected) = (path.display().to_string(), analysis.evidence());
            Ok::<_, Error>(Backend { path, contract, wrong, detected, analysis })
        });
        match backend {
            Ok(backend) => Libraries { discovery, backend: Some(backend), reason: None },
            Err(error) => Libraries { discovery, backend: None, reason: Some(error.to_string()) },
        }
    }

    /// For people: the first line stands behind a word.
    pub(super) fn text(&self) -> Vec<String> {
        let Some(Backend { path, contract, wrong, analysis, .. }) = &self.backend else {
            return vec![self.reason.clone().unwrap_or_default()];
        };
        let mut lines = vec![match contract {
            Some(contract) => format!("{path}: {contract}; for --device llama and crossval"),
            None => format!("not usable: {}", wrong.as_deref().unwrap_or_default()),
        }];
        let report = analysis.report(SHOWN);
        lines.extend(report.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        let path_of = |library: &Library| library.path.display().to_string();
        let others = self.discovery.found.iter().map(path_of).filter(|other| other != path);
        let others: Vec<_> = others.collect();
        if !others.is_empty() {
            lines.push(format!("Others:  {}", others.join(", ")));
        }
        lines
    }
}
