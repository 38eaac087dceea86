//! Models: GGUF files and Hugging Face folders, read, loaded and run.

use std::path::Path;

use bitnet_gguf::Gguf;
use bitnet_inference::{Checkpoint, Contents, Engine, Error, Input, Options, TernaryStatistics};

use super::folder;

/// A GGUF file as a model.
///
/// # Errors
///
/// Where it is damaged or cannot be loaded.
pub fn model(input: &[u8]) -> Result<(), Error> {
    let gguf = Gguf::from_vec("input.gguf", input.to_vec()).map_err(Error::from);
    all(gguf.and_then(Checkpoint::from_gguf), "input.gguf")
}

/// A folder whose `model.safetensors` is the input.
///
/// # Errors
///
/// As [`model`].
pub fn safetensors(input: &[u8]) -> Result<(), Error> {
    of_folder("model.safetensors", input)
}

/// A folder whose `model.safetensors.index.json` is the input.
///
/// # Errors
///
/// As [`model`].
pub fn index(input: &[u8]) -> Result<(), Error> {
    of_folder("model.safetensors.index.json", input)
}

/// A folder whose `config.json` is the input.
///
/// # Errors
///
/// As [`model`].
pub fn config(input: &[u8]) -> Result<(), Error> {
    of_folder("config.json", input)
}

/// A sound folder with one file that is the input.
fn of_folder(name: &str, input: &[u8]) -> Result<(), Error> {
    let path = folder::with(name, input);
    let checkpoint = Checkpoint::open(&path);
    for tensor in checkpoint.iter().flat_map(Checkpoint::tensors) {
        let file = checkpoint.as_ref().map(|checkpoint| checkpoint.file_of(tensor));
        let parent = file.as_ref().ok().and_then(|file| Path::new(file).parent());
        assert_eq!(parent, Some(&*path), "{file:?} was opened");
    }
    all(checkpoint, &path.display().to_string())
}

/// Reads all of a model, loads it and runs it. Errors name it.
fn all(checkpoint: Result<Checkpoint, Error>, name: &str) -> Result<(), Error> {
    let named = |error: &Error| assert!(error.to_string().contains(name), "{error}");
    let checkpoint = checkpoint.inspect_err(named)?;
    assert_eq!(checkpoint.sha256().len(), 64);
    let _ = (checkpoint.parameters(), checkpoint.file_sizes());
    let parts = [
        checkpoint.architecture().map(drop),
        checkpoint.config().map(drop),
        checkpoint.check_tokenizer().map(drop),
        checkpoint.metadata().map(drop),
        checkpoint.size().map(drop),
        contents(&checkpoint),
        run(checkpoint),
    ];
    parts.iter().filter_map(|part| part.as_ref().err()).for_each(named);
    parts.into_iter().collect()
}

/// Reads what every tensor holds.
fn contents(checkpoint: &Checkpoint) -> Result<(), Error> {
    let contents = Contents::new(checkpoint, None)?;
    let mut all = Ok(());
    for tensor in checkpoint.tensors() {
        all = all.and(contents.is_ternary(tensor).and_then(|ternary| {
            match ternary {
                true => contents.matrix(tensor).map(|matrix| {
                    assert_eq!(matrix.weights.len(), matrix.rows * matrix.cols);
                    assert!(matrix.scale.is_finite());
                    let _ = TernaryStatistics::of(&matrix);
                }),
                false => contents
                    .pieces(tensor)?
                    .try_for_each(|rows| contents.numbers(tensor, rows).map(drop)),
            }
        }));
    }
    all
}

/// Loads a model and computes a token.
fn run(checkpoint: Checkpoint) -> Result<(), Error> {
    let options = Options { threads: Some(1), context: Some(16), ..Options::default() };
    let engine = Engine::of(checkpoint, &options)?;
    let mut session = engine.session(1)?;
    let logits = session.run(&[Input { sequence: 0, token: 0, logits: true }])?;
    assert_eq!(logits.len(), engine.vocabulary());
    Ok(())
}
