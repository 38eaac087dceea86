//! `tokenizer.json`: read, then used on texts.

use bitnet_inference::tokenizer::{
    Model, SpacePrefix, Special, TokenType, Tokenizer, TokenizerError, TokenizerFiles, Vocabulary,
};

/// Texts of what tokenizers treat apart: words, numbers, contractions, spaces, lines, characters of
/// several bytes, and text that looks like special tokens.
const TEXTS: [&str; 4] = [
    "",
    "Once upon a time, it's 12345 o'clock: <s> a<|eot_id|>b",
    "  two  spaces\r\n\n\tand\u{a0}lines \n",
    "caf\u{e9} \u{4f60}\u{597d} \u{1f600}e\u{301}\u{0}\u{10ffff} <0x0A>\u{2028}",
];

/// Reads a `tokenizer.json`, encodes texts and decodes them.
///
/// # Errors
///
/// Where it is damaged or of an unknown kind.
pub fn tokenizer(input: &[u8]) -> Result<(), TokenizerError> {
    let files = TokenizerFiles { tokenizer: input, ..TokenizerFiles::default() };
    let vocabulary = Vocabulary::from_json(&files)?;
    let tokenizer = Tokenizer::new(vocabulary.clone())?;
    assert_eq!(tokenizer.len(), vocabulary.tokens.len());
    // What the file itself says is likely to have its tokens in it.
    let own = String::from_utf8_lossy(&input[..input.len().min(1000)]);
    for text in TEXTS.into_iter().chain([&*own]) {
        for special in [Special::TEXT, Special::PROMPT] {
            let ids = tokenizer.encode(text, special);
            streamed(&tokenizer, &ids);
        }
        let ids = tokenizer.encode(text, Special::TEXT);
        if let Some(expected) = decoded(&vocabulary, text) {
            assert_eq!(tokenizer.decode(&ids), expected);
        }
    }
    let ids: Vec<u32> = (0..tokenizer.len().min(5000) as u32 + 1).collect();
    streamed(&tokenizer, &ids);
    Ok(())
}

/// Token by token the text is that of all tokens.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) {
    let mut stream = tokenizer.stream();
    let mut text: String = ids.iter().map(|&id| stream.push(id).to_owned()).collect();
    text.push_str(stream.finish());
    assert_eq!(text, tokenizer.decode(ids));
}

/// What a text becomes that is encoded without special tokens and decoded, where that is certain.
fn decoded(vocabulary: &Vocabulary, text: &str) -> Option<String> {
    let has = |kind: TokenType| vocabulary.types.contains(&kind);
    match &vocabulary.model {
        Model::ByteLevel(model) => (!model.nfc || text.is_ascii()).then(|| text.to_owned()),
        Model::SentencePiece(model) => {
            // A space is put behind tokens that are found in texts, and unknown characters are lost.
            if has(TokenType::UserDefined) || !has(TokenType::Byte) {
                return None;
            }
            let spaced = text.replace('\u{2581}', " ");
            let prefix = match model.prefix {
                SpacePrefix::None => false,
                SpacePrefix::Always => !spaced.is_empty(),
                _ => !spaced.is_empty() && !spaced.starts_with(' '),
            };
            let spaced = if prefix { format!(" {spaced}") } else { spaced };
            let stripped = spaced.strip_prefix(' ').filter(|_| model.strip);
            Some(stripped.map_or(spaced.clone(), str::to_owned))
        }
        _ => None,
    }
}
