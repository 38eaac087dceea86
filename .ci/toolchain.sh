# shellcheck shell=bash
# Sourced by the scripts beside it: Debian packages and Debian's Rust compiler, which has what
# rustup's usual installation lacks: a standard library for aarch64, and the library's source.
# For Debian 12 on x86-64, as root.

toolchain=${BITNET_TOOLCHAIN:-$HOME/.cache/bitnet-toolchain}
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$toolchain"

# apt_get ARGUMENT...: waits for other scripts that run it, which it would refuse to by itself.
apt_get() {
    DEBIAN_FRONTEND=noninteractive flock "$toolchain/lock" apt-get -qq "$@"
}

# apt_install PACKAGE...: installs those that are missing.
apt_install() {
    local package missing=()
    for package; do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>&1)" != installed ]; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt_get update
        apt_get install -y --no-install-recommends "${missing[@]}" >>"$toolchain/apt.log"
    fi
}

# python_venv FOLDER PACKAGE...: an environment of Python with these.
python_venv() {
    local folder=$1
    shift
    apt_install python3-venv
    if [ ! -x "$folder/bin/python" ]; then
        python3 -m venv "$folder"
    fi
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# apt_unpack FOLDER PACKAGE...: unpacks packages into a folder without installing them. The folder
# appears when it is complete.
apt_unpack() {
    local folder=$1 deb
    shift
    rm -rf "$folder.part"
    mkdir -p "$folder.part/debs"
    (cd "$folder.part/debs" && apt_get download "$@")
    for deb in "$folder.part"/debs/*.deb; do
        dpkg -x "$deb" "$folder.part"
    done
    rm -r "$folder.part/debs"
    mv "$folder.part" "$folder"
}

# rust_web: makes cargo compile with Debian's rustc. It is unpacked only, so that `rustc` and rustup
# stay what they are; just its LLVM library is installed, for that library's own dependencies.
rust_web() {
    local rust=$toolchain/rust-web version llvm tool
    if [ ! -d "$rust" ]; then
        dpkg --add-architecture arm64
        apt_get update
        version=$(apt-cache show --no-all-versions rustc-web |
            sed -n 's/^Version: \([0-9]*\.[0-9]*\).*/\1/p')
        llvm=$(apt-cache depends "libstd-rust-web-$version" |
            sed -n 's/.*Depends: \(libllvm[0-9]*\)$/\1/p')
        apt_install "$llvm"
        apt_unpack "$rust" rustc-web rust-web-src "libstd-rust-web-$version" \
            libstd-rust-web-dev libstd-rust-web-dev:arm64
    fi
    for tool in rustc rustdoc; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' \
            "$rust/usr/lib/x86_64-linux-gnu" "$rust/usr/bin/$tool" >"$rust/$tool"
        chmod +x "$rust/$tool"
    done
    export RUSTC=$rust/rustc RUSTDOC=$rust/rustdoc
}

# rust_aarch64: makes cargo build for aarch64, and run what it builds under qemu; QEMU_CPU names the
# processor. Its own target folder, since a change of compiler rebuilds everything.
rust_aarch64() {
    apt_install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    rust_web
    export CARGO_TARGET_DIR=$target/aarch64 CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
}
