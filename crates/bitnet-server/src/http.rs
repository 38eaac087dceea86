//! Routes, and how bodies of requests are read.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::{Method, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::SemaphorePermit;
use tokio::time;
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::ApiError;
use crate::state::State;
use crate::{anthropic, chat, completion, completions, embeddings, guard, native, page, responses};

/// How many times the limit of a body is read at most.
const READ_ON: usize = 8;

/// Bytes of a body that is not large.
const SMALL: usize = 256 << 10;

/// Answers the body of a request.
macro_rules! takes {
    ($handler:path) => {
        post(|Shared(state): Shared<Arc<State>>, request: Request| async move {
            let length = length(&request);
            let place = place(&state, length).await;
            let body = body(&state, request).await?;
            let answer: Answer = $handler(Arc::clone(&state), body).await;
            drop(place);
            answer
        })
    };
}

/// Answers a request without a body.
macro_rules! gives {
    ($handler:path) => {
        get(|Shared(state): Shared<Arc<State>>| async move { $handler(state).await })
    };
}

type Answer = Result<Response, ApiError>;

/// A path, its method, and what answers.
type Route = (&'static str, Method, MethodRouter<Arc<State>>);

/// All there is.
fn routes() -> Vec<Route> {
    type Id = Result<Path<String>, PathRejection>;
    let model = |Shared(state): Shared<Arc<State>>, id: Id| async move {
        let Path(id) = id.map_err(|why| ApiError::not_found(why.body_text()))?;
        native::model(state, &id).await
    };
    type Asked = Result<Query<native::Slots>, QueryRejection>;
    let slots = |Shared(state): Shared<Arc<State>>, asked: Asked| async move {
        let wrong = |why: QueryRejection| ApiError::invalid(why.body_text()).code("invalid_value");
        let Query(asked) = asked.map_err(wrong)?;
        native::slots(state, asked).await
    };
    let (read, write) = (Method::GET, Method::POST);
    vec![
        ("/v1/chat/completions", write.clone(), takes!(chat::complete)),
        ("/chat/completions", write.clone(), takes!(chat::complete)),
        ("/v1/completions", write.clone(), takes!(completions::complete)),
        ("/completions", write.clone(), takes!(completions::complete)),
        ("/completion", write.clone(), takes!(completion::complete)),
        ("/v1/embeddings", write.clone(), takes!(embeddings::embed)),
        ("/embeddings", write.clone(), takes!(embeddings::embed)),
        ("/v1/responses", write.clone(), takes!(responses::create)),
        ("/v1/messages", write.clone(), takes!(anthropic::create)),
        ("/v1/messages/count_tokens", write.clone(), takes!(anthropic::count)),
        ("/tokenize", write.clone(), takes!(native::tokenize)),
        ("/detokenize", write.clone(), takes!(native::detokenize)),
        ("/apply-template", write, takes!(native::apply_template)),
        ("/v1/models", read.clone(), gives!(native::models)),
        ("/models", read.clone(), gives!(native::models)),
        // Names can have slashes in them.
        ("/v1/models/{*id}", read.clone(), get(model)),
        ("/health", read.clone(), gives!(native::health)),
        ("/healthz", read.clone(), gives!(native::health)),
        ("/v1/health", read.clone(), gives!(native::health)),
        ("/readyz", read.clone(), gives!(native::health)),
        ("/livez", read.clone(), gives!(native::livez)),
        ("/version", read.clone(), gives!(native::version)),
        ("/metrics", read.clone(), gives!(native::metrics)),
        ("/props", read.clone(), gives!(native::props)),
        ("/slots", read.clone(), get(slots)),
        ("/openapi.json", read, gives!(native::openapi)),
    ]
}

/// All routes, with what stands before them.
pub(crate) fn router(state: Arc<State>) -> Router {
    let mut router = Router::new();
    for (path, _, answers) in routes() {
        router = router.route(path, answers);
    }
    if state.config.page {
        router = router.route("/", gives!(page::page));
    }
    router
        .fallback(|request: Request| async move {
            ApiError::not_found(format!("there is no {}", request.uri().path()))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            ApiError::method(format!("{path} does not take {method}"))
        })
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::internal("the server made a mistake: see what it said").into_response()
        }))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard::authorize))
        .layer(guard::cors(&state.config.cors))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard::origin))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard::account))
        .with_state(state)
}

/// Bytes of the body of a request, if it says how many.
fn length(request: &Request) -> Option<usize> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Waits for one of the few places of requests with large bodies, if it may be one of those.
async fn place(state: &State, length: Option<usize>) -> Option<SemaphorePermit<'_>> {
    if length.is_some_and(|length| length <= SMALL) {
        return None;
    }
    // Nobody closes them.
    state.large.acquire().await.ok()
}

/// The body of a request, which is to be a JSON object.
async fn body(state: &State, request: Request) -> Result<Value, ApiError> {
    let bytes = collected(request, state.config.body_limit);
    let bytes = time::timeout(state.config.client_timeout, bytes).await;
    let bytes =
        bytes.map_err(|_| ApiError::slow("the body took longer than the server allows"))??;
    state.has_place()?;
    parse(&bytes)
}

/// The bytes of a body. Of one that is too large the rest is read as well, as long as that is not much more:
/// many clients do not listen before they are through.
async fn collected(request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut pieces = request.into_body().into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| {
            ApiError::invalid("the body could not be read to its end").code("incomplete_body")
        })?;
        length += piece.len();
        if length <= limit {
            bytes.extend_from_slice(&piece);
        } else if length > limit.saturating_mul(READ_ON) {
            break;
        }
    }
    if length > limit {
        return Err(ApiError::too_large(format!("the body is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let wrong = |why: String| ApiError::invalid(why).code("invalid_json");
    if body.is_empty() {
        return Err(wrong("there is no body: send JSON".to_owned()));
    }
    match serde_json::from_slice(body) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(wrong("the body is no JSON object".to_owned())),
        Err(why) => Err(wrong(format!("the body is no JSON: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_all_routes() {
        let document: Value = serde_json::from_str(native::OPENAPI).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let routes = routes().into_iter().map(|(path, method, _)| {
            (path.replace("{*id}", "{id}"), method.as_str().to_ascii_lowercase())
        });
        let listed = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (path.clone(), method.clone()))
        });
        assert_eq!(listed.collect::<BTreeSet<_>>(), routes.collect());
    }
}
