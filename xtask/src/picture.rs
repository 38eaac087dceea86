//! `cargo xtask picture`: docs/chat.svg, what a terminal shows of a conversation with the demo model.
//!
//! The program runs on a terminal of its own, keys are typed into it, and what it writes goes through an
//! emulator of a terminal: the picture is what there is to see, not what it should be.

use std::env;
use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rexpect::session::spawn_command;

/// Where it is written.
const FILE: &str = "docs/chat.svg";

/// The terminal.
const COLUMNS: NonZero<u16> = NonZero::new(100).expect("it is not 0");
const LINES: NonZero<u16> = NonZero::new(200).expect("it is not 0");

/// What is typed, and what comes before the next.
const TYPED: [(&str, &str); 4] = [
    ("Once upon a time", "RSS"),
    ("The king said to his youngest daughter:", "RSS"),
    ("/tokens", "of the context"),
    ("/bye", ""),
];

/// Milliseconds until the program must have answered.
const PATIENCE: u64 = 60_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program; the one that `cargo build --release` makes if not given.
    #[arg(long, default_value = "target/release/bitnet")]
    program: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let home = tempfile::tempdir()?;
    // The terminal is new, and has no size yet.
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("stty rows {LINES} cols {COLUMNS}; exec \"$0\" \"$@\""))
        .arg(&args.program);
    command.args(["chat", "--seed", "7", "-n", "60", "--no-history"]);
    command.env("XDG_STATE_HOME", home.path()).env("TERM", "xterm-256color");
    command.env("BITNET_TUNING", "none").env_remove("NO_COLOR");
    let started = spawn_command(command, Some(PATIENCE));
    let mut session = started.with_context(|| {
        format!("{}: build it first: cargo build --release", args.program.display())
    })?;
    let mut all = String::from("$ bitnet chat\r\n");
    let mut wait = |session: &mut rexpect::session::PtySession, what: &str| -> Result<()> {
        all.push_str(&session.exp_string(what)?);
        all.push_str(what);
        Ok(())
    };
    for (line, after) in TYPED {
        wait(&mut session, ">>> ")?;
        session.send(line)?;
        session.send("\r")?;
        session.flush()?;
        if !after.is_empty() {
            wait(&mut session, after)?;
        }
    }
    all.push_str(&session.exp_eof()?);
    fs::write(FILE, draw(&all)).with_context(|| format!("cannot write {FILE}"))?;
    println!("{FILE} of {}", env::current_dir()?.display());
    Ok(())
}

/// What is on the screen after all this, as SVG.
fn draw(written: &str) -> String {
    let mut terminal = vt100::Parser::new(LINES, COLUMNS, 0);
    // The session gives each byte as a character.
    let bytes: Vec<_> = written.chars().filter_map(|c| u8::try_from(c).ok()).collect();
    terminal.process(&bytes);
    let screen = terminal.screen();
    let used = screen.cursor_position().0;
    let rows = screen.rows_formatted(0, COLUMNS.get()).take(usize::from(used) + 1);
    let rows: Vec<_> = rows.map(|row| row + "\x1b[m").collect();
    anstyle_svg::Term::new().render_svg(rows.join("\n").trim_end())
}
