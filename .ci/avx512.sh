#!/usr/bin/env bash
# AVX-512: on this processor if it has it, where it is only made sure that `cargo test --workspace`
# has tested it; else the kernels' tests, and those of the whole model, on an emulated one.
#   avx512.sh [--bochs]    --bochs: emulate in any case
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
export BITNET_REQUIRE_ISA=avx512,avx512vnni

if [ "${1:-}" != --bochs ] && grep -qw avx512_vnni /proc/cpuinfo; then
    echo "--- AVX-512 on this processor"
    # Bochs has no processor with AVX-VNNI: it is tested where it is.
    if grep -qw avx_vnni /proc/cpuinfo; then
        BITNET_REQUIRE_ISA+=,avxvnni
    fi
    # All other tests of this processor are those of `cargo test --workspace`, of which nothing is
    # built again here.
    cargo test --workspace --test conformance --test goldens --test identity -- --nocapture
    exit
fi

echo "--- AVX-512 in Bochs, an emulated Tiger Lake"
apt_install bochs bochsbios vgabios isolinux syslinux-common xorriso cpio
work=$target/bochs
rm -rf "$work"
mkdir -p "$work/root" "$work/iso"

# Debian's kernel for virtual machines, unpacked only.
if [ ! -d "$toolchain/linux" ]; then
    apt_get update
    apt_unpack "$toolchain/linux" "$(apt-cache depends linux-image-cloud-amd64 |
        sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')"
fi

# Optimised, since an emulated instruction costs a hundred real ones; static, since the machine has
# no libraries. `tests` lists each binary with the folder it expects to run in.
static=(-C target-feature=+crt-static)
build() {
    CARGO_TARGET_DIR=$target/static RUSTFLAGS=${static[*]} cargo test --release --no-run \
        --target x86_64-unknown-linux-gnu --message-format json "$@" |
        sed -n 's|.*"manifest_path":"\([^"]*\)/Cargo.toml".*"executable":"\([^"]*\)".*|\2 \1|p'
}
build -p bitnet-kernels --lib --tests >"$work/built"
build -p bitnet-inference --test goldens --test identity >>"$work/built"

# The machine's files: the tests, what they read (everything in the repository that is not code, at
# the same path as here), and init, which runs them.
root=$work/root
while read -r binary folder; do
    mkdir -p "$root$folder"
    strip -o "$root/$(basename "$binary")" "$binary"
    echo "$(basename "$binary") $folder" >>"$root/tests"
done <"$work/built"
mkdir -p "$root$PWD"
git ls-files | grep -v '\.rs$' | cpio --quiet -pdL "$root$PWD"
echo "BITNET_REQUIRE_ISA=$BITNET_REQUIRE_ISA" >"$root/environment"
rustc --edition 2024 -O "${static[@]}" .ci/bochs-init.rs -o "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc) >"$work/iso/initrd"

# clearcpuid: Bochs 2.7 reports sizes for XSAVEC (321), XSAVES (323) and PKU (515) that do not fit
# together, at which Linux turns AVX off; with FSRM (580) but without ERMS, which Bochs leaves off,
# Linux 6.1's memmove overwrites memory. initcall_blacklist: self tests that take half a minute.
cp "$toolchain"/linux/boot/vmlinuz-* "$work/iso/linux"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso"
cat >"$work/iso/isolinux.cfg" <<CONFIG
DEFAULT linux
LABEL linux
  KERNEL /linux
  APPEND initrd=/initrd console=ttyS0 quiet panic=-1 nokaslr mitigations=off nowatchdog lpj=1000000 tsc=reliable random.trust_cpu=on cryptomgr.notests=1 clearcpuid=321,323,515,580 initcall_blacklist=load_system_certificate_list,crypto_algapi_init,init_evm,inet6_init
CONFIG
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table "$work/iso" 2>"$work/xorriso.log"

# rfb without a wait is the display that needs no screen; without dummy sound devices Bochs stops.
cat >"$work/bochsrc" <<CONFIG
config_interface: textconfig
display_library: rfb, options="timeout=0"
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
cpu: model=tigerlake, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
clock: sync=none
com1: enabled=1, mode=file, dev=$work/serial
log: $work/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
CONFIG
echo continue >"$work/commands" # Debian's Bochs starts in its debugger

# Bochs ends with status 1 when the machine shuts down, so what counts is what init said last.
status=0
timeout "${BITNET_BOCHS_LIMIT:-3600}" bochs-bin -q -f "$work/bochsrc" -rc "$work/commands" \
    </dev/null >"$work/bochs.out" 2>&1 || status=$?
tr -d '\r' <"$work/serial"
if ! grep -q '^INIT: all passed' "$work/serial"; then
    echo "AVX-512 in Bochs failed (Bochs ended with status $status; its log: $work/bochs.log)" >&2
    exit 1
fi
