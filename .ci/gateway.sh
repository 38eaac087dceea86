#!/usr/bin/env bash
# More than one machine: two servers behind a real gateway, which go away and come back, and the files in deploy/.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
apt_install systemd
venv=$target/gateway
python_venv "$venv" smg==1.13.0 openai==3.54.0 anthropic==2.12.0 \
    prometheus_client==0.26.0 pytest==9.2.0 PyYAML==6.0.3 kubernetes-validate==1.37.0
export PATH=$venv/bin:$PATH
if [ -z "${BITNET_BIN:-}" ]; then
    cargo build --quiet --release -p bitnet-cli
    export BITNET_BIN=$target/release/bitnet
fi
export PYTHONPATH=.ci PYTHONDONTWRITEBYTECODE=1
python -m pytest --quiet --tb=short -p no:cacheprovider .ci/gateway "$@"
