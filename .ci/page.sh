#!/usr/bin/env bash
# The page of `bitnet serve`, driven in Chromium as people do. Options are those of page.py.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
apt_install chromium
venv=$target/page
python_venv "$venv" playwright==1.65.2
cargo build --quiet --release -p bitnet-cli
"$venv/bin/python" -B .ci/page.py "$target/release/bitnet" /usr/bin/chromium "$@"
