//! Requests to a hub: tokens, redirects, what statuses mean, and trying again.

use std::env;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, RANGE};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use ureq::{Agent, Body};

use super::error::{Error, Failure};
use crate::exit;
use crate::hub::cache;
use crate::interrupt::Interrupt;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// The longest wait before another attempt, whatever the server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A hub, and who asks it.
pub(super) struct Client {
    agent: Agent,
    /// Without `/` at its end.
    pub(super) endpoint: String,
    origin: Origin,
    /// `Bearer ...`
    token: Option<HeaderValue>,
    /// Attempts in a row that bring nothing before it is given up.
    retries: u32,
    pub(super) interrupt: Interrupt,
    pub(super) bar: ProgressBar,
}

/// Scheme, host and port: who gets the token.
#[derive(Debug, PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    /// Of `http` and `https`, without a user in it.
    fn of(uri: &Uri) -> Option<Origin> {
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let usual = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let plain = !authority.as_str().contains('@') && !authority.host().is_empty();
        let port = authority.port_u16().unwrap_or(usual);
        plain.then(|| Origin(scheme.to_owned(), authority.host().to_ascii_lowercase(), port))
    }
}

impl Client {
    pub(super) fn new(
        endpoint: &str,
        retries: u32,
        bar: ProgressBar,
        interrupt: Interrupt,
    ) -> Result<Client, Error> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let origin = endpoint.parse().ok().as_ref().and_then(Origin::of);
        let origin = origin.ok_or_else(|| Error::Endpoint(endpoint.clone()))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("bitnet/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(30)));
        let (agent, token) = (config.build().new_agent(), token(&endpoint)?);
        Ok(Client { agent, endpoint, origin, token, retries, interrupt, bar })
    }

    /// Asks once, from a byte on. Redirects are followed, unless `until` finds in one what it needs.
    /// The token goes to the hub itself and to nobody else.
    pub(super) fn send(
        &self,
        method: Method,
        url: &str,
        from: u64,
        repository: &str,
        until: fn(&HeaderMap) -> bool,
    ) -> Result<Response<Body>, Failure> {
        let mut uri: Uri = url.parse().map_err(|_| Error::Endpoint(self.endpoint.clone()))?;
        for _ in 0..=REDIRECTS {
            let mut request = Request::builder().method(method.clone()).uri(&uri);
            request = request.header(ACCEPT_ENCODING, "identity");
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let own = Origin::of(&uri).is_some_and(|origin| origin == self.origin);
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.header(AUTHORIZATION, token);
            }
            let request = request.body(()).map_err(|_| Error::Endpoint(self.endpoint.clone()))?;
            let response = self.agent.run(request).map_err(|cause| unreachable(url, cause))?;
            let headers = response.headers();
            if !response.status().is_redirection() || until(headers) {
                return self.judge(response, url, repository);
            }
            let to = text(headers, "location").unwrap_or_default();
            let wrong = |what| Error::Redirect { url: url.to_owned(), to: to.to_owned(), what };
            uri = target(&uri, to, self.origin.0 == "https").map_err(wrong)?;
        }
        let (url, to) = (url.to_owned(), uri.to_string());
        Err(Error::Redirect { url, to, what: "that is one redirect too many" }.into())
    }

    /// What the status of an answer means.
    fn judge(
        &self,
        response: Response<Body>,
        url: &str,
        repository: &str,
    ) -> Result<Response<Body>, Failure> {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let (url, repository) = (url.to_owned(), repository.to_owned());
        match status {
            200..=399 | 416 => Ok(response),
            401 | 403 if text(headers, "x-error-code") == Some("GatedRepo") => {
                let page = format!("{}/{repository}", self.endpoint);
                Err(Error::Gated { repository, page }.into())
            }
            401 | 403 => {
                let advice = match self.token {
                    Some(_) => "the token in use does not open it",
                    None => "set HF_TOKEN if it is private",
                };
                Err(Error::Denied { url, status, repository, advice }.into())
            }
            404 => Err(Error::NotFound { url }.into()),
            408 | 429 | 500..=599 => {
                let seconds =
                    text(headers, "retry-after").and_then(|after| after.trim().parse().ok());
                let (error, after) =
                    (Error::Status { url, status }, seconds.map(Duration::from_secs));
                Err(Failure::Passing { error, after, progress: false })
            }
            _ => Err(Error::Status { url, status }.into()),
        }
    }

    /// Tries until it goes well, cannot go well, or has brought nothing `retries` times in a row.
    pub(super) fn retry<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut failed = 0;
        loop {
            let (error, after) = match attempt() {
                Ok(done) => return Ok(done),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing { error, after, progress }) => {
                    failed = if progress { 0 } else { failed + 1 };
                    (error, after)
                }
            };
            if failed > self.retries {
                return Err(error);
            }
            // Half a second, and twice as long each time.
            let backoff = Duration::from_millis(500).saturating_mul((1 << failed.min(8)) / 2);
            let wait = after.unwrap_or(backoff).min(LONGEST_WAIT);
            let seconds = wait.as_secs_f64();
            self.say(&format!("note: {error}; trying again in {seconds} s"));
            self.wait(wait)?;
        }
    }

    /// Waits, unless Ctrl-C is pressed.
    pub(super) fn wait(&self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        while !self.interrupt.pressed() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        Err(Error::Interrupted)
    }

    /// A line on stderr, above the bar.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| exit::say(line));
    }
}

/// Where a redirect leads; not away from TLS, if the hub has it.
fn target(from: &Uri, location: &str, secure: bool) -> Result<Uri, &'static str> {
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let whole = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    let to = whole.parse().ok().and_then(|to| Some((Origin::of(&to)?, to)));
    match to.ok_or("that is no address")? {
        (origin, _) if secure && origin.0 != "https" => Err("that is without TLS"),
        (_, to) => Ok(to),
    }
}

/// A header as text, if it is there.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// No answer. A name may be found and a connection stand later; a certificate stays wrong.
fn unreachable(url: &str, cause: ureq::Error) -> Failure {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
    let passes = match &cause {
        Io(error) => error.kind() != io::ErrorKind::InvalidData,
        other => matches!(other, ConnectionFailed | HostNotFound | Protocol(_) | Timeout(_)),
    };
    let error = Error::Unreachable { url: url.to_owned(), cause };
    if passes { Failure::passing(error) } else { error.into() }
}

/// The user's token: from `HF_TOKEN`, or where the tools of Hugging Face keep it.
fn token(endpoint: &str) -> Result<Option<HeaderValue>, Error> {
    let file = cache::home().map(|home| home.join("token"));
    let (from, token) = match env::var_os("HF_TOKEN").filter(|token| !token.is_empty()) {
        Some(token) => ("HF_TOKEN".to_owned(), token.to_string_lossy().into_owned()),
        None => match file.and_then(|file| Some((fs::read_to_string(&file).ok()?, file))) {
            Some((token, file)) => (file.display().to_string(), token),
            None => return Ok(None),
        },
    };
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = !token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !wrong);
    let mut value = value.ok_or_else(|| Error::Token(from, endpoint.to_owned()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A path as a part of an address; `/` stays if `slashes` do.
pub(super) fn encode(path: &str, slashes: bool) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into())
            }
            b'/' if slashes => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap());
        assert_eq!(origin("https://Hub.co/x"), origin("https://hub.co:443"));
        for other in ["http://hub.co", "https://hub.co:444", "https://a.hub.co", "https://hub.com"]
        {
            assert_ne!(origin("https://hub.co"), origin(other));
        }
        assert_eq!(origin("https://hub.co@evil.org/"), None);
        assert_eq!(origin("ftp://hub.co/"), None);
        assert_eq!(origin("/path"), None);
    }

    #[test]
    fn redirects_stay_with_tls() {
        let from: Uri = "https://hub.co/a/b".parse().unwrap();
        let to = |location, secure| target(&from, location, secure).map(|uri| uri.to_string());
        assert_eq!(to("/c?d", true).unwrap(), "https://hub.co/c?d");
        assert_eq!(to("//cdn.co/c", true).unwrap(), "https://cdn.co/c");
        assert_eq!(to("https://cdn.co/c", true).unwrap(), "https://cdn.co/c");
        assert_eq!(to("http://hub.co/c", true), Err("that is without TLS"));
        assert_eq!(to("http://hub.co/c", false).unwrap(), "http://hub.co/c");
        for bad in ["", "c", "ftp://hub.co/c", "https://a@hub.co/", "//", "https://"] {
            assert!(to(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_hold_any_name() {
        assert_eq!(encode("a b/ä#?.gguf", true), "a%20b/%C3%A4%23%3F.gguf");
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
