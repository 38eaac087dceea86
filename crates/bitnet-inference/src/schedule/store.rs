//! Keys and values on disk, so that a prompt need not be run again in another process.
//!
//! A file (safetensors) has the tokens, a tensor for each block of keys and values, and what they were
//! computed with: they are of use for that model and that format only.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use bitnet_kernels::Device;
use bitnet_kernels::op::KV_BLOCK;
use safetensors::{Dtype, SafeTensors, View};
use sha2::{Digest, Sha256};

use super::Scheduler;
use crate::Error;
use crate::device_features::DeviceError;
use crate::kv::{KvCache, Parent};
use crate::sha256::finish;

/// The version of the files.
const VERSION: &str = "bitnet prompt cache 2";

/// What a file says of itself: the version, the model, how its weights were read, what keys and
/// values are, and the hash of all that follows.
const FIELDS: [&str; 5] = ["format", "model_sha256", "weights", "kv", "sha256"];

/// A tensor of a file.
struct Part<'a>(Dtype, Vec<usize>, &'a [u8]);

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        self.0
    }

    fn shape(&self) -> &[usize] {
        &self.1
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.2)
    }

    fn data_len(&self) -> usize {
        self.2.len()
    }
}

impl Scheduler<'_> {
    /// Writes the keys and values of these tokens to a file, as far as they are in the cache in whole
    /// blocks. Gives the number of tokens. The file has its name only when it is whole; one that is there
    /// is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Output`], and [`Error::Device`] where a library computes.
    pub fn save(&mut self, path: &Path, tokens: &[u32]) -> Result<usize, Error> {
        self.owns_cache()?;
        let slot = self.spare();
        let cache = self.session.cache();
        let (_, blocks) = cache.share(slot, tokens);
        let saved = blocks * KV_BLOCK;
        let written = self.write(path, &tokens[..saved]);
        self.session.cache().release(slot);
        written.map(|()| saved)
    }

    /// Whether keys and values are here, and not in a library.
    fn owns_cache(&self) -> Result<(), Error> {
        let what = "files of keys and values; leave out --prompt-cache";
        match self.engine.device() {
            device @ Device::Llama => Err(DeviceError::Unsupported { device, what }.into()),
            _ => Ok(()),
        }
    }

    fn write(&mut self, path: &Path, tokens: &[u32]) -> Result<(), Error> {
        let fail = |source| Error::Output { file: path.display().to_string(), source };
        let (slot, engine) = (self.spare(), self.engine);
        let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
        let blocks = self.session.saved(slot)?;
        let mut parts = vec![("tokens".to_owned(), Part(Dtype::U32, vec![tokens.len()], &bytes))];
        let block = |(i, block)| {
            let block: &Cow<'_, [u8]> = block;
            (block_name(i), Part(Dtype::U8, vec![block.len()], block))
        };
        parts.extend(blocks.iter().enumerate().map(block));
        let hash = hash(parts.iter().map(|(_, part)| part.2));
        let (model, kv) = (engine.sha256().to_owned(), engine.cache_kind());
        let values = [VERSION.to_owned(), model, engine.weights_read(), kv, hash];
        let fields = FIELDS.into_iter().map(str::to_owned).zip(values).collect::<HashMap<_, _>>();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let temporary = tempfile::Builder::new()
            .prefix(".prompt-cache.")
            .suffix(".part")
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(fail)?;
        safetensors::serialize_to_file(parts, Some(fields), temporary.path())
            .map_err(|error| fail(io::Error::other(error)))?;
        temporary.persist(path).map_err(|error| fail(error.error))?;
        Ok(())
    }

    /// Takes the keys and values of a file into the cache, for requests that begin with the same tokens.
    /// Gives the number of tokens, which is less than those of the file where there is no room for all.
    ///
    /// # Errors
    ///
    /// [`Error::PromptCache`] where the file is damaged, or of another model or format;
    /// [`Error::File`] where it cannot be read; [`Error::Device`] where a library computes.
    pub fn restore(&mut self, path: &Path) -> Result<usize, Error> {
        self.owns_cache()?;
        let file = path.display().to_string();
        let bytes = read(path).map_err(|source| Error::File { file: file.clone(), source })?;
        let wrong = |what: String| Error::PromptCache { file: file.clone(), what };
        let tokens = self.check(&bytes).map_err(wrong)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|why| wrong(why.to_string()))?;
        let restored = self.take_up(&tokens, &tensors);
        let slot = self.spare();
        self.session.cache().release(slot);
        restored
    }

    /// Has the spare sequence begin with the tokens of a file, as far as there is room.
    fn take_up(&mut self, tokens: &[u32], tensors: &SafeTensors<'_>) -> Result<usize, Error> {
        let slot = self.spare();
        let mut parent = Parent::default();
        let mut restored = 0;
        for (index, tokens) in tokens.as_chunks::<KV_BLOCK>().0.iter().enumerate() {
            let cache: &mut KvCache = self.session.cache();
            // Not at the cost of what is in use.
            if cache.available() == 0 || !cache.reserve(slot, restored + KV_BLOCK)? {
                break;
            }
            if let Ok(tensor) = tensors.tensor(&block_name(index)) {
                self.session.fill(slot, index, tensor.data())?;
            }
            parent = self.session.cache().publish((slot, index), parent, tokens);
            restored += KV_BLOCK;
        }
        Ok(restored)
    }

    /// The tokens of a file, if all of it is as it must be.
    fn check(&mut self, bytes: &[u8]) -> Result<Vec<u32>, String> {
        let damaged = "it is no prompt cache, or damaged: delete it, or give another file";
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|_| damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|_| damaged)?;
        let fields = header.metadata().as_ref().ok_or(damaged)?;
        let [version, model, weights, kv, expected] = FIELDS.map(|field| fields.get(field));
        if version.map(String::as_str) != Some(VERSION) {
            return Err(damaged.to_owned());
        }
        if model.map(String::as_str) != Some(self.engine.sha256()) {
            return Err("it is of another model: give another file".to_owned());
        }
        let here = self.engine.weights_read();
        let found = weights.ok_or(damaged)?;
        if *found != here {
            return Err(format!(
                "the weights of the model were read {found}, and here they are read {here}: give another \
                 file"
            ));
        }
        let here = self.engine.cache_kind();
        let found = kv.ok_or(damaged)?;
        if *found != here {
            // As `Engine::cache_kind` says it: the format, the precision of attention, and what computed.
            let mut parts = found.splitn(3, '-');
            let (kv, attention) = (parts.next().unwrap_or_default(), parts.next());
            let precision = match attention {
                Some(attention) => {
                    format!(
                        " and --gpu-precision {attention}, on such a GPU with the kernels that made it,"
                    )
                }
                None if here.contains('-') => " and --gpu-precision fp32".to_owned(),
                None => String::new(),
            };
            return Err(format!(
                "its keys and values are {found}, and here they are {here}: run with --cache-type {kv}{precision} or give another file"
            ));
        }
        let tokens = tensors.tensor("tokens").map_err(|_| damaged)?;
        let ids: Vec<_> =
            tokens.data().as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
        let (size, vocabulary) = (self.session.cache().block_bytes(), self.engine.vocabulary());
        let blocks = (0..ids.len() / KV_BLOCK).map(|index| {
            tensors.tensor(&block_name(index)).ok().filter(|block| block.data().len() == size)
        });
        let blocks: Option<Vec<_>> = blocks.collect();
        let blocks = blocks.ok_or(damaged)?;
        let data = [tokens.data()].into_iter().chain(blocks.iter().map(|block| block.data()));
        let whole = tensors.len() == blocks.len() + 1
            && ids.len().is_multiple_of(KV_BLOCK)
            && ids.iter().all(|&id| (id as usize) < vocabulary)
            && Some(&hash(data)) == expected;
        whole.then_some(ids).ok_or_else(|| damaged.to_owned())
    }
}

/// The bytes of a file, which is no device and no pipe.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(path)?.is_file() {
        true => fs::read(path),
        false => Err(io::Error::other("it is no file")),
    }
}

fn block_name(index: usize) -> String {
    format!("block.{index}")
}

fn hash<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut sha256 = Sha256::new();
    parts.for_each(|part| sha256.update(part));
    finish(sha256)
}
