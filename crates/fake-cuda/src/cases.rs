//! Tests with a driver of their own: each case is a process, which finds this library where it looks for a driver, or another, or none.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

/// Names the case that a process is to run.
const CASE: &str = "BITNET_DRIVER_CASE";

/// What is to be found where a driver is looked for.
#[derive(Clone, Copy, Debug)]
pub enum Library {
    /// This one.
    Fake,
    /// Some other library under its name.
    Foreign,
    /// None.
    Nothing,
}

/// A case: its name, the library, what that pretends to be, and what is to hold.
pub type Case = (&'static str, Library, &'static str, fn());

/// The library that was built along with this program.
fn fake() -> PathBuf {
    let here = env::current_exe().expect("the path of this program");
    here.with_file_name("libfake_cuda.so")
}

/// Some library that is on every system like this one.
fn foreign() -> PathBuf {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib"];
    let mut files = folders.iter().map(|folder| Path::new(folder).join("libm.so.6"));
    files.find(|file| file.exists()).expect("a library of mathematical functions")
}

/// A folder with a library under the name of a driver.
///
/// # Panics
///
/// Where there is no such library, or no place for the folder.
#[must_use]
pub fn folder(library: Library) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a place for a folder");
    let from = match library {
        Library::Fake => fake(),
        Library::Foreign => foreign(),
        Library::Nothing => return folder,
    };
    let to = folder.path().join("libcuda.so.1");
    let there = fs::hard_link(&from, &to).is_ok() || fs::copy(&from, &to).is_ok();
    assert!(there, "{} is there", from.display());
    folder
}

fn run(name: &str, folder: &Path, config: &str) -> bool {
    let program = env::current_exe().expect("the path of this program");
    let child = Command::new(program)
        .env(CASE, name)
        .env("LD_LIBRARY_PATH", folder)
        .env("BITNET_FAKE_CUDA", config)
        .output()
        .expect("this program starts");
    if !child.status.success() {
        let said =
            [&child.stdout, &child.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
        println!("{name} with `{config}`: {}\n{}", child.status, said.concat());
    }
    child.status.success()
}

/// Runs the cases whose names have the first argument of the program in them, each in a process of its own.
///
/// # Panics
///
/// Where a process cannot be started, and in a process of a case that does not hold.
#[must_use]
pub fn main(cases: &[Case]) -> ExitCode {
    if !cfg!(target_os = "linux") {
        println!("not here: the driver is looked for by another name, in other places");
        return ExitCode::SUCCESS;
    }
    if let Ok(name) = env::var(CASE) {
        let case = cases.iter().find(|case| case.0 == name);
        case.expect("a case of this name").3();
        return ExitCode::SUCCESS;
    }
    let filter = env::args().nth(1).filter(|filter| !filter.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, library, config, _) in cases.iter().filter(|case| case.0.contains(&filter)) {
        let start = Instant::now();
        let ok = run(name, folder(*library).path(), config);
        let said = if ok { "ok" } else { "FAILED" };
        println!("test {name} ... {said} ({:.1} s)", start.elapsed().as_secs_f64());
        failed += usize::from(!ok);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
