//! Which files of a repository are a model.

use std::collections::BTreeMap;

use super::Error;

/// What stands after the colon where a repository has GGUF files and the others are meant.
const SAFETENSORS: &str = "safetensors";

/// Files beside weights that say what they are.
const BESIDE: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// A model among the files of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// What stands after the colon: the file, or the first of its parts; nothing for a folder of
    /// safetensors.
    pub(super) file: Option<String>,
    /// What is needed to run it, in order.
    pub(super) files: Vec<String>,
    /// How many parts it was split into.
    pub(super) parts: usize,
}

/// All models among these files, those of GGUF first.
pub(super) fn models<'a>(files: impl Iterator<Item = &'a str>) -> Vec<Choice> {
    let mut gguf: BTreeMap<(&str, usize), Vec<String>> = BTreeMap::new();
    let (mut weights, mut beside) = (Vec::new(), Vec::new());
    for file in files {
        match file.strip_suffix(".gguf") {
            Some(stem) => gguf.entry(split(stem)).or_default().push(file.to_owned()),
            // Those in folders are of other tools.
            None if file.ends_with(".safetensors") && !file.contains('/') => {
                weights.push(file.to_owned());
            }
            None if BESIDE.contains(&file) => beside.push(file.to_owned()),
            None => {}
        }
    }
    let gguf = gguf.into_iter().map(|((_, parts), mut files)| {
        files.sort();
        Choice { file: files.first().cloned(), files, parts }
    });
    let config = beside.iter().any(|file| file == "config.json");
    let folder = (config && !weights.is_empty()).then(|| {
        let mut files = [beside, weights].concat();
        files.sort();
        Choice { file: None, files, parts: 1 }
    });
    gguf.chain(folder).collect()
}

/// The model that is meant: by its file, by what its quantisation is called, or the only one.
pub(super) fn choose(
    repository: &str,
    files: &[String],
    wanted: Option<&str>,
) -> Result<Choice, Error> {
    let models = models(files.iter().map(String::as_str));
    let repository = repository.to_owned();
    let names = |models: &[Choice]| -> Vec<String> {
        models.iter().map(|model| model.file.clone().unwrap_or(SAFETENSORS.to_owned())).collect()
    };
    if models.is_empty() {
        return Err(Error::NoModel { repository });
    }
    let fits = |model: &&Choice| match (wanted, &model.file) {
        (None, file) => file.is_some(),
        (Some(wanted), None) => wanted == SAFETENSORS,
        (Some(wanted), Some(file)) => {
            model.files.iter().any(|file| file == wanted) || is_called(file, wanted)
        }
    };
    let mut found: Vec<_> = models.iter().filter(fits).cloned().collect();
    if found.is_empty() && wanted.is_none() {
        found = models.clone();
    }
    // A whole name is clear, whatever else ends in the same way.
    if let Some(exact) = found.iter().find(|model| model.files.iter().any(|f| Some(&**f) == wanted))
    {
        return Ok(exact.clone());
    }
    match (found.len(), wanted) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(wanted)) => {
            Err(Error::NotThere { repository, wanted: wanted.to_owned(), names: names(&models) })
        }
        _ => Err(Error::Several { repository, names: names(&found) }),
    }
}

/// Whether a GGUF file is of this quantisation: its name ends so, or its folder is called so.
fn is_called(file: &str, quantisation: &str) -> bool {
    let file = file.to_ascii_lowercase();
    let quantisation = quantisation.to_ascii_lowercase();
    let (stem, _) = split(file.strip_suffix(".gguf").unwrap_or(&file));
    let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let before = name.strip_suffix(&quantisation);
    before.is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_']))
        || folder.rsplit('/').next() == Some(&quantisation)
}

/// `name-00001-of-00003` as the name and the number of parts.
fn split(stem: &str) -> (&str, usize) {
    let parts = || {
        let (rest, parts) = stem.rsplit_once("-of-")?;
        let (name, part) = rest.rsplit_once('-')?;
        let number = |digits: &str| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        (number(part) && number(parts)).then(|| Some((name, parts.parse().ok()?)))?
    };
    parts().unwrap_or((stem, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], wanted: Option<&str>) -> Result<Vec<String>, Error> {
        let files: Vec<_> = files.iter().map(|&file| file.to_owned()).collect();
        choose("o/n", &files, wanted).map(|choice| choice.files)
    }

    #[test]
    fn the_only_model_needs_no_name() {
        assert_eq!(chosen(&["README.md", "a.gguf"], None).unwrap(), ["a.gguf"]);
        let files = ["config.json", "model.safetensors", "original/x.safetensors", "LICENSE"];
        assert_eq!(chosen(&files, None).unwrap(), ["config.json", "model.safetensors"]);
        let both = ["a.gguf", "config.json", "model.safetensors"];
        assert_eq!(chosen(&both, None).unwrap(), ["a.gguf"]);
        assert_eq!(chosen(&both, Some("safetensors")).unwrap(), both[1..]);
        assert!(matches!(chosen(&["README.md"], None), Err(Error::NoModel { .. })));
        assert!(matches!(chosen(&["model.safetensors"], None), Err(Error::NoModel { .. })));
    }

    #[test]
    fn quantisations_are_named_as_they_are_written() {
        let files = [
            "m-f16.gguf",
            "m-i2_s.gguf",
            "m.Q4_K.gguf",
            "Q8_0/m-00001-of-00002.gguf",
            "Q8_0/m-00002-of-00002.gguf",
        ];
        for (wanted, file) in [("i2_s", 1), ("I2_S", 1), ("q4_k", 2), ("m-f16.gguf", 0)] {
            assert_eq!(chosen(&files, Some(wanted)).unwrap(), [files[file]], "{wanted}");
        }
        for whole in ["q8_0", "Q8_0/m-00002-of-00002.gguf", "Q8_0/m-00001-of-00002.gguf"] {
            assert_eq!(chosen(&files, Some(whole)).unwrap(), files[3..], "{whole}");
        }
        let Err(Error::Several { names, .. }) = chosen(&files, None) else { panic!("chose one") };
        assert_eq!(names.len(), 4);
        assert!(matches!(chosen(&files, Some("q2")), Err(Error::NotThere { .. })));
        assert!(matches!(chosen(&files, Some("2_s")), Err(Error::NotThere { .. })));
    }

    #[test]
    fn a_whole_name_is_clear() {
        let files = ["q8_0.gguf", "m-q8_0.gguf"];
        assert_eq!(chosen(&files, Some("q8_0.gguf")).unwrap(), ["q8_0.gguf"]);
        assert!(matches!(chosen(&files, Some("q8_0")), Err(Error::Several { .. })));
    }
}
