//! `bitnet pull`: a model from the hub into the cache.

use anyhow::Result;
use clap::builder::FalseyValueParser;

use super::cache::Cache;
use super::name::Name;
use crate::exit::End;
use crate::output;

/// Flags of `bitnet pull`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Repository of the hub, and which model of it: a GGUF file or its quantisation, as in
    /// microsoft/bitnet-b1.58-2B-4T-gguf:i2_s.
    #[arg(value_name = "ORG/NAME[:FILE]")]
    pub(super) model: Name,
    /// Branch, tag or commit; `main` if not given.
    #[arg(long, value_name = "REVISION")]
    pub(super) revision: Option<String>,
    /// Take what is in the cache, and ask nobody.
    #[arg(long, env = "HF_HUB_OFFLINE", value_parser = FalseyValueParser::new())]
    pub(super) offline: bool,
    #[cfg(feature = "hub")]
    #[command(flatten)]
    pub(super) net: super::net::Args,
}

/// Prints the path of the model.
pub(crate) fn run(args: &Args) -> Result<End> {
    let cache = Cache::locate()?;
    if !args.offline && download(args, &cache)? == End::Interrupted {
        return Ok(End::Interrupted);
    }
    let path = cache.find(&args.model, args.revision.as_deref())?;
    output::print(&mut std::io::stdout(), &format!("{}\n", path.display()))?;
    Ok(End::Done)
}

#[cfg(feature = "hub")]
fn download(args: &Args, cache: &Cache) -> Result<End> {
    super::net::pull(args, cache)
}

#[cfg(not(feature = "hub"))]
fn download(_: &Args, _: &Cache) -> Result<End> {
    let what = "this `bitnet` was built without downloads, which need C for TLS: build it with `cargo \
                install --path crates/bitnet-cli --features hub`; `--offline` takes what is in the cache";
    Err(crate::exit::Usage(what.to_owned()).into())
}
