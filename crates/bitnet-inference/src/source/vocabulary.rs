//! Vocabularies in the metadata of GGUF: read, and written.

use std::collections::{HashMap, HashSet};

use bitnet_gguf::{Array, Gguf, Value};

use super::Metadata;
use crate::tokenizer::{
    ByteLevel, MergeOrder, Model, SentencePiece, SpacePrefix, Splitter, TokenType, TokenizerError,
    Vocabulary,
};
use crate::{Error, Notice};

/// The vocabulary of a GGUF file if it has one, and what the user should know about it.
///
/// # Errors
///
/// Where the metadata has a vocabulary of a kind we do not have, or one that contradicts itself.
pub(super) fn read(gguf: &Gguf) -> Result<(Option<Vocabulary>, Vec<Notice>), Error> {
    let fail = |source| Error::Tokenizer { file: gguf.name().to_owned(), source };
    let Some(kind) = gguf.str("tokenizer.ggml.model")? else {
        return Ok((None, Vec::new()));
    };
    let tokens: Vec<String> =
        gguf.require_strings("tokenizer.ggml.tokens")?.map(str::to_owned).collect();
    let types = gguf.i32s("tokenizer.ggml.token_type")?.unwrap_or_default();
    let types = types.into_iter().map(TokenType::try_from).collect::<Result<_, _>>();
    let mut notices = Vec::new();
    let model = match kind {
        "gpt2" => byte_level(gguf, &tokens, &mut notices)?,
        "llama" => sentence_piece(gguf)?,
        _ => {
            let what = format!(
                "tokenizer `{kind}` is not supported; supported are gpt2 (byte-level BPE) and llama \
                 (SentencePiece BPE)"
            );
            return Err(Error::Variant { file: gguf.name().to_owned(), what });
        }
    };
    let eos = gguf.u32("tokenizer.ggml.eos_token_id")?;
    let add_eos = gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let suffix =
        if add_eos { Some(eos.ok_or_else(|| fail(TokenizerError::MissingEos))?) } else { None };
    let vocabulary = Vocabulary {
        tokens,
        types: types.map_err(fail)?,
        normalized: Vec::new(),
        bos: gguf.u32("tokenizer.ggml.bos_token_id")?,
        eos,
        ends: gguf.u32("tokenizer.ggml.eot_token_id")?.into_iter().collect(),
        add_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(model.usually_adds_bos()),
        suffix,
        model,
    };
    Ok((Some(vocabulary), notices))
}

/// A byte-level model. Without a name for it, the splitter is that of Llama 3 if the vocabulary is
/// (the official 2B-4T file lacks the name), else what llama.cpp takes.
fn byte_level(gguf: &Gguf, tokens: &[String], notices: &mut Vec<Notice>) -> Result<Model, Error> {
    let file = || gguf.name().to_owned();
    let splitter = match gguf.str("tokenizer.ggml.pre")? {
        Some(name) => name.parse().map_err(|source| Error::Tokenizer { file: file(), source })?,
        None => {
            let llama3 =
                tokens.len() == 128_256 || tokens.iter().any(|token| token == "<|begin_of_text|>");
            let name = if llama3 { "llama-bpe" } else { "default" };
            notices.push(Notice::NoSplitter { file: file(), used: name });
            if llama3 { Splitter::llama3() } else { Splitter::unnamed() }
        }
    };
    let merges = gguf.require_strings("tokenizer.ggml.merges")?.map(str::to_owned).collect();
    Ok(Model::ByteLevel(ByteLevel::new(merges, splitter)))
}

/// A SentencePiece model. Where characters are unknown, SentencePiece makes one token of all that
/// stand side by side.
fn sentence_piece(gguf: &Gguf) -> Result<Model, Error> {
    let key = "tokenizer.ggml.scores";
    let Some(scores) = gguf.f32s(key)? else {
        let what = format!("metadata `{key}` is missing: convert the model again");
        return Err(Error::Variant { file: gguf.name().to_owned(), what });
    };
    let prefix = gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    Ok(Model::SentencePiece(SentencePiece {
        order: MergeOrder::Scores(scores),
        prefix: if prefix { SpacePrefix::Always } else { SpacePrefix::None },
        strip: prefix,
        split: false,
        unknown: gguf.u32("tokenizer.ggml.unknown_token_id")?,
        fuse_unknown: true,
    }))
}

/// The metadata of a vocabulary, and in what the one that is read from it will not be the same.
pub(super) fn write(vocabulary: &Vocabulary) -> (Metadata, Vec<&'static str>) {
    let v = vocabulary;
    let mut lost = Vec::new();
    let mut out: Vec<(&str, Value)> = Vec::new();
    let types: Vec<i32> = match v.types.is_empty() {
        true => vec![TokenType::Normal as i32; v.tokens.len()],
        false => v.types.iter().map(|&kind| kind as i32).collect(),
    };
    let strings = |list: &[String]| Value::from(list.iter().map(String::as_str).collect::<Array>());
    let types = Value::from(types.into_iter().collect::<Array>());
    match &v.model {
        Model::ByteLevel(model) => {
            out.extend([("model", "gpt2".into()), ("pre", splitter(model, &mut lost).into())]);
            out.extend([("tokens", strings(&v.tokens)), ("token_type", types)]);
            out.push(("merges", strings(&model.merges)));
        }
        Model::SentencePiece(model) => {
            let scores = match &model.order {
                MergeOrder::Scores(scores) => scores.clone(),
                MergeOrder::Merges(merges) => scores(v, merges, &mut lost),
            };
            let prefix = model.prefix != SpacePrefix::None;
            if [SpacePrefix::FirstIfMissing, SpacePrefix::AlwaysIfMissing].contains(&model.prefix) {
                lost.push("a space is put before texts that begin with one, too");
            }
            if model.strip != prefix {
                lost.push("the space at the beginning of a text is decoded differently");
            }
            if model.split || !model.fuse_unknown && model.unknown.is_some() {
                lost.push("text is not cut before spaces, or unknown characters become one token");
            }
            out.extend([("model", "llama".into()), ("tokens", strings(&v.tokens))]);
            out.push(("scores", scores.into_iter().collect::<Array>().into()));
            out.push(("token_type", types));
            out.push(("add_space_prefix", prefix.into()));
            out.extend(model.unknown.map(|id| ("unknown_token_id", id.into())));
            if !v.normalized.is_empty() {
                lost.push("special tokens are looked for before text is normalised");
            }
        }
    }
    out.extend(v.bos.map(|id| ("bos_token_id", id.into())));
    out.extend(v.eos.map(|id| ("eos_token_id", id.into())));
    // One beside EOS has a name.
    let mut ends: Vec<u32> = v.ends.iter().copied().filter(|&id| Some(id) != v.eos).collect();
    ends.sort_unstable();
    ends.dedup();
    out.extend(ends.first().map(|&id| ("eot_token_id", id.into())));
    if ends.len() > 1 {
        lost.push("only two tokens end a generation");
    }
    out.push(("add_bos_token", v.add_bos.into()));
    out.push(("add_eos_token", (v.suffix.is_some() && v.suffix == v.eos).into()));
    if v.suffix.is_some() && v.suffix != v.eos {
        lost.push("another token than EOS is wanted after texts");
    }
    let named = |(key, value)| (format!("tokenizer.ggml.{key}"), value);
    (out.into_iter().map(named).collect(), lost)
}

/// The name of how a byte-level model cuts text.
fn splitter(model: &ByteLevel, lost: &mut Vec<&'static str>) -> &'static str {
    let usual = ByteLevel::new(Vec::new(), model.splitter.clone());
    if usual.nfc != model.nfc {
        lost.push("text is normalised differently");
    }
    if usual.ignore_merges != model.ignore_merges {
        lost.push("words that are tokens are merged differently");
    }
    model.splitter.name().unwrap_or_else(|| {
        lost.push("text is cut as `default` does");
        "default"
    })
}

/// The scores that have the same order as a list of merges: of each token, that of the first merge
/// which makes it.
fn scores(v: &Vocabulary, merges: &[String], lost: &mut Vec<&'static str>) -> Vec<f32> {
    let normal = v.entries().filter(|(_, _, kind)| *kind == TokenType::Normal);
    let ids: HashMap<&str, usize> = normal.map(|(id, text, _)| (text, id as usize)).collect();
    let mut scores = vec![0.0; v.tokens.len()];
    let (mut last, mut made, mut grouped) = (None, 0, true);
    for (rank, merge) in merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else { continue };
        let Some(&id) = ids.get(format!("{left}{right}").as_str()) else { continue };
        if last != Some(id) {
            grouped &= scores[id] == 0.0;
            if scores[id] == 0.0 {
                scores[id] = -(rank as f32) - 1.0;
            }
            last = Some(id);
        }
        made += 1;
    }
    // With scores every pair is merged that makes a token. Long tokens are cut only where both parts
    // have the length of some token: looking each part up takes as long as it is.
    let lengths: HashSet<usize> = ids.keys().map(|token| token.len()).collect();
    let splits = |token: &&str| {
        let places = 1..token.len();
        let known = places.filter(|&at| [at, token.len() - at].iter().all(|n| lengths.contains(n)));
        let parts = known.filter_map(|at| token.split_at_checked(at));
        parts.filter(|(a, b)| ids.contains_key(a) && ids.contains_key(b)).count()
    };
    let all: usize = ids.keys().map(splits).sum();
    if !grouped || made != all || merges.len() >= 1 << 24 {
        lost.push("merges have no order that scores can give them");
    }
    scores
}

#[cfg(test)]
mod tests {
    use bitnet_gguf::Writer;

    use super::*;
    use crate::tokenizer::samples::{byte_level, nameless, same_tokens, sentence_piece};

    fn again(metadata: Metadata) -> Vocabulary {
        let writer = Writer::new().metadata("general.architecture", "llama");
        let writer =
            metadata.into_iter().fold(writer, |writer, (key, value)| writer.metadata(&key, value));
        let mut file = Vec::new();
        writer.write_to(&mut file).unwrap();
        let gguf = Gguf::from_vec("vocabulary.gguf", file).unwrap();
        let (vocabulary, notices) = read(&gguf).unwrap();
        assert_eq!(notices, []);
        vocabulary.unwrap()
    }

    #[test]
    fn vocabularies_are_read_as_they_were_written() {
        for vocabulary in byte_level().into_iter().chain(sentence_piece()) {
            let (metadata, lost) = write(&vocabulary);
            assert!(lost.is_empty(), "{lost:?}");
            same_tokens(&vocabulary, &again(metadata));
        }
    }

    #[test]
    fn what_gguf_cannot_say_is_said() {
        assert_eq!(write(&nameless()).1, ["text is cut as `default` does"]);
        let mut vocabulary = sentence_piece().remove(2);
        let Model::SentencePiece(model) = &mut vocabulary.model else { panic!() };
        let MergeOrder::Merges(merges) = &mut model.order else { panic!() };
        // With scores these two would still be one.
        merges.pop();
        assert_eq!(write(&vocabulary).1, ["merges have no order that scores can give them"]);
    }
}
