#!/usr/bin/env bash
# The kernels' tests, and those of the whole model, for aarch64 under qemu.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
rust_aarch64

# Three processors, so that every level of dispatch is chosen once: the newest that qemu knows, one
# with dot products but no 8-bit matrix products, and one with plain NEON.
for model in max neoverse-n1 cortex-a53; do
    case $model in
        cortex-a53) isa=neon ;;
        neoverse-n1) isa=neon,neondot ;;
        *) isa=neon,neondot,neoni8mm ;;
    esac
    echo "--- kernels on $model, which must run $isa"
    QEMU_CPU=$model BITNET_REQUIRE_ISA=$isa cargo test -p bitnet-kernels -- --nocapture
done

echo "--- structures of foreign functions"
QEMU_CPU=max cargo test -p bitnet-ffi --lib

echo "--- model on max"
QEMU_CPU=max cargo test -p bitnet-inference --test goldens --test identity -- --nocapture

echo "--- a receipt of x86-64"
QEMU_CPU=max cargo test -p bitnet-inference --test receipt another_machine
