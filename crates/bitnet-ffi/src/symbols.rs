//! What a library has and needs, read from its file: nothing of it runs.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bitnet_kernels::manager::KernelBackend;
use object::read::archive::ArchiveFile;
use object::read::macho::{FatArch, MachOFatFile32, MachOFatFile64};
use object::read::{FileKind, NameOrOrdinal};
use object::{Architecture, Object, ObjectSymbol};
use serde::{Serialize, Serializer};

use crate::{Error, discover};

/// The form of a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// ELF: Linux, Android, the BSDs.
    Elf,
    /// Mach-O: macOS and iOS.
    MachO,
    /// PE: Windows.
    Pe,
    /// A static archive of object files.
    Archive,
}

impl Form {
    /// What this system opens.
    pub const HERE: Form = if cfg!(target_vendor = "apple") {
        Form::MachO
    } else if cfg!(windows) {
        Form::Pe
    } else {
        Form::Elf
    };
}

/// As people call it.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Elf => "ELF",
            Form::MachO => "Mach-O",
            Form::Pe => "PE",
            Form::Archive => "static archive",
        })
    }
}

/// What the symbols of a library say.
#[derive(Clone, Debug, Serialize)]
pub struct SymbolAnalysis {
    /// The file.
    #[serde(serialize_with = "display")]
    pub path: PathBuf,
    /// Its form.
    pub form: Form,
    /// The processors that it is for, as Rust names them (`x86_64`, `aarch64`).
    pub architectures: Vec<String>,
    /// Functions of bitnet.cpp, and of its C interface.
    pub bitnet_symbols: Vec<String>,
    /// Functions of llama.cpp.
    pub llama_symbols: Vec<String>,
    /// What is there for CUDA, or is taken from it.
    pub cuda_symbols: Vec<String>,
    /// Functions that make, read and multiply quantised weights.
    pub quantization_symbols: Vec<String>,
    /// Libraries that it needs.
    pub needed: Vec<String>,
    /// All that it offers.
    #[serde(skip)]
    pub exported: BTreeSet<String>,
    /// All that it takes from others.
    #[serde(skip)]
    pub imported: BTreeSet<String>,
}

/// Why a library is taken to have a family of kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The family.
    #[serde(serialize_with = "name")]
    pub backend: KernelBackend,
    /// The symbols, or needed libraries, that say so.
    pub because: Vec<String>,
}

fn display<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn name<S: Serializer>(backend: &KernelBackend, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(backend.name())
}

/// Reads the symbols of a shared library, an object file or a static archive, of any system.
///
/// # Errors
///
/// [`Error::Read`], and [`Error::NoLibrary`] where the file is of another kind or damaged.
pub fn analyze_library(path: &Path) -> Result<SymbolAnalysis, Error> {
    analyze(path, &read(path)?)
}

/// What a file has: of others (pipes, devices) nobody knows when they end.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let regular = |metadata: fs::Metadata| match metadata.is_file() {
        true => fs::read(path),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    };
    let data = fs::metadata(path).and_then(regular);
    data.map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// As [`analyze_library`], of what a file has.
///
/// # Errors
///
/// [`Error::NoLibrary`].
pub fn analyze(path: &Path, data: &[u8]) -> Result<SymbolAnalysis, Error> {
    let wrong = |what: String| Error::NoLibrary { path: path.to_owned(), what };
    let mut found = Found::default();
    let form = found.file(data).map_err(wrong)?;
    if found.architectures.is_empty() {
        return Err(wrong("there is no object file in it".to_owned()));
    }
    let Found { architectures, needed, exported, imported } = found;
    // What one object of an archive takes from another is no import.
    let imported: BTreeSet<_> = imported.difference(&exported).cloned().collect();
    let of = |symbols: &BTreeSet<String>, is: fn(&str) -> bool| {
        symbols.iter().filter(|symbol| is(symbol)).cloned().collect::<Vec<_>>()
    };
    let mut cuda_symbols = of(&exported, is_cuda);
    cuda_symbols.extend(of(&imported, is_cuda));
    cuda_symbols.sort_by(readable);
    Ok(SymbolAnalysis {
        path: path.to_owned(),
        form,
        architectures: architectures.into_iter().collect(),
        bitnet_symbols: of(&exported, is_bitnet),
        llama_symbols: of(&exported, is_llama),
        cuda_symbols,
        quantization_symbols: of(&exported, is_quantization),
        needed,
        exported,
        imported,
    })
}

/// What object files have, all together.
#[derive(Default)]
struct Found {
    architectures: BTreeSet<String>,
    needed: Vec<String>,
    exported: BTreeSet<String>,
    imported: BTreeSet<String>,
}

impl Found {
    fn file(&mut self, data: &[u8]) -> Result<Form, String> {
        let damaged = |error: object::Error| format!("its file is damaged: {error}");
        let kind = FileKind::parse(data).map_err(|_| match data {
            [] => "the file is empty".to_owned(),
            _ => "it begins like no library of Linux, macOS or Windows".to_owned(),
        })?;
        match kind {
            FileKind::Archive => {
                let archive = ArchiveFile::parse(data).map_err(damaged)?;
                if archive.is_thin() {
                    return Err(
                        "it is a thin archive, which only names its object files".to_owned()
                    );
                }
                for member in archive.members() {
                    let data = member.and_then(|member| member.data(data)).map_err(damaged)?;
                    // An archive can have other files, too.
                    if matches!(FileKind::parse(data), Ok(kind) if form(kind).is_some()) {
                        self.object(data).map_err(damaged)?;
                    }
                }
                Ok(Form::Archive)
            }
            FileKind::MachOFat32 => {
                let file = MachOFatFile32::parse(data).map_err(damaged)?;
                self.fat(file.arches(), data)
            }
            FileKind::MachOFat64 => {
                let file = MachOFatFile64::parse(data).map_err(damaged)?;
                self.fat(file.arches(), data)
            }
            other => {
                let form =
                    form(other).ok_or_else(|| format!("it is a file of the kind {other:?}"))?;
                self.object(data).map_err(damaged)?;
                Ok(form)
            }
        }
    }

    /// All architectures of a universal library.
    fn fat<Arch: FatArch>(&mut self, parts: &[Arch], data: &[u8]) -> Result<Form, String> {
        for part in parts {
            let found = part.data(data).and_then(|data| self.object(data));
            found.map_err(|error| format!("its file is damaged: {error}"))?;
        }
        Ok(Form::MachO)
    }

    fn object(&mut self, data: &[u8]) -> Result<(), object::Error> {
        let file = object::File::parse(data)?;
        self.architectures.insert(architecture(file.architecture()));
        // Those of macOS have one more underscore.
        let prefix: &[u8] = if file.format() == object::BinaryFormat::MachO { b"_" } else { b"" };
        let text = |bytes: &[u8]| {
            let bytes = bytes.strip_prefix(prefix).unwrap_or(bytes);
            String::from_utf8_lossy(bytes).into_owned()
        };
        for library in file.import_libraries()? {
            let name = String::from_utf8_lossy(library?.name()).into_owned();
            if !name.is_empty() && !self.needed.contains(&name) {
                self.needed.push(name);
            }
        }
        for import in file.imports()? {
            if let NameOrOrdinal::Name(name) = import?.name() {
                self.imported.insert(text(name));
            }
        }
        for export in file.exports()? {
            if let NameOrOrdinal::Name(name) = export?.name() {
                self.exported.insert(text(name));
            }
        }
        if file.kind() == object::ObjectKind::Relocatable {
            // Object files have no dynamic table: what is global is offered, or needed.
            for symbol in file.symbols().filter(ObjectSymbol::is_global) {
                let into =
                    if symbol.is_undefined() { &mut self.imported } else { &mut self.exported };
                into.insert(text(symbol.name_bytes()?));
            }
        }
        self.exported.remove("");
        self.imported.remove("");
        Ok(())
    }
}

fn form(kind: FileKind) -> Option<Form> {
    match kind {
        FileKind::Elf32 | FileKind::Elf64 => Some(Form::Elf),
        FileKind::MachO32 | FileKind::MachO64 => Some(Form::MachO),
        FileKind::Pe32 | FileKind::Pe64 | FileKind::Coff | FileKind::CoffBig => Some(Form::Pe),
        _ => None,
    }
}

/// As [`std::env::consts::ARCH`] has it.
fn architecture(found: Architecture) -> String {
    format!("{found:?}").to_lowercase()
}

/// Names as they stand in sources before those that C++ made longer.
fn readable(a: &String, b: &String) -> Ordering {
    let key = |name: &String| name.starts_with('_');
    (key(a), a).cmp(&(key(b), b))
}

fn is_bitnet(symbol: &str) -> bool {
    symbol.starts_with("bitnet_")
        || symbol.starts_with("ggml_bitnet_")
        || symbol.starts_with("bitlinear_")
}

fn is_llama(symbol: &str) -> bool {
    symbol.starts_with("llama_")
}

fn is_cuda(symbol: &str) -> bool {
    // It only says whether there is some, and is there in any case.
    if symbol == "ggml_cpu_has_cuda" {
        return false;
    }
    let driver = symbol
        .strip_prefix("cu")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    driver
        || symbol.starts_with("cublas")
        || symbol.contains("__global__")
        || symbol.contains("__device_stub__")
        // Not in any case: there is CUdata in names that are none of it.
        || ["cuda", "Cuda", "CUDA"].iter().any(|name| symbol.contains(name))
}

fn is_quantization(symbol: &str) -> bool {
    const BEGIN: [&str; 7] = [
        "quantize_",
        "dequantize_row_",
        "ggml_quantize_",
        "ggml_vec_dot_",
        "ggml_qgemm_lut",
        "ggml_preprocessor",
        "bitlinear_",
    ];
    BEGIN.iter().any(|begin| symbol.starts_with(begin)) || symbol.contains("i2_s")
}

impl SymbolAnalysis {
    /// With what the libraries of ggml in the same folder have: llama.cpp is built as many, of which libllama opens
    /// some when it runs. Those that cannot be read are left out.
    #[must_use]
    pub fn with_build(self) -> SymbolAnalysis {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let beside = discover::within(folder).unwrap_or_default().into_iter();
        let others: Vec<_> = beside
            .filter(|library| library.name == discover::Name::Ggml && library.shared)
            .filter_map(|library| analyze_library(&library.path).ok())
            .collect();
        self.with(&others)
    }

    fn with(mut self, others: &[SymbolAnalysis]) -> SymbolAnalysis {
        for other in others {
            for (mine, theirs) in [
                (&mut self.bitnet_symbols, &other.bitnet_symbols),
                (&mut self.llama_symbols, &other.llama_symbols),
                (&mut self.cuda_symbols, &other.cuda_symbols),
                (&mut self.quantization_symbols, &other.quantization_symbols),
                (&mut self.needed, &other.needed),
            ] {
                mine.extend(theirs.iter().cloned());
                mine.sort_by(readable);
                mine.dedup();
            }
            self.exported.extend(other.exported.iter().cloned());
            self.imported.extend(other.imported.iter().cloned());
        }
        self
    }

    /// Whether it is for the processor and the system of this program.
    #[must_use]
    pub fn is_for_this_machine(&self) -> bool {
        self.form == Form::HERE && self.architectures.iter().any(|found| found == ARCH)
    }

    /// What is there for CUDA: symbols, and libraries of NVIDIA that are needed.
    fn cuda(&self) -> Vec<String> {
        let needed = self.needed.iter().filter(|library| {
            ["libcudart", "libcuda.", "libcublas", "nvcuda", "cudart", "cublas", "ggml-cuda"]
                .iter()
                .any(|known| library.contains(known))
        });
        needed.chain(&self.cuda_symbols).cloned().collect()
    }

    /// Whether there is something for GPUs that are not NVIDIA's.
    fn has_other_gpu(&self) -> bool {
        let begin =
            ["ggml_backend_metal", "ggml_backend_vk", "ggml_backend_sycl", "ggml_backend_hip"];
        self.exported.iter().any(|symbol| begin.iter().any(|begin| symbol.starts_with(begin)))
            || self.needed.iter().any(|library| library.contains("Metal.framework"))
    }

    /// The families of kernels for which there is evidence, and the evidence.
    #[must_use]
    pub fn evidence(&self) -> Vec<Evidence> {
        let has = |names: &[&str]| {
            let found = names.iter().filter(|&&name| self.exported.contains(name));
            found.map(|&name| name.to_owned()).collect::<Vec<_>>()
        };
        let on = |arch: &str| self.architectures.iter().any(|found| found == arch);
        let context = has(&["llama_init_from_model", "llama_new_context_with_model"]);
        let decode = has(&["llama_decode"]);
        let llama = match context.is_empty() || decode.is_empty() {
            true => Vec::new(),
            false => [context, decode].concat(),
        };
        let cuda = self.cuda();
        let with_cuda = |because: &[String]| match because.is_empty() || cuda.is_empty() {
            true => Vec::new(),
            // A few are enough.
            false => because.iter().chain(cuda.iter().take(3)).cloned().collect(),
        };
        let i2_s = has(&["ggml_vec_dot_i2_i8_s"]);
        let lut = has(&["ggml_qgemm_lut"]);
        let only =
            |there: bool, because: &[String]| if there { because.to_vec() } else { Vec::new() };
        let iq2_s_cuda: Vec<_> =
            self.cuda_symbols.iter().filter(|symbol| symbol.contains("iq2_s")).cloned().collect();
        let all = [
            (KernelBackend::LlamaCpu, llama.clone()),
            (KernelBackend::LlamaCuda, with_cuda(&llama)),
            (KernelBackend::I2sAvx2, only(on("x86_64"), &i2_s)),
            (KernelBackend::I2sNeon, only(on("aarch64"), &i2_s)),
            (KernelBackend::Tl1Neon, only(on("aarch64"), &lut)),
            (KernelBackend::I2sCuda, has(&["bitlinear_int8xint2"])),
            (KernelBackend::Iq2sCpu, has(&["dequantize_row_iq2_s", "ggml_vec_dot_iq2_s_q8_K"])),
            (KernelBackend::Iq2sCuda, iq2_s_cuda),
        ];
        let found = all.into_iter().filter(|(_, because)| !because.is_empty());
        found.map(|(backend, because)| Evidence { backend, because }).collect()
    }

    /// For people: the symbols of each kind, at most `most` of them, and what follows.
    #[must_use]
    pub fn report(&self, most: usize) -> String {
        let mut text = String::new();
        let mut line = |what: std::fmt::Arguments<'_>| {
            // Strings take everything.
            let _ = writeln!(text, "{what}");
        };
        let file = self.path.file_name().unwrap_or(self.path.as_os_str());
        line(format_args!("Library: {}", file.display()));
        line(format_args!("Form:    {}, {}", self.form, self.architectures.join(" and ")));
        if !self.needed.is_empty() {
            line(format_args!("Needs:   {}", self.needed.join(", ")));
        }
        line(format_args!(
            "Symbols: {} exported, {} imported",
            self.exported.len(),
            self.imported.len()
        ));
        let kinds = [
            ("Bitnet symbols:", &self.bitnet_symbols),
            ("Llama symbols:", &self.llama_symbols),
            ("CUDA symbols:", &self.cuda_symbols),
            ("Quantization:", &self.quantization_symbols),
        ];
        for (title, symbols) in kinds {
            line(format_args!(""));
            line(format_args!("{title:<17} {} found", symbols.len()));
            symbols.iter().take(most).for_each(|symbol| line(format_args!("  - {symbol}")));
            if symbols.len() > most {
                line(format_args!("  ..."));
            }
            if title.starts_with("CUDA") && self.cuda().is_empty() {
                line(format_args!(
                    "  Inference: {}",
                    match self.has_other_gpu() {
                        true => "no CUDA, but another GPU",
                        false => "CPU-only backend",
                    }
                ));
            }
        }
        line(format_args!(""));
        let evidence = self.evidence();
        if evidence.is_empty() {
            line(format_args!("No family of kernels that is known."));
        }
        for Evidence { backend, because } in evidence {
            line(format_args!("Detected: {backend} ({})", because.join(", ")));
        }
        text
    }
}

/// The families of kernels for which a library has evidence. What it may have besides is not guessed.
#[must_use]
pub fn detect_kernel_backends(analysis: &SymbolAnalysis) -> Vec<KernelBackend> {
    analysis.evidence().into_iter().map(|evidence| evidence.backend).collect()
}

#[cfg(test)]
pub(crate) mod tests;
