#!/usr/bin/env bash
# Conversions of the demo model against the package that most tools for GGUF are made with.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
apt_install python3-venv
venv=$target/gguf-python
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check gguf==0.19.0 numpy safetensors
cargo build --quiet --release -p bitnet-cli
models=$target/gguf-python-models
rm -rf "$models"
mkdir -p "$models"
"$venv/bin/python" .ci/gguf-python.py "$target/release/bitnet" "$models"
