//! What can be wrong with a model file's tokenizer.

/// Why a model file's tokenizer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The text splitter is not one we have.
    #[error(
        "unknown pre-tokenizer {name:?}: supported are llama-bpe, llama3, llama-v3, qwen2, gpt-2, \
         default, falcon, falcon3 and falcon_e"
    )]
    UnknownSplitter {
        /// The name in the file.
        name: String,
    },
    /// A token type that GGUF does not define.
    #[error("unknown token type {value}: GGUF defines 1 (normal) to 6 (byte)")]
    UnknownTokenType {
        /// The number in the file.
        value: i32,
    },
    /// There are token types, but not one for each token.
    #[error(
        "{tokens} tokens but {types} token types: the file is damaged, or its tokenizer incomplete"
    )]
    TypeCount {
        /// Number of tokens.
        tokens: usize,
        /// Number of types.
        types: usize,
    },
    /// More tokens or merges than numbers for them.
    #[error("{count} {what} do not fit 32-bit ids")]
    TooMany {
        /// `tokens` or `merges`.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// There are scores, but not one for each token.
    #[error(
        "{tokens} tokens but {scores} scores: the file is damaged, or its tokenizer incomplete"
    )]
    ScoreCount {
        /// Number of tokens.
        tokens: usize,
        /// Number of scores.
        scores: usize,
    },
    /// A score that is not a number, so that merges have no order.
    #[error("the score of token {id} is not a number: the file is damaged")]
    Score {
        /// The token.
        id: u32,
    },
    /// A special token's id is not that of a token.
    #[error("the {role} token has id {id}, but there are only {tokens} tokens")]
    IdOutOfRange {
        /// `bos`, `eos`, `end`, `last`, `unknown` or `normalized`.
        role: &'static str,
        /// The id in the file.
        id: u32,
        /// Number of tokens.
        tokens: usize,
    },
    /// Texts are to begin with BOS, but the file does not say which token that is.
    #[error("texts are to begin with the bos token, but the file does not name one")]
    MissingBos,
    /// Texts are to end with EOS, but the file does not say which token that is.
    #[error("texts are to end with the eos token, but the file does not name one")]
    MissingEos,
    /// Neither bytes nor an unknown token for characters that are no tokens.
    #[error(
        "there is neither an unknown token nor a token for each byte, so that not every text can be \
         encoded"
    )]
    MissingUnknown,
    /// A byte that no token stands for, so that not every text can be encoded.
    #[error("no token stands for byte 0x{byte:02x}, but tokens for all bytes are needed")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// A byte token, which belongs to SentencePiece vocabularies, in a byte-level one.
    #[error("token {id} {text:?} is of type byte, which a byte-level vocabulary has no use for")]
    ByteToken {
        /// Its id.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A token of type byte that does not name a byte.
    #[error("token {id} {text:?} is of type byte: expected a byte in hexadecimal, as in <0x0A>")]
    ByteSyntax {
        /// Its id.
        id: u32,
        /// Its text.
        text: String,
    },
    /// Two tokens stand for the same text, so that it has no single encoding.
    #[error("tokens {first} and {second} both stand for {text:?}")]
    DuplicateToken {
        /// The smaller id.
        first: u32,
        /// The larger id.
        second: u32,
        /// The text of both.
        text: String,
    },
    /// A merge that is not two texts with a space between.
    #[error("merge {index} is {merge:?}: expected two tokens with one space between")]
    MergeSyntax {
        /// Its place in the list, from 0.
        index: u32,
        /// The merge.
        merge: String,
    },
    /// A merge of texts that are no tokens, or that make no token.
    #[error("merge {index} is {merge:?}, but {missing:?} is no token to merge")]
    MergeToken {
        /// Its place in the list, from 0.
        index: u32,
        /// The merge.
        merge: String,
        /// The left part, the right part or the result, whichever is no normal token.
        missing: String,
    },
    /// A file that is not what its name says.
    #[error("{file}: {message}")]
    Json {
        /// Its name.
        file: &'static str,
        /// What is wrong, and where.
        message: String,
    },
    /// Something in `tokenizer.json` that we do not have.
    #[error("tokenizer.json: {part}: {what} is not supported")]
    Unsupported {
        /// The part of the file.
        part: String,
        /// What it says.
        what: String,
    },
    /// An expression to cut text by that we do not have.
    #[error(
        "tokenizer.json: pre_tokenizer: the expression {expression:?} is not supported: supported \
         are those of Llama 3, Qwen 2 and GPT-2, \\p{{N}}, [0-9] and [0-9][0-9][0-9]"
    )]
    UnknownExpression {
        /// The expression.
        expression: String,
    },
    /// A token of an id that no vocabulary we know comes near.
    #[error("tokenizer.json: token {text:?} has id {id}; ids are to be below {limit}")]
    IdTooLarge {
        /// The text of the token.
        text: String,
        /// Its id.
        id: u32,
        /// What ids are below.
        limit: usize,
    },
    /// An embedding table that no vocabulary we know comes near.
    #[error(
        "the embedding table has {rows} rows, and vocabularies have at most {limit} tokens: the file \
         is damaged"
    )]
    TableTooLarge {
        /// Its rows.
        rows: usize,
        /// The most there may be.
        limit: usize,
    },
    /// Two tokens of the same id.
    #[error("tokenizer.json: tokens {first:?} and {second:?} both have id {id}")]
    DuplicateId {
        /// Their id.
        id: u32,
        /// The text of the one.
        first: String,
        /// The text of the other.
        second: String,
    },
    /// A token is named that the vocabulary does not have.
    #[error("{file} names {text:?} as the {role} token, but there is no such token")]
    NoSuchToken {
        /// The file that names it.
        file: &'static str,
        /// What it is named for: `bos`, `eos` or `unknown`.
        role: &'static str,
        /// The text.
        text: String,
    },
}
