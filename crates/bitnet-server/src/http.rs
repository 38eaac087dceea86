//! Routes, and what stands before all of them: limits, keys, origins, a line for each request.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::error::ApiError;
use crate::state::State;
use crate::{anthropic, chat, completions, embeddings, id, native, page, responses};

/// Names a request in answers and in what the server says.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a name that a client gives at most.
const LONGEST_ID: usize = 128;

/// What needs no key: whether the server is well, and the page, which asks for one.
const PUBLIC: [&str; 7] =
    ["/", "/health", "/healthz", "/v1/health", "/livez", "/readyz", "/openapi.json"];

/// Answers the body of a request.
macro_rules! takes {
    ($handler:path) => {
        post(|Shared(state): Shared<Arc<State>>, body: Result<Bytes, BytesRejection>| async move {
            match parse(body) {
                Ok(body) => $handler(state, body).await.into_response(),
                Err(error) => error.into_response(),
            }
        })
    };
}

/// Answers a request without a body.
macro_rules! gives {
    ($handler:path) => {
        get(|Shared(state): Shared<Arc<State>>| async move { $handler(state).await })
    };
}

/// All routes, with what stands before them.
pub(crate) fn router(state: Arc<State>) -> Router {
    let limit = state.config.body_limit;
    let model = |Shared(state): Shared<Arc<State>>, Path(id): Path<String>| async move {
        native::model(state, &id).await
    };
    let router = Router::new()
        .route("/", gives!(page::page))
        .route("/v1/chat/completions", takes!(chat::complete))
        .route("/chat/completions", takes!(chat::complete))
        .route("/v1/completions", takes!(completions::complete))
        .route("/completions", takes!(completions::complete))
        .route("/v1/embeddings", takes!(embeddings::embed))
        .route("/embeddings", takes!(embeddings::embed))
        .route("/v1/models", gives!(native::models))
        .route("/models", gives!(native::models))
        // Names can have slashes in them.
        .route("/v1/models/{*id}", get(model))
        .route("/v1/responses", takes!(responses::create))
        .route("/v1/messages", takes!(anthropic::create))
        .route("/v1/messages/count_tokens", takes!(anthropic::count))
        .route("/tokenize", takes!(native::tokenize))
        .route("/detokenize", takes!(native::detokenize))
        .route("/apply-template", takes!(native::apply_template))
        .route("/health", gives!(native::health))
        .route("/healthz", gives!(native::health))
        .route("/v1/health", gives!(native::health))
        .route("/readyz", gives!(native::health))
        .route("/livez", gives!(native::livez))
        .route("/version", gives!(native::version))
        .route("/metrics", gives!(native::metrics))
        .route("/props", gives!(native::props));
    router
        .fallback(|request: Request| async move {
            ApiError::not_found(format!("there is no {}", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            ApiError::method(format!("{path} does not take {method}"))
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&state), authorize))
        .layer(DefaultBodyLimit::max(limit))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::internal("the server made a mistake: see what it said").into_response()
        }))
        .layer(cors(&state.config.cors))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), account))
        .with_state(state)
}

/// A body as JSON.
fn parse(body: Result<Bytes, BytesRejection>) -> Result<Value, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::too_large("the body is larger than the server allows")
        }
        _ => ApiError::invalid("the body could not be read to its end").code("incomplete_body"),
    })?;
    if body.is_empty() {
        return Err(ApiError::invalid("there is no body: send JSON").code("invalid_json"));
    }
    let value: Value = serde_json::from_slice(&body).map_err(|why| {
        ApiError::invalid(format!("the body is no JSON: {why}")).code("invalid_json")
    })?;
    match value {
        Value::Object(_) => Ok(value),
        _ => Err(ApiError::invalid("the body is no JSON object").code("invalid_json")),
    }
}

/// Asks for a key, where there are some.
async fn authorize(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_open = state.config.api_keys.is_empty()
        || PUBLIC.contains(&path)
        || path == "/metrics" && state.config.open_metrics
        || request.method() == Method::OPTIONS;
    if !is_open && !has_key(request.headers(), &state.config.api_keys) {
        let error = ApiError::unauthorized(
            "the API key is missing or wrong: send it as Authorization: Bearer KEY",
        );
        let mut response = match path.starts_with("/v1/messages") {
            true => error.into_anthropic(),
            false => error.into_response(),
        };
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        return response;
    }
    next.run(request).await
}

/// Whether one of the keys comes with a request. How long that takes tells nothing about them.
fn has_key(headers: &HeaderMap, keys: &[String]) -> bool {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let other = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let Some(given) = bearer.or(other) else { return false };
    let hash = |key: &str| Sha256::digest(key.as_bytes());
    let given = hash(given);
    let equal = keys.iter().map(|key| hash(key).as_slice().ct_eq(given.as_slice()));
    equal.fold(subtle::Choice::from(0), |any, one| any | one).into()
}

/// Pages of which origins may ask: those of this machine, or those that are given.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.to_vec();
    let allowed = move |origin: &HeaderValue| {
        let Ok(origin) = origin.to_str() else { return false };
        if !origins.is_empty() {
            return origins.iter().any(|allowed| allowed == "*" || allowed == origin);
        }
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        ["localhost", "127.0.0.1", "[::1]"].contains(&name)
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| allowed(origin)))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID])
}

/// Gives a request a name, counts its response, and says a line about it: nothing of what was asked.
async fn account(
    Shared(state): Shared<Arc<State>>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let is_plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        bytes.len() <= LONGEST_ID && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = request.headers().get(&REQUEST_ID).filter(is_plain).cloned();
    let name = given.unwrap_or_else(|| {
        HeaderValue::from_str(&id::new("req_")).unwrap_or_else(|_| HeaderValue::from_static("req"))
    });
    request.headers_mut().insert(REQUEST_ID, name.clone());
    let method = request.method().clone();
    // The pattern, not the path: that is the client's.
    let route = matched.map_or("-".to_owned(), |matched| matched.as_str().to_owned());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    state.metrics.responded(status);
    state.config.log.line(&crate::log::Request {
        method: method.as_str(),
        route: &route,
        status,
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
        id: name.to_str().unwrap_or_default(),
    });
    response.headers_mut().insert(REQUEST_ID, name);
    response
}
