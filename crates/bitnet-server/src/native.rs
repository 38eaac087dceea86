//! What is not of OpenAI: tokens, templates, the model, and how the server is.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bitnet_inference::tokenizer::Special;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::devices::Device;
use crate::error::ApiError;
use crate::state::{Model, State};
use crate::tools::Tools;
use crate::{messages, metrics, options};

/// What there is, as programs read it.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");

/// Seconds that the engine may be busy with one thing before it counts as stuck.
const STUCK: f64 = 30.0;

/// `GET /health` and the like: whether requests are taken; of several devices, how it is with each.
pub(crate) async fn health(state: Arc<State>) -> Result<Response, ApiError> {
    state.takes_requests()?;
    Ok(Json(devices(&state)?).into_response())
}

/// What is told of devices, if there are several and one of them is sound.
fn devices(state: &State) -> Result<Value, ApiError> {
    let devices = state.metrics.devices();
    if devices.len() < 2 {
        return Ok(json!({ "status": "ok" }));
    }
    if let Some(failed) = devices.iter().map(Device::failed).collect::<Option<Vec<_>>>() {
        let what = format!("all devices have failed: {}", failed.join("; "));
        return Err(ApiError::unavailable(what).code("device_failed"));
    }
    let state = |device: &Device| {
        let state = if device.failed().is_some() { "failed" } else { "ok" };
        (device.name().to_owned(), json!(state))
    };
    let states: Map<_, _> = devices.iter().map(state).collect();
    Ok(json!({ "status": "ok", "devices": states }))
}

/// `GET /livez`: whether the process is worth keeping.
pub(crate) async fn livez(state: Arc<State>) -> Result<Response, ApiError> {
    alive(state.metrics.busy())?;
    Ok(Json(devices(&state)?).into_response())
}

/// Whether an engine is that has been busy with one step for so many seconds.
fn alive(seconds: f64) -> Result<(), ApiError> {
    if seconds > STUCK {
        let what = format!("the engine has been busy with one step for {seconds:.0} s");
        return Err(ApiError::unavailable(what).code("stuck"));
    }
    Ok(())
}

/// `GET /version`.
pub(crate) async fn version(_: Arc<State>) -> Result<Response, ApiError> {
    Ok(Json(json!({ "version": env!("CARGO_PKG_VERSION") })).into_response())
}

/// `GET /metrics`.
pub(crate) async fn metrics(state: Arc<State>) -> Result<Response, ApiError> {
    let text = state.metrics.text(&state.config.name, state.config.vllm_metrics);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// What clients are told of the model.
pub(crate) fn described(model: &Model) -> Value {
    let engine = &model.engine;
    let config = engine.config();
    json!({
        "id": model.name, "object": "model", "created": model.created, "owned_by": "bitnet",
        "root": model.name, "parent": null, "max_model_len": model.context,
        "meta": {
            "n_vocab": engine.vocabulary(), "n_ctx_train": config.context,
            "n_embd": config.hidden, "n_params": engine.ternary_products(), "size": engine.size(),
        },
    })
}

/// `GET /v1/models`.
pub(crate) async fn models(state: Arc<State>) -> Result<Response, ApiError> {
    let model = state.model()?;
    Ok(Json(json!({ "object": "list", "data": [described(model)] })).into_response())
}

/// `GET /v1/models/{id}`.
pub(crate) async fn model(state: Arc<State>, id: &str) -> Result<Response, ApiError> {
    let model = state.model()?;
    if id != model.name {
        let what = format!("there is no model {id:?}: there is {:?}", model.name);
        return Err(ApiError::not_found(what).code("model_not_found").param("model"));
    }
    Ok(Json(described(model)).into_response())
}

/// `GET /props`.
pub(crate) async fn props(state: Arc<State>) -> Result<Response, ApiError> {
    let model = state.model()?;
    let engine = &model.engine;
    let template = model.template().map(|template| template.text().to_owned());
    let sampling = serde_json::to_value(&state.config.defaults.sampling);
    let mut sampling = sampling.map_err(|why| ApiError::internal(why.to_string()))?;
    // -1 is no limit, and a new seed for each.
    sampling["max_tokens"] = i64::try_from(state.config.defaults.limit).unwrap_or(-1).into();
    sampling["seed"] = state.config.seed.map_or(json!(-1), Value::from);
    Ok(Json(json!({
        "default_generation_settings": { "n_ctx": model.context, "params": sampling },
        "total_slots": state.slots(),
        "model_alias": model.name,
        "model_sha256": engine.sha256(),
        "chat_template": template.unwrap_or_default(),
        "build_info": concat!("bitnet ", env!("CARGO_PKG_VERSION")),
        "kernels": {
            "isa": engine.cpu().isas().last().map(|isa| isa.name()), "layouts": engine.layouts(),
            "weights": engine.weight_formats(), "cache_type": engine.kv().to_string(),
            "threads": engine.threads(),
        },
    }))
    .into_response())
}

/// What `GET /slots` is asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Slots {
    /// Whether it is an error if all are taken.
    fail_on_no_slot: Option<String>,
}

/// `GET /slots`: how many requests run. Who has which is not told.
pub(crate) async fn slots(state: Arc<State>, asked: Slots) -> Result<Response, ApiError> {
    let model = state.model()?;
    let (running, all) = (state.metrics.running.get(), state.slots() as u64);
    if running >= all && asked.fail_on_no_slot.is_some_and(|it| it == "1" || it == "true") {
        return Err(ApiError::unavailable("all slots are taken").code("no_slot"));
    }
    let slot = |id| json!({ "id": id, "n_ctx": model.context, "is_processing": id < running });
    Ok(Json((0..all).map(slot).collect::<Vec<_>>()).into_response())
}

/// `GET /openapi.json`: all of this, for programs.
pub(crate) async fn openapi(_: Arc<State>) -> Result<Response, ApiError> {
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], OPENAPI).into_response())
}

#[derive(Debug, Deserialize)]
struct Tokenize {
    content: String,
    add_special: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

/// `POST /tokenize`.
pub(crate) async fn tokenize(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let tokenizer = state.model()?.tokenizer()?;
    let asked: Tokenize = options::read(&body)?;
    let around = asked.add_special.unwrap_or(false);
    let parse = asked.parse_special.unwrap_or(true);
    let special = Special { bos: around, suffix: around, parse };
    let ids = state.think_with_place(|| tokenizer.encode(&asked.content, special)).await?;
    let piece = |&id: &u32| match tokenizer.piece(id).map(std::str::from_utf8) {
        Some(Ok(text)) => json!({ "id": id, "piece": text }),
        _ => json!({ "id": id, "piece": tokenizer.piece(id).unwrap_or_default() }),
    };
    let tokens = match asked.with_pieces.unwrap_or(false) {
        true => ids.iter().map(piece).collect(),
        false => json!(ids),
    };
    Ok(Json(json!({ "tokens": tokens })).into_response())
}

#[derive(Debug, Deserialize)]
struct Detokenize {
    tokens: Vec<u32>,
}

/// `POST /detokenize`.
pub(crate) async fn detokenize(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.model()?;
    let asked: Detokenize = options::read(&body)?;
    let vocabulary = model.engine.vocabulary();
    if let Some(id) = asked.tokens.iter().find(|&&id| id as usize >= vocabulary) {
        let what = format!("tokens: there is no token {id}: there are {vocabulary}");
        return Err(ApiError::invalid(what).code("invalid_token").param("tokens"));
    }
    let tokenizer = model.tokenizer()?;
    let text = state.think_with_place(|| tokenizer.decode(&asked.tokens)).await?;
    Ok(Json(json!({ "content": text })).into_response())
}

#[derive(Debug, Deserialize)]
struct Apply {
    messages: Vec<Value>,
    #[serde(default)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// `POST /apply-template`.
pub(crate) async fn apply_template(state: Arc<State>, body: Value) -> Result<Response, ApiError> {
    let model = state.model()?;
    let asked: Apply = options::read(&body)?;
    let tools = Tools::of(&body)?;
    let variables = asked.chat_template_kwargs.unwrap_or_default();
    let conversation =
        messages::conversation(messages::placed(&asked.messages), tools.told(), &variables)?;
    let (template, tokenizer) = (model.template()?, model.tokenizer()?);
    let prompt = state.think_with_place(|| template.render(&conversation, tokenizer)).await?;
    let prompt = prompt.map_err(bitnet_inference::Error::from)?.text();
    Ok(Json(json!({ "prompt": prompt })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_without_end_is_told() {
        assert_eq!(alive(STUCK), Ok(()));
        let error = alive(STUCK + 1.0).unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.kind, error.code),
            (503, "unavailable_error", Some("stuck"))
        );
    }
}
