//! Tells the crate which commit it is built from, for receipts.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    let git = Command::new("git").args(["rev-parse", "HEAD"]).output();
    // Without git, or outside a repository, there is no commit to tell.
    if let Some(output) = git.ok().filter(|output| output.status.success()) {
        let commit = String::from_utf8_lossy(&output.stdout);
        println!("cargo::rustc-env=BITNET_COMMIT={}", commit.trim());
    }
}
