//! Which functions a library must have to be a second backend.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::symbols::{Form, SymbolAnalysis, analyze_library};

/// What a library promises by its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    /// llama.cpp since June 2025: `llama_memory_*`.
    LlamaMemory,
    /// llama.cpp of spring 2025: `llama_kv_self_*`.
    LlamaKvSelf,
    /// llama.cpp of the beginning of 2025: `llama_vocab_*`, and still `llama_kv_cache_*`.
    LlamaVocab,
    /// llama.cpp up to the end of 2024, as bitnet.cpp has it.
    LlamaModel,
    /// The C interface that BitNet.rs puts before bitnet.cpp.
    Bitnet,
}

/// Names of functions that differ between the versions of llama.cpp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) load: &'static str,
    pub(crate) free_model: &'static str,
    pub(crate) context: &'static str,
    pub(crate) vocabulary: &'static str,
    pub(crate) remove: &'static str,
}

/// Functions that all versions of llama.cpp have.
const LLAMA: [&str; 9] = [
    "llama_backend_init",
    "llama_model_default_params",
    "llama_context_default_params",
    "llama_tokenize",
    "llama_decode",
    "llama_get_logits_ith",
    "llama_set_n_threads",
    "llama_n_ctx",
    "llama_free",
];

/// Functions of the C interface of bitnet.cpp.
const BITNET: [&str; 4] =
    ["bitnet_model_new_from_file", "bitnet_context_new", "bitnet_tokenize", "bitnet_eval"];

impl Contract {
    /// All of them; of two that a library keeps the first counts.
    pub const ALL: [Contract; 5] = [
        Contract::Bitnet,
        Contract::LlamaMemory,
        Contract::LlamaKvSelf,
        Contract::LlamaVocab,
        Contract::LlamaModel,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Contract::LlamaMemory => "llama.cpp since June 2025",
            Contract::LlamaKvSelf => "llama.cpp of spring 2025",
            Contract::LlamaVocab => "llama.cpp of the beginning of 2025",
            Contract::LlamaModel => "llama.cpp up to 2024",
            Contract::Bitnet => "the C interface of bitnet.cpp",
        }
    }

    /// The functions that it must have.
    #[must_use]
    pub fn required(self) -> Vec<&'static str> {
        let Some(names) = self.names() else { return BITNET.to_vec() };
        let Names { load, free_model, context, vocabulary, remove } = names;
        let mut all = LLAMA.to_vec();
        all.extend([load, free_model, context, vocabulary, remove]);
        if self.has_vocabulary() {
            all.push("llama_model_get_vocab");
        }
        if self == Contract::LlamaMemory {
            all.push("llama_get_memory");
        }
        all
    }

    /// The names of what is called otherwise in other versions; nothing where this is not llama.cpp.
    pub(crate) const fn names(self) -> Option<Names> {
        let (old, new) = (
            Names {
                load: "llama_load_model_from_file",
                free_model: "llama_free_model",
                context: "llama_new_context_with_model",
                vocabulary: "llama_n_vocab",
                remove: "llama_kv_cache_seq_rm",
            },
            Names {
                load: "llama_model_load_from_file",
                free_model: "llama_model_free",
                context: "llama_init_from_model",
                vocabulary: "llama_vocab_n_tokens",
                remove: "llama_kv_cache_seq_rm",
            },
        );
        match self {
            Contract::LlamaMemory => Some(Names { remove: "llama_memory_seq_rm", ..new }),
            Contract::LlamaKvSelf => Some(Names { remove: "llama_kv_self_seq_rm", ..new }),
            Contract::LlamaVocab => Some(new),
            Contract::LlamaModel => Some(old),
            Contract::Bitnet => None,
        }
    }

    /// Whether a vocabulary is something of its own there, beside the model.
    pub(crate) const fn has_vocabulary(self) -> bool {
        matches!(self, Contract::LlamaMemory | Contract::LlamaKvSelf | Contract::LlamaVocab)
    }

    fn missing(self, analysis: &SymbolAnalysis) -> Vec<&'static str> {
        let missing = |name: &&str| !analysis.exported.contains(*name);
        self.required().into_iter().filter(missing).collect()
    }
}

/// A library that has what is called.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The file.
    pub path: PathBuf,
    /// What it keeps to.
    pub contract: Contract,
    /// What it has.
    pub analysis: SymbolAnalysis,
}

/// Checks, without opening it, that a library can be a second backend on this machine.
///
/// # Errors
///
/// Where it cannot be read, is a static archive or for another processor, or lacks a function.
pub fn validate_ffi_library(path: &Path) -> Result<Validated, Error> {
    let analysis = analyze_library(path)?;
    let path = path.to_owned();
    if analysis.form == Form::Archive {
        return Err(Error::Static { path });
    }
    if !analysis.is_for_this_machine() {
        let of = |architecture: &String| format!("{architecture} ({})", analysis.form);
        let theirs = analysis.architectures.iter().map(of).collect();
        let ours = format!("{} ({})", std::env::consts::ARCH, Form::HERE);
        return Err(Error::Architecture { path, theirs, ours });
    }
    let checked = Contract::ALL.map(|contract| (contract, contract.missing(&analysis)));
    if let Some((contract, _)) = checked.iter().find(|(_, missing)| missing.is_empty()) {
        return Ok(Validated { path, contract: *contract, analysis });
    }
    // What it comes closest to says most about what is missing.
    let share = |(contract, missing): &&(Contract, Vec<&str>)| {
        missing.len() * 100 / contract.required().len()
    };
    let Some((contract, missing)) = checked.iter().min_by_key(share) else {
        return Err(Error::NoLibrary { path, what: "there is nothing to check it by".to_owned() });
    };
    let missing = missing.iter().map(|&name| name.to_owned()).collect();
    Err(Error::Missing { path, contract: contract.name(), missing })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use object::{Architecture, BinaryFormat};

    use super::*;
    use crate::symbols::tests::{archive, object};

    const FORMAT: BinaryFormat = match Form::HERE {
        Form::MachO => BinaryFormat::MachO,
        Form::Pe => BinaryFormat::Coff,
        _ => BinaryFormat::Elf,
    };
    const HERE: Architecture =
        if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };
    const ELSEWHERE: Architecture =
        if cfg!(target_arch = "aarch64") { Architecture::X86_64 } else { Architecture::Aarch64 };

    fn validate(data: &[u8]) -> Result<Validated, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libllama.so");
        fs::write(&path, data).unwrap();
        validate_ffi_library(&path)
    }

    #[test]
    fn each_contract_is_kept_by_its_functions() {
        for contract in Contract::ALL {
            let required = contract.required();
            let found = validate(&object((FORMAT, HERE), &required, &[])).unwrap();
            assert_eq!(found.contract, contract);
            assert_eq!(found.analysis.exported.len(), required.len());
            for left_out in &required {
                let rest: Vec<_> =
                    required.iter().copied().filter(|name| name != left_out).collect();
                match validate(&object((FORMAT, HERE), &rest, &[])) {
                    // Versions have other names for the same: of these one is missing, too.
                    Err(Error::Missing { missing, .. }) => {
                        assert_eq!(missing.len(), 1, "{contract:?} without {left_out}");
                        assert!(!rest.contains(&missing[0].as_str()), "{missing:?}");
                    }
                    other => panic!("{contract:?} without {left_out}: {other:?}"),
                }
            }
        }
    }

    /// Of two that a library keeps, the newer; what it has besides does not count.
    #[test]
    fn the_first_contract_counts() {
        let (old, new) = (Contract::LlamaModel.required(), Contract::LlamaMemory.required());
        let all = [&old[..], &new, &["llama_other"]].concat();
        let found = validate(&object((FORMAT, HERE), &all, &[])).unwrap();
        assert_eq!(found.contract, Contract::LlamaMemory);
    }

    #[test]
    fn what_cannot_be_opened_here_is_refused() {
        let required = Contract::LlamaMemory.required();
        let error = validate(&object((FORMAT, ELSEWHERE), &required, &[])).unwrap_err();
        assert!(matches!(error, Error::Architecture { .. }), "{error}");
        let other =
            if FORMAT == BinaryFormat::Elf { BinaryFormat::MachO } else { BinaryFormat::Elf };
        let error = validate(&object((other, HERE), &required, &[])).unwrap_err();
        assert!(matches!(error, Error::Architecture { .. }), "{error}");
        assert!(error.to_string().contains("take one for this machine"), "{error}");
        let one = object((FORMAT, HERE), &required, &[]);
        let error = validate(&archive(&[("llama.o", one)])).unwrap_err();
        assert!(matches!(error, Error::Static { .. }), "{error}");
        let error = validate(b"no library").unwrap_err();
        assert!(matches!(error, Error::NoLibrary { .. }), "{error}");
        let error = validate_ffi_library(Path::new("no/such/file")).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
    }
}
