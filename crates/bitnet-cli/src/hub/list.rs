//! `bitnet list`: the models in the cache.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use indicatif::{BinaryBytes, HumanDuration};
use serde::Serialize;

use super::cache::{Cache, Repository};
use crate::exit::{self, End};
use crate::output;

/// Flags of `bitnet list`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Print one JSON array instead of lines.
    #[arg(long)]
    json: bool,
}

/// A model, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Row {
    /// What `-m` takes.
    model: String,
    bytes: u64,
    /// Whether something is missing that `bitnet pull` would fetch.
    partial: bool,
    commit: Option<String>,
    /// Branches and tags that are at this commit.
    refs: Vec<String>,
    /// When the last file came, in seconds since 1970.
    modified: Option<u64>,
    /// What the engine opens.
    path: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<End> {
    let cache = Cache::locate()?;
    let rows: Vec<_> = cache.repositories()?.iter().flat_map(rows).collect();
    if rows.is_empty() {
        let root = cache.root.display();
        exit::say(&format!("no models in {root}: `bitnet pull ORG/NAME` downloads one"));
    }
    output::report(&rows, args.json, || output::plain(&text(&rows)))?;
    Ok(End::Done)
}

/// The models of a repository.
fn rows(repository: &Repository) -> Vec<Row> {
    let refs = repository.refs();
    let mut rows = Vec::new();
    for snapshot in repository.snapshots() {
        for model in snapshot.models() {
            let (bytes, modified) = snapshot.size(&model);
            let file = model.file.as_ref().map_or(String::new(), |file| format!(":{file}"));
            let here = refs.iter().filter(|(_, commit)| *commit == snapshot.commit);
            rows.push(Row {
                model: repository.name.clone() + &file,
                bytes,
                partial: !snapshot.has_all(&model),
                commit: Some(snapshot.commit.clone()),
                refs: here.map(|(name, _)| name.clone()).collect(),
                modified: modified
                    .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                    .map(|d| d.as_secs()),
                path: Some(snapshot.path(&model).display().to_string()),
            });
        }
    }
    // Of which model they are cannot be told from blobs.
    let incomplete = repository.incomplete();
    if incomplete > 0 {
        rows.push(Row {
            model: repository.name.clone(),
            bytes: incomplete,
            partial: true,
            commit: None,
            refs: Vec::new(),
            modified: None,
            path: None,
        });
    }
    rows
}

/// For people.
fn text(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.model.chars().count()).max().unwrap_or(0);
    let line = |row: &Row| {
        let size = BinaryBytes(row.bytes).to_string();
        let commit = row.commit.as_ref().map_or("", |commit| &commit[..8]);
        let refs = row.refs.join(", ");
        let revision = if refs.is_empty() { commit.to_owned() } else { format!("{refs} {commit}") };
        let state = match (row.partial, row.modified) {
            (true, _) => "partial: pull it again to go on".to_owned(),
            (false, Some(seconds)) => format!("{} ago", age(seconds)),
            (false, None) => String::new(),
        };
        let line = format!("{:<width$}  {size:>11}  {revision:<13}  {state}", row.model);
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// How long something is past.
fn age(seconds: u64) -> HumanDuration {
    let at = UNIX_EPOCH + Duration::from_secs(seconds);
    HumanDuration(SystemTime::now().duration_since(at).unwrap_or_default())
}
