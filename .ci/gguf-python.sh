#!/usr/bin/env bash
# Conversions of the demo model against the package that most tools for GGUF are made with.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
venv=$target/gguf-python
python_venv "$venv" gguf==0.19.0 numpy safetensors
cargo build --quiet --release -p bitnet-cli
models=$target/gguf-python-models
rm -rf "$models"
mkdir -p "$models"
"$venv/bin/python" .ci/gguf-python.py "$target/release/bitnet" "$models"
