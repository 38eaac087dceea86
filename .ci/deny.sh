#!/usr/bin/env bash
# Licences, sources and bans of all dependencies (deny.toml); and their advisories, where the database of
# those can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
version=0.20.2
deny=$toolchain/cargo-deny-$version
if [ ! -x "$deny/bin/cargo-deny" ]; then
    cargo install --quiet --locked --root "$deny" --target-dir "$deny/target" "cargo-deny@$version"
    rm -rf "$deny/target"
fi
"$deny/bin/cargo-deny" --all-features --log-level error check --hide-inclusion-graph bans licenses sources
if "$deny/bin/cargo-deny" fetch db >"$deny/fetch.log" 2>&1; then
    "$deny/bin/cargo-deny" --all-features check --disable-fetch --hide-inclusion-graph advisories
else
    echo "NOT CHECKED: advisories, whose database could not be reached: $deny/fetch.log says why" >&2
fi
