//! A process with a library, as the one who asks it sees it.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::wire::{self, Request, Response};

/// Lines of what a library wrote that are kept.
const LINES: usize = 12;
/// Bytes of a line that are kept.
const LINE: u64 = 400;
/// How long a process may take to end by itself.
const END: Duration = Duration::from_secs(2);
/// How often is looked whether a process is still there.
const LOOK: Duration = Duration::from_millis(200);

/// The program that opens libraries: this one, usually.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The program.
    pub program: PathBuf,
    /// What makes it [serve](crate::host::serve).
    pub args: Vec<String>,
}

/// Set for those processes: one that opens no library, and does its usual work in place of that, must not start
/// another, which would start another.
const MARK: &str = "BITNET_FFI_HOST";

impl Host {
    /// This program, with the command `ffi-host`.
    ///
    /// # Errors
    ///
    /// Where the system does not tell where it is, or it has been started so, and does not know that command.
    pub fn this_program() -> Result<Host, Error> {
        let program = match env::var_os(MARK) {
            Some(_) => Err(io::Error::other("it does not do what `ffi-host` asks for")),
            None => env::current_exe(),
        };
        let program =
            program.map_err(|source| Error::Start { program: "this program".into(), source })?;
        Ok(Host { program, args: vec!["ffi-host".to_owned()] })
    }
}

/// How long a library may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To be opened.
    pub open: Duration,
    /// For anything else: loading a model, or a pass.
    pub call: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { open: Duration::from_secs(60), call: Duration::from_secs(600) }
    }
}

/// What came.
type Answer = io::Result<Option<(Response, Vec<u8>)>>;

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Nothing once it is to end.
    to: Option<Pipe>,
    answers: Receiver<Answer>,
    last: Arc<Mutex<Vec<String>>>,
    library: PathBuf,
    patience: Patience,
}

#[cfg(unix)]
type Pipe = std::os::unix::net::UnixStream;
#[cfg(not(unix))]
type Pipe = std::process::ChildStdin;

impl Process {
    pub(crate) fn start(host: &Host, library: &Path, patience: Patience) -> Result<Process, Error> {
        let failed = |source| Error::Start { program: host.program.clone(), source };
        let mut command = Command::new(&host.program);
        command.args(&host.args).env(MARK, "1");
        // What is kept of what it writes should say what happened, and not where: ggml would ask a debugger.
        command.env("GGML_NO_BACKTRACE", "1").env("RUST_BACKTRACE", "0");
        apart(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, to, from) = spawn(&mut command).map_err(failed)?;
        let last = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            keep(stderr, Arc::clone(&last));
        }
        // Where it does not carry the answers.
        if let Some(stdout) = child.stdout.take() {
            keep(stdout, Arc::clone(&last));
        }
        let (sender, answers) = mpsc::channel();
        let mut from = BufReader::new(from);
        thread::spawn(move || {
            loop {
                let answer = wire::read(&mut from);
                let is_last = !matches!(answer, Ok(Some(_)));
                if sender.send(answer).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Process { child, to: Some(to), answers, last, library: library.to_owned(), patience })
    }

    /// Asks for something, and waits for the answer.
    pub(crate) fn call(
        &mut self,
        request: &Request,
        data: &[u8],
    ) -> Result<(Response, Vec<u8>), Error> {
        let call = request.name();
        // What it wrote before has nothing to do with this.
        if let Ok(mut last) = self.last.lock() {
            last.clear();
        }
        let sent = match &mut self.to {
            Some(to) => wire::write(to, request, data),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if sent.is_err() {
            return Err(self.died(call));
        }
        let patience = match request {
            Request::Open { .. } => self.patience.open,
            _ => self.patience.call,
        };
        match self.answer(patience) {
            Ok(Ok(Some((Response::Refused { what }, _)))) => {
                // Why a model is refused stands only in what the library writes.
                let is_load = matches!(request, Request::Load { .. });
                let last = if is_load { self.last() } else { String::new() };
                Err(Error::Refused { library: self.library.clone(), what, last })
            }
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.kill();
                Err(Error::Protocol { library: self.library.clone(), what: error.to_string() })
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => Err(self.died(call)),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                let (library, last) = (self.library.clone(), self.last());
                Err(Error::Late { library, call, seconds: patience.as_secs(), last })
            }
        }
    }

    /// Waits for an answer, for as long as there is somebody who could give one: where the library has started processes
    /// of its own, these can keep the pipe open.
    fn answer(&mut self, patience: Duration) -> Result<Answer, RecvTimeoutError> {
        let start = Instant::now();
        loop {
            let left = patience.saturating_sub(start.elapsed());
            match self.answers.recv_timeout(left.min(LOOK)) {
                Err(RecvTimeoutError::Timeout) if left > LOOK => {}
                answer => return answer,
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                // What it said before it ended may be on its way.
                return self.answers.recv_timeout(LOOK).or(Err(RecvTimeoutError::Disconnected));
            }
        }
    }

    /// An answer to what was not asked.
    pub(crate) fn protocol(&self, what: &Response) -> Error {
        let what = format!("an answer that was not asked for: {what:?}");
        Error::Protocol { library: self.library.clone(), what }
    }

    fn died(&mut self, call: &'static str) -> Error {
        self.hang_up();
        let how = match wait(&mut self.child) {
            Some(status) => how(status),
            None => "it closed its pipe".to_owned(),
        };
        self.kill();
        Error::Died { library: self.library.clone(), call, how, last: self.last() }
    }

    /// Tells the process that nobody asks any more.
    fn hang_up(&mut self) {
        if let Some(to) = self.to.take() {
            close(&to);
        }
    }

    fn kill(&mut self) {
        self.hang_up();
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines that the library wrote.
    fn last(&self) -> String {
        // Who reads them may be on its way.
        thread::sleep(Duration::from_millis(20));
        self.last.lock().map(|last| last.join("\n")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends where nobody asks any more.
        self.hang_up();
        if wait(&mut self.child).is_none() {
            self.kill();
        }
    }
}

/// Waits for a while until a process ends.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let step = Duration::from_millis(5);
    for _ in 0..END.as_millis() / step.as_millis() {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(step);
    }
    None
}

/// How a process ended.
fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            4 => " (SIGILL)",
            6 => " (SIGABRT)",
            8 => " (SIGFPE)",
            9 => " (SIGKILL: out of memory, perhaps)",
            11 => " (SIGSEGV)",
            _ => "",
        };
        return format!("signal {signal}{name}");
    }
    status.to_string()
}

/// Keeps the last lines of what is written.
fn keep(from: impl Read + Send + 'static, last: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.by_ref().take(LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let Ok(mut last) = last.lock() else { return };
            if !text.is_empty() && !is_of_trace(&text) {
                last.push(text);
            }
            let more = last.len().saturating_sub(LINES);
            last.drain(..more);
        }
    });
}

/// Has a process hear nothing of Ctrl-C: who asks it decides what that means.
#[cfg(unix)]
fn apart(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(windows)]
fn apart(command: &mut Command) {
    const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
    std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
}

#[cfg(not(any(unix, windows)))]
fn apart(_: &mut Command) {}

/// Ends what is asked. Answers have the same socket.
#[cfg(unix)]
fn close(to: &Pipe) {
    // It may have been closed at the other end.
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// It is closed where it is dropped.
#[cfg(not(unix))]
fn close(_: &Pipe) {}

/// Whether a line is of a trace of calls, by the debugger that ggml asks when it aborts, or without one: what it says
/// before says more.
fn is_of_trace(line: &str) -> bool {
    const BEGIN: [&str; 6] = [
        "[New LWP",
        "[Thread debugging",
        "[Inferior",
        "Using host libthread_db",
        "warning: ",
        "0x0",
    ];
    // What follows a number.
    let behind = |text: &str, what: char| {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < text.len() && rest.starts_with(what)
    };
    let frame = line.strip_prefix('#').is_some_and(|rest| behind(rest, ' '));
    let source = behind(line, '\t');
    let address = line.contains("[0x") && line.ends_with(']');
    frame || source || address || BEGIN.iter().any(|begin| line.starts_with(begin))
}

#[cfg(unix)]
fn spawn(command: &mut Command) -> io::Result<(Child, Pipe, impl Read + Send + 'static)> {
    use std::os::fd::OwnedFd;
    let (ours, theirs) = Pipe::pair()?;
    command.stdin(Stdio::from(OwnedFd::from(theirs)));
    let child = command.spawn()?;
    // The command has the other end, which nobody here may keep.
    command.stdin(Stdio::null());
    Ok((child, ours.try_clone()?, ours))
}

#[cfg(not(unix))]
fn spawn(command: &mut Command) -> io::Result<(Child, Pipe, impl Read + Send + 'static)> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let (to, from) = (child.stdin.take(), child.stdout.take());
    Ok((child, to.ok_or_else(missing)?, from.ok_or_else(missing)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_left_out() {
        for line in [
            "#15 std::panicking::catch_unwind () at library/std/src/panicking.rs:581",
            "250\t/rustc/core/src/ops/function.rs: No such file or directory.",
            "[New LWP 12140]",
            "0x00007f5f7a2e5b57 in wait4 () from /lib/x86_64-linux-gnu/libc.so.6",
            "libggml-base.so(+0x1a5b6)[0x7f5f7a5a55b6]",
        ] {
            assert!(is_of_trace(line), "{line}");
        }
        for line in [
            "/src/ggml.c:12: GGML_ASSERT(type >= 0 && type < GGML_TYPE_COUNT) failed",
            "12 layers",
            "# of tensors: 3",
            "llama_model_load: error loading model: invalid ggml type 36 [should be in 0..39]",
        ] {
            assert!(!is_of_trace(line), "{line}");
        }
    }
}
