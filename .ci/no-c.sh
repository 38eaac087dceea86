#!/usr/bin/env bash
# Checks that no crate of the default build has a compiler for C among what it is built with: only the
# feature `hub` needs one, for TLS.
set -euo pipefail
cd "$(dirname "$0")/.."
if cargo tree --workspace --edges normal,build --prefix none --format '{p}' | grep -E '^(cc|cmake|nasm-rs) '; then
    echo "these compile C, C++ or assembler" >&2
    exit 1
fi
