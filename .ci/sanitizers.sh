#!/usr/bin/env bash
# The kernels' tests where reads and writes outside of memory are seen: under valgrind, which also
# sees numbers that were never set, and with AddressSanitizer. Valgrind has no AVX-512, so there it
# is scalar code and AVX2; AddressSanitizer runs what the processor has.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
apt_install valgrind

# As it is shipped: without the checks of debug builds, which would stop a test before valgrind
# sees anything. Only LTO is left out: it would compile all kernels once more for each file of tests.
echo "--- valgrind, without AVX-512"
CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR=$target \
    cargo test --release -p bitnet-kernels --tests --no-run --message-format json |
    sed -n 's|.*"executable":"\([^"]*\)".*|\1|p' >"$target/valgrind-tests"
while read -r test; do
    (cd crates/bitnet-kernels &&
        BITNET_REQUIRE_ISA=avx2 valgrind -q --error-exitcode=9 "$test" </dev/null)
done <"$target/valgrind-tests"

# The option is for nightly compilers, which RUSTC_BOOTSTRAP=1 makes of a stable one.
echo "--- AddressSanitizer"
# Leaks are no errors here: tests leak what must live as long as the process. Reports name lines.
RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 \
    CARGO_PROFILE_DEV_DEBUG=line-tables-only \
    CARGO_TARGET_DIR=$target/asan cargo test -p bitnet-kernels -p bitnet-gguf --lib --tests \
    --target x86_64-unknown-linux-gnu
