//! A small HTTP server that behaves as a hub, or misbehaves as a test has it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bitnet_inference::sha256;
use sha1::{Digest, Sha1};

/// The commit that every branch is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The byte that a range starts at.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    /// Whether it asks for the bytes of a file.
    pub(crate) fn is_download(&self) -> bool {
        self.method == "GET" && !self.path.starts_with("/api/")
    }
}

/// What the server answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body after which the connection breaks off.
    pub(crate) cut: Option<usize>,
    /// Bytes of the body after which the others come one by one.
    pub(crate) slow: Option<usize>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.into(), cut: None, slow: None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_string()));
        self
    }

    /// A status after which one may come again at once.
    pub(crate) fn again(status: u16) -> Reply {
        Reply::new(status, "").with("Retry-After", 0)
    }

    fn write(&self, stream: &mut TcpStream, head_only: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", self.status);
        let own = ["Content-Length", "Transfer-Encoding"];
        if !self.headers.iter().any(|(name, _)| own.contains(name)) {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if head_only {
            return Ok(());
        }
        let body = &self.body[..self.cut.unwrap_or(self.body.len())];
        let (fast, slow) = body.split_at(self.slow.unwrap_or(body.len()));
        stream.write_all(fast)?;
        for byte in slow {
            thread::sleep(std::time::Duration::from_millis(5));
            stream.write_all(&[*byte])?;
        }
        Ok(())
    }
}

/// A server on a port of its own, until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop, answer) =
            (Arc::default(), Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        Server { address, asked, stop, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked for so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Where the downloads so far started.
    pub(crate) fn downloads(&self) -> Vec<Option<usize>> {
        self.asked().iter().filter(|asked| asked.is_download()).map(Asked::from).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// One request of one connection.
fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Reply) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    });
    let asked = Asked { method, path, headers: headers.collect() };
    log.lock().unwrap().push(asked.clone());
    // That the client goes away is its business.
    let _ = answer(&asked).write(&mut stream, asked.method == "HEAD");
}

/// A repository on a hub.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Where large files are, if not here.
    pub(crate) elsewhere: Option<String>,
}

impl Hub {
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Hub {
        let owned = |(name, bytes): (&str, &[u8])| (name.to_owned(), bytes.to_owned());
        Hub { files: files.into_iter().map(owned).collect(), elsewhere: None }
    }

    /// What a hub answers that works.
    pub(crate) fn answer(&self, asked: &Asked) -> Reply {
        if asked.path.starts_with("/api/models/tales/demo/revision/") {
            let files: Vec<_> = self.files.keys().collect();
            let siblings: Vec<_> =
                files.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let listing = serde_json::json!({ "sha": COMMIT, "siblings": siblings, "other": 1 });
            return Reply::new(200, listing.to_string());
        }
        let resolve = format!("/tales/demo/resolve/{COMMIT}/");
        let file = asked.path.strip_prefix(&resolve).or_else(|| asked.path.strip_prefix("/cdn/"));
        match file.and_then(|file| self.files.get_key_value(file)) {
            Some((file, bytes)) => self.file(asked, file, bytes),
            None => Reply::new(404, "nothing here"),
        }
    }

    fn file(&self, asked: &Asked, file: &str, bytes: &[u8]) -> Reply {
        let large = file.ends_with(".gguf") || file.ends_with(".safetensors");
        if let Some(url) = self.elsewhere.as_ref().filter(|_| large) {
            return Reply::new(302, "")
                .with("Location", format!("{url}/cdn/{file}?signature=1"))
                .with("X-Linked-Etag", format!("\"{}\"", sha256(bytes)))
                .with("X-Linked-Size", bytes.len())
                .with("X-Repo-Commit", COMMIT);
        }
        let etag = if large { sha256(bytes) } else { git_hash(bytes) };
        let reply = match asked.from() {
            Some(start) if start >= bytes.len() => Reply::new(416, ""),
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Reply::new(206, &bytes[start..]).with("Content-Range", range)
            }
            None => Reply::new(200, bytes),
        };
        reply.with("ETag", format!("\"{etag}\"")).with("X-Repo-Commit", COMMIT)
    }
}

/// The hash that git has for a file.
fn git_hash(bytes: &[u8]) -> String {
    let digest = Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes);
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
