//! Foreign libraries, opened. All `unsafe` of this crate is here and below, and runs in a process of its own.

#![expect(unsafe_code, reason = "foreign functions are called")]

mod kernels;
mod llama;
mod shim;

use std::collections::HashSet;
#[cfg(unix)]
use std::ffi::c_int;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};

pub(crate) use kernels::Kernels;
use libloading::Library;
pub(crate) use llama::Llama;
pub(crate) use shim::Shim;

use crate::discover;
use crate::symbols::analyze_library;

#[cfg(unix)]
unsafe extern "C" {
    fn _exit(code: c_int) -> !;
    fn dup2(from: c_int, to: c_int) -> c_int;
}

/// Ends this process at once: nothing is run that waits for its end.
#[cfg(unix)]
pub(crate) fn end(code: c_int) -> ! {
    // SAFETY: it takes any number, and does not come back.
    unsafe { _exit(code) }
}

#[cfg(not(unix))]
pub(crate) fn end(code: i32) -> ! {
    std::process::exit(code)
}

/// Puts nothing in place of standard input.
#[cfg(unix)]
pub(crate) fn nothing_to_read() -> std::io::Result<()> {
    let nothing = std::fs::File::open("/dev/null")?;
    // SAFETY: both are open; standard input is whatever it is.
    let put = unsafe { dup2(std::os::fd::AsRawFd::as_raw_fd(&nothing), 0) };
    if put == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// What a library points to and only it knows.
type Opaque = *mut c_void;

/// A library with those of its folder that it needs, opened, in the order in which symbols are looked for.
#[derive(Debug)]
pub(crate) struct Libraries {
    opened: Vec<(PathBuf, Library)>,
}

impl Libraries {
    /// Opens a library. What it needs and lies beside it is opened before: so nobody has to tell the system
    /// where that is.
    pub(crate) fn open(path: &Path) -> Result<Libraries, String> {
        let mut libraries = Libraries { opened: Vec::new() };
        libraries.open_with_needed(path, &mut HashSet::new())?;
        Ok(libraries)
    }

    fn open_with_needed(
        &mut self,
        path: &Path,
        begun: &mut HashSet<PathBuf>,
    ) -> Result<(), String> {
        if !begun.insert(path.to_owned()) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let needed = analyze_library(path).map_err(|error| error.to_string())?.needed;
        for library in needed {
            let beside = Path::new(&library).file_name().map(|name| folder.join(name));
            if let Some(beside) = beside.filter(|beside| beside.is_file()) {
                self.open_with_needed(&beside, begun)?;
            }
        }
        // SAFETY: what a library does when it is opened is not known. It is opened because its user asked for
        // it, in a process that has nothing to lose.
        let library = unsafe { Library::new(path) }.map_err(|error| said(path, &error))?;
        // Those that were asked for come first.
        self.opened.insert(0, (path.to_owned(), library));
        Ok(())
    }

    /// Opens a library more, whose symbols come last.
    fn add(&mut self, path: &Path) -> Result<(), String> {
        let mut more = Libraries::open(path)?;
        self.opened.append(&mut more.opened);
        Ok(())
    }

    /// The folder of the library that was asked for.
    fn folder(&self) -> PathBuf {
        let first = self.opened.first().and_then(|(path, _)| path.parent());
        first.unwrap_or(Path::new(".")).to_owned()
    }

    fn has(&self, name: &str) -> bool {
        // SAFETY: nothing is done with what is found.
        unsafe { self.get::<Opaque>(name) }.is_ok()
    }

    /// A function, looked up when it is asked for: so one that is never called need not be there.
    ///
    /// # Safety
    ///
    /// `T` must be a pointer to a function of the type that the function has.
    unsafe fn get<T: Copy>(&self, name: &str) -> Result<T, String> {
        for (_, library) in &self.opened {
            // SAFETY: as of this function.
            if let Ok(symbol) = unsafe { library.get::<T>(name) } {
                return Ok(*symbol);
            }
        }
        Err(format!("it has no function `{name}`"))
    }

    /// What a function without parameters says.
    fn text(&self, name: &str) -> Option<String> {
        // SAFETY: all functions that are asked this way take nothing and give a string that lasts.
        let text = unsafe {
            let function = self.get::<unsafe extern "C" fn() -> *const c_char>(name).ok()?;
            let text = function();
            (!text.is_null()).then(|| CStr::from_ptr(text))
        };
        text.map(|text| text.to_string_lossy().into_owned())
    }

    /// The version of llama.cpp and of ggml, as far as they tell.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        ["llama_version", "ggml_version", "ggml_commit"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.text(name)?)))
            .collect()
    }

    /// Has ggml open the backends beside it, where they are libraries of their own.
    fn load_backends(&self) -> Result<(), String> {
        let name = "ggml_backend_load_all_from_path";
        if self.has(name) {
            let folder = c_path(&self.folder())?;
            // SAFETY: it takes a path, and has since it is there.
            unsafe {
                let load: unsafe extern "C" fn(*const c_char) = self.get(name)?;
                load(folder.as_ptr());
            }
        }
        Ok(())
    }

    /// The libraries of ggml for processors that lie beside this one.
    fn processors(&self) -> Vec<PathBuf> {
        let found = discover::within(&self.folder()).unwrap_or_default();
        let paths = found.into_iter().map(|library| library.path);
        let is_cpu = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains("ggml-cpu"))
        };
        paths.filter(is_cpu).collect()
    }
}

fn said(path: &Path, error: &libloading::Error) -> String {
    let mut text = format!("cannot open {}: {error}", path.display());
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// A path as C takes it.
fn c_path(path: &Path) -> Result<CString, String> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    #[cfg(not(unix))]
    let bytes = path
        .to_str()
        .ok_or_else(|| format!("{} is not UTF-8, as the library wants it", path.display()))?
        .as_bytes()
        .to_vec();
    CString::new(bytes).map_err(|_| format!("{} has a zero in it", path.display()))
}

/// The tokens that a function wrote where there was room for them: as many as it says.
fn ids(function: &str, mut tokens: Vec<i32>, count: i32) -> Result<Vec<u32>, String> {
    let written = usize::try_from(count).ok().filter(|count| *count <= tokens.len());
    tokens.truncate(written.ok_or_else(|| format!("`{function}` gave {count}"))?);
    let id = |id| u32::try_from(id).map_err(|_| format!("it has a token {id}"));
    tokens.into_iter().map(id).collect()
}

/// Something for C as a number of it.
fn int(n: usize) -> Result<i32, String> {
    i32::try_from(n).map_err(|_| format!("{n} is more than the library can take"))
}
