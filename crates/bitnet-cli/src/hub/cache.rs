//! The cache of models, in the place and layout that the tools of Hugging Face share:
//!
//! ```text
//! models--ORG--NAME/blobs/HASH                     the files, by their hashes
//! models--ORG--NAME/blobs/HASH.incomplete          what there is of one
//! models--ORG--NAME/refs/main                      the commit that a branch is at
//! models--ORG--NAME/snapshots/COMMIT/FILE          links to blobs; or the files, where links cannot be
//! .locks/models--ORG--NAME/HASH.lock               held while a file is downloaded
//! ```

use std::env;
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::choose;
use super::name::{Name, is_commit};
use super::snapshot::Snapshot;

/// What the name of a file ends in that is not all there.
pub(super) const INCOMPLETE: &str = ".incomplete";

/// The folder with all repositories.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) root: PathBuf,
}

/// A repository in the cache, whether or not it is there.
#[derive(Debug)]
pub(super) struct Repository {
    /// `ORG/NAME`.
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) locks: PathBuf,
}

/// `HF_HOME`, or where it is if not set.
pub(super) fn home() -> Option<PathBuf> {
    let user = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = variable("HF_HOME");
    let caches = || variable("XDG_CACHE_HOME").or_else(|| Some(user?.join(".cache")));
    home.or_else(|| Some(caches()?.join("huggingface")))
}

/// A path from the environment, unless it is empty; `~` is the user's folder.
fn variable(name: &str) -> Option<PathBuf> {
    let path = env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)?;
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(path),
    }
}

impl Cache {
    pub(super) fn locate() -> Result<Cache, Error> {
        let root = variable("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub")));
        root.map(|root| Cache { root }).ok_or(Error::Nowhere)
    }

    pub(super) fn repository(&self, name: &Name) -> Repository {
        Repository {
            name: name.repository.clone(),
            folder: self.root.join(name.folder()),
            locks: self.root.join(".locks").join(name.folder()),
        }
    }

    /// All that are there, by name.
    pub(super) fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(Error::at(&self.root))?,
        };
        let names = entries.filter_map(|entry| Name::of_folder(entry.ok()?.file_name().to_str()?));
        let mut all: Vec<_> = names.map(|name| self.repository(&name)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The path of a model at a branch, tag or commit; at `main` if not given, or else at the only
    /// commit there is.
    pub(super) fn find(&self, name: &Name, revision: Option<&str>) -> Result<PathBuf, Error> {
        let repository = self.repository(name);
        let model = name.to_string();
        let missing = || Error::NotCached { model: model.clone(), cache: self.root.clone() };
        let mut snapshots = repository.snapshots();
        let wanted = repository.commit(revision.unwrap_or("main"));
        let snapshot = match wanted {
            Some(commit) => snapshots.into_iter().find(|snapshot| snapshot.commit == commit),
            None if revision.is_some() => None,
            None if snapshots.len() > 1 => {
                let snapshots = repository.folder.join("snapshots");
                return Err(Error::Revisions { repository: repository.name, snapshots });
            }
            None => snapshots.pop(),
        };
        let partial = repository.incomplete() > 0;
        let snapshot = snapshot.ok_or_else(|| match partial {
            true => Error::Partial { model: model.clone() },
            false => missing(),
        })?;
        let files: Vec<_> = snapshot.files.keys().cloned().collect();
        match choose::choose(&repository.name, &files, name.file.as_deref()) {
            Ok(choice) if snapshot.has_all(&choice) => Ok(snapshot.path(&choice)),
            Ok(_) => Err(Error::Partial { model }),
            Err(Error::NoModel { .. } | Error::NotThere { .. }) if partial => {
                Err(Error::Partial { model })
            }
            Err(Error::NoModel { .. } | Error::NotThere { .. }) => Err(missing()),
            Err(error) => Err(error),
        }
    }
}

impl Repository {
    /// The commit that a branch or tag is at, or that this is.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        self.refs().into_iter().find(|(name, _)| name == revision).map(|(_, commit)| commit)
    }

    /// Branches and tags, and the commits they are at.
    pub(super) fn refs(&self) -> Vec<(String, String)> {
        let mut refs = Vec::new();
        let mut folders = vec![(self.folder.join("refs"), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push((entry.path(), name + "/")),
                    _ => {
                        let commit = fs::read_to_string(entry.path()).unwrap_or_default();
                        refs.push((name, commit.trim().to_owned()));
                    }
                }
            }
        }
        refs.retain(|(_, commit)| is_commit(commit));
        refs.sort();
        refs
    }

    /// What is there of each commit.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let folder = self.folder.join("snapshots");
        // Links are followed to here, and no further.
        let Ok(inside) = self.folder.canonicalize() else { return Vec::new() };
        let names = entries(&folder).into_iter().filter_map(|path| {
            path.file_name()?.to_str().filter(|name| is_commit(name)).map(str::to_owned)
        });
        names.map(|commit| Snapshot::read(&commit, folder.join(&commit), &inside)).collect()
    }

    /// Bytes of downloads that were broken off.
    pub(super) fn incomplete(&self) -> u64 {
        let blobs = entries(&self.folder.join("blobs"));
        let incomplete = |path: &&PathBuf| path.to_string_lossy().ends_with(INCOMPLETE);
        let bytes = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        blobs.iter().filter(incomplete).map(bytes).sum()
    }

    /// Refuses where a download is under way.
    pub(super) fn refuse_busy(&self) -> Result<(), Error> {
        for path in entries(&self.locks) {
            let held = fs::File::open(&path).map(|file| file.try_lock());
            if matches!(held, Ok(Err(TryLockError::WouldBlock))) {
                return Err(Error::Busy { repository: self.name.clone() });
            }
        }
        Ok(())
    }
}

/// The paths in a folder, in order; none if it is not there.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths.collect();
    paths.sort();
    paths
}
