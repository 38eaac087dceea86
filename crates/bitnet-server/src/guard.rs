//! What stands before all routes: keys, origins, and a line for each request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::error::ApiError;
use crate::id;
use crate::log::Line;
use crate::state::State;

/// Names a request in answers and in what the server says.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same, for clients of Anthropic.
const ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");
/// Bytes of a name that a client gives at most.
const LONGEST_ID: usize = 128;

/// What needs no key: whether the server is well, and the page, which asks for one.
const PUBLIC: [&str; 7] =
    ["/", "/health", "/healthz", "/v1/health", "/livez", "/readyz", "/openapi.json"];

/// Whether programs look there again and again.
fn is_watched(path: &str) -> bool {
    ["/health", "/healthz", "/v1/health", "/livez", "/readyz", "/metrics"].contains(&path)
}

/// Asks for a key, where there are some.
pub(crate) async fn authorize(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let (path, keys) = (request.uri().path(), &state.config.api_keys);
    let is_open = keys.is_empty()
        || PUBLIC.contains(&path)
        || path == "/metrics" && state.config.open_metrics;
    if is_open || has_key(request.headers(), keys) {
        return next.run(request).await;
    }
    let what = "the API key is missing or wrong: send it as Authorization: Bearer KEY";
    ApiError::unauthorized(what).into_response()
}

/// Whether one of the keys comes with a request. How long that takes tells nothing about them.
fn has_key(headers: &HeaderMap, keys: &[String]) -> bool {
    let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    let other = headers.get("x-api-key").map(HeaderValue::as_bytes);
    let hash = |key: &[u8]| Sha256::digest(key);
    let mut found = subtle::Choice::from(0);
    for given in [bearer, other].into_iter().flatten().map(hash) {
        for key in keys {
            found |= hash(key.as_bytes()).as_slice().ct_eq(given.as_slice());
        }
    }
    found.into()
}

/// Whether pages of this origin may ask: those of this machine, or those that are given.
fn is_allowed(origin: &str, origins: &[String]) -> bool {
    if !origins.is_empty() {
        return origins.iter().any(|allowed| allowed == "*" || allowed == origin);
    }
    origin.split_once("://").is_some_and(|(_, host)| is_here(host))
}

/// Whether a host, with or without a port, is this machine.
fn is_here(host: &str) -> bool {
    let name = name(host);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let name = name.to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    name == "localhost"
        || name.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

/// A host without its port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// What answers may be read by which pages.
pub(crate) fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.to_vec();
    let allowed = move |origin: &HeaderValue| {
        origin.to_str().is_ok_and(|origin| is_allowed(origin, &origins))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| allowed(origin)))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID, ANTHROPIC_ID])
}

/// Sends away what pages ask that must not: browsers let them ask, and only keep the answer from them.
/// A page can also have the name of its host point to this machine, to become one of this server: where
/// only this machine can ask, the host must be this machine.
pub(crate) async fn origin(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    match refused(&state, request.headers()) {
        None => next.run(request).await,
        Some(error) => error.into_response(),
    }
}

fn refused(state: &State, headers: &HeaderMap) -> Option<ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let (host, origin) = (text(header::HOST).unwrap_or_default(), text(header::ORIGIN));
    let origins = &state.config.cors;
    let is_named = origins.iter().any(|origin| {
        origin == "*" || origin.split_once("://").is_some_and(|(_, allowed)| allowed == host)
    });
    let is_address = name(host).trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if state.loopback && !host.is_empty() && !is_here(host) && is_address.is_err() && !is_named {
        let what =
            "the server is asked under a name that it does not know: --cors-origins names it";
        return Some(ApiError::forbidden(what).code("host_not_allowed"));
    }
    let is_own = |origin: &str| origin.split_once("://").is_some_and(|(_, from)| from == host);
    let is_foreign = |origin: &str| !is_own(origin) && !is_allowed(origin, origins);
    let what = "pages of this origin may not ask: --cors-origins names those that may";
    origin.filter(|origin| is_foreign(origin))?;
    Some(ApiError::forbidden(what).code("origin_not_allowed"))
}

/// Gives a request a name, counts its response, says a line about it (nothing of what was asked), and has
/// errors look as clients of Anthropic know them, where it is those that ask.
pub(crate) async fn account(
    Shared(state): Shared<Arc<State>>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let is_plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= LONGEST_ID && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = request.headers().get(&REQUEST_ID).filter(is_plain).cloned();
    let name = given.unwrap_or_else(|| {
        HeaderValue::from_str(&id::new("req_")).unwrap_or_else(|_| HeaderValue::from_static("req"))
    });
    request.headers_mut().insert(REQUEST_ID, name.clone());
    let method = request.method().clone();
    let is_anthropic = request.uri().path().starts_with("/v1/messages");
    // The pattern, not the path: that is the client's.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let path = route.as_ref().map_or("-", MatchedPath::as_str);
    let error = response.extensions_mut().remove::<ApiError>();
    state.metrics.responded(response.status().as_u16());
    let line = Line {
        method: method.as_str(),
        route: path,
        status: response.status().as_u16(),
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
        id: name.to_str().unwrap_or_default(),
        code: error.as_ref().and_then(|error| error.code),
        // Of errors that are not the client's: there is nothing of theirs in it.
        message: error.as_ref().filter(|e| e.status.is_server_error()).map(|e| &*e.message),
    };
    // Those who watch the server ask all the time.
    if !(response.status().is_success() && is_watched(path)) {
        state.log.line(&line);
    }
    if let Some(error) = error.filter(|_| is_anthropic) {
        response = error.into_anthropic();
    }
    if is_anthropic {
        response.headers_mut().insert(ANTHROPIC_ID, name.clone());
    }
    response.headers_mut().insert(REQUEST_ID, name);
    response
}
