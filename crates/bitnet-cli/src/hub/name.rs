//! Names of repositories, of models in them, and of files. Those that come from outside become paths
//! here or not at all.

use std::fmt;
use std::str::FromStr;

/// Characters of an owner or a name at most, as the hub has it.
const LONGEST: usize = 96;

/// `ORG/NAME[:FILE]`: a repository of the hub, and which model of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// `ORG/NAME`.
    pub(super) repository: String,
    /// A file, or its quantisation.
    pub(super) file: Option<String>,
}

/// Why a text is no [`Name`].
#[derive(Debug, thiserror::Error)]
#[error(
    "a model of the hub is ORG/NAME or ORG/NAME:FILE, with letters, digits, `-`, `_` and `.` in ORG and NAME"
)]
pub(crate) struct BadName;

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Name, BadName> {
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file.to_owned())),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/').ok_or(BadName)?;
        match is_part(owner) && is_part(name) && file.as_deref() != Some("") {
            true => Ok(Name { repository: repository.to_owned(), file }),
            false => Err(BadName),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}:{file}", self.repository),
            None => f.write_str(&self.repository),
        }
    }
}

impl Name {
    /// The folder of the repository in a cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.repository.replace('/', "--"))
    }

    /// The repository that has this folder in a cache.
    pub(super) fn of_folder(folder: &str) -> Option<Name> {
        let (owner, name) = folder.strip_prefix("models--")?.split_once("--")?;
        (is_part(owner) && is_part(name))
            .then(|| Name { repository: format!("{owner}/{name}"), file: None })
    }
}

/// Whether this can be an owner or a name of a repository.
fn is_part(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let inside = !part.contains("--") && !part.contains("..") && part.chars().all(known);
    let edges = !part.starts_with(['-', '.']) && !part.ends_with(['-', '.']);
    inside && edges && (1..=LONGEST).contains(&part.len())
}

/// Whether this is a path that stays where it is put, on every system: names with `/` between them.
#[cfg(any(feature = "hub", test))]
pub(super) fn is_inside(path: &str) -> bool {
    let odd = |c: char| c.is_control() || "\\:*?\"<>|".contains(c);
    // Windows drops dots and spaces at the end.
    let plain = |name: &str| !name.is_empty() && !name.ends_with(['.', ' ']) && !name.contains(odd);
    path.split('/').all(plain)
}

/// Whether this is a commit: the 40 digits of a SHA-1.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Lower-case hexadecimal.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_two_parts_and_perhaps_a_file() {
        let name: Name = "microsoft/bitnet-b1.58-2B-4T-gguf:i2_s".parse().unwrap();
        assert_eq!(name.repository, "microsoft/bitnet-b1.58-2B-4T-gguf");
        assert_eq!(name.file.as_deref(), Some("i2_s"));
        assert_eq!(name.to_string(), "microsoft/bitnet-b1.58-2B-4T-gguf:i2_s");
        assert_eq!(name.folder(), "models--microsoft--bitnet-b1.58-2B-4T-gguf");
        assert_eq!(Name::of_folder(&name.folder()).unwrap().repository, name.repository);
        for bad in [
            "", "model", "a/b/c", "/b", "a/", "../b", "a/..", "./b", "a/b:", "a--b/c", "a/-b",
            "a b/c", "a\\b/c", "ä/b", "C:/b", "a/b\n", "~/b",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert!(format!("a/{}", "b".repeat(97)).parse::<Name>().is_err());
        for bad in ["models--a", "models--..--b", "models--a--b--c", "datasets--a--b", "a--b"] {
            assert!(Name::of_folder(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn paths_that_leave_their_folder_are_none() {
        for good in ["a.gguf", "Q4_K_M/a-00001-of-00002.gguf", "..a", "a b.json", "ä"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "..", "../a", "a/../b", ".", "a/./b", "a\\b", "C:a", "a\0",
            "a\n", "a.", "a ", "a:b",
        ] {
            assert!(!is_inside(bad), "{bad:?}");
        }
    }
}
