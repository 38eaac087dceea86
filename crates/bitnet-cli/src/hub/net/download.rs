//! One file, from the hub to the cache: begun or gone on with, checked, named.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::client::{Client, text};
use super::error::{Error, Failure};
use super::remote::Remote;
use super::store::{folder_of, sync_folder_of};
use crate::hub::Error as CacheError;
use crate::hub::cache::Repository;

/// Bytes read at a time.
const PIECE: usize = 1 << 18;

/// Downloads what is missing of a file, checks it, and gives it its name.
pub(super) fn fetch(
    remote: &Remote,
    client: &Client,
    repository: &Repository,
    commit: &str,
) -> Result<(), Error> {
    let before = client.bar.position();
    let _lock = repository.lock(&remote.hash, client)?;
    let blob = repository.blob(&remote.hash);
    // Another process may have been faster, and may have moved the blob to its name.
    if !blob.is_file() && !repository.has(commit, &remote.file) {
        let path = repository.incomplete_blob(&remote.hash);
        Partial::open(remote, client, path)?.complete(&repository.name)?.rename(&blob)?;
    }
    client.bar.set_position(before + remote.bytes);
    match repository.has(commit, &remote.file) {
        true => Ok(()),
        false => repository.place(commit, &remote.file, &remote.hash),
    }
}

/// A file that is on its way.
struct Partial<'a> {
    remote: &'a Remote,
    client: &'a Client,
    path: PathBuf,
    file: File,
    /// Bytes that are there.
    bytes: u64,
    /// The most there were.
    best: u64,
    /// Bytes of other files on the bar.
    before: u64,
}

impl<'a> Partial<'a> {
    fn open(remote: &'a Remote, client: &'a Client, path: PathBuf) -> Result<Partial<'a>, Error> {
        folder_of(&path)?;
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(&path).map_err(CacheError::at(&path))?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(CacheError::at(&path))?;
        let before = client.bar.position();
        let mut partial = Partial { remote, client, path, file, bytes, best: bytes, before };
        if bytes > remote.bytes {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// Gets all of it, and deletes it if it turns out to be something else.
    fn complete(mut self, repository: &str) -> Result<Partial<'a>, Error> {
        let client = self.client;
        let got = client.retry(|| self.attempt(repository)).and_then(|()| self.check());
        if let Err(Error::Hash { .. } | Error::Length { .. }) = got {
            fs::remove_file(&self.path).map_err(CacheError::at(&self.path))?;
        }
        got.map(|()| self)
    }

    /// Gives it the name of what is whole, for good.
    fn rename(self, blob: &PathBuf) -> Result<(), Error> {
        let Partial { file, path, .. } = self;
        file.sync_all().map_err(CacheError::at(&path))?;
        // Windows renames no file that is open.
        drop(file);
        fs::rename(&path, blob).map_err(CacheError::at(path))?;
        sync_folder_of(blob)
    }

    /// Throws away what is there.
    fn restart(&mut self) -> Result<(), Error> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        self.bytes = 0;
        Ok(emptied.map_err(CacheError::at(&self.path))?)
    }

    /// One request for what is missing.
    fn attempt(&mut self, repository: &str) -> Result<(), Failure> {
        if self.bytes == self.remote.bytes {
            return Ok(());
        }
        let url = &self.remote.url;
        let response = self.client.send(Method::GET, url, self.bytes, repository, |_| false)?;
        match response.status() {
            status @ StatusCode::RANGE_NOT_SATISFIABLE => {
                self.restart()?;
                let status = status.as_u16();
                return Err(Failure::passing(Error::Status { url: url.clone(), status }));
            }
            StatusCode::PARTIAL_CONTENT => self.check_range(&response)?,
            // The server sends all of it, whatever it was asked for.
            _ => {
                self.restart()?;
                let length = text(response.headers(), "content-length");
                if let Some(length) = length.filter(|l| l.parse() != Ok(self.remote.bytes)) {
                    return Err(self.length(length).into());
                }
            }
        }
        let copied = self.copy(response);
        let progress = self.bytes > self.best;
        self.best = self.bytes.max(self.best);
        copied.map_err(|failure| match failure {
            Failure::Passing { error, after, .. } => Failure::Passing { error, after, progress },
            lasting => lasting,
        })
    }

    /// Writes the body of an answer to the file.
    fn copy(&mut self, response: Response<Body>) -> Result<(), Failure> {
        let Remote { url, bytes: all, .. } = self.remote;
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            self.client.bar.set_position(self.before + self.bytes);
            if self.client.interrupt.pressed() {
                return Err(Error::Interrupted.into());
            }
            let read = match body.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => {
                    return Err(Failure::passing(Error::BrokenOff { url: url.clone(), cause }));
                }
                Ok(0) if self.bytes == *all => return Ok(()),
                Ok(0) => {
                    let (url, found, expected) = (url.clone(), self.bytes, *all);
                    return Err(Failure::passing(Error::Cut { url, found, expected }));
                }
                Ok(read) if read as u64 > all - self.bytes => {
                    return Err(self.length("more").into());
                }
                Ok(read) => read,
            };
            self.file.write_all(&piece[..read]).map_err(CacheError::at(&self.path))?;
            self.bytes += read as u64;
        }
    }

    /// Checks that a part of the file is the one that was asked for.
    fn check_range(&self, response: &Response<Body>) -> Result<(), Error> {
        let range = text(response.headers(), "content-range").unwrap_or("none");
        let parts = || {
            let (place, total) = range.strip_prefix("bytes ")?.split_once('/')?;
            Some((place.split_once('-')?.0.parse::<u64>().ok()?, total))
        };
        match parts().filter(|(start, _)| *start == self.bytes) {
            Some((_, total)) if total == "*" || total.parse() == Ok(self.remote.bytes) => Ok(()),
            Some((_, total)) => Err(self.length(total)),
            None => {
                let what = format!("asked for bytes from {}, it sends `{range}`", self.bytes);
                Err(Error::Answer { url: self.remote.url.clone(), what })
            }
        }
    }

    fn length(&self, found: &str) -> Error {
        let Remote { file, bytes: expected, .. } = self.remote;
        Error::Length { file: file.clone(), expected: *expected, found: found.to_owned() }
    }

    /// Compares the hash of all that is on the disk with what the hub says.
    fn check(&mut self) -> Result<(), Error> {
        let Remote { file, hash, bytes, .. } = self.remote;
        let found = self.file.rewind().and_then(|()| match hash.len() {
            64 => digest(Sha256::new(), &mut self.file),
            // As git has it: with a header.
            _ => digest(Sha1::new().chain_update(format!("blob {bytes}\0")), &mut self.file),
        });
        let found = found.map_err(CacheError::at(&self.path))?;
        match found == *hash {
            true => Ok(()),
            false => Err(Error::Hash { file: file.clone(), expected: hash.clone(), found }),
        }
    }
}

/// The hash of a file, in hexadecimal.
fn digest<D: Digest>(mut digest: D, file: &mut File) -> io::Result<String> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => digest.update(&piece[..read]),
        }
    }
}
