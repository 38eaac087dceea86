//! Where models come from: GGUF files and Hugging Face folders, as named tensors in one form.

mod chat;
mod contents;
mod folder;
mod gguf;
mod json;
mod load;
mod names;
mod read_as;
mod ternary;
mod vocabulary;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bitnet_gguf::{Bytes, Gguf, Value};
use bitnet_kernels::Format;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::sha256;
use crate::tokenizer::{Tokenizer, Vocabulary};
use crate::{Error, Notice};

pub(crate) use chat::Chat;
pub use contents::{Contents, TernaryMatrix, ternary_sha256};
pub(crate) use folder::Folder;
pub(crate) use json::Json;
pub(crate) use load::Loader;
pub(crate) use names::hf_name;
pub use read_as::ReadAs;

/// A model as it lies on disk: hyper-parameters, named tensors, tokenizer. Its weights are neither
/// read nor checked before they are asked for.
///
/// It is a GGUF file, the first of several that it was split into, or a Hugging Face folder with
/// `config.json` and `*.safetensors`. Tensors have the names of GGUF in all of them.
///
/// ```no_run
/// use bitnet_inference::Checkpoint;
///
/// let checkpoint = Checkpoint::open("model.gguf")?;
/// for tensor in checkpoint.tensors() {
///     println!("{} {:?}", tensor.name, tensor.dims);
/// }
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    /// The path, as messages have it.
    name: String,
    container: Container,
    tensors: Vec<StoredTensor>,
    index: HashMap<String, usize>,
}

#[derive(Debug)]
enum Container {
    /// The file, or all that it was split into.
    Gguf(Vec<Gguf>),
    Folder(Folder),
}

/// A tensor of a [`Checkpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredTensor {
    /// Its name, as GGUF has it.
    pub name: String,
    /// Its name in the file.
    pub stored: String,
    /// Dimensions of its weights, fastest first.
    pub dims: Vec<u64>,
    /// Where its data starts in the file.
    pub offset: u64,
    /// The file that has it.
    file: usize,
    /// Its place in the file.
    place: usize,
}

impl StoredTensor {
    /// Number of weights.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dims.iter().fold(1, |product, &dim| product.saturating_mul(dim))
    }
}

/// Keys of GGUF, and their values.
pub type Metadata = Vec<(String, Value)>;

/// The bytes of a tensor, and what they are.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) format: Format,
    pub(crate) bytes: Bytes,
}

impl Checkpoint {
    /// Opens a model: a GGUF file or a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// Where it is neither, or damaged. Tensors are not looked at beyond their names and shapes.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
        let path = path.as_ref();
        if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            return Checkpoint::from_folder(path);
        }
        Checkpoint::of(gguf::open(path)?)
    }

    /// The model of a parsed GGUF file.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open`]; a part of a split file is refused, since the others are not known.
    pub fn from_gguf(gguf: Gguf) -> Result<Checkpoint, Error> {
        gguf::refuse_part(&gguf)?;
        Checkpoint::of(vec![gguf])
    }

    fn of(files: Vec<Gguf>) -> Result<Checkpoint, Error> {
        let name = files[0].name().to_owned();
        let tensors = gguf::tensors(&files);
        Checkpoint::new(name, Container::Gguf(files), tensors)
    }

    fn from_folder(path: &Path) -> Result<Checkpoint, Error> {
        let folder = Folder::open(path)?;
        let tensors = folder.tensors()?;
        Checkpoint::new(path.display().to_string(), Container::Folder(folder), tensors)
    }

    fn new(
        name: String,
        container: Container,
        tensors: Vec<StoredTensor>,
    ) -> Result<Checkpoint, Error> {
        let mut index = HashMap::with_capacity(tensors.len());
        for (place, tensor) in tensors.iter().enumerate() {
            if let Some(first) = index.insert(tensor.name.clone(), place) {
                let (first, second) = (&tensors[first].stored, &tensor.stored);
                let what = format!(
                    "tensors `{first}` and `{second}` are both {}; the model was put together \
                     wrongly",
                    tensor.name
                );
                return Err(Error::Variant { file: name, what });
            }
        }
        Ok(Checkpoint { name, container, tensors, index })
    }

    /// The path, as messages have it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the hyper-parameters of the model.
    ///
    /// # Errors
    ///
    /// Where the architecture is not one of [`Config::ARCHITECTURES`], or a setting makes no sense or
    /// would have to be ignored.
    pub fn config(&self) -> Result<Config, Error> {
        match &self.container {
            Container::Gguf(files) => Config::from_gguf(&files[0]),
            Container::Folder(folder) => Config::from_json(folder.config()),
        }
    }

    /// Its tensors, in the order of its files.
    #[must_use]
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// The tensor of this name, as GGUF has it.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.index.get(name).map(|&place| &self.tensors[place])
    }

    /// Numbers in all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        // Tensors of unknown types can have any shape.
        self.tensors.iter().map(StoredTensor::elements).fold(0, u64::saturating_add)
    }

    /// SHA-256 of the file, in hexadecimal; of a model of several files that of a list of their
    /// hashes, as `sha256sum` prints it for their names in alphabetical order. Reads all of them.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut files = self.files();
        if let [(_, bytes)] = &files[..] {
            return hash(bytes);
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let line = |(name, bytes)| format!("{}  {name}\n", hash(bytes));
        sha256::sha256(files.into_iter().map(line).collect::<String>())
    }

    /// The files that say what the model computes, by their names without folders.
    fn files(&self) -> Vec<(String, &Bytes)> {
        match &self.container {
            Container::Gguf(files) => {
                files.iter().map(|file| (base_name(file.name()), file.bytes())).collect()
            }
            Container::Folder(folder) => folder.files(),
        }
    }

    /// The file that a tensor is in, as messages have it.
    #[must_use]
    pub fn file_of(&self, tensor: &StoredTensor) -> String {
        match &self.container {
            Container::Gguf(files) => files[tensor.file].name().to_owned(),
            Container::Folder(folder) => folder.shard_name(tensor.file),
        }
    }

    /// The bytes of a tensor, and what they are; their contents are not checked.
    ///
    /// # Errors
    ///
    /// Where its type is not supported, or does not fit its shape.
    pub(crate) fn weights(&self, tensor: &StoredTensor) -> Result<Weights, Error> {
        match &self.container {
            Container::Gguf(files) => gguf::weights(&files[tensor.file], tensor.place),
            Container::Folder(folder) => folder.weights(tensor),
        }
    }

    /// What a tensor is stored as, and its bytes.
    ///
    /// # Errors
    ///
    /// Where its type is not supported, or does not fit its shape.
    pub fn stored(&self, tensor: &StoredTensor) -> Result<(Format, u64), Error> {
        self.weights(tensor).map(|weights| (weights.format, weights.bytes.len() as u64))
    }

    /// The files that say what the model computes, by their names without folders, and their bytes.
    #[must_use]
    pub fn file_sizes(&self) -> Vec<(String, u64)> {
        self.files().into_iter().map(|(name, bytes)| (name, bytes.len() as u64)).collect()
    }

    /// Whether there is a tokenizer, and what the user should know about it.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] where it contradicts itself or is of an unknown kind.
    pub fn check_tokenizer(&self) -> Result<(bool, Vec<Notice>), Error> {
        let rows = self.embedding_rows().unwrap_or(0);
        self.tokenizer(rows).map(|(tokenizer, notices)| (tokenizer.is_some(), notices))
    }

    /// Bytes of the tensors, without padding.
    ///
    /// # Errors
    ///
    /// Where the type of one is not supported.
    pub fn size(&self) -> Result<u64, Error> {
        self.tensors.iter().map(|tensor| Ok(self.stored(tensor)?.1)).sum()
    }

    /// Whether it is in GGUF. There matrices of numbers may have been made ternary before they were
    /// written, and those of architecture `llama` have their rows in another order.
    #[must_use]
    pub fn is_gguf(&self) -> bool {
        matches!(self.container, Container::Gguf(_))
    }

    /// The name of its architecture, which need not be one of [`Config::ARCHITECTURES`].
    ///
    /// # Errors
    ///
    /// Where it does not say, or a folder says one that has no name in GGUF.
    pub fn architecture(&self) -> Result<&str, Error> {
        match &self.container {
            Container::Gguf(files) => Ok(files[0].architecture()?),
            Container::Folder(folder) => Config::architecture_of(folder.config()),
        }
    }

    /// Whether its linear layers were trained to be ternary, as far as it says.
    pub(crate) fn trained(&self) -> bool {
        match &self.container {
            Container::Gguf(files) => {
                files[0].architecture().is_ok_and(|name| name.starts_with("bitnet"))
            }
            Container::Folder(folder) => Config::trained_ternary(folder.config()),
        }
    }

    /// Whether it says that its output layer is not the embeddings again.
    pub(crate) fn has_own_output(&self) -> bool {
        match &self.container {
            Container::Gguf(_) => false,
            Container::Folder(folder) => Config::has_own_output(folder.config()),
        }
    }

    /// What is added to the weights of norms: checkpoints of Gemma have them less one, as they are
    /// trained.
    pub(crate) fn norm_offset(&self, architecture: &str) -> f32 {
        if architecture == "gemma3" && !self.is_gguf() { 1.0 } else { 0.0 }
    }

    /// Whether the scales beside ternary matrices divide.
    pub(crate) fn scales_divide(&self) -> bool {
        match &self.container {
            Container::Gguf(_) => false,
            Container::Folder(folder) => folder.scales_divide(),
        }
    }

    /// What the model says about chats.
    ///
    /// # Errors
    ///
    /// Where a file that says it cannot be read.
    pub(crate) fn chat(&self) -> Result<Chat, Error> {
        match &self.container {
            Container::Gguf(files) => chat::of_gguf(&files[0]),
            Container::Folder(folder) => chat::of_folder(folder.path()),
        }
    }

    /// What the user should know about the model.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        match &self.container {
            Container::Gguf(_) => Vec::new(),
            Container::Folder(folder) => folder.notices(),
        }
    }

    /// Its tokenizer, without the rows of an embedding table that no token has.
    ///
    /// # Errors
    ///
    /// Where it contradicts itself or is of an unknown kind, and where there is none.
    pub fn read_tokenizer(&self) -> Result<Tokenizer, Error> {
        let none = || Error::NoTokenizer { file: self.name.clone() };
        self.tokenizer(0)?.0.ok_or_else(none)
    }

    /// Its tokenizer as [`Engine`](crate::Engine) has it, with an id for each row of the embedding table,
    /// and what the user should know about it. No weights are read.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::read_tokenizer`].
    pub fn open_tokenizer(&self) -> Result<(Tokenizer, Vec<Notice>), Error> {
        let none = || Error::NoTokenizer { file: self.name.clone() };
        let (tokenizer, notices) = self.tokenizer(self.embedding_rows().unwrap_or(0))?;
        Ok((tokenizer.ok_or_else(none)?, notices))
    }

    /// The tokenizer of a model whose embedding table has so many rows, if it has one, and what the
    /// user should know about it.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] where it contradicts itself or is of an unknown kind.
    pub(crate) fn tokenizer(&self, rows: usize) -> Result<(Option<Tokenizer>, Vec<Notice>), Error> {
        let (vocabulary, notices) = self.vocabulary(rows)?;
        let fail = |source| Error::Tokenizer { file: self.name.clone(), source };
        Ok((vocabulary.map(Tokenizer::new).transpose().map_err(fail)?, notices))
    }

    /// The vocabulary of a model whose embedding table has so many rows, if it has one, and what the
    /// user should know about it.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] where it is of an unknown kind.
    pub(crate) fn vocabulary(
        &self,
        rows: usize,
    ) -> Result<(Option<Vocabulary>, Vec<Notice>), Error> {
        match &self.container {
            Container::Gguf(files) => vocabulary::read(&files[0]),
            Container::Folder(folder) => Ok((folder.vocabulary(rows)?, Vec::new())),
        }
    }

    /// The metadata that the model has in GGUF, and what the user should know if it is not in GGUF.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::config`], and where the tokenizer is of an unknown kind.
    pub fn metadata(&self) -> Result<(Metadata, Vec<Notice>), Error> {
        let folder = match &self.container {
            Container::Gguf(files) => {
                let all = files[0].metadata().map(|(key, value)| (key.to_owned(), value.clone()));
                return Ok((all.collect(), Vec::new()));
            }
            Container::Folder(folder) => folder,
        };
        let mut config = self.any_config()?;
        config.vocabulary = self.embedding_rows().or(config.vocabulary);
        let named = |key: &str, value: &str| (key.to_owned(), Value::from(value));
        let mut metadata = vec![
            named("general.architecture", &config.architecture),
            named("general.name", &folder.base_name()),
        ];
        metadata.extend(config.metadata());
        let mut notices = self.notices();
        if let Some(vocabulary) = folder.vocabulary(config.vocabulary.unwrap_or_default())? {
            let (tokenizer, lost) = vocabulary::write(&vocabulary);
            metadata.extend(tokenizer);
            let id = |text: &str| vocabulary.entries().find(|(_, of, _)| *of == text).map(|t| t.0);
            for (key, value) in self.chat()?.metadata(id) {
                if metadata.iter().all(|(known, _)| *known != key) {
                    metadata.push((key, value));
                }
            }
            let file = self.name.clone();
            let lost = lost.into_iter().map(|what| Notice::Tokenizer { file: file.clone(), what });
            notices.extend(lost);
        }
        Ok((metadata, notices))
    }

    /// Rows of the embedding table, which may be more than there are tokens.
    pub(crate) fn embedding_rows(&self) -> Option<usize> {
        let table = self.tensor("token_embd.weight")?;
        table.dims.get(1).map(|&rows| rows as usize)
    }

    /// Its folder, if it is one of Hugging Face.
    pub(crate) fn folder(&self) -> Option<&Folder> {
        match &self.container {
            Container::Gguf(_) => None,
            Container::Folder(folder) => Some(folder),
        }
    }

    /// The hyper-parameters, whether or not the model was trained to be ternary.
    pub(crate) fn any_config(&self) -> Result<Config, Error> {
        match &self.container {
            Container::Gguf(_) => self.config(),
            Container::Folder(folder) => Config::from_any_json(folder.config()),
        }
    }
}

/// The name of a file without its folder.
fn base_name(path: &str) -> String {
    let name = Path::new(path).file_name();
    name.map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// SHA-256 of a file, in hexadecimal.
fn hash(bytes: &Bytes) -> String {
    /// Read and given back at a time, so that a mapped file does not fill the memory.
    const PIECE: usize = 1 << 24;
    let mut digest = Sha256::new();
    for start in (0..bytes.len()).step_by(PIECE) {
        let piece = bytes.slice(start..bytes.len().min(start + PIECE));
        digest.update(&piece[..]);
        piece.evict();
    }
    sha256::finish(digest)
}
