//! Hugging Face folders on disk, each made once in a process and filled again for each input.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard};

use tempfile::TempDir;

/// A complete model: its settings, its weights, its tokenizer.
const CONFIG: &[u8] = include_bytes!("../seeds/config/bitnet.json");
const WEIGHTS: &[u8] = include_bytes!("../seeds/safetensors/bitnet.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../seeds/tokenizer/llama2.json");

/// One folder for all inputs; tests run side by side.
static FOLDER: LazyLock<Mutex<TempDir>> =
    LazyLock::new(|| Mutex::new(TempDir::new().expect("a temporary folder")));

/// A folder with a model in it, beside and above files that are not its own.
pub(crate) struct Folder(MutexGuard<'static, TempDir>);

impl Folder {
    /// The folder with a sound model; `name` has other contents.
    pub(crate) fn with(name: &str, contents: &[u8]) -> Folder {
        // What a test that failed has left is written again.
        let folder = Folder(FOLDER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let inner = folder.path().join("inner");
        fs::create_dir_all(&inner).expect("room on the disk");
        for foreign in [folder.0.path(), &inner] {
            write(&foreign.join("foreign.safetensors"), WEIGHTS);
        }
        write(&folder.path().join("config.json"), CONFIG);
        write(&folder.path().join("tokenizer.json"), TOKENIZER);
        write(&folder.path().join("model.safetensors"), WEIGHTS);
        let index = folder.path().join("model.safetensors.index.json");
        drop(fs::remove_file(index));
        write(&folder.path().join(name), contents);
        folder
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("model")
    }
}

/// Writes what is not there yet: most files stay as they are.
fn write(path: &Path, contents: &[u8]) {
    if fs::read(path).is_ok_and(|found| found == contents) {
        return;
    }
    fs::write(path, contents).expect("room on the disk");
}
