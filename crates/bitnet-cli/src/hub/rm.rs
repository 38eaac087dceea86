//! `bitnet rm`: takes a model out of the cache.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use indicatif::BinaryBytes;
use serde::Serialize;

use super::Error;
use super::cache::{Cache, Repository, entries};
use super::choose;
use super::name::Name;
use crate::exit::{self, End, Usage};
use crate::output;

/// Flags of `bitnet rm`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// What to remove: all there is of a repository, or one of its models.
    #[arg(value_name = "ORG/NAME[:FILE]")]
    model: Name,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Print what was removed as JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    /// Whether the answer was yes.
    removed: bool,
    /// Bytes that are free now.
    bytes: u64,
}

/// What goes.
#[derive(Debug)]
struct Removal {
    /// Files and links; or a folder with all that is in it.
    paths: Vec<PathBuf>,
    /// Bytes that are free then.
    bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let cache = Cache::locate()?;
    let repository = cache.repository(&args.model);
    let removal = match &args.model.file {
        None => Removal::of_all(&repository),
        Some(file) => Removal::of_model(&repository, file)?,
    };
    let Some(removal) = removal else {
        let model = args.model.to_string();
        return Err(Error::NotCached { model, cache: cache.root }.into());
    };
    repository.refuse_busy()?;
    let size = BinaryBytes(removal.bytes);
    if !args.yes && !asked(&format!("remove {} from the cache and free {size}?", args.model))? {
        exit::say("nothing removed");
        return args.report(false, 0);
    }
    removal.carry_out(&repository)?;
    exit::say(&format!("removed {}: {size} freed", args.model));
    args.report(true, removal.bytes)
}

impl Args {
    /// What was done, for programs that ask.
    fn report(&self, removed: bool, bytes: u64) -> Result<End> {
        if self.json {
            let report = Report { model: self.model.to_string(), removed, bytes };
            output::report(&report, true, String::new)?;
        }
        Ok(End::Done)
    }
}

/// Asks, where somebody can answer.
fn asked(question: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Usage("removing asks first, and nobody is there: give --yes".to_owned()).into());
    }
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Removal {
    /// All of a repository; nothing if it is not there.
    fn of_all(repository: &Repository) -> Option<Removal> {
        let there = fs::symlink_metadata(&repository.folder).is_ok();
        let (paths, bytes) = (vec![repository.folder.clone()], size(&repository.folder));
        there.then_some(Removal { paths, bytes })
    }

    /// One model, in all its revisions, and the blobs that nothing else uses; nothing if none has it.
    fn of_model(repository: &Repository, file: &str) -> Result<Option<Removal>, Error> {
        let (mut paths, mut blobs, mut kept) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for snapshot in repository.snapshots() {
            let names: Vec<_> = snapshot.files.keys().cloned().collect();
            let chosen = match choose::choose(&repository.name, &names, Some(file)) {
                Ok(choice) => choice.files,
                Err(Error::NotThere { .. } | Error::NoModel { .. }) => Vec::new(),
                Err(error) => return Err(error),
            };
            for (name, stored) in snapshot.files {
                if chosen.contains(&name) {
                    paths.push(snapshot.folder.join(name));
                    blobs.insert((stored.blob, stored.bytes));
                } else {
                    kept.insert(stored.blob);
                }
            }
        }
        blobs.retain(|(blob, _)| !kept.contains(blob));
        let bytes = blobs.iter().map(|(_, bytes)| bytes).sum();
        // Where links cannot be made a path is its own blob.
        paths.extend(blobs.into_iter().map(|(blob, _)| blob));
        Ok((!paths.is_empty()).then_some(Removal { paths, bytes }))
    }

    fn carry_out(&self, repository: &Repository) -> Result<(), Error> {
        for path in &self.paths {
            remove(path)?;
        }
        prune(&repository.folder.join("snapshots"));
        let left: BTreeSet<_> = repository.snapshots().into_iter().map(|s| s.commit).collect();
        for (name, commit) in repository.refs() {
            if !left.contains(&commit) {
                remove(&repository.folder.join("refs").join(name))?;
            }
        }
        if left.is_empty() && repository.incomplete() == 0 {
            remove(&repository.folder)?;
            remove(&repository.locks)?;
        }
        Ok(())
    }
}

/// Removes a file, a link or a folder; that it is gone already is no error.
fn remove(path: &Path) -> Result<(), Error> {
    let folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(path)(error)),
        _ => Ok(()),
    }
}

/// Removes folders in which nothing is, from below.
fn prune(folder: &Path) {
    for path in entries(folder) {
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            prune(&path);
            // Refused where something is in it.
            let _ = fs::remove_dir(&path);
        }
    }
}

/// Bytes of the files below a folder; links count nothing.
fn size(folder: &Path) -> u64 {
    let of = |path: PathBuf| match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => size(&path),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries(folder).into_iter().map(of).sum()
}
