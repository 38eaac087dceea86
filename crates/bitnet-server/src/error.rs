//! What clients are told where something is wrong.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bitnet_inference::Error;
use serde_json::{Value, json};

/// Why a request fails, as clients of OpenAI know it. Responses carry it along, for what stands before
/// all routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// The kind of error, which is few words for many.
    pub(crate) kind: &'static str,
    /// What programs can tell it by.
    pub(crate) code: Option<&'static str>,
    /// The field that is wrong.
    pub(crate) param: Option<String>,
    pub(crate) message: String,
}

/// Seconds after which it is worth to ask again.
const RETRY_AFTER: &str = "1";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, code: None, param: None, message: message.into() }
    }

    /// The request is not as it must be.
    pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found_error", message).code("not_found")
    }

    /// There is such a thing, but it does not take this method.
    pub(crate) fn method(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
            .code("method_not_allowed")
    }

    /// Who asks must not.
    pub(crate) fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// The client was too slow.
    pub(crate) fn slow(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message).code("request_timeout")
    }

    /// The key is missing or wrong.
    pub(crate) fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
            .code("invalid_api_key")
    }

    /// The body is too large.
    pub(crate) fn too_large(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
            .code("request_too_large")
    }

    /// There are too many requests.
    pub(crate) fn busy(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).code("queue_full")
    }

    /// The server cannot answer now.
    pub(crate) fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message)
            .code("unavailable")
    }

    /// The server is about to end.
    pub(crate) fn draining() -> ApiError {
        ApiError::unavailable("the server is shutting down").code("draining")
    }

    /// It took too long.
    pub(crate) fn timeout(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message).code("timeout")
    }

    /// Something is wrong here.
    pub(crate) fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
            .code("internal_error")
    }

    pub(crate) fn code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(code), ..self }
    }

    pub(crate) fn param(self, param: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..self }
    }

    /// Names the field, where it is the prompt or what binds the text: those that have these.
    pub(crate) fn of(self, prompt: &str, bound_by: Option<&str>) -> ApiError {
        match (self.code, bound_by) {
            (Some("context_length_exceeded" | "empty_prompt" | "invalid_token"), _) => {
                self.param(prompt)
            }
            (Some("invalid_constraint"), Some(name)) => self.param(name),
            _ => self,
        }
    }

    /// Gives the field the name that the client has for it: pairs of what it begins with here and there.
    pub(crate) fn renamed(mut self, names: &[(&str, &str)]) -> ApiError {
        let Some(param) = &self.param else { return self };
        let found = names.iter().find_map(|(ours, theirs)| {
            let rest = param.strip_prefix(ours)?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{theirs}{rest}"))
        });
        if let Some(name) = found {
            if let Some(why) = self.message.strip_prefix(&**param) {
                self.message = format!("{name}{why}");
            }
            self.param = Some(name);
        }
        self
    }

    /// As OpenAI has it.
    pub(crate) fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        } })
    }

    /// As Anthropic has it.
    pub(crate) fn anthropic_body(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        json!({ "type": "error", "error": { "type": kind, "message": self.message } })
    }

    /// The same, as clients of Anthropic know it.
    pub(crate) fn into_anthropic(self) -> Response {
        let body = self.anthropic_body();
        self.respond(body)
    }

    fn respond(self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let seconds = HeaderValue::from_static(RETRY_AFTER);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.body();
        self.respond(body)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        let message = error.to_string();
        match error {
            Error::Context { .. } => ApiError::invalid(message).code("context_length_exceeded"),
            Error::EmptyPrompt => ApiError::invalid(message).code("empty_prompt"),
            Error::Token { .. } => ApiError::invalid(message).code("invalid_token"),
            Error::Sampling { name, value, expected } => {
                let param = match name {
                    "typical" => "typical_p".to_owned(),
                    "dynatemp-exp" => "dynatemp_exponent".to_owned(),
                    name => name.replace('-', "_"),
                };
                ApiError::invalid(format!("{param}: {value} is not {expected}"))
                    .code("invalid_value")
                    .param(param)
            }
            Error::StopString => ApiError::invalid(message).code("invalid_value").param("stop"),
            Error::Constraint { .. } => ApiError::invalid(message).code("invalid_constraint"),
            Error::Device(_) => ApiError::invalid(message).code("invalid_value"),
            Error::Chat(_) => ApiError::invalid(message).code("invalid_messages").param("messages"),
            Error::Memory { .. } => ApiError::unavailable(message).code("out_of_memory"),
            _ => ApiError::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that no client brings about.
    #[test]
    fn errors_of_the_engine_are_told() {
        let row = |error: Error| {
            let error = ApiError::from(error);
            (error.status.as_u16(), error.kind, error.code)
        };
        let memory = Error::Memory { what: "key-value cache", bytes: 1 };
        assert_eq!(row(memory), (503, "unavailable_error", Some("out_of_memory")));
        let pass = Error::Pass { what: "no more memory".to_owned() };
        assert_eq!(row(pass), (500, "server_error", Some("internal_error")));
    }

    #[test]
    fn anthropic_has_its_own_names() {
        let kind = |error: ApiError| error.anthropic_body()["error"]["type"].clone();
        assert_eq!(kind(ApiError::busy("")), "rate_limit_error");
        assert_eq!(kind(ApiError::unavailable("")), "overloaded_error");
        assert_eq!(kind(ApiError::internal("")), "api_error");
        assert_eq!(kind(ApiError::method("")), "invalid_request_error");
        assert_eq!(kind(ApiError::too_large("")), "request_too_large");
    }
}
