#!/usr/bin/env bash
# Fuzzes all that reads files, with AddressSanitizer, checks of overflow and debug assertions:
# .ci/fuzz.sh [SECONDS], for each target; without SECONDS for a short time, with the same inputs each
# time as far as that goes. Two run at a time. An input that breaks one is kept and
# named; inputs that reached something new are kept in the target folder, and used again.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
seconds=${1:-25}
# 0 is a seed that is drawn.
seed=$([ $# -gt 0 ] && echo 0 || echo 1)
apt_install g++

tool=$toolchain/cargo-fuzz
if [ ! -x "$tool/bin/cargo-fuzz" ]; then
    # It only calls cargo: not worth the time to optimise it.
    cargo install --quiet --debug --locked --root "$tool" cargo-fuzz@0.13.2
fi
cargo fmt --manifest-path fuzz/Cargo.toml --check
# The options are for nightly compilers, which RUSTC_BOOTSTRAP=1 makes of a stable one.
RUSTC_BOOTSTRAP=1 PATH=$tool/bin:$PATH \
    cargo fuzz build --codegen-units 16 --target-dir "$target/fuzz"

# Programs end without taking away the folders that they have made.
temporary=$(mktemp -d)
trap 'rm -r "$temporary"' EXIT
export TMPDIR=$temporary ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16

# fuzz TARGET LENGTH: with inputs of LENGTH bytes at most. What they may take is far below what a
# number in them can ask for, and far above what they need: a vocabulary of the most ids that there
# can be takes some 100 MB.
fuzz() {
    local name=$1 length=$2 log=$temporary/$1.log found=fuzz/artifacts/$1 known=$target/fuzz/corpus/$1
    mkdir -p "$found" "$known"
    if "$target/fuzz/x86_64-unknown-linux-gnu/release/$name" -max_total_time="$seconds" \
        -seed="$seed" \
        -max_len="$length" -dict="fuzz/dictionaries/$name.dict" -timeout=30 -rss_limit_mb=1024 \
        -malloc_limit_mb=128 -artifact_prefix="$found/" "$known" "fuzz/seeds/$name" 2>"$log"; then
        echo "$name: $(tail -n 1 "$log")"
    else
        # Inputs are written to the log, in parts.
        grep -aE '^(thread|SUMMARY|==)|panicked|Test unit written' -A 1 "$log" >&2 || tail "$log" >&2
        echo "$name broke; the input is the newest of $found" >&2
        return 1
    fi
}

lane() {
    while [ $# -gt 0 ]; do
        fuzz "$1" "$2" || return 1
        shift 2
    done
}

result=0
lane gguf 4096 model 16384 index 2048 config 4096 &
lane tokenizer 8192 safetensors 16384 template 4096 library 16384 || result=1
wait $! || result=1
exit $result
