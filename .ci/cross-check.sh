#!/usr/bin/env bash
# Type-checks the workspace for Windows and macOS, tests and benches included. The standard library
# for them is checked from source, which works on any machine, and RUSTC_BOOTSTRAP=1 allows it.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
rust_web
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target/cross

for platform in x86_64-pc-windows-msvc aarch64-apple-darwin; do
    echo "--- $platform"
    cargo check -Zbuild-std --workspace --all-targets --target $platform
done
