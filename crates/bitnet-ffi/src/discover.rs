//! Where libraries of llama.cpp and bitnet.cpp may be, and where there are some.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Error, validate_ffi_library};

/// Variables that name a folder with libraries, or one above, in the order in which they count.
pub const VARIABLES: [&str; 3] = ["BITNET_CROSSVAL_LIBDIR", "BITNET_CPP_DIR", "BITNET_CPP_PATH"];
/// Variables that systems have for folders with libraries.
const SYSTEM_VARIABLES: [&str; 3] =
    ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"];
/// Where CMake and these projects put libraries, from their folder.
const BELOW: [&str; 10] = [
    "",
    "lib",
    "lib64",
    "bin",
    "build",
    "build/bin",
    "build/lib",
    "build/src",
    "build/3rdparty/llama.cpp/src",
    "build/3rdparty/llama.cpp/ggml/src",
];
/// Where BitNet.rs puts its build of bitnet.cpp, from the user's own folder.
const CACHE: &str = ".cache/bitnet_cpp";
/// Where systems have theirs.
const SYSTEM: [&str; 8] = [
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/homebrew/lib",
    "/opt/local/lib",
];

/// What a library is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// `libbitnet`: the C interface of bitnet.cpp.
    Bitnet,
    /// `libllama`.
    Llama,
    /// `libggml`, `libggml-base`, `libggml-cpu`, `libggml-cuda`, ...: what libllama is made of.
    Ggml,
}

/// A library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Library {
    /// What it is.
    pub name: Name,
    /// The file.
    #[serde(serialize_with = "display")]
    pub path: PathBuf,
    /// Whether programs can open it: it is no static archive.
    pub shared: bool,
}

/// A folder that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The folder.
    #[serde(serialize_with = "display")]
    pub path: PathBuf,
    /// Who named it: a variable, or `the system`.
    pub source: &'static str,
    /// Whether it is there.
    pub exists: bool,
}

/// What was looked at, and what was found, both in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Discovery {
    /// Folders.
    pub looked: Vec<Place>,
    /// Libraries.
    pub found: Vec<Library>,
}

/// What is not UTF-8 in a path is replaced.
fn display<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl Discovery {
    /// Looks where the environment and the system say.
    #[must_use]
    pub fn find() -> Discovery {
        Discovery::with(|name| env::var_os(name), &SYSTEM.map(PathBuf::from))
    }

    /// Looks where `variable` and `system` say.
    fn with(variable: impl Fn(&str) -> Option<OsString>, system: &[PathBuf]) -> Discovery {
        let mut found = Discovery::default();
        let folders = |name: &str| {
            let paths = variable(name).unwrap_or_default();
            let paths = env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
            paths.collect::<Vec<_>>()
        };
        for name in VARIABLES {
            for root in folders(name) {
                found.look_below(&root, name);
            }
        }
        for name in ["HOME", "USERPROFILE"] {
            for home in folders(name) {
                found.look_below(&home.join(CACHE), "the cache of BitNet.rs");
            }
        }
        for name in SYSTEM_VARIABLES {
            folders(name).into_iter().for_each(|folder| found.look(folder, name));
        }
        system.iter().for_each(|folder| found.look(folder.clone(), "the system"));
        found
    }

    fn look_below(&mut self, root: &Path, source: &'static str) {
        for below in BELOW {
            // Nothing added leaves a path as it is.
            let folder = if below.is_empty() { root.to_owned() } else { root.join(below) };
            self.look(folder, source);
        }
    }

    fn look(&mut self, path: PathBuf, source: &'static str) {
        if self.looked.iter().any(|place| place.path == path) {
            return;
        }
        let found = within(&path);
        self.looked.push(Place { path, source, exists: found.is_some() });
        self.found.extend(found.unwrap_or_default());
    }

    /// The first library that could be a second backend.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where there is none.
    pub fn backend(&self) -> Result<&Library, Error> {
        let looked = self.looked.iter().filter(|place| place.exists).count();
        best(&self.found).ok_or(Error::NotFound { looked })
    }
}

/// The library that is meant by a path: a file, or what is in a folder.
///
/// # Errors
///
/// [`Error::Read`] where there is none.
pub fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(path.to_owned());
    }
    let mut found = Discovery::default();
    found.look_below(path, "the user");
    let library = found.backend().map_err(|error| {
        read(std::io::Error::new(std::io::ErrorKind::NotFound, error.to_string()))
    })?;
    Ok(library.path.clone())
}

/// The library that could be a second backend: libllama, or the C interface of bitnet.cpp. Where none can, the first
/// that looks like it, of which there is something to say.
fn best(found: &[Library]) -> Option<&Library> {
    let backends = || found.iter().filter(|library| library.name != Name::Ggml);
    let shared = || backends().filter(|library| library.shared);
    // Others may lie there as well: for other systems, or of a name that is not theirs alone.
    let valid = shared().find(|library| validate_ffi_library(&library.path).is_ok());
    valid.or_else(|| shared().next()).or_else(|| backends().next())
}

/// The libraries in a folder by their names; nothing if there is no such folder.
pub(crate) fn within(folder: &Path) -> Option<Vec<Library>> {
    let entries = fs::read_dir(folder).ok()?;
    let mut found: Vec<_> = entries.filter_map(|entry| library(&entry.ok()?.path())).collect();
    found.sort_by(|a, b| (a.name, &a.path).cmp(&(b.name, &b.path)));
    Some(found)
}

/// `libllama.so`, `libggml-base.so.0`, `libllama.v0.5.0.so`, `libbitnet.1.dylib`, `llama.dll`, `libllama.a`, ...
fn library(path: &Path) -> Option<Library> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_prefix("lib").unwrap_or(file);
    let names = [("bitnet", Name::Bitnet), ("llama", Name::Llama), ("ggml", Name::Ggml)];
    let (rest, name) = names.into_iter().find_map(|(known, name)| {
        let rest = stem.strip_prefix(known)?;
        // Parts such as libllama-common are no library of their own; those of ggml are.
        let part = if name == Name::Ggml { &['.', '-'][..] } else { &['.'][..] };
        rest.starts_with(part).then_some((rest, name))
    })?;
    let shared = [".so", ".dylib", ".dll"].iter().any(|end| rest.ends_with(end)) || {
        // libllama.so.0.1
        let version = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '.');
        rest.split_once(".so.").is_some_and(|(_, text)| !text.is_empty() && version(text))
    };
    let archive = [".a", ".lib"].iter().any(|end| rest.ends_with(end));
    (shared || archive).then(|| Library { name, path: path.to_owned(), shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        fs::create_dir_all(folder).unwrap();
        names.iter().for_each(|name| fs::write(folder.join(name), "").unwrap());
    }

    #[test]
    fn libraries_are_known_by_their_names() {
        let is = |file: &str| library(Path::new(file)).map(|found| (found.name, found.shared));
        for (name, files) in [
            (
                Name::Llama,
                &["libllama.so", "libllama.so.0", "libllama.so.0.9.4", "libllama.v0.5.0.so"][..],
            ),
            (Name::Llama, &["libllama.dylib", "libllama.0.dylib", "llama.dll"]),
            (
                Name::Ggml,
                &["libggml.so", "libggml-base.so.0", "libggml-cpu-haswell.so", "ggml-cuda.dll"],
            ),
            (Name::Bitnet, &["libbitnet.so", "bitnet.dll"]),
        ] {
            for file in files {
                assert_eq!(is(file), Some((name, true)), "{file}");
            }
        }
        for file in ["libllama.a", "llama.lib"] {
            assert_eq!(is(file), Some((Name::Llama, false)), "{file}");
        }
        for file in [
            "libllama.txt",
            "libllamas.so",
            "libllama-common.so",
            "libc.so.6",
            "ggml.h",
            "libllama.so.",
            "libllama.so.old",
            "bitnet.so.md",
            "llama",
            "",
        ] {
            assert_eq!(is(file), None, "{file}");
        }
    }

    #[test]
    fn folders_are_looked_at_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |below: &str| folder.path().join(below);
        touch(&at("explicit"), &["libllama.so", "libggml.so"]);
        touch(&at("cpp/build/3rdparty/llama.cpp/src"), &["libllama.so"]);
        touch(&at("old/build/bin"), &["libbitnet.so", "libllama.so"]);
        touch(&at("home/.cache/bitnet_cpp/lib"), &["libllama.so"]);
        touch(&at("loader"), &["libllama.so.0"]);
        touch(&at("system"), &["libllama.a"]);
        let variable = |name: &str| {
            let folders = match name {
                "BITNET_CROSSVAL_LIBDIR" => vec![at("explicit")],
                "BITNET_CPP_DIR" => vec![at("missing"), at("cpp")],
                "BITNET_CPP_PATH" => vec![at("old")],
                "HOME" => vec![at("home")],
                // What was looked at is not looked at again.
                "LD_LIBRARY_PATH" => vec![at("loader"), at("explicit")],
                _ => return None,
            };
            Some(env::join_paths(folders).unwrap())
        };
        let found = Discovery::with(variable, &[at("system"), at("nowhere")]);
        let files: Vec<_> = found
            .found
            .iter()
            .map(|library| library.path.strip_prefix(folder.path()).unwrap())
            .collect();
        assert_eq!(
            files,
            [
                "explicit/libllama.so",
                "explicit/libggml.so",
                "cpp/build/3rdparty/llama.cpp/src/libllama.so",
                "old/build/bin/libbitnet.so",
                "old/build/bin/libllama.so",
                "home/.cache/bitnet_cpp/lib/libllama.so",
                "loader/libllama.so.0",
                "system/libllama.a",
            ]
            .map(Path::new)
        );
        assert_eq!(found.backend().unwrap().path, at("explicit/libllama.so"));
        let place = |path: PathBuf| found.looked.iter().find(|place| place.path == path).unwrap();
        assert_eq!(place(at("explicit")).source, "BITNET_CROSSVAL_LIBDIR");
        assert!(place(at("explicit")).exists && !place(at("nowhere")).exists);
        assert!(!place(at("missing/build/bin")).exists);
        assert_eq!(place(at("system")).source, "the system");
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["found"][0]["name"], "llama");
        assert_eq!(json["looked"][0]["exists"], true);
    }

    #[test]
    fn an_archive_is_the_last_choice() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["libllama.a"]);
        let variable = |name: &str| (name == "BITNET_CPP_DIR").then(|| folder.path().into());
        let found = Discovery::with(variable, &[]);
        assert!(!found.backend().unwrap().shared);
        touch(folder.path(), &["libllama.so"]);
        assert!(Discovery::with(variable, &[]).backend().unwrap().shared);
    }

    #[test]
    fn nothing_found_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["libggml.so"]);
        let found = Discovery::with(|_| None, &[folder.path().to_owned()]);
        let error = found.backend().unwrap_err().to_string();
        assert!(error.contains("in 1 folders") && error.contains("BITNET_CPP_DIR"), "{error}");
        // That of this machine, whatever it is.
        assert!(!Discovery::find().looked.is_empty());
    }

    #[test]
    fn a_path_is_a_file_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = resolve(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no library"), "{error}");
        touch(&folder.path().join("build/bin"), &["libllama.so"]);
        let library = folder.path().join("build/bin/libllama.so");
        assert_eq!(resolve(folder.path()).unwrap(), library);
        assert_eq!(resolve(&library).unwrap(), library);
        assert!(matches!(resolve(Path::new("no/such")), Err(Error::Read { .. })));
    }
}
