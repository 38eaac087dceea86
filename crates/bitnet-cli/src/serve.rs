//! `bitnet serve`: the model over HTTP.

use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bitnet_inference::{CHUNK, Capacity, Engine, Error};
use bitnet_server::{Config, Log};
use clap::value_parser;

use crate::exit::{self, End, Usage};
use crate::interrupt::Interrupt;
use crate::{chat, model, sampling};

/// Flags of `bitnet serve`. Names and defaults are those of llama-server.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Addresses to listen on. Whoever reaches them can ask; give --api-key with others than the default.
    #[arg(
        long,
        value_name = "ADDRESS,...",
        value_delimiter = ',',
        default_value = "127.0.0.1",
        env = "BITNET_HOST"
    )]
    host: Vec<String>,
    /// Port to listen on; 0 takes a free one and prints it.
    #[arg(long, value_name = "PORT", default_value_t = 8080, env = "BITNET_PORT")]
    port: u16,
    /// Keys of which a request needs one.
    #[arg(
        long,
        value_name = "KEY,...",
        value_delimiter = ',',
        env = "BITNET_API_KEY",
        hide_env_values = true
    )]
    api_key: Vec<String>,
    /// The same, one on each line of a file.
    #[arg(long, value_name = "FILE", env = "BITNET_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// What clients call the model; -a is the same.
    #[arg(short, long, value_name = "NAME", env = "BITNET_ALIAS")]
    alias: Option<String>,
    /// Requests that run at the same time, on each device; -np is the same.
    #[arg(long, value_name = "N", default_value_t = 8, env = "BITNET_PARALLEL")]
    parallel: usize,
    /// Requests that may wait behind them.
    #[arg(long, value_name = "N", default_value_t = 256, env = "BITNET_MAX_QUEUE",
        value_parser = value_parser!(u32).range(..=1 << 20))]
    max_queue: u32,
    /// Tokens whose keys and values each device keeps, of all its requests together; 0 is as many as all can hold.
    #[arg(long, value_name = "N", default_value_t = 0, env = "BITNET_CACHE_TOKENS")]
    cache_tokens: usize,
    /// Keep no keys and values for requests that begin alike.
    #[arg(long)]
    no_cache_prompt: bool,
    /// Rows of a forward pass at most; -ub is the same.
    #[arg(long, value_name = "N", default_value_t = CHUNK)]
    ubatch_size: usize,
    /// Chat template instead of that of the model: a file, its text, or one of bitnet, chatml, falcon3,
    /// llama3 and plain.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
    /// Origins whose pages may ask, `*` is any; those of this machine if not given.
    #[arg(long, value_name = "ORIGIN,...", value_delimiter = ',', env = "BITNET_CORS_ORIGINS")]
    cors_origins: Vec<String>,
    /// Seconds that a request may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = value_parser!(u64).range(1..),
        env = "BITNET_TIMEOUT")]
    timeout: u64,
    /// Seconds that requests may go on when the server is told to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, env = "BITNET_SHUTDOWN_TIMEOUT")]
    shutdown_timeout: u64,
    /// Bytes of a body at most, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = value_parser!(u64).range(1..=1024))]
    body_limit: u64,
    /// Seconds that a client may take to send a request, or to take the next piece of its answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u64).range(1..),
        env = "BITNET_CLIENT_TIMEOUT")]
    client_timeout: u64,
    /// No page to chat on.
    #[arg(long)]
    no_webui: bool,
    /// Figures (/metrics) need a key, too.
    #[arg(long)]
    protect_metrics: bool,
    /// Figures under the names of another server as well, for routers that know those.
    #[arg(long, value_name = "NAME", value_enum)]
    metrics_compat: Option<Compat>,
    /// Lines about requests on stderr.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = AccessLog::Text)]
    access_log: AccessLog,
    #[command(flatten)]
    sampling: sampling::Args,
}

/// Servers whose names figures can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compat {
    /// vLLM.
    Vllm,
}

/// What lines about requests look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AccessLog {
    /// There are none.
    None,
    /// For people.
    Text,
    /// JSON.
    Json,
}

pub(crate) fn run(args: Args) -> Result<End> {
    // The first Ctrl-C is the server's, which ends in order.
    let _interrupt = Interrupt::listen();
    let config = args.config()?;
    let listeners = args.listen()?;
    let addresses: Vec<_> =
        listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    for address in &addresses {
        exit::say(&format!("listening on http://{address}"));
    }
    let page = config.page;
    if config.api_keys.is_empty() && addresses.iter().any(|address| !address.ip().is_loopback()) {
        exit::say("note: whoever reaches this address can ask: --api-key asks for a key");
    }
    let (asked, name) = (config.chat_template.clone(), config.name.clone());
    let given = asked.clone();
    let load = move || {
        let engine = args.model.load_on_all()?;
        if let Some(given) = given {
            engine.chat_template(Some(&given))?;
        }
        Ok(engine)
    };
    let ready = move |engine: &Engine| {
        match engine.checkpoint().chat_template_or_plain(asked.as_deref()) {
            Ok(template) => chat::announce(&template),
            // Each request that needs it says so, too.
            Err(error) => exit::say(&format!("note: there will be no chats: {error}")),
        }
        let Some(address) = addresses.first() else { return };
        let tokens = engine.context();
        exit::say(&format!("{name} is ready, with {tokens} tokens of context"));
        if let devices @ [_, _, ..] = &engine.devices()[..] {
            let names: Vec<_> = devices.iter().map(ToString::to_string).collect();
            exit::say(&format!("each of {} has all of it", names.join(", ")));
        }
        exit::say(&format!("OpenAI: OPENAI_BASE_URL=http://{address}/v1"));
        exit::say(&format!("Anthropic: ANTHROPIC_BASE_URL=http://{address}"));
        if page {
            exit::say(&format!("a page to chat on: http://{address}"));
        }
    };
    bitnet_server::serve::<anyhow::Error>(listeners, config, load, ready)?;
    Ok(End::Done)
}

impl Args {
    fn config(&self) -> Result<Config> {
        let mut api_keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            api_keys.extend(text.lines().map(|line| line.trim().to_owned()));
        }
        api_keys.retain(|key| !key.is_empty());
        let asked_for_keys = !self.api_key.is_empty() || self.api_key_file.is_some();
        if asked_for_keys && api_keys.is_empty() {
            return Err(Usage("there is no key in what was given: all could ask".to_owned()).into());
        }
        // Before anything is made for so many.
        if !(1..=CHUNK).contains(&self.parallel) {
            let (what, value, most) = ("sequences", self.parallel, CHUNK);
            return Err(Error::Capacity { what, value, most }.into());
        }
        Ok(Config {
            name: self.alias.clone().unwrap_or_else(|| self.model.label()),
            chat_template: self.chat_template.clone(),
            capacity: Capacity {
                sequences: self.parallel,
                tokens: Some(self.cache_tokens).filter(|&n| n > 0),
                prefix_cache: !self.no_cache_prompt,
                chunk: self.ubatch_size,
            },
            queue: self.max_queue as usize,
            defaults: self.sampling.request(Vec::new())?,
            seed: u64::try_from(self.sampling.seed).ok(),
            api_keys,
            open_metrics: !self.protect_metrics,
            vllm_metrics: self.metrics_compat.is_some(),
            page: !self.no_webui,
            cors: self.cors_origins.clone(),
            body_limit: (self.body_limit as usize) << 20,
            timeout: Duration::from_secs(self.timeout),
            client_timeout: Duration::from_secs(self.client_timeout),
            shutdown: Duration::from_secs(self.shutdown_timeout),
            log: match self.access_log {
                AccessLog::None => Log::Off,
                AccessLog::Text => Log::Text,
                AccessLog::Json => Log::Json,
            },
        })
    }

    /// Listens on all addresses, or on none.
    fn listen(&self) -> Result<Vec<TcpListener>> {
        let mut listeners = Vec::new();
        for host in &self.host {
            let host = host.trim_matches(['[', ']']);
            let found = (host, self.port).to_socket_addrs();
            let found = found.with_context(|| format!("{host} is no address to listen on"))?;
            let addresses: Vec<SocketAddr> = found.collect();
            let listener = TcpListener::bind(&addresses[..]);
            let what = || format!("cannot listen on {host}, port {}", self.port);
            listeners.push(listener.with_context(what)?);
        }
        Ok(listeners)
    }
}
