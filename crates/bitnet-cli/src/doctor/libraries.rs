//! Libraries of llama.cpp and bitnet.cpp on this machine. This version only says that they are there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Folders that the user names for them.
const VARIABLES: [&str; 4] =
    ["BITNET_CPP_DIR", "BITNET_CPP_PATH", "BITNET_CROSSVAL_LIBDIR", "LD_LIBRARY_PATH"];
/// Where CMake and these projects put libraries, from there.
const BELOW: [&str; 6] = [
    "",
    "lib",
    "build",
    "build/bin",
    "build/3rdparty/llama.cpp/src",
    "build/3rdparty/llama.cpp/ggml/src",
];
/// Where systems have theirs.
const SYSTEM: [&str; 5] = [
    "/usr/lib",
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/homebrew/lib",
];
/// How their names start, after `lib`.
const NAMES: [&str; 3] = ["llama", "ggml", "bitnet"];

/// What was looked at, and what was found.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Libraries {
    /// Folders that exist, in order.
    pub(super) searched: Vec<String>,
    /// What is not UTF-8 in a path is replaced.
    pub(super) found: Vec<String>,
}

impl Libraries {
    pub(super) fn find() -> Libraries {
        let named = VARIABLES.iter().filter_map(env::var_os);
        let named = named.flat_map(|paths| env::split_paths(&paths).collect::<Vec<_>>());
        let named = named.filter(|path| !path.as_os_str().is_empty());
        let below = named.flat_map(|path| BELOW.map(|sub| path.join(sub)));
        Libraries::within(below.chain(SYSTEM.map(PathBuf::from)))
    }

    fn within(folders: impl Iterator<Item = PathBuf>) -> Libraries {
        let (mut searched, mut found) = (Vec::new(), Vec::new());
        for folder in folders {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            let mut ours: Vec<_> = paths.filter(|path| is_library(path)).collect();
            ours.sort();
            found.extend(ours.iter().map(|path| path.display().to_string()));
            searched.push(folder.display().to_string());
        }
        Libraries { searched, found }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        match self.found.is_empty() {
            true => "no libraries of llama.cpp or bitnet.cpp found".to_owned(),
            false => format!("{} (this version uses none)", self.found.join(", ")),
        }
    }
}

/// `libllama.so`, `libggml-base.so.0`, `libbitnet.dylib`, `llama.dll`, `libllama.a`, ...
fn is_library(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let stem = name.strip_prefix("lib").unwrap_or(name);
    let known = NAMES.iter().any(|known| {
        let rest = stem.strip_prefix(known);
        rest.is_some_and(|rest| rest.starts_with(['.', '-']))
    });
    let kind = [".so", ".dylib", ".dll", ".a", ".lib"].iter().any(|end| name.ends_with(end));
    // libllama.so.3.1
    let version = name
        .split_once(".so.")
        .is_some_and(|(_, version)| version.chars().all(|c| c.is_ascii_digit() || c == '.'));
    known && (kind || version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let ours =
            ["libbitnet.dylib", "libggml-base.so.0", "libllama.a", "libllama.so", "llama.dll"];
        let others = ["libllama.txt", "libc.so.6", "libllamas.so", "ggml.h", "bitnet.so.md"];
        for name in ours.iter().chain(&others) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let missing = folder.path().join("missing");
        let found = Libraries::within([missing, folder.path().to_owned()].into_iter());
        assert_eq!(found.searched, [folder.path().display().to_string()]);
        assert_eq!(found.found, ours.map(|name| folder.path().join(name)));
        assert!(found.text().contains("libllama.so") && found.text().contains("uses none"));
        let none = Libraries { searched: Vec::new(), found: Vec::new() };
        assert!(none.text().contains("found"));
    }
}
