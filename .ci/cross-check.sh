#!/usr/bin/env bash
# Type-checks the workspace for Windows and macOS, tests and benches included; warnings are errors,
# since code that only Unix uses shows as unused elsewhere. The standard library is checked from its
# source, for which nothing of those systems is needed; RUSTC_BOOTSTRAP=1 makes stable cargo do it.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
rust_web
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target/cross
# It is compiled all the same, for which this is the least.
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=none

# Both in one go: each has a chain of crates at its start that takes one core.
cargo check -Zbuild-std -Zwarnings --config 'build.warnings="deny"' --workspace --features bitnet-cli/ffi,bitnet-cli/cuda --all-targets \
    --target x86_64-pc-windows-msvc --target aarch64-apple-darwin
