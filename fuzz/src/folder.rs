//! A Hugging Face folder on disk, made once in a thread and filled again for each input.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A complete model: its settings, its weights, its tokenizer.
const SOUND: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../seeds/config/bitnet.json")),
    ("model.safetensors", include_bytes!("../seeds/safetensors/bitnet.safetensors")),
    ("tokenizer.json", include_bytes!("../seeds/tokenizer/llama2.json")),
];

thread_local! {
    static OUTER: TempDir = TempDir::new().expect("a temporary folder");
}

/// A folder with a sound model, of which the file `name` has other contents. Beside and in it are
/// weights that are not its own.
pub(crate) fn with(name: &str, contents: &[u8]) -> PathBuf {
    let outer = OUTER.with(|folder| folder.path().to_owned());
    let (folder, inner) = (outer.join("model"), outer.join("model/inner"));
    fs::create_dir_all(&inner).expect("room on the disk");
    let (_, weights) = SOUND[1];
    for foreign in [&outer, &inner] {
        write(&foreign.join("foreign.safetensors"), weights);
    }
    for (other, sound) in SOUND.iter().filter(|(other, _)| *other != name) {
        write(&folder.join(other), sound);
    }
    // The only file that need not be there.
    drop(fs::remove_file(folder.join("model.safetensors.index.json")));
    write(&folder.join(name), contents);
    folder
}

/// Writes what is not there yet: most files stay as they are.
fn write(path: &Path, contents: &[u8]) {
    if fs::read(path).is_ok_and(|found| found == contents) {
        return;
    }
    fs::write(path, contents).expect("room on the disk");
}
