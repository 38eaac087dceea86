//! What the hub says of a file before it is downloaded.

use ureq::http::{HeaderMap, Method};

use super::client::{Client, encode, text};
use super::error::Error;
use crate::hub::cache::Repository;
use crate::hub::name::is_hex;

/// A file of a commit.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) file: String,
    pub(super) url: String,
    /// SHA-256, or the SHA-1 that git has for small files, in hexadecimal.
    pub(super) hash: String,
    pub(super) bytes: u64,
}

impl Remote {
    /// Asks the hub.
    pub(super) fn ask(
        client: &Client,
        repository: &Repository,
        commit: &str,
        file: &str,
    ) -> Result<Remote, Error> {
        let (endpoint, name) = (&client.endpoint, &repository.name);
        let url = format!("{endpoint}/{name}/resolve/{commit}/{}", encode(file, true));
        let response = client.retry(|| client.send(Method::HEAD, &url, 0, name, is_linked))?;
        let headers = response.headers();
        let wrong = |what: &str| Error::Answer { url: url.clone(), what: what.to_owned() };
        if text(headers, "x-repo-commit").is_some_and(|found| found != commit) {
            return Err(wrong("it answers for another commit"));
        }
        let [tag, size] = match is_linked(headers) {
            true => ["x-linked-etag", "x-linked-size"],
            false => ["etag", "content-length"],
        };
        let tag = text(headers, tag).unwrap_or_default();
        let hash = tag.trim_start_matches("W/").trim_matches('"').to_owned();
        if ![40, 64].contains(&hash.len()) || !is_hex(&hash) {
            let what = "its ETag is neither a SHA-256 nor a SHA-1, so that nothing can be checked";
            return Err(wrong(what));
        }
        let bytes = text(headers, size).and_then(|size| size.parse().ok());
        let bytes = bytes.ok_or_else(|| wrong("it does not say how long the file is"))?;
        Ok(Remote { file: file.to_owned(), url, hash, bytes })
    }

    /// Bytes that are still to come.
    pub(super) fn missing(&self, repository: &Repository) -> u64 {
        if repository.blob(&self.hash).is_file() {
            return 0;
        }
        let partial = repository.incomplete_blob(&self.hash).metadata();
        self.bytes.saturating_sub(partial.map_or(0, |metadata| metadata.len()))
    }
}

/// Whether an answer says all of a file that is kept elsewhere: the redirect to it does, one to
/// another name of the repository does not.
fn is_linked(headers: &HeaderMap) -> bool {
    ["x-linked-etag", "x-linked-size"].iter().all(|name| headers.contains_key(*name))
}
