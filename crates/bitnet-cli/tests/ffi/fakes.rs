//! Small libraries, built by the system's C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bitnet_ffi::{Error, Host, Patience, Reference};
use tempfile::TempDir;

/// Where the sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ffi");

/// A folder with a library.
pub(crate) struct Fake {
    pub(crate) folder: TempDir,
    pub(crate) library: PathBuf,
}

/// Whether there is a C compiler. A test that does nothing without is news.
pub(crate) fn can_build() -> bool {
    let found =
        Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("BITNET_REQUIRE_CC").is_none(), "there is no C compiler");
        eprintln!("not tested: there is no C compiler");
    }
    found
}

impl Fake {
    /// `llama.c` with these macros.
    pub(crate) fn llama(macros: &[&str]) -> Fake {
        Fake::build("llama.c", "libllama.so", macros)
    }

    /// `bitnet.c` with these macros.
    pub(crate) fn bitnet(macros: &[&str]) -> Fake {
        Fake::build("bitnet.c", "libbitnet.so", macros)
    }

    fn build(source: &str, name: &str, macros: &[&str]) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join(name);
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library);
        command.args(macros.iter().map(|name| format!("-D{name}")));
        assert!(command.arg(Path::new(SOURCES).join(source)).status().unwrap().success());
        Fake { folder, library }
    }

    /// Opens it, and loads a file that it does not read.
    pub(crate) fn open(&self) -> Result<Reference, Error> {
        self.open_within(Duration::from_secs(60))
    }

    pub(crate) fn open_within(&self, patience: Duration) -> Result<Reference, Error> {
        Reference::open(&self.library, host(), Patience { open: patience, call: patience })
    }

    /// Something that is there to be loaded.
    pub(crate) fn model(&self) -> PathBuf {
        let path = self.folder.path().join("model.gguf");
        std::fs::write(&path, "").unwrap();
        path
    }
}

pub(crate) fn host() -> Host {
    Host { program: env!("CARGO_BIN_EXE_bitnet").into(), args: vec!["ffi-host".to_owned()] }
}
