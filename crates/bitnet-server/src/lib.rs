//! An inference server for ternary language models: the interfaces of OpenAI and Anthropic over HTTP.
//!
//! [`serve`] listens at once and says that it loads; a thread has the model and its
//! [`Replicas`], and all requests share the forward passes of each device.

use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bitnet_inference::{Capacity, Engine, Error, Replicas, Request};
use tokio::runtime;
use tokio::signal;
use tokio::sync::oneshot;
use tokio::time;

mod answer;
mod anthropic;
mod chat;
mod completion;
mod completions;
mod connections;
mod devices;
mod embeddings;
mod error;
mod guard;
mod http;
mod id;
mod log;
mod messages;
mod metrics;
mod native;
mod options;
mod page;
mod responses;
mod state;
mod tools;
mod worker;

use connections::Connections;
pub use log::Log;
use log::Logger;
use metrics::Metrics;
use state::State;
use worker::{Command, Worker};

/// How a server serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// What clients call the model.
    pub name: String,
    /// Chat template in place of that of the model.
    pub chat_template: Option<String>,
    /// How much is done at once, by each device.
    pub capacity: Capacity,
    /// Requests that may wait.
    pub queue: usize,
    /// What holds where a request does not say. Its limit holds in any case, its prompt and seed never.
    pub defaults: Request,
    /// The seed of requests that give none; another one for each, if not given.
    pub seed: Option<u64>,
    /// Keys of which a request needs one; none if there are none.
    pub api_keys: Vec<String>,
    /// Whether figures need no key.
    pub open_metrics: bool,
    /// Whether figures have the names of vLLM, too.
    pub vllm_metrics: bool,
    /// Whether there is a page to chat on.
    pub page: bool,
    /// Origins whose pages may ask; those of this machine if there are none.
    pub cors: Vec<String>,
    /// Bytes of a body at most.
    pub body_limit: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long a client may take to send a request, or to take a piece of its answer.
    pub client_timeout: Duration,
    /// How long requests may go on when the server is to end.
    pub shutdown: Duration,
    /// Lines about requests.
    pub log: Log,
}

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system does not do what is needed.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The engine ended, which it must not.
    #[error("the engine has stopped")]
    Stopped,
}

/// Serves until the process is told to end (SIGTERM, SIGINT), and then until all requests are answered.
/// `load` gives the model while the server already says that it loads; `ready` is called then.
///
/// # Errors
///
/// Where the model cannot be loaded or the system does not serve.
pub fn serve<E>(
    listeners: Vec<TcpListener>,
    config: Config,
    load: impl FnOnce() -> Result<Engine, E> + Send + 'static,
    ready: impl FnOnce(&Engine) + Send + 'static,
) -> Result<(), E>
where
    E: From<Error> + From<ServeError> + Send + 'static,
{
    let system = |what| move |source| ServeError::System { what, source };
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(system("there is no runtime for connections"))?;
    let loopback = listeners
        .iter()
        .all(|listener| listener.local_addr().is_ok_and(|address| address.ip().is_loopback()));
    let (commands, asked) = mpsc::channel();
    let metrics = Arc::new(Metrics::default());
    let (capacity, look, end) = (config.capacity, commands.clone(), commands.clone());
    let log = Logger::new(config.log).map_err(system("there is no thread for lines"))?;
    let state = Arc::new(State::new(config, loopback, (commands, log), Arc::clone(&metrics)));
    let (failed, failure) = oneshot::channel();
    let engine_state = Arc::clone(&state);
    let work = move || {
        let work = || -> Result<(), E> {
            let engine = Arc::new(load()?);
            thread::scope(|scope| {
                let wake = move || {
                    // Who has ended need not look.
                    let _ = look.send(Command::Look);
                };
                let replicas = Replicas::new(scope, &engine, capacity, wake)?;
                let context = replicas.context();
                let worker = Worker::new(replicas, metrics);
                engine_state.ready(Arc::clone(&engine), context);
                ready(&engine);
                worker.run(&asked);
                Ok(())
            })
        };
        // Nobody waits any more where the server has ended.
        let _ = failed.send(work());
    };
    thread::Builder::new()
        .name("bitnet-engine".into())
        .spawn(work)
        .map_err(system("there is no thread for the engine"))?;
    let served = runtime.block_on(async {
        let mut connections = Connections::new(http::router(Arc::clone(&state)), &state.config);
        for listener in listeners {
            connections.listen(listener).map_err(system("cannot listen"))?;
        }
        tokio::select! {
            ended = failure => return match ended {
                Ok(Err(error)) => Err(error),
                _ => Err(ServeError::Stopped.into()),
            },
            signal = told_to_end() => signal.map_err(system("cannot listen for signals"))?,
        }
        // Those that ask now are told that the server ends; those that asked before get their answers.
        state.drain();
        let ended = async {
            state.idle().await;
            connections.close().await;
        };
        tokio::select! {
            () = ended => {}
            () = time::sleep(state.config.shutdown) => {}
            signal = told_to_end() => signal.map_err(system("cannot listen for signals"))?,
        }
        Ok(())
    });
    // What still runs there is for nobody.
    let _ = end.send(Command::End);
    runtime.shutdown_background();
    state.log.flush();
    served
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_end() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            result = signal::ctrl_c() => result,
        }
    }
    #[cfg(not(unix))]
    signal::ctrl_c().await
}
