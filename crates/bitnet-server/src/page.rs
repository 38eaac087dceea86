//! `GET /`: a page to chat on. It is one file, which takes nothing from anywhere else.

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::state::State;

const PAGE: &str = include_str!("page.html");

/// What the page may do: run its own script, look as it says itself with the icon in it, and ask this
/// server. Text never becomes HTML or script in it.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let inner = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
        let hash = Sha256::digest(inner.map_or("", |(inner, _)| inner).as_bytes());
        BASE64_STANDARD.encode(hash)
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash("script"),
        hash("style"),
    )
});

pub(crate) async fn page(_: Arc<State>) -> Result<Response, ApiError> {
    let mut response = Html(PAGE).into_response();
    let policy = HeaderValue::from_str(&POLICY);
    let policy = policy.map_err(|why| ApiError::internal(why.to_string()))?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
