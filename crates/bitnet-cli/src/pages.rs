//! `bitnet completions` and `bitnet man`: what shells and manuals know of the program.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::exit::{self, End};
use crate::output;

/// Flags of `bitnet completions`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Flags of `bitnet man`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this folder instead, as bitnet.1, bitnet-run.1 and so on.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the completions of `command` for a shell.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<End> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::print(&mut io::stdout(), &String::from_utf8(script)?)?;
    Ok(End::Done)
}

/// Prints the manual page of `command`, or writes those of all its commands.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<End> {
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        output::print(&mut io::stdout(), &String::from_utf8(page)?)?;
        return Ok(End::Done);
    };
    let failed = || format!("cannot write pages into {}", folder.display());
    let pages = 1 + command.get_subcommands().count();
    fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(command, folder).with_context(failed)?;
    exit::say(&format!("{}: {pages} pages", folder.display()));
    Ok(End::Done)
}
