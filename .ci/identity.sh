#!/usr/bin/env bash
# The demo model gives the same tokens and the same logits, to the last bit, whatever computes it:
# plain Rust and each instruction set, on x86-64 and on aarch64 under qemu.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
out=$target/identity
rm -rf "$out"
mkdir -p "$out"

# identity ISA COMMAND...: runs the model with COMMAND on no more than ISA and holds what it says
# against what the first run said.
identity() {
    local isa=$1 tokens logits
    shift
    "$@" run --isa "$isa" --json --temp 0 -n 64 "Once upon a time" >"$out/json"
    "$@" logits --isa "$isa" --ids 2040,1450,326,638,258 --out "$out/logits"
    tokens=$(tr -d ' \n' <"$out/json" | sed -n 's/.*"tokens":\[\([0-9,]*\)\].*/\1/p')
    logits=$(sha256sum <"$out/logits" | cut -d ' ' -f 1)
    echo "$isa: logits $logits, tokens $tokens"
    if [ -z "$tokens" ]; then
        echo "no tokens in $out/json" >&2
        return 1
    fi
    first=${first:-$logits $tokens}
    if [ "$logits $tokens" != "$first" ]; then
        echo "$isa differs from the first" >&2
        return 1
    fi
}

echo "--- x86-64"
CARGO_TARGET_DIR=$target cargo build --release -p bitnet-cli
for isa in scalar avx2 avx512vnni; do
    if [ $isa != avx512vnni ] || grep -qw avx512_vnni /proc/cpuinfo; then
        identity $isa "$target/release/bitnet"
    else
        echo "$isa: not on this processor"
    fi
done

echo "--- aarch64"
rust_aarch64
cargo build --release -p bitnet-cli
for isa in scalar neon neondot; do
    identity $isa qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu \
        "$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/release/bitnet"
done
