//! Chat templates: run on a conversation that has what templates look for.

use bitnet_inference::chat::{ChatError, ChatTemplate, Conversation, Data, Moment};
use bitnet_inference::tokenizer::{Tokenizer, TokenizerFiles, Vocabulary};

/// Any vocabulary.
const TOKENIZER: &[u8] = include_bytes!("../seeds/tokenizer/byte_level.json");

/// Makes a prompt of a conversation, and tokens of that.
///
/// # Errors
///
/// Where the template is damaged, refuses the conversation, or does not end.
pub fn template(input: &[u8]) -> Result<(), ChatError> {
    let files = TokenizerFiles { tokenizer: TOKENIZER, ..TokenizerFiles::default() };
    let vocabulary = Vocabulary::from_json(&files).expect("it is a sound seed");
    let tokenizer = Tokenizer::new(vocabulary).expect("it is a sound seed");
    let text = String::from_utf8_lossy(input);
    let names = [("bos_token", "<s>".to_owned()), ("eos_token", "</s>".to_owned())];
    let template = ChatTemplate::new("a template", text, names.to_vec());
    let map = |entries: &[(&str, &str)]| {
        Data::Map(entries.iter().map(|(key, text)| ((*key).to_owned(), (*text).into())).collect())
    };
    let mut conversation = Conversation::new(
        vec![
            Conversation::message("system", "Be brief."),
            Conversation::message("user", "Is <s> a token?\n\n"),
            map(&[("role", "assistant"), ("content", "<think>x</think>No."), ("name", "a")]),
            Conversation::message("user", ""),
        ],
        Moment::new(1_700_000_000),
    );
    let nested = |key: &str, data| (key.to_owned(), data);
    let parameters = Data::Map(vec![
        nested("type", "object".into()),
        nested("properties", Data::Map(vec![nested("x", map(&[("type", "string")]))])),
        nested("required", Data::List(vec!["x".into()])),
    ]);
    let function = Data::Map(vec![
        nested("name", "f".into()),
        nested("description", "".into()),
        nested("parameters", parameters),
    ]);
    let tool = vec![nested("name", "f".into()), nested("function", function)];
    conversation.tools = vec![Data::Map(tool); 2];
    conversation.variables = vec![("enable_thinking".to_owned(), Data::Bool(false))];
    let prompt = template.render(&conversation, &tokenizer)?;
    assert!(!prompt.tokens(&tokenizer).is_empty() || prompt.text().is_empty());
    Ok(())
}
