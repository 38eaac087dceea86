//! `bitnet pull` against servers on this machine, good ones and bad ones.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod pull;
mod server;
mod wrong;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use server::Server;

const TOKEN: &str = "hf_secret";

/// A cache of its own, and the program that uses it.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    /// The program, whatever the environment says.
    fn bitnet(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("bitnet"));
        for (name, _) in std::env::vars() {
            let upper = name.to_uppercase();
            if upper.starts_with("BITNET_") || upper.starts_with("HF_") || upper.ends_with("_PROXY")
            {
                command.env_remove(name);
            }
        }
        command.env("BITNET_TUNING", "none").env("HF_HOME", self.0.path()).args(args);
        command
    }

    /// Pulls from a server.
    fn pull(&self, server: &Server, args: &[&str]) -> Output {
        let mut command = self.bitnet(&["pull", "--retries", "2"]);
        let output = command.args(args).env("HF_ENDPOINT", server.url()).env("HF_TOKEN", TOKEN);
        let output = output.output().unwrap();
        let said = stdout(&output).to_owned() + stderr(&output);
        assert!(!said.contains(TOKEN), "the token is shown: {said}");
        output
    }

    fn repository(&self) -> PathBuf {
        self.0.path().join("hub/models--tales--demo")
    }

    /// The names of blobs.
    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.repository().join("blobs")).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// All files and links below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// That a command ended so, and said so.
#[track_caller]
fn assert_ended(output: &Output, code: i32, words: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
    let cause = said.lines().last().unwrap_or_default();
    assert!(cause.matches("io: ").count() <= 1, "{cause} says it twice");
    assert_eq!(code == 0, !stdout(output).is_empty(), "{}", stdout(output));
}
