//! The `bitnet` command as people and programs use it.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod bench;
mod cache;
mod chat;
mod embed;
mod exit_codes;
mod kernels;
mod models;
mod pages;
mod perplexity;
mod receipt;
mod run;
mod serve;
mod template;
mod test_backend_selection;
mod tokenize;

use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;

/// The program, whatever the environment says and whatever was measured on this machine.
fn bitnet() -> Command {
    let mut command = Command::cargo_bin("bitnet").unwrap();
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BITNET_")) {
        command.env_remove(name);
    }
    command.env("BITNET_TUNING", "none");
    command
}

/// Where the program is.
fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin("bitnet")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}
