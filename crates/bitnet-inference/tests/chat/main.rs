//! Chat templates: what they print against transformers, what stops them, and what stays text.
//!
//! The templates in `templates/` are in the shape of those of well-known models; `make.py` says what
//! transformers makes of them.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod attacks;
mod control;
mod sources;
mod vectors;

use std::sync::LazyLock;

use bitnet_inference::chat::{ChatError, ChatTemplate, Conversation, Moment, Prompt};
use bitnet_inference::tokenizer::{Tokenizer, TokenizerFiles, Vocabulary};

/// The demo model's tokenizer: `<|begin_of_text|>`, `<|end_of_text|>` and `<|eot_id|>` are 2040, 2041 and 2044.
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let tokenizer = include_bytes!("../data/tokenizer.json");
    let files = TokenizerFiles { tokenizer, ..TokenizerFiles::default() };
    Tokenizer::new(Vocabulary::from_json(&files).unwrap()).unwrap()
});

/// The third of February 2026, 15:04:05.
fn now() -> Moment {
    Moment::new(1_770_131_045)
}

fn template(text: &str) -> ChatTemplate {
    let special = [("bos_token", "<bos>"), ("eos_token", "<eos>")];
    ChatTemplate::new("test", text, special.map(|(name, text)| (name, text.to_owned())).to_vec())
}

/// What a template makes of one message.
fn render(text: &str, message: &str) -> Result<Prompt, ChatError> {
    let messages = vec![Conversation::message("user", message)];
    template(text).render(&Conversation::new(messages, now()), &TOKENIZER)
}
