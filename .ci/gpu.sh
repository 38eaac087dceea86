#!/usr/bin/env bash
# Kernels for NVIDIA GPUs without one: the text in the project is what the sources give, NVIDIA's assembler takes it for
# every generation within its budget, and all that the feature `cuda` adds runs on a driver that interprets it.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh

# The compiler decides what driver is needed: 12.4 gives text that drivers from 550 on take.
python_venv "$target/cuda" --no-deps nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-nvcc-cu12==12.9.86 nvidia-cuda-nvdisasm==13.5.37
nvidia=$(echo "$target"/cuda/lib/python3*/site-packages/nvidia)
ptxas=$nvidia/cuda_nvcc/bin/ptxas
nvdisasm=$(find "$nvidia" -path '*/bin/nvdisasm')
chmod +x "$ptxas" "$nvdisasm"

cargo build --quiet --workspace --bin xtask
LD_LIBRARY_PATH=$nvidia/cuda_nvrtc/lib "$target/debug/xtask" gpu-build --check
"$target/debug/xtask" gpu-sass --ptxas "$ptxas" --nvdisasm "$nvdisasm"

# Always the whole workspace: a package alone has dependencies with fewer features, built once more.
cargo test --workspace --features bitnet-cli/cuda --test driver --test gpu
cargo test --workspace --features bitnet-cli/cuda --test cli -- kernels:: test_backend_selection

# What is run where a GPU is at hand, so that it runs then.
mkdir -p "$target/driver"
ln -sf "$target/debug/deps/libfake_cuda.so" "$target/driver/libcuda.so.1"
LD_LIBRARY_PATH=$target/driver "$target/debug/xtask" gpu-check --bitnet "$target/debug/bitnet" --model demo --no-speed \
    --n-prompt 4 --n-gen 2 --n-parallel 1,2 --repetitions 1 --out "$target/gpu-check.json"
# It takes a GPU and PyTorch to run.
python3 -c "import ast; ast.parse(open('xtask/rival.py').read())"
RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --no-deps -p bitnet-gpu --features cuda
