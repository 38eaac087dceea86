//! Writes to the cache: what is whole gets its name, and nothing else does.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::Client;
use super::error::Error;
use crate::hub::Error as CacheError;
use crate::hub::cache::{INCOMPLETE, Repository};

/// How often a lock that another process has is tried.
const AGAIN: Duration = Duration::from_millis(100);

impl Repository {
    /// Where the bytes with this hash are, or will be.
    pub(super) fn blob(&self, hash: &str) -> PathBuf {
        self.folder.join("blobs").join(hash)
    }

    /// Where they are while some are missing.
    pub(super) fn incomplete_blob(&self, hash: &str) -> PathBuf {
        self.blob(&format!("{hash}{INCOMPLETE}"))
    }

    /// Where a file of a commit is, or will be.
    fn link(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }

    /// Whether a file of a commit is there.
    pub(super) fn has(&self, commit: &str, file: &str) -> bool {
        self.link(commit, file).is_file()
    }

    /// Takes the right to write a blob; waits for others that have it.
    pub(super) fn lock(&self, hash: &str, client: &Client) -> Result<File, Error> {
        let path = self.locks.join(format!("{hash}.lock"));
        folder_of(&path)?;
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(CacheError::at(&path))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(CacheError::at(path)(error).into()),
                Err(TryLockError::WouldBlock) if said => {}
                Err(TryLockError::WouldBlock) => {
                    client.say("waiting for another process that downloads the same file");
                    said = true;
                }
            }
            client.wait(AGAIN)?;
        }
    }

    /// Gives a blob its name in a commit: by a link, or by moving it there where links cannot be.
    pub(super) fn place(&self, commit: &str, file: &str, hash: &str) -> Result<(), Error> {
        let link = self.link(commit, file);
        folder_of(&link)?;
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CacheError::at(link)(error).into());
            }
            _ => {}
        }
        let up = "../".repeat(2 + file.matches('/').count());
        symlink(format!("{up}blobs/{hash}").as_ref(), &link)
            .or_else(|_| fs::rename(self.blob(hash), &link))
            .map_err(CacheError::at(link))?;
        Ok(())
    }

    /// Notes the commit that a branch or tag is at.
    pub(super) fn set_ref(&self, name: &str, commit: &str) -> Result<(), Error> {
        let path = self.folder.join("refs").join(name);
        folder_of(&path)?;
        Ok(fs::write(&path, commit).map_err(CacheError::at(path))?)
    }
}

/// Makes the folder that a file is to be in.
pub(super) fn folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    Ok(fs::create_dir_all(folder).map_err(CacheError::at(folder))?)
}

/// Makes a new name in a folder last.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    let sync = || File::open(folder)?.sync_all();
    // Windows opens no folders.
    if cfg!(unix) { Ok(sync().map_err(CacheError::at(folder))?) } else { Ok(()) }
}

#[cfg(unix)]
fn symlink(to: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, link)
}

#[cfg(windows)]
fn symlink(to: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(to, link)
}
