//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::completions::Prompts;
use crate::error::ApiError;
use crate::options;
use crate::state::State;

/// Texts of a request at most.
const TEXTS: usize = 2048;

#[derive(Debug, Deserialize)]
struct Fields {
    input: Prompts,
    #[serde(default)]
    encoding_format: Option<Encoding>,
    #[serde(default)]
    dimensions: Option<usize>,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    /// Little-endian floats of 32 bits.
    Base64,
}

/// Gives the embeddings of texts.
pub(crate) async fn embed(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.takes_requests()?;
    let fields: Fields = options::read(&body)?;
    let wrong = |param: &str, why: String| {
        ApiError::invalid(format!("{param}: {why}")).code("invalid_value").param(param)
    };
    let hidden = model.engine.config().hidden;
    if let Some(n) = fields.dimensions.filter(|n| *n != hidden) {
        return Err(wrong("dimensions", format!("{n}, and the model has {hidden}")));
    }
    if !(1..=TEXTS).contains(&fields.input.len()) {
        return Err(wrong("input", format!("there may be 1 to {TEXTS} texts")));
    }
    let place = state.place()?;
    let texts = state.think(|| fields.input.tokens(model)).await;
    let texts = texts.map_err(|error| error.of("input", None))?;
    let (context, vocabulary) = (model.engine.context(), model.engine.vocabulary());
    for (index, tokens) in texts.iter().enumerate() {
        let name = format!("input[{index}]");
        if tokens.is_empty() {
            return Err(wrong(&name, "it is empty".to_owned()));
        }
        if tokens.len() > context {
            let why = format!("{} tokens do not fit into {context}", tokens.len());
            return Err(wrong(&name, why).code("context_length_exceeded"));
        }
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(wrong(&name, format!("there is no token {id}")).code("invalid_token"));
        }
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let mut data = Vec::with_capacity(texts.len());
    for (index, embedding) in state.embed(texts, place).await?.into_iter().enumerate() {
        let embedding = match fields.encoding_format.unwrap_or_default() {
            Encoding::Float => json!(embedding),
            Encoding::Base64 => {
                let bytes: Vec<u8> = embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(BASE64_STANDARD.encode(bytes))
            }
        };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    let object = json!({ "object": "list", "data": data, "model": model.name, "usage": usage });
    Ok(Json(object).into_response())
}
