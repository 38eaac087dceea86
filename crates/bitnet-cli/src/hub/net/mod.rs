//! Downloads from a hub. The only code that opens connections, and only for `bitnet pull`.

mod client;
mod download;
mod error;
mod remote;
mod store;

use std::fs;
use std::io::Read;
use std::time::Instant;

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget};
use serde::Deserialize;
use ureq::http::Method;

use super::cache::{Cache, Repository};
use super::name::{is_commit, is_inside};
use super::{Error as CacheError, choose, pull};
use crate::exit::{self, End, Unreadable};
use crate::interrupt::Interrupt;
use crate::progress;
use client::{Client, encode};
use error::{Error, Failure};
use remote::Remote;

/// Bytes of a list of files at most.
const LONGEST_LIST: u64 = 16 << 20;

/// Flags of downloads.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The hub. HF_TOKEN, or else the token that the tools of Hugging Face keep, is sent to it and to
    /// no other.
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT", default_value = "https://huggingface.co")]
    endpoint: String,
    /// Attempts in a row that bring nothing before it is given up.
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
}

/// What the hub says of a repository.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Downloads what is missing of a model.
pub(super) fn pull(args: &pull::Args, cache: &Cache) -> anyhow::Result<End> {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let client = Client::new(&args.net.endpoint, args.net.retries, bar, Interrupt::listen())?;
    let done = download(args, cache, &client);
    client.bar.finish_and_clear();
    match done {
        Ok(()) => Ok(End::Done),
        Err(Error::Interrupted) => {
            exit::say("interrupted: what there is stays, and the same command goes on");
            Ok(End::Interrupted)
        }
        Err(Error::Cache(error)) => Err(error.into()),
        Err(error @ (Error::NotFound { .. } | Error::Denied { .. } | Error::Gated { .. })) => {
            Err(Unreadable(error.to_string()).into())
        }
        Err(error) => Err(error.into()),
    }
}

fn download(args: &pull::Args, cache: &Cache, client: &Client) -> Result<(), Error> {
    let start = Instant::now();
    let revision = args.revision.as_deref().unwrap_or("main");
    if !is_inside(revision) {
        return Err(Error::Revision(revision.to_owned()));
    }
    let repository = cache.repository(&args.model);
    let listing = list(client, &repository, revision)?;
    let names: Vec<_> = listing.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    let model = choose::choose(&repository.name, &names, args.model.file.as_deref())?;
    if let Some(file) = model.files.iter().find(|file| !is_inside(file)) {
        return Err(Error::FileName { repository: repository.name, file: file.clone() });
    }
    let commit = listing.sha;
    let mut remotes = Vec::new();
    for file in model.files.iter().filter(|file| !repository.has(&commit, file)) {
        remotes.push(Remote::ask(client, &repository, &commit, file)?);
    }
    room(cache, &repository, &remotes)?;
    let total = remotes.iter().fold(0, |sum: u64, remote| sum.saturating_add(remote.bytes));
    client.bar.set_length(total);
    client.bar.set_style(progress::style());
    for remote in &remotes {
        client.bar.set_message(remote.file.clone());
        if client.bar.is_hidden() {
            exit::say(&format!("{}: {}", remote.file, BinaryBytes(remote.bytes)));
        }
        download::fetch(remote, client, &repository, &commit)?;
    }
    if !is_commit(revision) {
        repository.set_ref(revision, &commit)?;
    }
    client.bar.finish_and_clear();
    let (size, seconds) = (BinaryBytes(total), start.elapsed().as_secs_f64());
    exit::say(&match remotes.len() {
        0 => format!("{} is in the cache already, at {commit}", args.model),
        1 => format!("{}: {size}, hash checked, {seconds:.1} s", args.model),
        files => format!("{}: {files} files, {size}, hashes checked, {seconds:.1} s", args.model),
    });
    Ok(())
}

/// The commit that a revision is at, and its files.
fn list(client: &Client, repository: &Repository, revision: &str) -> Result<Listing, Error> {
    let (endpoint, name) = (&client.endpoint, &repository.name);
    let url = format!("{endpoint}/api/models/{name}/revision/{}", encode(revision, false));
    let wrong = |what: String| Error::Answer { url: url.clone(), what };
    let text = client.retry(|| {
        let answer = client.send(Method::GET, &url, 0, name, |_| false)?;
        let mut text = Vec::new();
        let mut body = answer.into_body().into_reader().take(LONGEST_LIST + 1);
        let read = body.read_to_end(&mut text);
        let broken = |cause| Failure::passing(Error::BrokenOff { url: url.clone(), cause });
        read.map_err(broken)?;
        Ok(text)
    })?;
    if text.len() as u64 > LONGEST_LIST {
        return Err(wrong(format!("its list of files is longer than {LONGEST_LIST} bytes")));
    }
    let listing: Listing = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("its list of files cannot be read: {error}")))?;
    // They go to terminals, in messages.
    let names = listing.siblings.iter().map(|sibling| &sibling.rfilename);
    if names.flat_map(|name| name.chars()).any(char::is_control) {
        return Err(wrong("a name in its list of files has control characters".to_owned()));
    }
    match is_commit(&listing.sha) {
        true => Ok(listing),
        false => Err(wrong(format!("{:?} is no commit", listing.sha))),
    }
}

/// Checks that there is room for what is missing.
fn room(cache: &Cache, repository: &Repository, remotes: &[Remote]) -> Result<(), Error> {
    fs::create_dir_all(&cache.root).map_err(CacheError::at(&cache.root))?;
    let missing = remotes.iter().map(|remote| remote.missing(repository));
    let needed = missing.fold(0, u64::saturating_add);
    let free = fs4::available_space(&cache.root).map_err(CacheError::at(&cache.root))?;
    match needed > free {
        true => Err(Error::Space { needed, free, at: cache.root.clone() }),
        false => Ok(()),
    }
}
