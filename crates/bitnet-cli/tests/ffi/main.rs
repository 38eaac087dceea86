//! C++ engines as a second backend: small libraries that fail in the ways that real ones do, and a real one where
//! `BITNET_CROSSVAL_LIBDIR` names it (with `BITNET_REQUIRE_REFERENCE=1` it must).
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod device;
mod fakes;
mod real;
mod reference;

use assert_cmd::Command;

/// The program with the second backend in it.
fn bitnet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bitnet"))
}
