//! The process with a library: takes what it is asked over a pipe, and answers.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::contract::Contract;
#[cfg(unix)]
use crate::load::nothing_to_read;
use crate::load::{Kernels, Libraries, Llama, Shim, end};
use crate::wire::{self, Ran, Request, Response, Row, Settings, bytes, numbers};

/// What is asked, with the data behind it.
type Asked = (Request, Vec<u8>);
/// What is answered.
type Answer = Result<(Response, Vec<u8>), String>;

/// Answers what is asked until nobody asks any more. It is what `bitnet ffi-host` does, and for nobody else than
/// [`crate::Reference`].
///
/// # Errors
///
/// Where the pipe breaks.
pub fn serve() -> io::Result<()> {
    let (from, to) = pipe()?;
    serve_on(from, to)
}

/// Where requests come from and answers go to: a socket in place of standard input, since libraries print where
/// they like.
#[cfg(unix)]
fn pipe() -> io::Result<(impl Read + Send + 'static, impl Write)> {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // A library that reads standard input reads nothing.
    nothing_to_read()?;
    Ok((socket.try_clone()?, socket))
}

#[cfg(not(unix))]
fn pipe() -> io::Result<(impl Read + Send + 'static, impl Write)> {
    Ok((io::stdin(), io::stdout()))
}

fn serve_on(mut from: impl Read + Send + 'static, mut to: impl Write) -> io::Result<()> {
    let (sender, asked) = mpsc::channel();
    // Somebody listens even while the library works: who asked may be gone, and then nobody needs an answer.
    thread::spawn(move || {
        loop {
            match wire::read(&mut from) {
                Ok(Some(request)) => {
                    if sender.send(request).is_err() {
                        return;
                    }
                }
                // Not by what a library wants to do at the end, which may be in the middle of a call.
                Ok(None) => end(0),
                Err(error) => {
                    eprintln!("error: what is asked cannot be read: {error}");
                    end(1);
                }
            }
        }
    });
    while let Ok((request, _)) = asked.recv() {
        let answer = match request {
            Request::Open { library, contract } => {
                let path = PathBuf::from(library);
                open(&path, contract)
                    .map(|(libraries, response)| (libraries, path, contract, response))
            }
            _ => Err("no library has been opened".to_owned()),
        };
        match answer {
            Ok((libraries, path, contract, response)) => {
                send(&mut to, Ok((response, Vec::new())))?;
                return work((&libraries, &path, contract), &asked, &mut to);
            }
            Err(what) => send(&mut to, Err(what))?,
        }
    }
    Ok(())
}

fn send(to: &mut impl Write, answer: Answer) -> io::Result<()> {
    let (response, data) = answer.unwrap_or_else(|what| (Response::Refused { what }, Vec::new()));
    wire::write(to, &response, &data)
}

fn open(path: &Path, contract: Contract) -> Result<(Libraries, Response), String> {
    let libraries = Libraries::open(path)?;
    let layouts = match contract {
        Contract::Bitnet => Ok(Vec::new()),
        _ => Llama::layouts(&libraries)
            .map(|(model, context)| vec![model.builds.to_owned(), context.builds.to_owned()]),
    };
    let versions = libraries.versions();
    Ok((libraries, Response::Opened { versions, layouts }))
}

/// A model that has been loaded, and what its sequences hold. Not all libraries look at what they are given.
struct Model<'a> {
    engine: Loaded<'a>,
    lengths: Vec<usize>,
    vocabulary: usize,
}

enum Loaded<'a> {
    Llama(Llama<'a>),
    Bitnet(Shim<'a>),
}

impl<'a> Model<'a> {
    fn load(
        (libraries, contract): (&'a Libraries, Contract),
        path: &Path,
        settings: &Settings,
    ) -> Result<Model<'a>, String> {
        let engine = match contract {
            Contract::Bitnet => Loaded::Bitnet(Shim::load(libraries, path, settings)?),
            contract => Loaded::Llama(Llama::load(libraries, contract, path, settings)?),
        };
        let (lengths, vocabulary) = (vec![0; settings.sequences], settings.vocabulary);
        Ok(Model { engine, lengths, vocabulary })
    }

    fn loaded(&self) -> Result<wire::Loaded, String> {
        match &self.engine {
            Loaded::Llama(llama) => llama.loaded(),
            Loaded::Bitnet(shim) => Ok(shim.loaded()),
        }
    }

    fn tokenize(&self, text: &str, special: bool, parse: bool) -> Result<Vec<u32>, String> {
        match &self.engine {
            Loaded::Llama(llama) => llama.tokenize(text, special, parse),
            Loaded::Bitnet(shim) => shim.tokenize(text, special, parse),
        }
    }

    fn run(&mut self, rows: &[Row]) -> Result<(Ran, Vec<f32>), String> {
        let mut lengths = self.lengths.clone();
        for &Row { sequence, position, token, .. } in rows {
            let length = lengths.get_mut(sequence).ok_or_else(|| none(sequence))?;
            if *length != position {
                return Err(format!(
                    "position {position} of sequence {sequence} does not follow {length} tokens"
                ));
            }
            if token as usize >= self.vocabulary {
                return Err(format!("token {token} is not in a vocabulary of {}", self.vocabulary));
            }
            *length += 1;
        }
        // Where it fails, it may have got anywhere: what it holds is to be forgotten before there is more.
        self.lengths = lengths;
        match &mut self.engine {
            Loaded::Llama(llama) => llama.run(rows),
            Loaded::Bitnet(shim) => shim.run(rows),
        }
    }

    fn truncate(&mut self, sequence: usize, length: usize) -> Result<(), String> {
        let held = self.lengths.get_mut(sequence).ok_or_else(|| none(sequence))?;
        if length >= *held {
            return Ok(());
        }
        *held = length;
        match &mut self.engine {
            Loaded::Llama(llama) => llama.truncate(sequence, length),
            Loaded::Bitnet(shim) => {
                shim.truncate(sequence, length);
                Ok(())
            }
        }
    }
}

fn none(sequence: usize) -> String {
    format!("there is no sequence {sequence}")
}

/// Answers with an open library.
fn work(
    (libraries, path, contract): (&Libraries, &Path, Contract),
    asked: &Receiver<Asked>,
    to: &mut impl Write,
) -> io::Result<()> {
    let (mut model, mut kernels) = (None, None);
    while let Ok((request, data)) = asked.recv() {
        let answer = match request {
            Request::Open { .. } => Err("a library has been opened".to_owned()),
            Request::Load { model: file, settings } => {
                // One at a time: a model can be as large as the memory.
                drop(model.take());
                Model::load((libraries, contract), Path::new(&file), &settings).and_then(|loaded| {
                    let response = loaded.loaded()?;
                    model = Some(loaded);
                    Ok((Response::Loaded(response), Vec::new()))
                })
            }
            request @ (Request::Tokenize { .. }
            | Request::Run { .. }
            | Request::Truncate { .. }) => model
                .as_mut()
                .ok_or("no model has been loaded".to_owned())
                .and_then(|model| with_model(model, request)),
            request => match kernels.take().map_or_else(|| Kernels::open(path), Ok) {
                Ok(found) => with_kernels(kernels.insert(found), request, &data),
                Err(what) => Err(what),
            },
        };
        send(to, answer)?;
    }
    Ok(())
}

fn with_model(model: &mut Model<'_>, request: Request) -> Answer {
    match request {
        Request::Tokenize { text, special, parse } => {
            Ok((Response::Tokens(model.tokenize(&text, special, parse)?), Vec::new()))
        }
        Request::Run { rows } => {
            let (ran, numbers) = model.run(&rows)?;
            Ok((Response::Ran(ran), bytes(&numbers)))
        }
        Request::Truncate { sequence, length } => {
            model.truncate(sequence, length)?;
            Ok((Response::Done, Vec::new()))
        }
        other => Err(format!("this is not asked of a model: {other:?}")),
    }
}

fn with_kernels(kernels: &Kernels, request: Request, data: &[u8]) -> Answer {
    match request {
        Request::Has { names } => {
            let processor = kernels.processor().map(|path| path.display().to_string());
            Ok((Response::Has { found: kernels.has(&names), processor }, Vec::new()))
        }
        Request::Dequantize { name, count } => {
            Ok((Response::Data, bytes(&kernels.dequantize(&name, data, count)?)))
        }
        Request::Quantize { name, rows, bytes } => {
            Ok((Response::Data, kernels.quantize(&name, &numbers(data), (rows, bytes))?))
        }
        Request::Dot { name, activation, rows, cols, rounds } => {
            let (row, weights) =
                data.split_at_checked(cols * 4).ok_or("there are fewer numbers than columns")?;
            let names = (&*name, &*activation);
            let (nanoseconds, products) =
                kernels.dot(names, (weights, rows), &numbers(row), rounds)?;
            Ok((Response::Dotted { nanoseconds }, bytes(&products)))
        }
        other => Err(format!("this is not asked of kernels: {other:?}")),
    }
}
