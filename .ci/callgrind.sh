#!/usr/bin/env bash
# Instructions that each kernel takes on small fixed data (crates/bitnet-kernels/examples/count.rs),
# counted by valgrind and held against the stored table: a change of more than 3 % either way fails.
# Valgrind has no AVX-512, so these are scalar code and AVX2.
#   callgrind.sh [--update]    --update: write the table
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/toolchain.sh
table=crates/bitnet-kernels/callgrind.tsv
work=$target/callgrind
mkdir -p "$work"
apt_install valgrind

CARGO_TARGET_DIR=$target cargo build --release -p bitnet-kernels --example count
count=$target/release/examples/count

# Other compilers make other code.
compiler=$(rustc --version | cut -d ' ' -f 1-2)
echo "# $compiler, x86-64: kernel, instructions of a run in examples/count.rs" >"$work/found.tsv"
valgrind -q --tool=none "$count" >"$work/ids"
while read -r id; do
    valgrind -q --tool=callgrind --callgrind-out-file="$work/out" \
        --toggle-collect='*measured*' "$count" "$id" >"$work/ran"
    instructions=$(sed -n 's/^summary: //p' "$work/out")
    if [ "${instructions:-0}" = 0 ]; then
        echo "nothing was counted for $id" >&2
        exit 1
    fi
    printf '%s\t%s\n' "$id" "$instructions" >>"$work/found.tsv"
done <"$work/ids"

if [ "${1:-}" = --update ]; then
    cp "$work/found.tsv" "$table"
    echo "$table: $(wc -l <"$work/ids") kernels"
    exit
fi

awk -F '\t' -v compiler="# $compiler," '
    FNR == 1 { if (NR == 1) stored = $0; next }
    NR == FNR { table[$1] = $2; next }
    { found[$1] = $2; kernels++ }
    END {
        for (id in found) {
            if (!(id in table)) {
                printf "%-28s %10s -> %10d  not in the table\n", id, "-", found[id]
                bad++
            } else {
                change = 100 * (found[id] / table[id] - 1)
                if (change > 3 || change < -3) {
                    printf "%-28s %10d -> %10d  %+.1f %%\n", id, table[id], found[id], change
                    bad++
                }
            }
        }
        for (id in table) {
            if (!(id in found)) {
                printf "%-28s %10d -> %10s  is no kernel here\n", id, table[id], "-"
                bad++
            }
        }
        printf "%d kernels counted, %d differ\n", kernels, bad
        if (bad && index(stored, compiler) != 1) {
            printf "the table is of another compiler: %s\n", stored
        }
        exit bad > 0
    }' "$table" "$work/found.tsv" >"$work/report" || {
    sort "$work/report" >&2
    echo "if this is meant: .ci/callgrind.sh --update, and say why in the commit" >&2
    exit 1
}
cat "$work/report"
