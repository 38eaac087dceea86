//! What all tests of models use. Models are compiled in, so that test programs run alone.

use bitnet_gguf::Gguf;
use bitnet_inference::{CHUNK, Engine, Input, Options};

/// The trained demo model.
pub(crate) static DEMO: &[u8] = include_bytes!("../../../../models/bitnet-tales-i2_s.gguf");

/// A model loaded from bytes.
pub(crate) fn load(bytes: &'static [u8], options: &Options) -> Engine {
    let gguf = Gguf::from_static("model.gguf", bytes).unwrap();
    Engine::load(gguf, options).unwrap()
}

/// The logits after each token `[tokens, vocabulary]`.
pub(crate) fn logits(engine: &Engine, ids: &[u32]) -> Vec<f32> {
    let mut session = engine.session(1).unwrap();
    let mut logits = Vec::new();
    for chunk in ids.chunks(CHUNK) {
        let inputs: Vec<_> =
            chunk.iter().map(|&token| Input { sequence: 0, token, logits: true }).collect();
        logits.extend_from_slice(session.run(&inputs).unwrap());
    }
    logits
}
