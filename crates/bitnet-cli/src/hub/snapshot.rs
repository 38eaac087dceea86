//! The files that a repository had at a commit, as they lie in the cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bitnet_inference::read_text;
use serde_json::Value;

use super::choose::{self, Choice};

/// Bytes of an index at most.
const LONGEST_INDEX: u64 = 64 << 20;
const INDEX: &str = "model.safetensors.index.json";

/// What is there of a commit.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) commit: String,
    pub(super) folder: PathBuf,
    /// By their names in the repository.
    pub(super) files: BTreeMap<String, Stored>,
}

/// A file in the cache.
#[derive(Debug)]
pub(super) struct Stored {
    /// Where its bytes are, with no link on the way.
    pub(super) blob: PathBuf,
    pub(super) bytes: u64,
    pub(super) modified: Option<SystemTime>,
}

impl Snapshot {
    /// Reads a folder of snapshots. Links that lead out of `repository`, a path without links, or
    /// nowhere, count as not there.
    pub(super) fn read(commit: &str, folder: PathBuf, repository: &Path) -> Snapshot {
        let mut files = BTreeMap::new();
        collect(&folder, "", repository, &mut files);
        Snapshot { commit: commit.to_owned(), folder, files }
    }

    /// The models that can be told from the files.
    pub(super) fn models(&self) -> Vec<Choice> {
        choose::models(self.files.keys().map(String::as_str))
    }

    /// Whether all that belongs to a model is there.
    pub(super) fn has_all(&self, model: &Choice) -> bool {
        if model.file.is_some() {
            return model.files.len() == model.parts;
        }
        let Some(index) = self.files.get(INDEX) else {
            return true;
        };
        let text = File::open(&index.blob).and_then(|file| read_text(file, LONGEST_INDEX));
        let index: Option<Value> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
        let shards = index.as_ref().and_then(|index| index["weight_map"].as_object());
        // What an index is that cannot be read, the engine says better.
        let there = |shard: &Value| shard.as_str().is_some_and(|s| self.files.contains_key(s));
        shards.is_none_or(|shards| shards.values().all(there))
    }

    /// The path that the engine opens.
    pub(super) fn path(&self, model: &Choice) -> PathBuf {
        model.file.as_ref().map_or(self.folder.clone(), |file| self.folder.join(file))
    }

    /// Bytes of a model, and when the last of its files came.
    pub(super) fn size(&self, model: &Choice) -> (u64, Option<SystemTime>) {
        let stored = || model.files.iter().filter_map(|file| self.files.get(file));
        (stored().map(|file| file.bytes).sum(), stored().filter_map(|file| file.modified).max())
    }
}

/// Adds the files of a folder, whose names start with `prefix`.
fn collect(folder: &Path, prefix: &str, repository: &Path, into: &mut BTreeMap<String, Stored>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
            continue;
        };
        // The type of a link is that of the link: no loops.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), &format!("{name}/"), repository, into);
            continue;
        }
        let Ok(blob) = entry.path().canonicalize() else { continue };
        let Ok(metadata) = blob.metadata() else { continue };
        if blob.starts_with(repository) && metadata.is_file() {
            let (bytes, modified) = (metadata.len(), metadata.modified().ok());
            into.insert(name, Stored { blob, bytes, modified });
        }
    }
}
