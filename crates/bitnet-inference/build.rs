//! Tells the crate which commit it is built from, for receipts.

use std::path::Path;
use std::process::Command;

fn main() {
    // Whatever may change what is built, or what it is called.
    for path in ["build.rs", "../../crates", "../../Cargo.lock", "../../.git/logs/HEAD"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // Without git, or in a folder within another repository, there is no commit to tell.
    let top = git(&["rev-parse", "--show-toplevel"]);
    let ours = Path::new("../..").canonicalize().ok();
    if top.and_then(|top| Path::new(&top).canonicalize().ok()) != ours {
        return;
    }
    if let (Some(commit), Some(changes)) = (git(&["rev-parse", "HEAD"]), git(&["status", "-s"])) {
        let changed = if changes.is_empty() { "" } else { "-changed" };
        println!("cargo::rustc-env=BITNET_COMMIT={commit}{changed}");
    }
}

/// What a command of git says, if it does.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
